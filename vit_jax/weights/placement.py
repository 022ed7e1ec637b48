"""Where the parameters of a model that is loaded lie, and what the host's memory holds while they get there."""

import math
import re
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from vit_jax import tree
from vit_jax.cluster.sharding import spec_of
from vit_jax.errors import InputError

# What follows the size of pictures, patches or windows. It is small, and waits on the host until it has its last shape,
# so that it is resampled there in one piece: the same to the bit on any mesh.
RESIZED = r"^position/|^embedding/kernel$|window_bias$"


class Pending(Protocol):
    """A float32 parameter that is written part by part.

    Attributes:
        nbytes: what it takes of the host's memory until it is placed.
    """

    nbytes: int

    def write(self, where: Any, array: np.ndarray) -> None:
        """Write a part: `where` is its place along the leading axis, or `...` for the whole."""

    def placed(self) -> Any:
        """Return the parameter where it is to lie; called once, after all parts."""


class Placement:
    """Puts parameters where they are to lie; this one into the host's memory, as NumPy arrays.

    Attributes:
        peak: the most bytes of the host's memory that were held at once beside what had been placed.
        onto: the mesh that a checkpoint is restored onto; None: one device of the host.
    """

    def __init__(self, onto: Mesh | None = None):
        self.peak, self.onto = 0, onto

    def begin(self, name: str, shape: tuple[int, ...]) -> Pending:
        """Return a parameter to be written."""
        return _OnHost(shape)

    def put(self, name: str, array: np.ndarray | jax.Array) -> Any:
        """Return a parameter that is there already, placed."""
        pending = self.begin(name, array.shape)
        pending.write(..., np.asarray(array))
        self.note(pending.nbytes)
        return pending.placed()

    def settled(self, params: dict) -> dict:
        """Return the parameters of a model in its last shape, a nested dict, where they are to lie."""
        return jax.tree.map(np.asarray, params)

    def note(self, held: int) -> None:
        """Note how many bytes of the host's memory are held."""
        self.peak = max(self.peak, held)


class OnDevice(Placement):
    """Whole, on the default device."""

    def begin(self, name: str, shape: tuple[int, ...]) -> Pending:
        return _OnDevice(shape)

    def settled(self, params: dict) -> dict:
        return params


class OnMesh(Placement):
    """Split over a mesh by the partition rules; of a parameter, the host holds what its own devices get.

    Attributes:
        local: number of the host's devices.

    Raises:
        InputError: the mesh lacks an axis that the rules name.
    """

    def __init__(self, mesh: Mesh):
        if lacking := [axis for axis in ("data", "fsdp", "tensor") if axis not in mesh.axis_names]:
            raise InputError(
                f"mesh: lacks the axes {', '.join(lacking)}; make it with vit_jax.cluster.sharding.make_mesh"
            )
        super().__init__(onto=mesh)
        self._mesh = mesh
        self.local = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)

    def begin(self, name: str, shape: tuple[int, ...]) -> Pending:
        return _OnHost(shape) if re.search(RESIZED, name) else _Shards(shape, self._sharding(name, shape))

    def put(self, name: str, array: np.ndarray | jax.Array) -> Any:
        if self.onto is None or not isinstance(array, jax.Array) or array.sharding != self._sharding(name, array.shape):
            return super().put(name, array)
        return multihost_utils.process_allgather(array, tiled=True) if re.search(RESIZED, name) else array

    def settled(self, params: dict) -> dict:
        def settle(name: str, array: np.ndarray | jax.Array) -> jax.Array:
            sharding = self._sharding(name, array.shape)
            if isinstance(array, jax.Array) and array.sharding == sharding:
                return array
            shards = _Shards(array.shape, sharding)
            shards.write(..., np.asarray(array))
            return shards.placed()

        return tree.map_named(settle, params)

    def _sharding(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
        return NamedSharding(self._mesh, spec_of(name, shape, self._mesh))


class Absent(OnMesh):
    """Nowhere, to learn what it would take: everything is read, and shapes stand for what a mesh would hold.

    Its devices need not be there; those of process 0 stand for the host's.
    """

    def __init__(self, mesh: Mesh):
        super().__init__(mesh)
        self.onto = None

    def begin(self, name: str, shape: tuple[int, ...]) -> Pending:
        return _OnHost(shape) if re.search(RESIZED, name) else _Nowhere(shape, self._sharding(name, shape))

    def settled(self, params: dict) -> dict:
        return params


class _OnHost:
    def __init__(self, shape: tuple[int, ...]):
        self._array = np.empty(shape, np.float32)
        self.nbytes = self._array.nbytes

    def write(self, where: Any, array: np.ndarray) -> None:
        self._array[where] = array

    def placed(self) -> Any:
        return self._array


class _OnDevice(_OnHost):
    def placed(self) -> jax.Array:
        # One copy, made before the next begins: `jnp.asarray` makes two.
        return jax.device_put(self._array).block_until_ready()


class _Nowhere:
    def __init__(self, shape: tuple[int, ...], sharding: NamedSharding):
        self._whole = jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)
        shards = _local_shards(shape, sharding)
        self.nbytes = sum(4 * math.prod(stop - start for start, stop in box) for box in shards)

    def write(self, where: Any, array: np.ndarray) -> None:
        pass

    def placed(self) -> jax.ShapeDtypeStruct:
        return self._whole


class _Shards:
    """The parts that this process's devices hold, each once however many devices hold it."""

    def __init__(self, shape: tuple[int, ...], sharding: NamedSharding):
        self._shape, self._sharding = shape, sharding
        self._devices = _local_shards(shape, sharding)
        self._parts = {box: _apart([stop - start for start, stop in box]) for box in self._devices}
        self.nbytes = sum(part.nbytes for part in self._parts.values())

    def write(self, where: Any, array: np.ndarray) -> None:
        for box, part in self._parts.items():
            within = [slice(start, stop) for start, stop in box]
            if where is ...:
                part[...] = array[tuple(within)]
            elif within[0].start <= where < within[0].stop:
                part[where - within[0].start] = array[tuple(within[1:])]

    def placed(self) -> jax.Array:
        arrays = []
        for box, devices in self._devices.items():
            part = self._parts.pop(box)
            # Before the next part's turn, so that the host lets go of each as soon as its devices have it.
            arrays += [jax.device_put(part, device).block_until_ready() for device in devices]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, arrays)


def _apart(shape: list[int]) -> np.ndarray:
    """Return an empty array that a CPU device copies, as others do, so that it is the device's own and can be donated.

    A device takes an array that begins at a multiple of 64 bytes as its memory. What is left over makes room for such a
    beginning: what is freed here then fits the device's copy of another part, where the C library keeps what is freed.
    """
    size = math.prod(shape)
    room = np.empty(size + 64, np.float32)
    start = 1 if room.ctypes.data % 64 == 0 else 0
    return room[start : start + size].reshape(shape)


def _local_shards(shape: tuple[int, ...], sharding: NamedSharding) -> dict[tuple, list[jax.Device]]:
    """Return the devices of this process by what they hold: for each axis, where it starts and stops."""
    found: dict[tuple, list[jax.Device]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        if device.process_index == jax.process_index():
            box = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
            found.setdefault(box, []).append(device)
    return found
