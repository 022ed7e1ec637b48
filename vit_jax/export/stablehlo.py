"""StableHLO, by `jax.export`: read by JAX alone, on any of its devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float, UInt8

PLATFORMS = ("cpu", "cuda", "tpu", "rocm")
LIBRARIES = ()
# How far outputs may be from the model's, relative to the largest.
DTYPES = {"float32": 1e-5, "bfloat16": 2e-2}


def encode(function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> tuple[bytes, dict[str, Any]]:
    """Return a function of uint8 (batch, *shape) with everything it needs, and what reads it."""
    (batch,) = export.symbolic_shape("batch")
    exported = export.export(jax.jit(function), platforms=PLATFORMS)(jax.ShapeDtypeStruct((batch, *shape), jnp.uint8))
    return bytes(exported.serialize()), {
        "library": "jax",
        "packages": ["jax", "flatbuffers"],
        "written_by": f"jax {jax.__version__}",
        "read_by": f"jaxlib from 3 weeks older to 6 months newer than {jax.__version__}; later ones may refuse it",
        "calling_convention_version": exported.calling_convention_version,
        "platforms": list(exported.platforms),
    }


def run(content: bytes, images: UInt8[np.ndarray, "batch height width channels"]) -> Float[np.ndarray, "batch *_"]:
    """Return what an encoded function makes of pictures, on this machine."""
    return np.asarray(export.deserialize(bytearray(content)).call(images))
