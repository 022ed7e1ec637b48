"""Weights of other code bases and ours: `load` reads any, `save` writes what others read."""

import dataclasses
import os
import pathlib
import warnings
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vit_jax import tree
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import PRETRAINING, MeshShape, Model, Preprocessing, from_dict, height_width
from vit_jax.errors import InputError, nearest
from vit_jax.labels import imagenet_names
from vit_jax.models import Backbone, Swin, abstract_model, init_params
from vit_jax.models.resize import Method
from vit_jax.models.text import ImageText
from vit_jax.models.variants import Size, kind_of, name_of, resolve
from vit_jax.weights.fetch import fetch
from vit_jax.weights.files import Stored
from vit_jax.weights.folder import open_folder
from vit_jax.weights.formats import FORMATS
from vit_jax.weights.huggingface_families import FAMILIES
from vit_jax.weights.placement import OnDevice, OnMesh, Placement
from vit_jax.weights.rules import pair, read
from vit_jax.weights.saving import save
from vit_jax.weights.text import read_pair

__all__ = ["configured", "load", "save"]

# Arrays that are no weights of an encoder or classifier: the optimizer and clock of a big_vision run, the pooler that
# Transformers' classifier leaves out, what stands for hidden patches in pre-training, and all but the image tower of a
# CLIP or SigLIP, which `text` reads.
NO_WEIGHTS = (
    r"(opt|chrono|extra)/.*|(vit\.)?pooler\.dense\..*|(.*\.)?mask_token|text_model\..*|(text|visual)_projection\.weight"
    r"|logit_(scale|bias)|.*\.(position_ids|relative_position_index)"
)
HEAD = r"(params/)?(resnet/)?head/.*|head\.(fc\.)?(weight|bias)|classifier\..*"
# What a model's name says.
SIZE_KEYS = ("patch", *Size._fields, "resnet", "resnet_width", "swin")


def load(
    where: str | os.PathLike,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch: int | None = None,
    resample: Method | None = None,
    grid: tuple[int, int] | None = None,
    strict: bool = True,
    checkpoint: str = "newest",
    host: bool = False,
    mesh: Mesh | None = None,
    text: bool = False,
    **overrides,
) -> Backbone | ImageText:
    """Return the model that a weight file holds, its architecture read off the file.

    Args:
        where: a path, `https://`, `gs://` or `hf://org/name`: an `.npz` of the original ViT, AugReg, BiT or
            big_vision, a timm `.safetensors` or directory, a Transformers directory, or a run directory of ours.
        num_classes: takes a new head of zeros in place of the file's.
        image_size: pixels, or (height, width), that the model is to be for; positions are resampled.
        patch: another patch size, by the resize of FlexiViT.
        resample: how positions follow, here and in calls with pictures of another size; None: as a run or NaFlex
            weights say, else "bilinear".
        grid: (rows, columns) of the file's positions, where they are no square and the file doesn't say.
        strict: False takes what fits, leaves the rest as initialised and warns of it.
        checkpoint: of a run directory: "newest" (that is intact), "best" or a step.
        host: True leaves the parameters in the host's memory, as NumPy arrays: a model too large for one device.
        mesh: of `vit_jax.cluster.sharding.make_mesh`; splits the parameters by its rules, each straight from the file.
            A host holds no more than what its devices get of one parameter, and one array of the file.
        text: True returns a CLIP or SigLIP of Transformers whole, with its text tower, as an `ImageText`, whose image
            tower is what is returned otherwise.
        overrides: fields of `vit_jax.config.Model` that the file doesn't say or that are to differ, such as
            `num_heads=6`, `gelu="tanh"` or `dtype="bfloat16"`.

    The model's `preprocessing` and `label_names` are those of the weights. Where a file doesn't name its classes, 1,000
    and 21,843 outputs have ImageNet's names; a new head has none.

    Raises:
        InputError: not a whole file of a known format, or its arrays and the model differ (all are listed).
    """
    if host and mesh is not None:
        raise InputError("host=True leaves parameters on the host, mesh= puts them on devices: give one of them")
    if text and num_classes is not None:
        raise InputError(f"num_classes={num_classes}: with text=True texts are the classes; leave one of them out")
    if text and (fetch(where) / "run.json").is_file():
        raise InputError(f"{where}: a run directory has no text tower; load it without text=True")
    placement = OnMesh(mesh) if mesh is not None else Placement() if host else OnDevice()
    how = dict(num_classes=num_classes, image_size=image_size, patch=patch, resample=resample, grid=grid)
    model = load_onto(placement, where, **how, strict=strict, checkpoint=checkpoint, **overrides)
    graph, state = nnx.split(model)
    model = nnx.merge(graph, placement.settled(nnx.to_pure_dict(state)))
    return read_pair(str(where), model, placement) if text else model


def load_onto(
    placement: Placement,
    where: str | os.PathLike,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch: int | None = None,
    resample: Method | None = None,
    grid: tuple[int, int] | None = None,
    strict: bool = True,
    checkpoint: str = "newest",
    **overrides,
) -> Backbone:
    """Return the model of `load`, to be resized if need be before `placement.settled` gives its parameters their place.

    Raises:
        InputError: as for `load`.
    """
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes={num_classes}: must be at least 1")
    # Unlike other fields, it may differ from that of the arrays, which follow.
    window = overrides.pop("window", None)
    path = fetch(where)
    overrides |= {} if resample is None else {"resample": resample}
    if (path / "run.json").is_file():
        model = _from_run(path, checkpoint, num_classes, placement, strict, overrides)
    elif checkpoint != "newest":
        raise InputError(f"{where}: has no checkpoints to choose {checkpoint!r} from: it is not a run directory")
    else:
        skip = rf"{NO_WEIGHTS}|{HEAD}" if num_classes is not None else NO_WEIGHTS
        with open_folder(path, skip) as (arrays, notes):
            model = _from_file(arrays, notes, str(where), num_classes, placement, grid, strict, overrides)
    if window is not None:
        if not isinstance(model, Swin):
            raise InputError(f"{where}: window={window} means nothing for {model.config.name!r}, which has none")
        model.resize(model.image_size, window=configured(model.config, {"window": window}, str(where)).window)
    if image_size is not None or patch is not None:
        model.resize(model.image_size if image_size is None else height_width(image_size), patch)
    return model


def _host() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # $JAX_PLATFORMS leaves the CPU out.
        return jax.local_devices()[0]


def _from_run(
    path: pathlib.Path, checkpoint: str, num_classes: int | None, placement: Placement, strict: bool, overrides: dict
) -> Backbone:
    # Orbax and Grain are slow to import, and only run directories need them.
    from vit_jax.runs.checkpoint import load_params
    from vit_jax.runs.directory import read_facts

    run, label_names = read_facts(path)
    facts = run.model_facts(len(label_names))
    if run.task in PRETRAINING:
        label_names = None
    mesh = placement.onto or make_mesh(MeshShape(), [_host()])
    restored = tree.flatten(load_params(path, facts, mesh, checkpoint))
    # What a task put on the encoder to train it is left behind.
    names = [name for name in restored if not name.startswith("pretraining/")]
    params = {name: placement.put(name, restored.pop(name)) for name in names}
    found = resolve(run.model)
    facts = facts | {"config": configured(found, overrides, str(path), strict), "parts": None}
    facts["num_classes"] = facts["num_classes"] if num_classes is None else num_classes
    own = {"label_names": label_names, "preprocessing": dataclasses.asdict(Preprocessing.of(run.data, run.model))}
    graph, state = nnx.split(_bound(abstract_model(**facts), own, num_classes))
    shapes = tree.flatten(nnx.to_pure_dict(state))
    if num_classes is not None:
        params = {name: array for name, array in params.items() if name in shapes or not name.startswith("pre_logits/")}
        params |= _new_head(shapes, facts["config"], placement)
    if differing := sorted(
        name
        for name in shapes.keys() | params.keys()
        if name not in shapes or name not in params or shapes[name].shape != params[name].shape
    ):
        raise InputError(f"{path} does not fit the model with {overrides}: {', '.join(differing)}")
    return nnx.merge(graph, tree.map_named(lambda name, _: params[name], nnx.to_pure_dict(state)))


def _from_file(
    arrays: dict[str, Stored],
    notes: dict[str, Any],
    where: str,
    num_classes: int | None,
    placement: Placement,
    grid: tuple[int, int] | None,
    strict: bool,
    overrides: dict,
) -> Backbone:
    format = next((module for module in FORMATS.values() if module.matches(arrays)), None)
    if format is None:
        some = ", ".join(list(arrays)[:3])
        kind = notes.get("model_type")
        hint = f"; model_type={kind!r} in config.json: {nearest(str(kind), (*FAMILIES, 'swin'))}" if kind else ""
        raise InputError(f"{where}: no weights of a known format ({', '.join(FORMATS)}); it holds {some}, ...{hint}")
    try:
        facts = format.facts(arrays, notes, grid)
    except KeyError as error:
        raise InputError(f"{where}: has no {error.args[0]!r}, which weights of this format have") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: its arrays or its config are not as this format has them ({_line(error)})"
        ) from error
    if num_classes is not None:
        facts["num_classes"] = num_classes
    own = {key: facts.pop(key, None) for key in ("label_names", "preprocessing")}
    normalisation = {key: value for key, value in (own["preprocessing"] or {}).items() if key in ("mean", "std")}
    facts["config"] = dataclasses.replace(facts["config"], **normalisation)
    if facts["num_classes"] is None:
        if kind_of(facts["config"].name) != "ViT":
            raise InputError(f"{where}: has no head; give num_classes= for a new one")
        facts["num_classes"] = 0
    facts["config"] = configured(facts["config"], overrides, where, strict)

    graph, state = nnx.split(_bound(abstract_model(**facts), own, num_classes))
    shapes = tree.flatten(nnx.to_pure_dict(state))
    table = format.rules(facts["config"], arrays)
    new_head = {name for name in shapes if num_classes and name.startswith("head/")}
    kept = {name: shape for name, shape in shapes.items() if name not in new_head}
    pairs, problems = pair(table, arrays, kept)
    if num_classes:
        # A representation layer that the model is not to have goes with the head it was made for.
        problems.unexpected[:] = [name for name in problems.unexpected if not name.startswith("pre_logits/")]
    if any(problems):
        message = f"{where} does not fit the model {facts['config'].name!r}: {problems}"
        if strict:
            raise InputError(message)
        warnings.warn(message, stacklevel=4)
    params = read(pairs, placement)
    if num_classes:
        params |= _new_head(shapes, facts["config"], placement)
    if missing := [name for name in shapes if name not in params]:
        draw = jax.jit(lambda key: tree.select(init_params(key, **facts), missing))
        drawn = tree.flatten(draw(jax.random.key(0)))
        params |= {name: placement.put(name, drawn.pop(name)) for name in missing}
    return nnx.merge(graph, tree.map_named(lambda name, _: params[name], nnx.to_pure_dict(state)))


def _bound(model: Backbone, own: dict[str, Any], num_classes: int | None) -> Backbone:
    """Give a model what its weights say of pictures and classes; a new head's classes have no names yet."""
    normalisation = {"mean": model.config.mean, "std": model.config.std}
    model.preprocessing = Preprocessing(**(own["preprocessing"] or {}) | normalisation)
    if num_classes is None:
        model.label_names = own["label_names"] or imagenet_names(model.num_classes)
    return model


def configured(found: Model, overrides: dict, where: str, strict: bool = True) -> Model:
    """Return the resolved config of the weights of `where`, some fields of it overridden.

    Args:
        strict: where a name is among the overrides, its sizes must be those of the weights.

    Raises:
        InputError: an override is unknown, or the model is not the one that the weights are of.
    """
    values = dataclasses.asdict(found)
    if "name" in overrides:
        # "custom/16" says the patch alone, "BiT-custom" and "Swin-custom" nothing.
        custom = overrides["name"].startswith(("custom/", "BiT-custom", "Swin-custom"))
        values |= dict.fromkeys(("patch",) if custom else SIZE_KEYS)
    config = from_dict({"model": values | overrides}).model
    if config.num_heads is None and "name" not in overrides and not config.name.startswith("BiT-"):
        raise InputError(f"{where}: does not say how many heads its attention has; give num_heads=")
    config = resolve(config)
    if "name" not in overrides:
        return dataclasses.replace(config, name=name_of(config))
    if kind_of(config.name) != kind_of(found.name):
        raise InputError(f"{where}: does not hold a model of the kind of {config.name!r}")
    # Weights that don't say how many heads there are go with any number.
    found = resolve(dataclasses.replace(found, num_heads=found.num_heads or config.num_heads))
    differing = [
        f"{key} {getattr(found, key)}, not {getattr(config, key)}"
        for key in SIZE_KEYS
        if getattr(config, key) != getattr(found, key)
    ]
    if strict and differing:
        raise InputError(
            f"{where}: holds {name_of(found)!r}, not {config.name!r} ({', '.join(differing)}); "
            "name the model so, or take other weights"
        )
    return config


def _new_head(shapes: dict[str, jax.ShapeDtypeStruct], config: Model, placement: Placement) -> dict[str, Any]:
    values = {"head/kernel": 0.0, "head/bias": config.head_bias}
    return {name: placement.put(name, np.broadcast_to(np.float32(x), shapes[name].shape)) for name, x in values.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
