"""Models as single files that run without this package: StableHLO for JAX, ONNX for other runtimes.

Both take one argument, uint8 pictures (batch, height, width, channels) of any batch size, and normalise them inside.
`OUT.json` beside a file OUT says how pictures become these pixels, and what the outputs are.
"""

import contextlib
import dataclasses
import datetime
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

import vit_jax
from vit_jax import tree
from vit_jax.errors import InputError
from vit_jax.export import onnx, stablehlo
from vit_jax.models import Backbone, ViT, model_graph
from vit_jax.models.text import TextHead, with_head
from vit_jax.tasks import build_task
from vit_jax.weights import files
from vit_jax.weights.opened import Opened

# To add a format: a file with the names that these two have, and a line here.
FORMATS = {".stablehlo": stablehlo, ".onnx": onnx}
OUTPUTS = ("probabilities", "logits", "features")
# Both formats count their bytes in 31 bits; the program takes a few of them.
MOST_BYTES = 2**31 - 2**24

Images = UInt8[Array | np.ndarray, "batch height width channels"]


def check_target(out: Path) -> None:
    """Raise an `InputError` if a file can't be exported to: its ending, its folder, or a missing extra."""
    if out.suffix not in FORMATS:
        raise InputError(f"{out}: no format ends so; use {' or '.join(FORMATS)}")
    if missing := [name for name in FORMATS[out.suffix].LIBRARIES if importlib.util.find_spec(name) is None]:
        raise InputError(f"{out}: {missing[0]} is not installed; pip install 'vit_jax[{out.suffix[1:]}]'")
    if not out.parent.is_dir():
        raise InputError(f"{out}: can't be written: there is no folder {str(out.parent)!r}")
    if out.is_dir():
        raise InputError(f"{out}: can't be written: it is a folder")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: can't be written: its folder can't be written to")


def export_model(opened: Opened, out: Path, output: str = "probabilities", dtype: str = "float32") -> float:
    """Write a model as `out` and `out`.json, and return the largest difference of its outputs from the model's.

    Args:
        output: "probabilities" as the task has them, "logits", or "features": what the head reads.
        dtype: of the computation; outputs are float32. With "float32", accelerators multiply in full float32 too.

    Raises:
        InputError: the format can't hold the model, its outputs differ from the model's, or `out` can't be written;
            what was there is left as it was.
    """
    check_target(out)
    format = FORMATS[out.suffix]
    if dtype not in format.DTYPES:
        raise InputError(f"dtype={dtype!r}: {out.suffix} files compute in {' or '.join(format.DTYPES)}")
    if opened.config.data.resize == "native":
        raise InputError(f"{out}: takes pictures of one shape; say how they get it: --resize=crop, pad or stretch")
    model = _portable(opened.model, dtype)
    count = tree.count(nnx.split(model)[1])
    if 4 * count > MOST_BYTES:
        raise InputError(f"{out}: {opened.model.config.name} has {count:,} parameters; such a file holds 2 GiB at most")
    function = output_function(model, opened, output)
    shape = (*model.image_size, model.channels)
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    with _precision(dtype):
        content, reader = format.encode(function, shape)
        wanted = np.asarray(jax.jit(function)(images))
    found = format.run(content, images)
    difference, limit = float(np.abs(found - wanted).max()), format.DTYPES[dtype] * max(1, float(np.abs(wanted).max()))
    if not difference <= limit:
        raise InputError(
            f"{out}: not written: its outputs differ from the model's by {difference:.2g}, over {limit:.2g}"
        )
    described = {
        "model": model.config.name,
        "parameters": count,
        "input": {"dtype": "uint8", "shape": ["batch", *shape]},
        "preprocessing": opened.preprocessing(),
        "output": {"what": output, "dtype": "float32", "shape": ["batch", *wanted.shape[1:]]},
        "task": opened.config.task,
        "labels": opened.label_names,
        "dtype": dtype,
        "written": {"date": datetime.date.today().isoformat(), "by": f"vit_jax {vit_jax.__version__}"},
        "reader": reader,
    }
    with files.replacing(out.with_name(f"{out.name}.json")) as facts, files.replacing(out) as part:
        facts.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n")
        part.write_bytes(content)
    return difference


def output_function(model: Backbone, opened: Opened, output: str) -> Callable[[Images], Float[Array, "batch *_"]]:
    """Return the function from uint8 pictures to an output of `OUTPUTS`, in float32."""
    if output != "features" and model.head is None:
        raise InputError(f"model {model.config.name!r} has no head; export its features, --output=features")
    if output == "features":
        return lambda images: model.features(images).astype(jnp.float32)
    if output == "logits":
        return lambda images: model(images)
    task = build_task(opened.config, model.num_classes)
    return lambda images: task.probabilities(model(images))


def _portable(model: Backbone, dtype: str) -> Backbone:
    """Return a model with the same parameters that depends on nothing of this machine."""
    changes: dict[str, Any] = {"dtype": dtype}
    if isinstance(model, ViT):
        changes |= {"attention": "xla", "remat": "none"}
    params = nnx.to_pure_dict(nnx.split(model)[1])
    texts = model.head if isinstance(model.head, TextHead) else None
    if texts is not None:
        del params["head"]
    graph = model_graph(
        config=dataclasses.replace(model.config, **changes),
        num_classes=model.num_classes if texts is None else 0,
        image_size=model.image_size,
        channels=model.channels,
    )
    portable = nnx.merge(graph, params)
    return portable if texts is None else with_head(portable, texts)


def _precision(dtype: str) -> contextlib.AbstractContextManager:
    # Accelerators would otherwise multiply float32 matrices with fewer bits.
    return jax.default_matmul_precision("highest") if dtype == "float32" else contextlib.nullcontext()
