"""Starting from pretrained weights: what of an experiment follows from them, and where their arrays go."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from flax import nnx

from vit_jax import tree
from vit_jax.config import PRETRAINING, Config, Model
from vit_jax.errors import InputError
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.runs.directory import read_facts
from vit_jax.weights import SIZE_KEYS, configured, load_onto
from vit_jax.weights.fetch import fetch
from vit_jax.weights.folder import parts_of
from vit_jax.weights.placement import OnMesh, Placement

# What says how a model is trained and run: the config's always. The rest of an architecture is that of the weights,
# unless the config sets it to something else than its default.
CONFIGS_OWN = (
    "resample",
    "dropout",
    "drop_path",
    "drop_path_subset",
    "head_bias",
    "dtype",
    "attention",
    "remat",
    "unroll",
)


class Weights(NamedTuple):
    """Parameters to start from, placed.

    Attributes:
        report: one line: which are taken, resized and new, and what the model has from them that the config didn't say.
    """

    params: Any
    report: str


def start_from(
    config: Config, label_names: tuple[str, ...], workdir: Path, placement: Placement
) -> tuple[Config, Weights | None]:
    """Return the config with the architecture of the weights of `config.init`, and the weights.

    A run that has a checkpoint says itself what it started from: the weights are not opened again, and None.

    Args:
        placement: where the parameters go.

    Raises:
        InputError: the weights can't be read, or are not of the model that the config names.
    """
    if config.init is None:
        return config, None
    if config.task in PRETRAINING:
        raise InputError(f"config.init={config.init!r}: task {config.task!r} starts from nothing; leave it out")
    if not config.init:
        raise InputError("config.init is empty: say which weights to start from, --config.init=PATH, or none")
    if Checkpoints(workdir).latest() is not None:
        model = configured(read_facts(workdir).config.model, _stated(config.model), str(workdir))
        return dataclasses.replace(config, model=model), None
    try:
        model, report = _load(config, label_names, placement)
    except InputError as error:
        raise InputError(f"config.init: {error}") from error
    if theirs := _inherited(config.model, model.config):
        report += f"; the model has their {theirs}"
    params = placement.settled(nnx.to_pure_dict(nnx.split(model)[1]))
    return dataclasses.replace(config, model=model.config), Weights(params, report)


def loading_needs(where: str, placement: OnMesh) -> str:
    """Return a line on what was read of the weights, and what a host held of them on the way to its devices."""
    path = fetch(where)
    if (path / "run.json").is_file():
        return "while a run is restored, a host may hold all that its devices get once more"
    sizes = [part.stat().st_size for part in parts_of(path)]
    files = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    held = f"a host of {placement.local} holds {placement.peak / 1e6:,.1f} MB at a time"
    return f"{sum(sizes) / 1e6:,.1f} MB in {files}; on the way to its devices, {held}"


def _load(config: Config, label_names: tuple[str, ...], placement: Placement) -> tuple[nnx.Module, str]:
    path, stated = fetch(config.init), _stated(config.model)
    # Only a run says what its classes are called; of any other weights the head is another data set's.
    run = read_facts(path) if (path / "run.json").is_file() else None
    left = f"; what task {run.config.task!r} put on it is left behind" if run and run.config.task in PRETRAINING else ""
    same = run is not None and run.label_names == label_names and not left
    if not same:
        stated["representation"] = config.model.representation
    model = load_onto(placement, config.init, num_classes=None if same else len(label_names), **stated)
    if model.channels != config.channels:
        raise InputError(f"{config.init}: takes {model.channels} channels, not config.channels={config.channels}")
    before, size = _shapes(model), config.height_width()
    model.resize(size)
    after = _shapes(model)
    resized = [name for name in before if before[name] != after[name]]
    parts = [f"{len(before) - len(resized) - (0 if same else 2)} arrays taken"]
    if resized:
        parts.append(f"{', '.join(resized)} resized for {size[0]}x{size[1]} pixels")
    parts.append("the head too" if same else f"a new head for {len(label_names)} classes")
    return model, f"starting from {config.init}: {', '.join(parts)}{left}"


def _stated(model: Model) -> dict[str, Any]:
    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}
    defaults = dataclasses.asdict(Model())
    return {key: value for key, value in values.items() if key in ("name", *CONFIGS_OWN) or value != defaults[key]}


def _inherited(stated: Model, model: Model) -> str:
    # The sizes are in the name, and a class token mostly follows from how the head pools.
    old, new = (dataclasses.asdict(config) for config in (stated, model))
    names = [name for name in new if name not in (*SIZE_KEYS, "class_token") and old[name] != new[name]]
    return ", ".join(f"{name}={new[name]!r}" for name in names)


def _shapes(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in tree.flatten(nnx.to_pure_dict(nnx.split(model)[1])).items()}
