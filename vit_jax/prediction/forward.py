"""The forward pass of prediction: probabilities, features and attention of batches, on all local devices."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt8

from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape
from vit_jax.data.pipeline import ahead
from vit_jax.data.rows import is_native
from vit_jax.errors import InputError
from vit_jax.inside.distance import attention_distance
from vit_jax.models.activations import check_names
from vit_jax.models.packed import check_packed, mirror
from vit_jax.models.position import num_prefix
from vit_jax.packing import Packed, pictures_of
from vit_jax.prediction.listing import Asked
from vit_jax.prediction.reading import Pictures, read_batches
from vit_jax.prediction.rollout import attention_names, rollout
from vit_jax.tasks import build_task
from vit_jax.tasks.task import Batch
from vit_jax.weights.opened import Opened


class Wanted(NamedTuple):
    """What is computed of each picture.

    Attributes:
        top: number of its most probable classes; at most all of them are returned.
        layer: the activation that its features are, or None.
        attention: whether its attention is rolled out.
        flip: whether its probabilities are the mean of its own and those of its mirror image.
        distance: whether it is measured how far each head attends.
    """

    top: int = 5
    layer: str | None = None
    attention: bool = False
    flip: bool = False
    distance: bool = False


class Row(NamedTuple):
    """One picture.

    Attributes:
        classes: (label name, probability), most probable first; none if the picture can't be read.
        error: why it can't be read, or None.
    """

    path: str
    classes: tuple[tuple[str, float], ...]
    error: str | None


class Predictions(NamedTuple):
    """What was computed of a batch of pictures, in the order in which they were asked for.

    Attributes:
        top: number of classes of each row that could be read.
        images: as the model saw them; as `features`, `attention` and `distances`, which may be None, of no use where a
            row has an error.
        distances: of every block and head, in pixels, see `vit_jax.inside.distance`.
    """

    rows: list[Row]
    top: int
    images: UInt8[np.ndarray, "batch height width channels"]
    features: Float[np.ndarray, "batch dim"] | None
    attention: Float[np.ndarray, "batch rows columns"] | None
    distances: Float[np.ndarray, "batch depth heads"] | None = None


Outputs = dict[str, jax.Array]
Forward = Callable[[np.ndarray, np.ndarray | None], Outputs]  # of `Pictures.images` and `grids`


def predictions(
    opened: Opened, asked: Iterable[Asked], wanted: Wanted, batch: int = 64, threads: int = 8
) -> Iterator[Predictions]:
    """Return what is wanted of pictures, in batches; they are decoded, and the model runs, ahead of what is drawn.

    Args:
        batch: pictures at a time on each local device; fewer if there are not so many.

    Raises:
        InputError: nothing is asked for, the model has no such layer, no attention or no head, or its outputs are not
            for whole pictures.
    """
    return run_forward(make_forward(opened, wanted), opened, asked, batch, threads)


def run_forward(
    forward: Forward, opened: Opened, asked: Iterable[Asked], batch: int, threads: int
) -> Iterator[Predictions]:
    """Return what a forward pass finds in pictures; else as `predictions`."""
    devices, asked = jax.local_device_count(), iter(asked)
    first = list(islice(asked, batch * devices))
    if not first:
        raise InputError("no pictures are asked for: the list is empty")
    # A power of two, so that few sizes are ever compiled.
    batch = devices * min(batch, 1 << (-(-len(first) // devices) - 1).bit_length())
    batches = read_batches(chain(first, asked), opened.config, batch, threads)
    started = ahead((pictures, forward(pictures.images, pictures.grids)) for pictures in batches)
    return (_collect(pictures, outputs, opened.label_names) for pictures, outputs in started)


def make_forward(opened: Opened, wanted: Wanted) -> Forward:
    """Return the function that maps pictures, equally many for each local device, to what is wanted of them."""
    model = opened.model
    if is_native(opened.config):
        check_packed(model.config)
    task = build_task(opened.config, model.num_classes)
    attention = attention_names(model) if wanted.attention or wanted.distance else []
    if wanted.layer is not None:
        _check_layer(wanted.layer, model)
    layers, has_head = [wanted.layer] if wanted.layer else [], model.head is not None
    if not (has_head or layers or attention):
        raise InputError(f"model {model.config.name!r} has no head that tells classes; take its --features=FILE")
    graph, params = nnx.split(model)
    mesh = make_mesh(MeshShape(), jax.local_devices())
    params = jax.device_put(nnx.to_pure_dict(params), NamedSharding(mesh, P()))

    @jax.jit
    def forward(params: dict, batch: Batch) -> Outputs:
        model, images = nnx.merge(graph, params), pictures_of(batch)
        found = model.activations(images, *["logits"] * has_head, *layers, *attention)
        probabilities = task.probabilities(found["logits"]) if has_head else jnp.zeros((len(batch["image"]), 0))
        if wanted.flip and has_head:
            mirrored = mirror(images) if isinstance(images, Packed) else images[:, :, ::-1]
            probabilities = (probabilities + task.probabilities(model(mirrored))) / 2
        best, labels = jax.lax.top_k(probabilities, min(wanted.top, model.num_classes))
        outputs = {"labels": labels, "probabilities": best}
        if layers:
            outputs["features"] = _mean_over_patches(found[wanted.layer], wanted.layer, model)
        weights = [found[name] for name in attention]
        if wanted.attention:
            outputs["attention"] = rollout(weights, model, images.shape[1:3])
        if wanted.distance:
            grid, patch = model.grid(images.shape[1:3]), model.config.patch
            outputs["distances"] = jnp.stack([attention_distance(each, grid, patch) for each in weights], axis=1)
        return outputs

    def placed(images: np.ndarray, grids: np.ndarray | None) -> Outputs:
        batch = {"image": images} if grids is None else {"image": images, "grid": grids}
        return forward(params, jax.device_put(batch, NamedSharding(mesh, P("data"))))

    return placed


def _check_layer(layer: str, model: nnx.Module) -> None:
    check_names((layer,), model)
    if layer.startswith("attention/"):
        raise InputError(f"--layer={layer}: are weights between tokens, not features; --attention=DIR draws them")


def _mean_over_patches(features: Float[Array, "batch *_"], layer: str, model: nnx.Module) -> Float[Array, "batch dim"]:
    if layer == "tokens" or layer.startswith("block/"):
        features = features[:, 0 if model.config.patch is None else num_prefix(model.config) :]
    return features.mean(axis=tuple(range(1, features.ndim - 1))).astype(jnp.float32)


def _collect(pictures: Pictures, outputs: Outputs, label_names: tuple[str, ...] | None) -> Predictions:
    number = len(pictures.paths)
    found = {name: np.asarray(array)[:number] for name, array in outputs.items()}
    rows = []
    for path, error, labels, probabilities in zip(
        pictures.paths, pictures.errors, found["labels"].tolist(), found["probabilities"].tolist(), strict=True
    ):
        names = labels if label_names is None else [label_names[label] for label in labels]
        classes = () if error is not None else tuple(zip(map(str, names), probabilities, strict=True))
        rows.append(Row(path, classes, error))
    top = found["labels"].shape[1]
    return Predictions(rows, top, pictures.images[:number], *map(found.get, ("features", "attention", "distances")))
