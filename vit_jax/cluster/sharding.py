"""The mesh and its named axes, partition rules by parameter name, and placement of batches."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.config import MeshShape
from vit_jax.errors import InputError
from vit_jax.tree import map_named

BATCH = ("data", "fsdp")

# The first pattern found in a parameter's name decides how its last axes are split. Parameters without a rule are small
# and replicated. Optimizer state carries the names of its parameters, so the same rules split it.
RULES = (
    (r"attn/(query|key|value)/kernel", ("fsdp", "tensor", None)),
    (r"attn/(query|key|value)/bias", ("tensor", None)),
    (r"attn/out/kernel", ("tensor", None, "fsdp")),
    (r"mlp/(fc1|gate)/kernel", ("fsdp", "tensor")),
    (r"mlp/(fc1|gate)/bias", ("tensor",)),
    (r"mlp/fc2/kernel", ("tensor", "fsdp")),
    (r"position/grid", (None, None, "fsdp")),
    (r"head/kernel", ("fsdp", None)),
    (r"/kernel", ("fsdp",)),
)

# The parameters that the model uses only after casting them to the compute dtype.
ROUNDED = r"(attn|mlp)/.*/kernel|embedding/(conv\d+/)?kernel|pre_logits/kernel"


def make_mesh(shape: MeshShape, devices: list[jax.Device] | None = None) -> Mesh:
    """Return the `data` x `fsdp` x `tensor` mesh over all devices.

    Raises:
        InputError: the product of the axes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": shape.data, "fsdp": shape.fsdp, "tensor": shape.tensor}
    known = math.prod(size for size in sizes.values() if size != -1)
    if list(sizes.values()).count(-1) == 1 and known > 0 and len(devices) % known == 0:
        sizes = {axis: len(devices) // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
        asked = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
        raise InputError(f"config.mesh needs {asked} devices, but there are {len(devices)}; -1 takes the rest")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (AxisType.Auto,) * 3, devices=devices)


def spec_of(name: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """Return how a parameter is split: by the first rule that matches its name, on the axes that divide evenly.

    Where `fsdp` does not divide its axis, it splits the longest free axis that it divides. The depth axis, which no
    rule mentions, is never split: each device has its part of every block.
    """
    rule = next((rule for pattern, rule in RULES if re.search(pattern, name)), ())[-len(shape) or None :]
    depth = len(shape) - len(rule)
    spec = [None] * depth
    spec += [
        axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(rule, shape[depth:], strict=True)
    ]
    if "fsdp" in rule and "fsdp" not in spec:
        free = [i for i in range(depth, len(shape)) if spec[i] is None and shape[i] % mesh.shape["fsdp"] == 0]
        if free:
            spec[max(free, key=lambda i: shape[i])] = "fsdp"
    return P(*spec)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """Return a `NamedSharding` for every array (or shape) in a tree of parameters or optimizer state."""
    return map_named(lambda name, leaf: NamedSharding(mesh, spec_of(name, leaf.shape, mesh)), tree)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Return the shapes with their shardings, which restoring needs."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def shard_bytes(shapes: Any) -> int:
    """Return the bytes that each device holds of a tree of arrays, or of shapes with shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def batch_rows(batch: int, mesh: Mesh) -> np.ndarray:
    """Return the rows of the global batch that this process's devices hold, in ascending order.

    Raises:
        InputError: the batch is not divisible by the number of devices that share it.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH)
    if batch % parts:
        raise InputError(
            f"config.batch={batch} is not divisible by the {parts} devices that share it (data x fsdp of the mesh)"
        )
    slices = NamedSharding(mesh, P(BATCH)).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[part] for part in slices]))


def place_batch(local: dict[str, np.ndarray], rows: np.ndarray, batch: int, mesh: Mesh) -> dict[str, jax.Array]:
    """Return global arrays, sharded over the devices, from this process's rows of each."""
    sharding = NamedSharding(mesh, P(BATCH))

    def place(array: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch)
            first = np.searchsorted(rows, start)
            return array[first : first + stop - start]

        return jax.make_array_from_callback((batch, *array.shape[1:]), sharding, part)

    return {name: place(array) for name, array in local.items()}


def place_params(params: Any, shapes: Any) -> Any:
    """Return the parameters as global arrays, sharded as in `shapes`: no device holds more than its part."""

    def put(array: np.ndarray | jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(shape.shape, shape.sharding, lambda part: array[part])

    return jax.tree.map(put, params, shapes)


class Gathered(nnx.Param):
    """A parameter that is gathered over `fsdp` when it is read; see `gather_when_read`."""

    def get_value(self, *, index: Any = ...) -> jax.Array:
        """Return the whole parameter; its gradient is scattered again at once."""
        value = super().get_value()
        # Inside the scan there is no depth axis.
        split, whole = (
            NamedSharding(self.devices, P(*spec[len(spec) - value.ndim :])) for spec in (self.split, self.whole)
        )
        return _gather(value, self.rounded, split, whole)[index]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(value: jax.Array, dtype: jnp.dtype, split: NamedSharding, whole: NamedSharding) -> jax.Array:
    value = jax.lax.with_sharding_constraint(value.astype(dtype), split)
    return jax.lax.with_sharding_constraint(value, whole)


def _gather_forward(value, dtype, split, whole):
    return _gather(value, dtype, split, whole), None


def _gather_backward(dtype, split, whole, _, gradient):
    return (jax.lax.with_sharding_constraint(gradient, split).astype(jnp.float32),)


_gather.defvjp(_gather_forward, _gather_backward)


def gather_when_read(model: nnx.Module, mesh: Mesh, dtype: jnp.dtype) -> None:
    """Replace, in place, the parameters of an abstract model that `fsdp` splits with ones that are gathered when read.

    Inside the scan over depth, this gathers one block at a time and scatters its gradient. Otherwise the partitioner
    follows the parameters: it splits the width of every token, and each device computes the whole batch.

    Args:
        dtype: of the computation; parameters that the model only uses in this dtype are cast before the gather.
    """
    nodes = dict(nnx.iter_graph(model))
    for path, parameter in nodes.items():
        if not isinstance(parameter, nnx.Param):
            continue
        name = "/".join(map(str, path))
        spec = spec_of(name, parameter.shape, mesh)
        if "fsdp" not in spec or mesh.shape["fsdp"] == 1:
            continue
        whole = P(*(None if axis == "fsdp" else axis for axis in spec))
        rounded = dtype if re.search(ROUNDED, name) else parameter.dtype
        setattr(
            nodes[path[:-1]],
            path[-1],
            Gathered(parameter.get_value(), devices=mesh, split=spec, whole=whole, rounded=rounded),
        )
