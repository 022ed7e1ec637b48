"""The `config.json` of timm's folders: the architecture by name and arguments, how pictures are prepared, label names.

As `timm.models.save_for_hf` writes it; `timm.create_model("local-dir:DIR", pretrained=True)` reads it.
"""

import re
from typing import Any

from vit_jax.config import Model, height_width
from vit_jax.errors import InputError
from vit_jax.models.variants import NAMES, name_of, reduction
from vit_jax.weights import timm_aimv2, timm_beit, timm_eva
from vit_jax.weights.described import names_of, per_channel, preprocessing_fields, preprocessing_of

POOLS = {"token": "token", "avg": "gap", "map": "map", "": "none"}
GELUS = {None: "exact", "gelu": "exact", "gelu_tanh": "tanh", "quick_gelu": "quick"}
RESIZES = {"center": "crop", "squash": "stretch", "border": "pad"}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# Number of heads where it isn't that of the width.
HEADS = {
    **{"vit_base_patch16_gap_": 16, "vit_giantopt_": 16, "vit_so400m_": 16, "test_vit": 2},
    **{"vit_huge_plus_": 20, "vit_7b_": 32, "eva_giant_": 16, "vit_pe_core_gigantic_": 16},
}
TANH = r"vit_((so400m|giantopt)_patch16|base_patch32)_siglip_.*|vit_large_patch16_siglip_(gap_)?512"
# Whose arrays have names that are known here, but that compute something else.
OTHERS = r".*_rpn_.*|test_vit3|.*_rope_.*|vit_pe_(lang|spatial)_.*|.*_(lingbot|sapiens2)|eva02_enormous_.*|beit3_.*"
FAMILIES = (
    "ViT, DeiT III, DINOv2, DINOv3, BEiT, AIMv2, EVA, EVA-02, CLIP, SigLIP, Perception Encoder's core, Swin and BiT"
)
ARGUMENTS = (
    "norm_layer",
    "embed_norm_layer",
    "block_fn",
    "mlp_layer",
    "attn_layer",
    "embed_layer",
    "pool_include_prefix",
)

# timm's names of our sizes, and the patches that it has names for; arguments make any other of "vit_base_patch16_224".
SIZES = {
    "Ti": ("tiny", (16,)),
    "S": ("small", (8, 16, 32)),
    "B": ("base", (8, 16, 32)),
    "L": ("large", (14, 16, 32)),
    "H": ("huge", (14,)),
    "g": ("giant", (14,)),
    "G": ("gigantic", (14,)),
}
SWINS = {"Swin-T": "tiny", "Swin-S": "small", "Swin-B": "base", "Swin-L": "large"}
HYBRIDS = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}


def model_fields(notes: dict[str, Any]) -> dict[str, Any]:
    """Return fields of `Model` that a `config.json` says and the arrays don't; nothing without one.

    Raises:
        InputError: it says something that is unknown here.
    """
    architecture, arguments = notes.get("architecture"), notes.get("model_args") or {}
    if architecture is None:
        return {}
    if re.fullmatch(OTHERS, architecture):
        hint = f"no such model here; of timm's there are {FAMILIES}"
        raise InputError(f"architecture={architecture!r} in config.json: {hint}")
    for key in ARGUMENTS:
        if arguments.get(key):
            raise InputError(f"model_args in config.json: {key}={arguments[key]!r} isn't known here")
    timm_beit.check_arguments(architecture, arguments)
    found = timm_eva.architecture_fields(architecture, arguments)
    if re.match("vit_.*_clip_", architecture):
        found["norm_eps"] = 1e-5
    heads = next((number for name, number in HEADS.items() if architecture.startswith(name)), None)
    if heads := arguments.get("num_heads", heads):
        found["num_heads"] = heads
    named = "gelu_tanh" if re.fullmatch(TANH, architecture) else "quick_gelu" if "quickgelu" in architecture else None
    activation = arguments.get("act_layer", named)
    if activation not in GELUS:
        raise InputError(f"act_layer={activation!r} in config.json: only gelu, gelu_tanh and quick_gelu are known")
    found["gelu"] = GELUS[activation]
    if arguments.get("init_values"):
        found["layer_scale"] = float(arguments["init_values"])
    if (pool := arguments.get("global_pool", notes.get("global_pool"))) is not None:
        if pool not in POOLS:
            raise InputError(f"global_pool={pool!r} in config.json: only {', '.join(map(repr, POOLS))} are known")
        found["pool"] = POOLS[pool]
    return found


def image_size(notes: dict[str, Any]) -> tuple[int, int] | None:
    """Return the (height, width) that a `config.json` says."""
    size = (notes.get("model_args") or {}).get("img_size") or _pretrained(notes).get("input_size", (None,))[1:]
    return height_width(size if isinstance(size, int) else tuple(size)) if size else None


def window(notes: dict[str, Any]) -> int | None:
    """Return the side of a Swin's windows that a `config.json` says."""
    return (notes.get("model_args") or {}).get("window_size")


def bound(notes: dict[str, Any], num_classes: int | None) -> dict[str, Any]:
    """Return label names and preprocessing that a `config.json` says, as `facts` has them."""
    if "architecture" not in notes:
        return {}
    cfg = _pretrained(notes)
    mode = cfg.get("crop_mode") or "center"
    if mode not in RESIZES:
        raise InputError(f"crop_mode={mode!r} in config.json: only {', '.join(RESIZES)} are known")
    fraction = cfg.get("crop_pct") or 0.875
    preprocessing = preprocessing_fields(
        # Cropping what was stretched or padded isn't done here; of square pictures a crop is all there is to it.
        resize=RESIZES[mode] if fraction == 1 else "crop",
        # Lanczos is nearest to bicubic of what there is here.
        filter="bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic",
        crop_fraction=fraction,
        **{key: cfg.get(key) or default for key, default in IMAGENET.items()},
    )
    names = notes.get("label_names") or cfg.get("label_names") or cfg.get("labels")
    return {
        "label_names": names_of(names, num_classes, "label_names in config.json"),
        "preprocessing": preprocessing,
    }


def described(model: Any) -> dict[str, Any]:
    """Return the `config.json` of a model.

    Raises:
        InputError: timm has no architecture that is this model, whatever the arguments.
    """
    config, size = model.config, list(model.image_size)
    if config.patch is None:
        arguments, features = {"global_pool": "avg"}, model.resnet.features
        layers = {"first_conv": "stem.conv", "classifier": "head.fc"}
    elif config.swin is not None:
        arguments, features = {"img_size": size, **_swin_arguments(config)}, model.head.in_features
        layers = {"first_conv": "patch_embed.proj", "classifier": "head.fc"}
    else:
        arguments, features = {"img_size": size, **_arguments(config)}, config.width
        first = "proj" if config.resnet is None else "backbone.stem.conv" if config.resnet else "backbone.conv"
        layers = {"first_conv": f"patch_embed.{first}", "classifier": "head"}
    ours = preprocessing_of(model)
    names = {} if model.label_names is None else {"label_names": list(model.label_names)}
    return {
        "architecture": architecture_of(config),
        "num_classes": model.num_classes,
        "num_features": features,
        "global_pool": arguments["global_pool"],
        **names,
        "model_args": {"in_chans": model.channels, **arguments},
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [model.channels, *size],
            "fixed_input_size": config.patch is not None,
            "interpolation": ours.filter,
            # timm would crop what it stretched or padded too.
            "crop_pct": ours.crop_fraction if ours.resize == "crop" else 1.0,
            # It has none for native aspect ratios.
            "crop_mode": next((mode for mode, resize in RESIZES.items() if resize == ours.resize), "squash"),
            "mean": per_channel(ours.mean, model.channels),
            "std": per_channel(ours.std, model.channels),
            "num_classes": model.num_classes,
            **layers,
        },
    }


def architecture_of(config: Model) -> str:
    """Return the name of timm's architecture that, given arguments, is a model of this resolved config.

    Raises:
        InputError: there is none; a lone `.safetensors` file holds the arrays all the same.
    """
    name, hint = name_of(config), "timm has no such architecture; a .safetensors file holds the arrays"
    if config.patch is None:
        if name not in NAMES:
            stages = f"a BiT with resnet={config.resnet} and resnet_width={config.resnet_width}"
            raise InputError(f"a timm folder can't hold {stages}: {hint}")
        return f"resnetv2_{name.removeprefix('BiT-R')}_bit"
    if config.swin is not None:
        return f"swin_{SWINS.get(name, 'tiny')}_patch4_window7_224"
    if config.norm == "rms":
        return timm_aimv2.architecture_of(config)
    if config.norm_eps not in ((1e-5, 1e-6) if config.resnet is None else (1e-6,)):
        raise InputError(
            f"a timm folder can't hold the norms' epsilon (norm_eps={config.norm_eps!r}); load the weights with "
            "norm_eps=1e-06 to have the format's, at a small change of the outputs"
        )
    if config.embedding_norm == config.patch_bias:
        raise InputError(
            f"a timm folder can't hold patch_bias={config.patch_bias} with embedding_norm={config.embedding_norm}: "
            + hint
        )
    if config.resnet is not None and (timm_eva.is_eva(config) or config.swiglu):
        raise InputError(
            f"a timm folder can't hold rotary positions, gates, or keys without bias after a ResNet: {hint}"
        )
    if config.relative_prefix:
        return timm_beit.architecture_of(config)
    if timm_eva.is_eva(config):
        return timm_eva.architecture_of(config)
    if config.swiglu and config.norm_eps != 1e-6:
        raise InputError(f"a timm folder can't hold gates with norm_eps={config.norm_eps!r}, only with 1e-06: {hint}")
    if (config.pool_heads, config.pool_mlp_dim, config.pool_prefix) != (None, None, False):
        raise InputError(f"a timm folder can't hold model.pool_heads, pool_mlp_dim or pool_prefix: {hint}")
    if config.resnet is not None:
        if config.resnet not in HYBRIDS or config.resnet_width != 64:
            stages = f"a hybrid with resnet={config.resnet} and resnet_width={config.resnet_width}"
            raise InputError(f"a timm folder can't hold {stages}: {hint}")
        return HYBRIDS[config.resnet]
    if config.swiglu:
        return "vit_giant_patch14_dinov2"
    if config.norm_eps == 1e-5:
        return f"vit_base_patch16_clip_{'quickgelu_' if config.gelu == 'quick' else ''}224"
    word, patches = SIZES.get(name.split("/")[0], ("base", ()))
    return f"vit_{word}_patch{config.patch}_224" if config.patch in patches else "vit_base_patch16_224"


def _arguments(config: Model) -> dict[str, Any]:
    eva = timm_eva.is_eva(config) or config.relative_prefix
    hidden = config.mlp_dim * (2 if config.swiglu and not eva and config.norm == "layer" else 1)
    ratio = hidden / config.width
    # timm rounds down.
    ratio = ratio if int(config.width * ratio) == hidden else (hidden + 0.5) / config.width
    shared = {
        "patch_size": config.patch // reduction(config),
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": ratio,
        "global_pool": next(pool for pool, ours in POOLS.items() if ours == config.pool),
        "class_token": config.class_token,
        "no_embed_class": not config.prefix_position,
        "init_values": config.layer_scale,
        "qkv_bias": config.qkv_bias,
        "qk_norm": config.qk_norm,
    }
    if config.relative_prefix:
        return timm_beit.arguments(config, shared)
    if eva:
        return shared | timm_eva.arguments(config)
    activation = next(name for name, ours in GELUS.items() if name and ours == config.gelu)
    return {
        **shared,
        "fc_norm": config.pool_norm == "after",
        "reg_tokens": config.registers,
        "pos_embed": "none" if config.position == "none" else "learn",
        "pre_norm": config.embedding_norm,
        **({"proj_bias": config.linear_bias} if config.norm == "rms" else {}),
        **({} if config.swiglu else {"act_layer": activation}),
    }


def _swin_arguments(config: Model) -> dict[str, Any]:
    return {
        "patch_size": config.patch,
        "embed_dim": config.width,
        "depths": list(config.swin),
        "num_heads": [config.num_heads * 2**i for i in range(len(config.swin))],
        "window_size": config.window,
        "mlp_ratio": config.mlp_dim / config.width,
        "global_pool": "avg",
    }


def _pretrained(notes: dict[str, Any]) -> dict[str, Any]:
    # Older files have it all on one level.
    return notes.get("pretrained_cfg") or notes
