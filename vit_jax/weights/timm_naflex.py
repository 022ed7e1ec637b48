"""timm's `NaFlexVit`: ViTs for pictures of any shape (Tschannen et al., 2025, SigLIP 2), as files and as folders.

Blocks, pooling and head are those of a `VisionTransformer`, so `timm` reads and writes them. Patches are projected by
a linear layer, their pixels by row, column and channel, and the positions say their own grid.
"""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models import Backbone, ViT
from vit_jax.weights import timm, timm_config, timm_eva
from vit_jax.weights.described import preprocessing_fields, write_folder
from vit_jax.weights.files import Stored
from vit_jax.weights.rules import Rule, linear, reshaped
from vit_jax.weights.supported import ANY, PLAIN

SIGLIP = {"act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"}
# What an architecture's name says and its arrays don't, as arguments.
ARCHITECTURES = {
    "naflexvit_base_patch16_siglip": SIGLIP,
    "naflexvit_so400m_patch16_siglip": SIGLIP | {"num_heads": 16},
    "naflexvit_base_patch16_gap": {},
    "naflexvit_base_patch16_map": {},
    "naflexvit_so150m2_patch16_reg1_gap": {},
}
# How positions are resized, by interpolation and whether it is antialiased.
RESAMPLES = {
    ("bicubic", True): "bicubic",
    ("bicubic", False): "bicubic_sharp",
    ("bilinear", True): "bilinear_smooth",
    ("bilinear", False): "bilinear_sharp",
}
# Arguments that the arrays say too, that are read here or in `timm_config`, or that change no output.
READ = {
    *("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values", "act_layer"),
    *("class_token", "reg_tokens", "pos_embed_grid_size", "pos_embed_interp_mode", "pos_embed_antialias", "fc_norm"),
    *("global_pool", "img_size", "in_chans", "num_classes", "weight_init", "fix_init", "drop_rate", "pos_drop_rate"),
    *("patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "attn_pool_mlp_ratio"),
    *("dynamic_img_pad", "enable_patch_interpolator", "use_key_only_attn_mask"),
}
# What a `VisionTransformer` calls arrays that have other names here.
EMBEDS = ("cls_token", "reg_token", "pos_embed", "patch_embed")
# The only value known of others; of the rest, such as "pos_embed_ar_preserving", none but what says no.
FIXED = {
    **{"pos_embed": "learned", "embed_proj_type": "linear", "attn_type": "standard"},
    **{"proj_bias": True, "final_norm": True, "qkv_fused": True, "patchify_channels_last": True},
}


def supported(config: Model) -> dict[str, Any]:
    """Return the table of what a `NaFlexVit` holds; its attention pooling has biases in any case."""
    return PLAIN | {
        "pool": ("token", "gap", "map", "none"),
        "pool_norm": ANY,
        "unread_class": ANY,
        "registers": ANY,
        "prefix": (None, "zero"),
        "gelu": ANY,
        "layer_scale": ANY,
        "qkv_bias": (True,) if config.pool == "map" else ANY,
        "qk_norm": ANY,
    }


SUPPORTED = supported


def is_naflex(model: Backbone) -> bool:
    """Return whether timm has a model as a `NaFlexVit`: pictures keep their shapes, and positions follow as there."""
    native = isinstance(model, ViT) and model.preprocessing.resize == "native"
    return native and model.config.resample in RESAMPLES.values()


def matches(arrays: dict[str, Stored]) -> bool:
    """Return whether the names are this format's."""
    return "embeds.proj.weight" in arrays and "blocks.0.norm1.weight" in arrays


def facts(arrays: dict[str, Stored], notes: dict, grid: tuple[int, int] | None) -> dict:
    """Return what `build_model` needs to know."""
    if timm_eva.has_eva(arrays):
        raise InputError("its blocks are those of a timm `Eva`, which aren't known here in a naflexvit")
    noted = "vit_jax" in notes
    if not noted and "architecture" not in notes:
        notes = notes | _presumed(arrays)
    arguments = {} if noted else _arguments(notes)
    width, pixels = arrays["embeds.proj.weight"].shape
    channels = arguments.get("in_chans") or (3 if math.isqrt(pixels // 3) ** 2 * 3 == pixels else 1)
    patch = math.isqrt(pixels // channels)
    if patch**2 * channels != pixels or set(np.ravel(arguments.get("patch_size", patch))) != {patch}:
        raise InputError(f"embeds.proj.weight: patches of {pixels} numbers aren't squares of {channels} channels")
    _, rows, columns, _ = arrays["embeds.pos_embed"].shape
    if grid not in (None, (rows, columns)):
        raise InputError(f"grid={grid}: the file has positions of {rows} x {columns} patches")
    # Of the `VisionTransformer` with these arrays; only their shapes are asked for. A norm before the blocks, which
    # would be taken for CLIP's, is left out here, and told as an array too many.
    plain = {name.removeprefix("embeds."): array for name, array in arrays.items() if not name.startswith("norm_pre.")}
    plain |= {
        "patch_embed.proj.weight": np.broadcast_to(np.False_, (width, channels, patch, patch)),
        "pos_embed": np.broadcast_to(np.False_, (1, rows * columns, width)),
    }
    if "embeds.proj.bias" in arrays:
        plain["patch_embed.proj.bias"] = plain.pop("proj.bias")
    found = timm.facts(plain, notes | {"model_args": arguments}, (rows, columns))
    if not noted:
        way = arguments.get("pos_embed_interp_mode", "bicubic"), arguments.get("pos_embed_antialias", True)
        if way not in RESAMPLES:
            modes = ", ".join(dict.fromkeys(mode for mode, _ in RESAMPLES))
            raise InputError(f"pos_embed_interp_mode={way[0]!r} in config.json: only {modes} are known")
        found["config"] = dataclasses.replace(found["config"], resample=RESAMPLES[way])
        found["preprocessing"] = preprocessing_fields(
            **found["preprocessing"] | {"resize": "native", "crop_fraction": 1.0}
        )
    return found


def _presumed(arrays: dict[str, Stored]) -> dict[str, Any]:
    """Return what the folder of a lone file's arrays would say: SigLIP 2 has neither registers nor LayerScale."""
    pools, width = "attn_pool.latent" in arrays, arrays["norm.weight" if "norm.weight" in arrays else "fc_norm.weight"]
    siglip = pools and "embeds.reg_token" not in arrays and "blocks.0.ls1.gamma" not in arrays
    size = "so400m" if siglip and len(width) == 1152 else "base"
    kind = "siglip" if siglip else "map" if pools else "gap"
    return {
        "architecture": f"naflexvit_{size}_patch16_{kind}",
        "pretrained_cfg": {"mean": (0.5,), "std": (0.5,), "interpolation": "bicubic"},
    }


def _arguments(notes: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `config.json`, with those that its architecture's name says.

    Raises:
        InputError: they are of something that isn't built here.
    """
    architecture, arguments = notes["architecture"], notes.get("model_args") or {}
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(f"architecture={architecture!r} in config.json: no such model here; there are {known}")
    for key, value in arguments.items():
        if key not in READ and (value != FIXED[key] if key in FIXED else value):
            raise InputError(
                f"model_args in config.json: {key}={value!r} isn't known here, only {FIXED.get(key, False)!r}"
            )
    return ARCHITECTURES[architecture] | arguments


def rules(config: Model, arrays: dict[str, Stored] | None = None) -> list[Rule]:
    """Return the table for a resolved config."""
    shared = [rule for rule in timm.rules(config) if rule.theirs.split(".")[0] not in EMBEDS]
    return [
        reshaped("cls", "embeds.cls_token"),
        reshaped("registers", "embeds.reg_token"),
        reshaped("position/grid", "embeds.pos_embed"),
        *linear("embedding", "embeds.proj"),
        *shared,
    ]


def write(path: pathlib.Path, arrays: dict[str, np.ndarray], model: ViT) -> None:
    """Write a lone file, with what its arrays don't say noted in its metadata; without an ending, a folder.

    Raises:
        InputError: the model isn't for pictures in their own shapes, or the file couldn't say its channels.
    """
    if not is_naflex(model):
        ways = ", ".join(map(repr, RESAMPLES.values()))
        raise InputError(f"a naflexvit file holds models with preprocessing.resize='native' and resample {ways} alone")
    if path.suffix != ".safetensors":
        write_folder(path, {"config.json": _described(model)}, arrays, {"format": "pt"})
        return
    if model.channels not in (1, 3):
        raise InputError(
            f"a naflexvit .safetensors file can't say that there are {model.channels} channels; a folder can"
        )
    timm.write(path, arrays, model)


def _described(model: ViT) -> dict[str, Any]:
    """Return the `config.json` of a model: that of a `VisionTransformer`, but for what a `NaFlexVit` has otherwise."""
    described = timm_config.described(model)
    mode, antialias = next(way for way, ours in RESAMPLES.items() if ours == model.config.resample)
    arguments = {key: value for key, value in described["model_args"].items() if key in READ - {"img_size"}}
    own = {
        "pos_embed_grid_size": list(model.grid(model.image_size)),
        "pos_embed_interp_mode": mode,
        "pos_embed_antialias": antialias,
    }
    return described | {
        "architecture": f"naflexvit_base_patch16_{'map' if model.config.pool == 'map' else 'gap'}",
        "model_args": arguments | own,
        "pretrained_cfg": described["pretrained_cfg"] | {"fixed_input_size": False, "first_conv": "embeds.proj"},
    }
