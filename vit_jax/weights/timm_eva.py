"""timm's class `Eva`: DINOv3, EVA, EVA-02 and Perception Encoder, most of whose blocks have names of their own.

Where patches are counted, timm turns neighbouring channels together; we turn channels that are half a head apart, so
queries and keys are put in our order. Of Perception Encoder, the only one of them whose keys have a bias, the columns
come first.
"""

import math
import re
from typing import Any

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.position import num_prefix
from vit_jax.weights.rules import Rule, flattened, linear, norm, reordered, same

DINOV3 = r"vit_\w+_dinov3(_qkvb)?"
EVA02 = r"eva02_(tiny|small|base|large)_patch\d+_(clip_)?(224|336|448)"
PERCEPTION = dict(rope=10_000.0, rope_unit="patch", norm_eps=1e-5, pool_heads=8)
# The fields that an architecture's name says and the arrays don't.
ARCHITECTURES = {
    DINOV3: dict(rope=100.0, rope_unit="picture", norm_eps=1e-5, position="none"),
    EVA02: dict(rope=10_000.0, rope_unit="patch", rope_grid=(16, 16), norm_eps=1e-6),
    r"eva_giant_patch14_(clip_)?(224|336|560)": dict(norm_eps=1e-6),
    r"vit_pe_core_(tiny|small|large)_.*": PERCEPTION | dict(rope_grid=(24, 24), rope_start=1.0),
    r"vit_pe_core_base_.*": PERCEPTION | dict(rope_grid=(14, 14), rope_start=1.0),
    r"vit_pe_core_gigantic_.*": PERCEPTION | dict(rope_grid=(32, 32)),
}
# What `model_args` calls fields of `Model`.
ARGUMENTS = {
    "rope_temperature": "rope",
    "rope_grid_offset": "rope_start",
    "rope_shift_coords": "rope_shift",
    "rope_jitter_coords": "rope_jitter",
    "rope_rescale_coords": "rope_rescale",
    "attn_pool_num_heads": "pool_heads",
}
UNITS = {"dinov3": "picture", "cat": "patch"}
# Of the arguments that say what isn't built here, the value that is.
FIXED = {
    "use_post_norm": False,
    "gated_attn": False,
    "attn_only_layer_scale": False,
    "num_kv_heads": None,
}


def is_eva(config: Model) -> bool:
    """Return whether timm has a resolved config as an `Eva`, not as a `VisionTransformer`."""
    return config.rope is not None or not config.key_bias or config.mlp_norm or config.attention_norm


def has_eva(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the names are those of an `Eva`."""
    signs = ("gamma_1", "attn.q_bias", "attn.q_proj.weight", "mlp.norm.weight", "attn.norm.weight")
    return any(f"blocks.0.{sign}" in arrays for sign in signs) and "blocks.0.norm1.weight" in arrays


def block_fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of `Model` that the arrays of the blocks of an `Eva` say."""
    gated, packed = "blocks.0.mlp.fc1_g.weight" in arrays, _is_packed(arrays)
    hidden = arrays[f"blocks.0.mlp.{'fc1_x' if gated else 'fc1'}.weight"].shape[0]
    found = {
        "mlp_dim": hidden // 2 if packed else hidden,
        "swiglu": gated or packed,
        "mlp_norm": "blocks.0.mlp.norm.weight" in arrays,
        "attention_norm": "blocks.0.attn.norm.weight" in arrays,
        "qkv_bias": any(f"blocks.0.attn.{name}" in arrays for name in ("q_bias", "q_proj.bias", "qkv.bias")),
        "key_bias": any(f"blocks.0.attn.{name}" in arrays for name in ("k_proj.bias", "qkv.bias")),
        "layer_scale": 1e-5 if "blocks.0.gamma_1" in arrays else None,
    }
    if not found["qkv_bias"]:
        found["key_bias"] = True  # Where nothing has a bias, its absence from keys says nothing.
    return found


def fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of `Model` that the arrays of an `Eva` say, and DINOv3's for one without positions."""
    found = block_fields(arrays)
    if "pos_embed" not in arrays:
        found |= ARCHITECTURES[DINOV3]
    elif found["swiglu"]:
        found |= ARCHITECTURES[EVA02]
    return found


def has_perception(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether the arrays are those of Perception Encoder's core."""
    return "norm_pre.weight" in arrays and "attn_pool.latent" in arrays


def perception_fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of `Model` of Perception Encoder's core, whose coordinates are scaled to its own grid."""
    has_class, width = "cls_token" in arrays, arrays["norm.weight"].shape[0]
    side = math.isqrt(arrays["pos_embed"].shape[1] - has_class)
    found = PERCEPTION | {"rope_grid": (side, side), "rope_start": float(has_class), "pool_prefix": has_class}
    return found | ({"num_heads": 16} if width == 1536 else {})


def architecture_fields(architecture: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `Model` that the name and the arguments of an `Eva` say; none for any other architecture.

    Raises:
        InputError: an argument has a value that isn't known here.
    """
    known = next((own for pattern, own in ARCHITECTURES.items() if re.fullmatch(pattern, architecture)), None)
    if known is None:
        return {}
    indexing = "xy" if architecture.startswith("vit_pe_") else "ij"
    for key, value in (FIXED | {"rope_grid_indexing": indexing}).items():
        if arguments.get(key, value) != value:
            raise InputError(f"model_args in config.json: {key}={arguments[key]!r} isn't known here, only {value!r}")
    found = dict(known)
    if "rope_type" in arguments:
        if arguments["rope_type"] not in UNITS:
            some = ", ".join(map(repr, UNITS))
            raise InputError(f"rope_type={arguments['rope_type']!r} in config.json: only {some} are known")
        found["rope_unit"] = UNITS[arguments["rope_type"]]
    if arguments.get("use_rot_pos_emb") is False:
        found["rope"] = None
    if (halves := arguments.get("rope_rotate_half")) is not None and halves != (found.get("rope_unit") == "picture"):
        raise InputError(f"model_args in config.json: rope_rotate_half={halves!r} isn't known here with this rope_type")
    if "ref_feat_shape" in arguments:
        grid = arguments["ref_feat_shape"]
        found["rope_grid"] = (grid, grid) if isinstance(grid, int) else grid and tuple(grid)
    found |= {ours: arguments[key] for key, ours in ARGUMENTS.items() if arguments.get(key) is not None}
    found["pool"] = "map" if indexing == "xy" else "token" if "_clip_" in architecture else "gap"
    return found


def block_rules(config: Model, arrays: dict[str, np.ndarray] | None) -> list[Rule]:
    """Return the rules of what the blocks call otherwise than a `VisionTransformer`: attention, MLP and scales."""
    attention, mlp = "blocks.{i}.attn.", "blocks.{i}.mlp."
    separate = config.mlp_norm and not config.relative_prefix  # A `Beit`'s are one array in any case.
    separate = separate if arrays is None else "blocks.0.attn.q_proj.weight" in arrays
    split = _is_split(config) if arrays is None else not _is_packed(arrays)
    order = _order(config)
    ours = [f"blocks/attn/{name}" for name in ("query", "key", "value")]
    if separate:
        rules = [rule for name in ours for rule in linear(name, attention + f"{name[12]}_proj", outputs=2)]
    else:
        rules = linear(tuple(ours), f"{attention}qkv", outputs=2)
        if not config.key_bias:
            rules = [rules[0], *(flattened(f"{name}/bias", f"{attention}{name[12]}_bias") for name in ours[::2])]
    norms = [
        rule for name in ("query", "key") for rule in norm(f"blocks/attn/{name}_norm", f"{attention}{name[0]}_norm")
    ]
    return [
        *(reordered(rule, r"attn/(query|key)(_norm)?/", order) for rule in (*rules, *norms)),
        *norm("blocks/attn/norm", f"{attention}norm"),
        *linear("blocks/attn/out", f"{attention}proj"),
        same("blocks/scale1", "blocks.{i}.gamma_1"),
        *(linear("blocks/mlp/gate", f"{mlp}fc1_g") if split else []),
        *(linear("blocks/mlp/fc1", f"{mlp}fc1_x" if config.swiglu else f"{mlp}fc1") if split else []),
        *([] if split else linear(("blocks/mlp/gate", "blocks/mlp/fc1"), f"{mlp}fc1")),
        *norm("blocks/mlp/norm", f"{mlp}norm"),
        *linear("blocks/mlp/fc2", f"{mlp}fc2"),
        same("blocks/scale2", "blocks.{i}.gamma_2"),
    ]


def architecture_of(config: Model) -> str:
    """Return the name of an architecture that, given `arguments`, is a model of this resolved config.

    Raises:
        InputError: there is none.
    """
    if config.pool == "map" and config.pool_prefix != bool(num_prefix(config)):
        raise InputError("a timm folder can't hold attention pooling over some of the tokens of such a model")
    if config.rope is not None and config.rope_unit == "patch" and config.key_bias and config.norm_eps != 1e-5:
        raise InputError(f"a timm folder can't hold norm_eps={config.norm_eps!r} of such a model, only 1e-05")
    if config.gelu != "exact" and not config.swiglu:
        raise InputError(f"a timm folder can't hold gelu={config.gelu!r} with rotary positions or keys without bias")
    if _columns_first(config):
        return "vit_pe_core_tiny_patch16_384"
    return "vit_small_patch16_dinov3" if config.norm_eps == 1e-5 else "eva02_tiny_patch14_224"


def arguments(config: Model) -> dict[str, Any]:
    """Return the `model_args` that an `Eva` has beside those it shares with a `VisionTransformer`."""
    turned, plain = config.rope is not None, Model()
    own = {
        # Its other class of attention is the one whose keys have a bias.
        "attn_type": "rope" if config.qkv_bias and config.key_bias else "eva",
        "qkv_fused": not config.mlp_norm,
        "swiglu_mlp": config.swiglu,
        "swiglu_align_to": 1 if config.swiglu and _is_split(config) else 0,
        "scale_mlp": config.mlp_norm,
        "scale_attn_inner": config.attention_norm,
        "use_abs_pos_emb": config.position != "none",
        "use_rot_pos_emb": turned,
        "rope_type": next(name for name, ours in UNITS.items() if ours == config.rope_unit),
        "rope_rotate_half": config.rope_unit == "picture",
        "ref_feat_shape": config.rope_grid and list(config.rope_grid),
        "use_fc_norm": config.pool_norm == "after",
        "num_reg_tokens": config.registers,
        "use_pre_transformer_norm": config.embedding_norm,
        "rope_grid_indexing": "xy" if _columns_first(config) else "ij",
    }
    own |= {"attn_pool_mlp_ratio": config.pool_mlp_dim / config.width} if config.pool_mlp_dim else {}
    # What an architecture states must be stated here too; of the rest, what isn't as usual.
    stated = {"attn_pool_num_heads", *(["rope_grid_offset"] if _columns_first(config) else [])}
    changed = {key: getattr(config, ours) for key, ours in ARGUMENTS.items() if turned or not ours.startswith("rope")}
    return own | {k: value for k, value in changed.items() if k in stated or value != getattr(plain, ARGUMENTS[k])}


def _is_packed(arrays: dict[str, np.ndarray]) -> bool:
    """Return whether gate and hidden layer are one array: the next layer has half as many inputs as it has outputs."""
    first, second = (arrays.get(f"blocks.0.mlp.fc{i}.weight") for i in (1, 2))
    return first is not None and second is not None and first.shape[0] == 2 * second.shape[1]


def _is_split(config: Model) -> bool:
    """Return whether gate and hidden layer are two arrays, as in timm's DINOv3 and in EVA-02 with norms."""
    return not config.swiglu or config.mlp_norm or config.rope_unit == "picture"


def _order(config: Model) -> np.ndarray | None:
    """Return for each channel of a head of ours which of timm's it is; None: the same."""
    if config.rope is None or config.rope_unit == "picture":
        return None
    pairs = np.arange(config.width // config.num_heads).reshape(2, -1, 2)  # axis, frequency, channel
    return (pairs[::-1] if _columns_first(config) else pairs).transpose(2, 0, 1).reshape(-1)


def _columns_first(config: Model) -> bool:
    return config.rope is not None and config.rope_unit == "patch" and config.qkv_bias and config.key_bias
