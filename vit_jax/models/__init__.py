"""Models by name."""

import dataclasses
import functools

import jax
from flax import nnx

from vit_jax.config import Model, height_width
from vit_jax.errors import InputError, nearest
from vit_jax.models.pretraining import Parts
from vit_jax.models.published import addresses
from vit_jax.models.resnet import BiT
from vit_jax.models.swin import Swin
from vit_jax.models.variants import NAMES, kind_of, resolve
from vit_jax.models.vit import ViT

Backbone = ViT | BiT | Swin


def list_models(text: str | None = None) -> list[str]:
    """Return names that `create_model` takes, those that papers report; any size with any patch works too ("S/8").

    Args:
        text: return what contains it, in small or capital letters, of these names and of the addresses of published
            weights that `load` takes.
    """
    if text is None:
        return list(NAMES)
    return [name for name in (*NAMES, *addresses()) if text.lower() in name.lower()]


def build_model(
    config: Model,
    *,
    num_classes: int,
    image_size: int | tuple[int, int],
    channels: int,
    rngs: nnx.Rngs,
    parts: Parts | None = None,
) -> Backbone:
    """Return the model that a typed config describes, its parameters drawn from `rngs`.

    Args:
        num_classes: 0: without a head, if it is a ViT or hybrid.
        parts: what a task of pre-training puts on it.
    """
    config = resolve(config)
    kind = kind_of(config.name)
    if parts is not None and kind != "ViT":
        raise InputError(f"config.task={parts[0]!r} needs a ViT, not {config.name!r}")
    if num_classes < (kind != "ViT"):
        raise InputError(f"num_classes={num_classes}: must be at least 1")
    make = {"BiT": BiT, "Swin": Swin, "ViT": functools.partial(ViT, parts=parts)}[kind]
    size = height_width(image_size)
    return make(config, num_classes=num_classes, image_size=size, channels=channels, rngs=rngs)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    channels: int = 3,
    seed: int = 0,
    **overrides,
) -> Backbone:
    """Return a freshly initialised model.

    Args:
        name: size `/` patch: a size of the table and any patch size, "S/8"; "R50+B/16" a hybrid; "BiT-R50x1"; "Swin-T".
        image_size: pixels, or (height, width).
        overrides: any field of `vit_jax.config.Model`, such as `pool="gap"` or `depth=6`.

    Raises:
        InputError: the name or an override is unknown, or the patch does not divide the image.
    """
    if num_classes < 1:
        raise InputError(f"num_classes={num_classes}: must be at least 1")
    fields = [field.name for field in dataclasses.fields(Model)]
    for key in overrides:
        if key not in fields:
            raise InputError(f"create_model: no option {key!r}; {nearest(key, fields)}")
    config = Model(name=name, **overrides)

    size = height_width(image_size)
    facts = {"config": config, "num_classes": num_classes, "image_size": size, "channels": channels}
    return nnx.merge(model_graph(**facts), init_params(jax.random.key(seed), **facts))


@functools.partial(jax.jit, static_argnames=("config", "num_classes", "image_size", "channels", "parts"))
def init_params(key: jax.Array, **facts) -> dict:
    """Return the parameters that `build_model(**facts)` draws, as a plain dict, in one compiled call."""
    return nnx.to_pure_dict(nnx.split(build_model(**facts, rngs=nnx.Rngs(params=key)))[1])


def abstract_model(**facts) -> Backbone:
    """Return `build_model(**facts)` with shapes in place of parameters; allocates nothing."""
    return nnx.eval_shape(lambda: build_model(**facts, rngs=nnx.Rngs(params=0)))


def model_graph(**facts) -> nnx.GraphDef:
    """Return what `nnx.merge(graph, params)` needs beside the parameters; allocates nothing."""
    return nnx.split(abstract_model(**facts))[0]
