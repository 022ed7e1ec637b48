"""Directories of Transformers' `ViTForImageClassification`: `model.safetensors`, `config.json`, the preprocessor's."""

import json
import pathlib

import numpy as np

from vit_jax.config import Model, height_width
from vit_jax.errors import InputError
from vit_jax.weights import files
from vit_jax.weights.rules import Rule, convolution, linear, norm, positions, reshaped
from vit_jax.weights.supported import ANY, PLAIN, count, grid_of

SUPPORTED = PLAIN | {"pool": ("token",), "prefix": ("learned",), "gelu": ANY, "norm_eps": ANY}
GELUS = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_fast": "tanh"}


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    return any(name.endswith("encoder.layer.0.attention.attention.query.weight") for name in arrays)


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know, from the config as far as the arrays don't say it."""
    prefix = _prefix(arrays)
    width, channels, patch, _ = arrays[f"{prefix}embeddings.patch_embeddings.projection.weight"].shape
    if notes.get("hidden_act", "gelu") not in GELUS:
        raise InputError(f"hidden_act={notes['hidden_act']!r} in config.json: only {', '.join(GELUS)} are known")
    head = arrays.get("classifier.weight")
    config = Model(
        name=f"custom/{patch}",
        width=width,
        depth=count(arrays, rf"{prefix}encoder\.layer\.(\d+)\."),
        num_heads=notes.get("num_attention_heads"),
        mlp_dim=arrays[f"{prefix}encoder.layer.0.intermediate.dense.weight"].shape[0],
        gelu=GELUS[notes.get("hidden_act", "gelu")],
        norm_eps=float(notes.get("layer_norm_eps", 1e-12)),
    )
    size = notes.get("image_size")
    if size is None:
        patches = arrays[f"{prefix}embeddings.position_embeddings"].shape[1] - 1
        size = [patch * side for side in grid_of(patches, grid)]
    return {
        "config": config,
        "num_classes": None if head is None else head.shape[0],
        "image_size": height_width(size if isinstance(size, int) else tuple(size)),
        "channels": channels,
    }


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config; a model without a head has no `vit.` before its names."""
    prefix = "vit." if arrays is None else _prefix(arrays)
    layer = prefix + "encoder.layer.{i}"
    return [
        reshaped("cls", f"{prefix}embeddings.cls_token"),
        positions(f"{prefix}embeddings.position_embeddings"),
        *convolution("embedding", f"{prefix}embeddings.patch_embeddings.projection"),
        *norm("blocks/norm1", f"{layer}.layernorm_before"),
        *[
            rule
            for part in ("query", "key", "value")
            for rule in linear(f"blocks/attn/{part}", f"{layer}.attention.attention.{part}", outputs=2)
        ],
        *linear("blocks/attn/out", f"{layer}.attention.output.dense"),
        *norm("blocks/norm2", f"{layer}.layernorm_after"),
        *linear("blocks/mlp/fc1", f"{layer}.intermediate.dense"),
        *linear("blocks/mlp/fc2", f"{layer}.output.dense"),
        *norm("norm", f"{prefix}layernorm"),
        *linear("head", "classifier"),
    ]


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model) -> None:
    """Write the directory; each file takes its name only when whole, the weights last."""
    config, (height, width) = model.config, model.image_size
    labels = {str(i): f"LABEL_{i}" for i in range(model.num_classes)}
    described = {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": "gelu" if config.gelu == "exact" else "gelu_pytorch_tanh",
        "layer_norm_eps": config.norm_eps,
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch,
        "num_channels": model.channels,
        "qkv_bias": True,
        "id2label": labels,
        "label2id": {name: int(i) for i, name in labels.items()},
        "dtype": "float32",
    }
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * model.channels,
        "image_std": [0.5] * model.channels,
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: can't be made a folder ({error.strerror})") from error
    for name, content in (("config.json", described), ("preprocessor_config.json", preprocessor)):
        with files.replacing(path / name) as part:
            part.write_text(json.dumps(content, indent=2) + "\n")
    files.write_safetensors(path / "model.safetensors", arrays, {"format": "pt"})


def _prefix(arrays: dict[str, np.ndarray]) -> str:
    return "vit." if any(name.startswith("vit.") for name in arrays) else ""
