"""Digests: the same on any mesh, different after any change."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape
from vit_jax.runs.digest import digests

DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16, np.int32, np.uint8, np.int8, bool)


def drawn(dtype):
    return (np.random.default_rng(3).normal(size=(4, 6, 8)) * 9).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_no_sharding_changes_a_digest(dtype):
    mesh = make_mesh(MeshShape(2, 2, 2))
    specs = (P(), P("data"), P("tensor", "fsdp"), P(("data", "fsdp"), None, "tensor"), P(None, None, ("fsdp", "data")))
    array = drawn(dtype)
    found = {digests({"x": jax.device_put(array, NamedSharding(mesh, spec))})["x"] for spec in specs}
    assert found == {digests({"x": jnp.asarray(array)})["x"]}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_any_change_changes_the_digest(dtype):
    array = drawn(dtype)
    bits = array.view(np.uint8)
    changed = [array, array[:, ::-1], np.roll(array, 1), np.zeros_like(array)]
    for place in np.random.default_rng(5).integers(0, bits.size, 40):
        other = bits.copy()
        other.reshape(-1)[place] ^= 1 if dtype is bool else 1 << (place % 8)
        changed.append(other.view(array.dtype))
    different = {array.tobytes() for array in changed}
    # Each of the two lanes distinguishes them.
    found = digests(dict(enumerate(jnp.asarray(array) for array in changed))).values()
    assert len({digest[:8] for digest in found}) == len({digest[8:] for digest in found}) == len(different) > 30


def test_signs_of_zero_and_payloads_of_nan_count():
    bits = np.array([0, 0x80000000, 0x7FC00000, 0x7FC00001, 0xFFC00000], np.uint32)
    assert len(set(digests(dict(enumerate(jnp.asarray(bits.view(np.float32))))).values())) == len(bits)


def test_names_and_empty_arrays():
    found = digests({"a": {"b": jnp.ones(()), "c": jnp.ones((0, 3))}})
    assert list(found) == ["a/b", "a/c"]
    assert found["a/c"] == "0" * 16
