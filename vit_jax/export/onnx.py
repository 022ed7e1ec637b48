"""ONNX, by jax2onnx: read by onnxruntime and whatever else reads the format."""

import importlib.metadata
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

LIBRARIES = ("jax2onnx", "onnxruntime")
# How far outputs may be from the model's, relative to the largest.
DTYPES = {"float32": 1e-4}


def encode(function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> tuple[bytes, dict[str, Any]]:
    """Return a function of uint8 (batch, *shape) with everything it needs, and what reads it."""
    import jax2onnx

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # It warns of shapes that it leaves out.

    def unrolled(images: jax.Array) -> jax.Array:
        # A scan would become a Loop, which runtimes don't optimise, and whose types jax2onnx gets wrong. Without jit,
        # JAX runs it as a loop of Python.
        with jax.disable_jit():
            return function(images)

    pictures = jax.ShapeDtypeStruct(("batch", *shape), jnp.uint8)
    model = jax2onnx.to_onnx(unrolled, [pictures], input_names=["images"], output_names=["outputs"])
    return model.SerializeToString(), {
        "library": "onnxruntime",
        "packages": ["onnxruntime"],
        "written_by": f"jax2onnx {importlib.metadata.version('jax2onnx')}",
        "ir_version": model.ir_version,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "input": "images",
        "output": "outputs",
    }


def run(content: bytes, images: UInt8[np.ndarray, "batch height width channels"]) -> Float[np.ndarray, "batch *_"]:
    """Return what an encoded function makes of pictures, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # It warns of every constant that it folded away.
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]
