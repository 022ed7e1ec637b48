"""Folders of Transformers' classifiers: ViT, which reads a class token, I-JEPA, and the Swins of `weights.swin`.

I-JEPA has no class token: its head reads the mean over the patches, after the last norm, which is our "gap". A folder
has `model.safetensors`, `config.json` and `preprocessor_config.json`; ViT and I-JEPA have the same names but a prefix.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from vit_jax.config import Model, height_width
from vit_jax.errors import InputError
from vit_jax.models import Swin
from vit_jax.weights import huggingface_pictures, swin
from vit_jax.weights.described import names_of, write_folder
from vit_jax.weights.rules import Rule, convolution, linear, norm, positions, reshaped
from vit_jax.weights.supported import ANY, PLAIN, count, grid_of

SUPPORTED = PLAIN | {"gelu": ANY, "norm_eps": ANY}
SUPPORTED_SWIN = swin.SUPPORTED_HUGGINGFACE
GELUS = {"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_fast": "tanh"}
CLASSES = {"vit": "ViTForImageClassification", "ijepa": "IJepaForImageClassification"}


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    vit = any(name.endswith("encoder.layer.0.attention.attention.query.weight") for name in arrays)
    return vit or swin.has_swin(arrays, swin.huggingface(arrays))


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know, from the config as far as the arrays don't say it."""
    if notes.get("hidden_act", "gelu") not in GELUS:
        raise InputError(f"hidden_act={notes['hidden_act']!r} in config.json: only {', '.join(GELUS)} are known")
    if swin.has_swin(arrays, swin.huggingface(arrays)):
        found = swin.facts(arrays, swin.huggingface(arrays), notes.get("window_size"))
        own = {"gelu": GELUS[notes.get("hidden_act", "gelu")], "norm_eps": float(notes.get("layer_norm_eps", 1e-5))}
        found["config"] = dataclasses.replace(found["config"], **own)
        size = notes.get("image_size", found.pop("image_size"))
    else:
        found, size = _vit_facts(arrays, notes, grid)
    labels = notes.get("id2label")
    if isinstance(labels, dict) and all(value == f"LABEL_{key}" for key, value in labels.items()):
        # What Transformers writes where nobody named them.
        labels = None
    return found | {
        "image_size": height_width(size if isinstance(size, int) else tuple(size)),
        "label_names": names_of(labels, found["num_classes"], "id2label in config.json"),
        "preprocessing": huggingface_pictures.read(notes.get("preprocessor_config.json")),
    }


def _vit_facts(
    arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None
) -> tuple[dict, int | list[int]]:
    """Return the facts, and the size of pictures."""
    prefix = _prefix(arrays)
    width, channels, patch, _ = arrays[f"{prefix}embeddings.patch_embeddings.projection.weight"].shape
    head, token = arrays.get("classifier.weight"), f"{prefix}embeddings.cls_token" in arrays
    config = Model(
        name=f"custom/{patch}",
        width=width,
        depth=count(arrays, rf"{prefix}encoder\.layer\.(\d+)\."),
        num_heads=notes.get("num_attention_heads"),
        mlp_dim=arrays[f"{prefix}encoder.layer.0.intermediate.dense.weight"].shape[0],
        pool="token" if token else "gap",
        gelu=GELUS[notes.get("hidden_act", "gelu")],
        norm_eps=float(notes.get("layer_norm_eps", 1e-12)),
    )
    size = notes.get("image_size")
    if size is None:
        patches = arrays[f"{prefix}embeddings.position_embeddings"].shape[1] - token
        size = [patch * side for side in grid_of(patches, grid)]
    num_classes = None if head is None else head.shape[0]
    return {"config": config, "num_classes": num_classes, "channels": channels}, size


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config; a model without a head has no prefix before its names."""
    if config.swin is not None:
        return swin.rules(config, swin.huggingface(arrays))
    prefix = f"{_kind(config)}." if arrays is None else _prefix(arrays)
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
    """Write the folder."""
    config, (height, width) = model.config, model.image_size
    names = model.label_names or [f"LABEL_{i}" for i in range(model.num_classes)]
    described = {
        **(_swin(model) if config.swin is not None else _vit(config)),
        "hidden_act": "gelu" if config.gelu == "exact" else "gelu_pytorch_tanh",
        "layer_norm_eps": config.norm_eps,
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch,
        "num_channels": model.channels,
        "qkv_bias": True,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "dtype": "float32",
    }
    documents = {"config.json": described, "preprocessor_config.json": huggingface_pictures.described(model)}
    write_folder(path, documents, arrays, {"format": "pt"})


def _vit(config: Model) -> dict[str, Any]:
    return {
        "architectures": [CLASSES[_kind(config)]],
        "model_type": _kind(config),
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
    }


def _swin(model: Swin) -> dict[str, Any]:
    config = model.config
    if any(min(grid) < config.window for grid in model.grids(model.image_size)):
        size = "x".join(map(str, model.image_size))
        raise InputError(
            f"a huggingface file can't hold windows of {config.window} patches that a map of a picture of {size} does "
            "not fill; load the weights with a smaller window="
        )
    stages = len(config.swin)
    return {
        "architectures": ["SwinForImageClassification"],
        "model_type": "swin",
        "embed_dim": config.width,
        "depths": list(config.swin),
        "num_heads": [config.num_heads * 2**i for i in range(stages)],
        "window_size": config.window,
        "mlp_ratio": config.mlp_dim / config.width,
        "hidden_size": config.width * 2 ** (stages - 1),
    }


def _kind(config: Model) -> str:
    return "vit" if config.class_token else "ijepa"


def _prefix(arrays: dict[str, np.ndarray]) -> str:
    return next((f"{kind}." for kind in CLASSES if any(name.startswith(f"{kind}.") for name in arrays)), "")
