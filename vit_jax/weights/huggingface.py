"""Folders of Transformers: the ViTs of `huggingface_families`, with a classifier or without, and the Swins of `swin`.

A folder has `model.safetensors`, `config.json` and `preprocessor_config.json`. I-JEPA has no class token: its head
reads the mean over the patches, after the last norm, which is our "gap". Of a whole CLIP or SigLIP the image tower is
read.
"""

import dataclasses
import math
import pathlib
import re
from typing import Any

import numpy as np

from vit_jax.config import Model, height_width
from vit_jax.errors import InputError
from vit_jax.models import Swin, ViT
from vit_jax.weights import huggingface_pictures, huggingface_vit, swin
from vit_jax.weights.described import names_of, write_folder
from vit_jax.weights.huggingface_families import FAMILIES, LAST, family_for, family_of, supported
from vit_jax.weights.rules import Rule
from vit_jax.weights.supported import count, grid_of, grid_of_offsets

SUPPORTED, SUPPORTED_SWIN = supported, swin.SUPPORTED_HUGGINGFACE
GELUS = {
    **{"gelu": "exact", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh", "gelu_fast": "tanh"},
    "quick_gelu": "quick",
}


def matches(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are this format's."""
    return family_of(arrays) is not None or swin.has_swin(arrays, swin.huggingface(arrays))


def facts(arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know, from the config as far as the arrays don't say it."""
    # Of a whole CLIP or SigLIP, that of its image tower.
    notes = notes | (notes.get("vision_config") or {})
    if swin.has_swin(arrays, swin.huggingface(arrays)):
        found = swin.facts(arrays, swin.huggingface(arrays), notes.get("window_size"))
        own = {"gelu": gelu_of(notes, "gelu"), "norm_eps": float(notes.get("layer_norm_eps", 1e-5))}
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


def gelu_of(notes: dict, default: str) -> str:
    activation = notes.get("hidden_act", default)
    if activation not in GELUS:
        raise InputError(f"hidden_act={activation!r} in config.json: only {', '.join(GELUS)} are known")
    return GELUS[activation]


def _vit_facts(
    arrays: dict[str, np.ndarray], notes: dict, grid: tuple[int, int] | None
) -> tuple[dict, int | list[int]]:
    """Return the facts, and the size of pictures."""
    kind, prefix = family_of(arrays)
    family = FAMILIES[kind]
    width, channels, patch = _patches(arrays[f"{prefix}{family.patches}.weight"].shape, notes)
    head, layer = arrays.get("classifier.weight"), prefix + family.layer.format(i=0)
    second = next(f"{layer}{name}.weight" for name in LAST if f"{layer}{name}.weight" in arrays)
    presumed = family.defaults.get("num_attention_heads") if "model_type" in notes else None
    config = Model(
        name=f"custom/{patch}",
        width=width,
        depth=count(arrays, re.escape(prefix + family.layer).replace(r"\{i\}", r"(\d+)")),
        num_heads=notes.get("num_attention_heads", presumed),
        mlp_dim=arrays[second].shape[1],
        norm_eps=float(notes.get("layer_norm_eps", family.defaults["layer_norm_eps"])),
    )
    config = dataclasses.replace(config, **huggingface_vit.fields_of(kind, prefix, arrays, notes))
    if config.swiglu and kind in ("dinov3_vit", "aimv2_vision_model"):
        if (activation := notes.get("hidden_act", "silu")) != "silu":
            raise InputError(f"hidden_act={activation!r} in config.json: of an MLP with a gate only silu is known")
    else:
        config = dataclasses.replace(config, gelu=gelu_of(notes, family.defaults["hidden_act"]))
    size = notes.get("image_size")
    if kind == "beit" and size is None:
        size = [patch * side for side in grid_of_offsets(len(huggingface_vit.beit_table(prefix, arrays)) - 3, grid)]
    elif size is None:
        table = arrays.get(prefix + family.position)
        patches = 14 * 14 if table is None else table.shape[-2] - bool(config.pool in ("token", "token_gap"))
        size = [patch * side for side in grid_of(patches, grid)]
    if kind == "beit":
        _check_square(size)
    num_classes = None if head is None else head.shape[0]
    return {"config": config, "num_classes": num_classes, "channels": channels}, size


def _check_square(size: int | list[int] | tuple[int, int]) -> None:
    if not isinstance(size, int) and size[0] != size[1]:
        raise InputError(
            f"a BEiT for pictures of {size[0]}x{size[1]}: Transformers mixes up rows and columns of its relative "
            "positions where they aren't square; timm's files have them right"
        )


def _patches(shape: tuple[int, ...], notes: dict) -> tuple[int, int, int]:
    """Return outputs, channels and side of the projection of patches, of a convolution or a linear layer."""
    if len(shape) == 4:
        return shape[:3]
    channels = notes.get("num_channels", 3)
    return shape[0], channels, math.isqrt(shape[1] // channels)


def rules(config: Model, arrays: dict[str, np.ndarray] | None = None) -> list[Rule]:
    """Return the table for a resolved config; a model without a head has no prefix before its names."""
    if config.swin is not None:
        return swin.rules(config, swin.huggingface(arrays))
    if arrays is None:
        kind = family_for(config)
        return huggingface_vit.rules(config, kind, FAMILIES[kind].prefix)
    return huggingface_vit.rules(config, *family_of(arrays))


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model) -> None:
    """Write the folder."""
    config, (height, width) = model.config, model.image_size
    described = {
        "hidden_act": next(name for name, ours in GELUS.items() if ours == config.gelu),
        **(_swin(model) if config.swin is not None else _vit(model, arrays)),
        **({"layer_norm_eps": config.norm_eps} if config.norm == "layer" else {}),
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch,
        "num_channels": model.channels,
        "dtype": "float32",
    }
    if model.num_classes:
        labels = model.label_names or [f"LABEL_{i}" for i in range(model.num_classes)]
        described |= {"id2label": {str(i): name for i, name in enumerate(labels)}}
        described |= {"label2id": {name: i for i, name in enumerate(labels)}}
    documents = {"config.json": described, "preprocessor_config.json": huggingface_pictures.described(model)}
    write_folder(path, documents, arrays, {"format": "pt"})


def _vit(model: ViT, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what the config says of a ViT, and change the arrays that only Transformers has so."""
    kind, config = family_for(model.config), model.config
    if kind == "beit":
        _check_square(model.image_size)
    if kind == "aimv2_vision_model" and model.image_size[0] != model.image_size[1]:
        raise InputError("a huggingface file can't hold an AIMv2 for pictures that aren't square")
    family, described = FAMILIES[kind], huggingface_vit.described(config, kind, model.head is not None)
    if kind == "siglip2_vision_model":
        rows, columns = model.grid(model.image_size)
        if rows != columns:
            raise InputError(f"a huggingface file can't hold positions of {rows} x {columns} patches of a NaFlex model")
        described["num_patches"] = rows * columns
    if model.head is None:
        for name in list(arrays):
            arrays[name.removeprefix(family.prefix)] = arrays.pop(name)
    start = family.prefix if model.head is not None else ""
    if config.registers and config.position == "learned":
        # The positions of registers, zeros in what Transformers wrote, are added to the registers themselves.
        own = np.asarray(model.position.prefix[...])[1:]
        arrays[f"{start}embeddings.register_tokens"] = arrays[f"{start}embeddings.register_tokens"] + own
    if family.mask_token is not None:
        arrays[f"{start}embeddings.mask_token"] = np.zeros((*family.mask_token, config.width), np.float32)
    return described


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
        "qkv_bias": True,
        "embed_dim": config.width,
        "depths": list(config.swin),
        "num_heads": [config.num_heads * 2**i for i in range(stages)],
        "window_size": config.window,
        "mlp_ratio": config.mlp_dim / config.width,
        "hidden_size": config.width * 2 ** (stages - 1),
    }
