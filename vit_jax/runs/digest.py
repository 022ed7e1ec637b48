"""64-bit digests of arrays, to verify that what is restored is what was saved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

from vit_jax import tree

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def digests(arrays: Any) -> dict[str, str]:
    """Return {name: 16 hexadecimal digits} for a tree of arrays, computed on their devices in one pass over each.

    Every word is mixed with its position in the whole array, and the results are added modulo 2^32. The sum does not
    depend on order, so the mesh, sharding and number of processes don't matter; changing one word always changes it.
    """
    named = tree.flatten(arrays)
    # A program for each shape, not one for all arrays: the optimizer's have the shapes of the parameters. One runs at a
    # time, because several that communicate can block each other on CPU devices.
    pairs = jax.device_get([jax.block_until_ready(_digest(array)) for array in named.values()])
    return {name: f"{first:08x}{second:08x}" for name, (first, second) in zip(named, pairs, strict=True)}


@jax.jit
def _digest(array: Shaped[Array, "..."]) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    # Scalars can't be sharded, so every process holds both.
    if array.dtype == bool:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    first = _mix(words ^ (place * np.uint32(0x9E3779B9)), 0x21F0AAAD, 0xD35A2D97)
    second = _mix(first + np.uint32(0x7F4A7C15), 0x7FEB352D, 0x846CA68B)
    return first.sum(dtype=jnp.uint32), second.sum(dtype=jnp.uint32)


def _mix(x: UInt32[Array, "..."], a: int, b: int) -> UInt32[Array, "..."]:
    # Wellons' lowbias32, a bijection in which every input bit changes half of the output bits.
    x = (x ^ (x >> 16)) * np.uint32(a)
    x = (x ^ (x >> 15)) * np.uint32(b)
    return x ^ (x >> 15)
