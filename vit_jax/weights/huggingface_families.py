"""Transformers' families of ViTs: what each calls its arrays, what its config leaves out, and what it can hold.

To add one: an entry of `FAMILIES`.
"""

from typing import Any, NamedTuple

import numpy as np

from vit_jax.config import Model
from vit_jax.weights.supported import ANY, PLAIN


class Family(NamedTuple):
    """One of Transformers' model types.

    Attributes:
        classes: its class without a head, and the one with a classifier or None.
        head_pool: what a classifier reads, as in `Model.pool`; None: there is none.
        prefix: before all names but the classifier's, in a model that has one.
        defaults: of its config, by the names there.
        fields: what `Model` always is of it.
        supported: what it can hold beside a plain ViT.
        patches, cls, position, layer, attention, out, norms, mlp, last: its names; those of a layer come after `layer`,
            and `mlp` is that of a gate, where there can be one, of the first and of the last linear layer.
        scale: its name of the first and second LayerScale.
        pool: the name of the pooling by attention, or None.
        mask_token: shape of the token that stands for hidden patches in pre-training, which isn't kept, or None.
    """

    classes: tuple[str, str | None]
    head_pool: str | None
    prefix: str
    defaults: dict[str, Any]
    fields: dict[str, Any]
    supported: dict[str, Any]
    patches: str = "embeddings.patch_embeddings.projection"
    cls: str = "embeddings.cls_token"
    position: str = "embeddings.position_embeddings"
    layer: str = "encoder.layer.{i}."
    attention: str = "attention.attention.query"
    out: str = "attention.output.dense"
    norms: tuple[str, str] = ("norm1", "norm2")
    mlp: tuple[str | None, str, str] = (None, "mlp.fc1", "mlp.fc2")
    last: str = "layernorm"
    scale: str = "layer_scale{}.lambda1"
    pool: str | None = None
    mask_token: tuple[int, ...] | None = None


_ViT = Family(
    classes=("ViTModel", "ViTForImageClassification"),
    head_pool="token",
    prefix="vit.",
    defaults={"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    fields={"pool": "token"},
    supported={"pool": ("token",), "gelu": ANY, "norm_eps": ANY},
    norms=("layernorm_before", "layernorm_after"),
    mlp=(None, "intermediate.dense", "output.dense"),
)
_DINOv2 = Family(
    classes=("Dinov2Model", "Dinov2ForImageClassification"),
    head_pool="token_gap",
    prefix="dinov2.",
    defaults={"hidden_act": "gelu", "layer_norm_eps": 1e-6, "num_attention_heads": 12},
    fields={"pool": "token", "layer_scale": 1.0},
    supported={
        **{"pool": ("token", "token_gap"), "gelu": ANY, "norm_eps": ANY, "qkv_bias": ANY},
        **{"layer_scale": ANY, "swiglu": ANY},
    },
    mlp=("mlp.weights_in", "mlp.fc1", "mlp.fc2"),
    mask_token=(1,),
)
_SIGLIP = Family(
    classes=("SiglipVisionModel", None),
    head_pool=None,
    prefix="vision_model.",
    defaults={"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_attention_heads": 12},
    fields={"pool": "map", "class_token": False},
    supported={"pool": ("map",), "gelu": ANY, "norm_eps": ANY},
    patches="embeddings.patch_embedding",
    position="embeddings.position_embedding.weight",
    layer="encoder.layers.{i}.",
    attention="self_attn.q_proj",
    out="self_attn.out_proj",
    norms=("layer_norm1", "layer_norm2"),
    last="post_layernorm",
    pool="head",
)
FAMILIES = {
    "vit": _ViT,
    "ijepa": _ViT._replace(
        classes=("IJepaModel", "IJepaForImageClassification"),
        head_pool="gap",
        prefix="ijepa.",
        fields={"pool": "gap"},
        supported=_ViT.supported | {"pool": ("gap",)},
    ),
    "beit": _ViT._replace(
        classes=("BeitModel", "BeitForImageClassification"),
        head_pool="gap",
        prefix="beit.",
        fields={
            **{"pool": "gap", "pool_norm": "after", "class_token": True},
            **{"position": "relative", "relative_prefix": True},
        },
        supported={
            **{"pool": ("token", "gap"), "pool_norm": ANY, "unread_class": ANY, "gelu": ANY, "norm_eps": ANY},
            **{"position": ("relative",), "position_at": ANY, "relative_prefix": (True,), "layer_scale": ANY},
            "key_bias": (False,),
        },
        scale="lambda_{}",
    ),
    "vit_mae": _ViT._replace(classes=("ViTMAEModel", None), head_pool=None),
    "dinov2": _DINOv2,
    "dinov2_with_registers": _DINOv2._replace(
        classes=("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
        prefix="dinov2_with_registers.",
        supported=_DINOv2.supported | {"registers": ANY},
    ),
    "dinov3_vit": Family(
        classes=("DINOv3ViTModel", None),
        head_pool=None,
        prefix="",
        defaults={"hidden_act": "gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 6, "rope_theta": 100.0},
        fields={"pool": "token", "position": "none", "layer_scale": 1.0, "rope_unit": "picture"},
        supported={
            **{"pool": ("token",), "gelu": ANY, "norm_eps": ANY, "qkv_bias": ANY, "key_bias": ANY},
            **{"layer_scale": ANY, "swiglu": ANY, "registers": ANY, "position": ("none",), "rope": ANY},
            "rope_unit": ("picture",),
        },
        patches="embeddings.patch_embeddings",
        layer="layer.{i}.",
        attention="attention.q_proj",
        out="attention.o_proj",
        mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        last="norm",
        mask_token=(1, 1),
    ),
    "siglip_vision_model": _SIGLIP,
    # NaFlex: its arrays are those of SigLIP, but for patches that are projected by a linear layer.
    "siglip2_vision_model": _SIGLIP._replace(
        classes=("Siglip2VisionModel", None), fields=_SIGLIP.fields | {"resample": "bilinear_smooth"}
    ),
    "aimv2_vision_model": Family(
        classes=("Aimv2VisionModel", None),
        head_pool=None,
        prefix="vision_model.",
        defaults={"hidden_act": "silu", "layer_norm_eps": 1e-5, "num_attention_heads": 8},
        fields={"pool": "gap", "class_token": False, "norm": "rms", "patch_norm": True},
        supported={
            **{"pool": ("gap", "probe"), "gelu": ANY, "norm": ("rms",), "norm_eps": ANY, "qkv_bias": ANY},
            **{"swiglu": (True,), "linear_bias": ANY, "patch_norm": (True,), "position": ("learned", "sincos2d_mae")},
        },
        patches="embeddings.patch_embed",
        position="embeddings.position_embedding.weight",
        layer="encoder.layers.{i}.",
        attention="attention.q_proj",
        out="attention.out_proj",
        norms=("rms_norm1", "rms_norm2"),
        mlp=("ffn.gate_proj", "ffn.up_proj", "ffn.down_proj"),
        last="rms_norm",
    ),
    "clip_vision_model": _SIGLIP._replace(
        classes=("CLIPVisionModel", None),
        defaults={"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 12},
        # It norms the class token alone, after it is picked.
        fields={"pool": "token", "pool_norm": "after", "patch_bias": False, "embedding_norm": True},
        supported={
            **{"pool": ("token",), "pool_norm": ("after",), "gelu": ANY, "norm_eps": ANY},
            **{"patch_bias": (False,), "embedding_norm": (True,)},
        },
        cls="embeddings.class_embedding",
        pool=None,
    ),
}


# The last linear layer of an MLP, whose inputs are the hidden layer, in every family.
LAST = tuple(dict.fromkeys([*(family.mlp[2] for family in FAMILIES.values()), "mlp.weights_out"]))


def family_of(arrays: dict[str, np.ndarray]) -> tuple[str, str] | None:
    """Return a family that has arrays of these names, and what comes before them; None if there is none."""
    for kind, family in FAMILIES.items():
        for prefix in ("", family.prefix):
            layer = prefix + family.layer.format(i=0)
            signs = [prefix + family.patches, layer + family.attention, layer + family.norms[0]]
            if all(f"{sign}.weight" in arrays for sign in signs) and _is_it(kind, prefix, arrays):
                return kind, prefix
    return None


def _is_it(kind: str, prefix: str, arrays: dict[str, np.ndarray]) -> bool:
    """Tell apart families whose layers have the same names."""
    has = {name: f"{prefix}{name}" in arrays for name in ("embeddings.cls_token", "embeddings.register_tokens")}
    is_clip = f"{prefix}embeddings.class_embedding" in arrays
    is_naflex = len(arrays[f"{prefix}{FAMILIES[kind].patches}.weight"].shape) == 2
    keys, values = (f"{prefix}encoder.layer.0.attention.attention.{name}.bias" for name in ("key", "value"))
    is_beit = values in arrays and keys not in arrays
    return {
        "vit": has["embeddings.cls_token"] and not is_beit,
        "beit": is_beit,
        "ijepa": not has["embeddings.cls_token"],
        "dinov2": not has["embeddings.register_tokens"],
        "siglip_vision_model": not is_clip and not is_naflex,
        "siglip2_vision_model": is_naflex,
        "clip_vision_model": is_clip,
    }.get(kind, True)


def family_for(config: Model) -> str:
    """Return the family that a resolved config is nearest to."""
    if config.relative_prefix:
        return "beit"
    if config.norm == "rms":
        return "aimv2_vision_model"
    if config.rope is not None:
        return "dinov3_vit"
    if config.embedding_norm:
        return "clip_vision_model"
    if config.pool == "map":
        return "siglip2_vision_model" if config.resample == "bilinear_smooth" else "siglip_vision_model"
    if config.layer_scale is not None:
        return "dinov2_with_registers" if config.registers else "dinov2"
    return "vit" if config.class_token else "ijepa"


def supported(config: Model) -> dict[str, Any]:
    """Return the table of what the family of a resolved config holds."""
    return PLAIN | FAMILIES[family_for(config)].supported
