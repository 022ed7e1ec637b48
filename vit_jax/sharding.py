"""One mesh with named axes, partition rules by parameter name, and placement of batches."""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.config import MeshShape
from vit_jax.errors import InputError
from vit_jax.tree import map_named

BATCH = ("data", "fsdp")

# The first pattern found in a parameter's name decides; block parameters have a leading depth axis, never split.
# Optimizer state carries the names of the parameters it belongs to, so the same rules split it.
RULES = (
    (r"blocks/attn/(query|key|value)/kernel", P(None, "fsdp", "tensor", None)),
    (r"blocks/attn/(query|key|value)/bias", P(None, "tensor", None)),
    (r"blocks/attn/out/kernel", P(None, "tensor", None, "fsdp")),
    (r"blocks/mlp/fc1/kernel", P(None, "fsdp", "tensor")),
    (r"blocks/mlp/fc1/bias", P(None, "tensor")),
    (r"blocks/mlp/fc2/kernel", P(None, "tensor", "fsdp")),
    (r"blocks/", P(None, "fsdp")),
    (r"embedding/kernel", P(None, None, None, "fsdp")),
    (r"position/grid", P(None, None, "fsdp")),
    (r"head/kernel", P("fsdp", None)),
    (r"pre_logits/kernel", P(None, "fsdp")),
)


def make_mesh(shape: MeshShape, devices: list[jax.Device] | None = None) -> Mesh:
    """Return the mesh `data` x `fsdp` x `tensor` over all devices.

    Raises:
        InputError: the axes don't multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": shape.data, "fsdp": shape.fsdp, "tensor": shape.tensor}
    known = math.prod(size for size in sizes.values() if size != -1)
    if list(sizes.values()).count(-1) == 1 and known > 0 and len(devices) % known == 0:
        sizes = {axis: len(devices) // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
        asked = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
        raise InputError(f"config.mesh asks for {asked} devices, but there are {len(devices)}; -1 takes the rest")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * 3, devices=devices)


def spec_of(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """Return how a parameter is split: the first rule that its name matches, on the axes that divide."""
    spec = next((spec for pattern, spec in RULES if re.search(pattern, name)), P())
    fits = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, shape, strict=False)]
    return P(*fits)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return a `NamedSharding` for every array (or shape) of a tree of parameters or optimizer state."""
    return map_named(lambda name, leaf: NamedSharding(mesh, spec_of(name, leaf.shape, mesh)), tree)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Return shapes that also say where each array lies, as restoring needs them."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def batch_rows(batch: int, mesh: Mesh) -> np.ndarray:
    """Return the rows of the global batch that this process's devices hold, in rising order.

    Raises:
        InputError: the devices don't divide the batch.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH)
    if batch % parts:
        raise InputError(
            f"config.batch={batch} is not divisible by the {parts} devices that share it (data x fsdp of the mesh)"
        )
    slices = NamedSharding(mesh, P(BATCH)).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[part] for part in slices]))


def place_batch(local: dict[str, np.ndarray], rows: np.ndarray, batch: int, mesh: Mesh) -> dict[str, jax.Array]:
    """Return global arrays, split over the devices, from this process's rows of each."""
    sharding = NamedSharding(mesh, P(BATCH))

    def place(array: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch)
            first = np.searchsorted(rows, start)
            return array[first : first + stop - start]

        return jax.make_array_from_callback((batch, *array.shape[1:]), sharding, part)

    return {name: place(array) for name, array in local.items()}
