"""Transformers' families of ViTs: what each calls its arrays, what its config says, and what it can hold.

To add one: an entry of `FAMILIES`.
"""

from typing import Any, NamedTuple

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.weights.rules import Rule, convolution, flattened, linear, norm, positions, reshaped, same
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
        heads: the name of the pooling by attention, or None.
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
    return {
        "vit": has["embeddings.cls_token"],
        "ijepa": not has["embeddings.cls_token"],
        "dinov2": not has["embeddings.register_tokens"],
        "siglip_vision_model": not is_clip,
        "clip_vision_model": is_clip,
    }.get(kind, True)


def family_for(config: Model) -> str:
    """Return the family that a resolved config is nearest to."""
    if config.rope is not None:
        return "dinov3_vit"
    if config.embedding_norm:
        return "clip_vision_model"
    if config.pool == "map":
        return "siglip_vision_model"
    if config.layer_scale is not None:
        return "dinov2_with_registers" if config.registers else "dinov2"
    return "vit" if config.class_token else "ijepa"


def supported(config: Model) -> dict[str, Any]:
    """Return the table of what the family of a resolved config holds."""
    return PLAIN | FAMILIES[family_for(config)].supported


def fields_of(kind: str, prefix: str, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> dict[str, Any]:
    """Return fields of `Model` beside its sizes, from the family, the arrays and the config."""
    family = FAMILIES[kind]
    layer = prefix + family.layer.format(i=0)
    found = dict(family.fields)
    if "classifier.weight" in arrays and family.head_pool is not None:
        found["pool"] = family.head_pool
    biased = {part: f"{layer}{name}.bias" in arrays for part, name in _attention(family).items()}
    if biased["query"] or biased["value"]:
        found["key_bias"] = biased["key"]
    else:
        found["qkv_bias"] = False
    if kind == "dinov3_vit":
        keys = {"rope": "rope_theta", "rope_shift": "pos_embed_shift", "rope_jitter": "pos_embed_jitter"}
        keys["rope_rescale"] = "pos_embed_rescale"
        values = {ours: notes.get(key, family.defaults.get(key)) for ours, key in keys.items()}
        found |= {ours: float(value) for ours, value in values.items() if value is not None}
    if "layer_scale" in found:
        found["layer_scale"] = float(notes.get("layerscale_value", found["layer_scale"]))
    found["swiglu"] = f"{layer}{family.mlp[0]}.weight" in arrays
    registers = arrays.get(f"{prefix}embeddings.register_tokens")
    return found | {"registers": 0 if registers is None else registers.shape[1]}


def vit_rules(config: Model, kind: str, prefix: str) -> list[Rule]:
    """Return the table of a resolved config of a family."""
    family = FAMILIES[kind]
    layer, (gate, first, last) = prefix + family.layer, family.mlp
    cls = flattened if kind == "clip_vision_model" else reshaped
    mlp = [*linear("blocks/mlp/fc1", layer + first), *linear("blocks/mlp/fc2", layer + last)]
    if config.swiglu and gate == "mlp.weights_in":
        both = linear(("blocks/mlp/gate", "blocks/mlp/fc1"), f"{layer}mlp.weights_in")
        mlp = [*both, *linear("blocks/mlp/fc2", f"{layer}mlp.weights_out")]
    elif config.swiglu:
        mlp += linear("blocks/mlp/gate", layer + gate)
    return [
        cls("cls", prefix + family.cls),
        reshaped("registers", f"{prefix}embeddings.register_tokens"),
        # Registers have no positions where the class token has one.
        positions(prefix + family.position, leading=family.pool is None and cls is reshaped, owners=1),
        *convolution("embedding", prefix + family.patches),
        *norm("embedding_norm", f"{prefix}pre_layrnorm"),
        *norm("blocks/norm1", layer + family.norms[0]),
        *[
            rule
            for ours, name in _attention(family).items()
            for rule in linear(f"blocks/attn/{ours}", layer + name, outputs=2)
        ],
        *linear("blocks/attn/out", layer + family.out),
        same("blocks/scale1", f"{layer}layer_scale1.lambda1"),
        *norm("blocks/norm2", layer + family.norms[1]),
        *mlp,
        same("blocks/scale2", f"{layer}layer_scale2.lambda1"),
        *norm("pool_norm" if config.pool_norm == "after" else "norm", prefix + family.last),
        *(_pool_rules(f"{prefix}{family.pool}.") if family.pool else []),
        *linear("head", "classifier"),
    ]


def _attention(family: Family) -> dict[str, str]:
    """Return what a family calls query, key and value."""
    stem, _, name = family.attention.rpartition(".")
    return {part: f"{stem}.{part if name == 'query' else part[0] + '_proj'}" for part in ("query", "key", "value")}


def _mlp_ratio(config: Model) -> int:
    """Return the whole number from which Transformers' DINOv2 computes the width of the hidden layer."""
    for ratio in range(1, 65):
        hidden = config.width * ratio
        if (-(-int(hidden * 2 / 3) // 8) * 8 if config.swiglu else hidden) == config.mlp_dim:
            return ratio
    raise InputError(f"a huggingface file can't hold model.mlp_dim={config.mlp_dim} of a DINOv2 of such a width")


def _pool_rules(prefix: str) -> list[Rule]:
    kernel, bias = linear(tuple(f"pool/attn/{x}" for x in ("query", "key", "value")), "", outputs=2)
    return [
        reshaped("pool/probe", f"{prefix}probe"),
        kernel._replace(theirs=f"{prefix}attention.in_proj_weight"),
        bias._replace(theirs=f"{prefix}attention.in_proj_bias"),
        *linear("pool/attn/out", f"{prefix}attention.out_proj"),
        *norm("pool/norm", f"{prefix}layernorm"),
        *linear("pool/mlp/fc1", f"{prefix}mlp.fc1"),
        *linear("pool/mlp/fc2", f"{prefix}mlp.fc2"),
    ]


def described(config: Model, kind: str, has_head: bool) -> dict[str, Any]:
    """Return what `config.json` says of the architecture, beside what all families call alike.

    Raises:
        InputError: the family has no class with such a head.
    """
    family = FAMILIES[kind]
    name, pool = family.classes[has_head], family.head_pool if has_head else family.fields["pool"]
    if pool is None:
        raise InputError(f"a huggingface file can't hold a head on a {family.classes[0]}; a timm file can")
    if config.pool != pool:
        raise InputError(f"a huggingface file can't hold pool={config.pool!r} in a {name}, which has {pool!r}")
    own: dict[str, Any] = {
        "architectures": [name],
        "model_type": kind,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "qkv_bias": config.qkv_bias,
    }
    if kind.startswith("dinov2"):
        own |= {"mlp_ratio": _mlp_ratio(config), "use_swiglu_ffn": config.swiglu}
        own |= {"layerscale_value": config.layer_scale, "num_register_tokens": config.registers}
    else:
        own["intermediate_size"] = config.mlp_dim
    if kind == "dinov3_vit":
        own |= {
            "rope_theta": config.rope,
            "pos_embed_shift": config.rope_shift or None,
            "pos_embed_jitter": None if config.rope_jitter == 1 else config.rope_jitter,
            "pos_embed_rescale": None if config.rope_rescale == 1 else config.rope_rescale,
            "query_bias": config.qkv_bias,
            "key_bias": config.qkv_bias and config.key_bias,
            "value_bias": config.qkv_bias,
            "use_gated_mlp": config.swiglu,
            **({"hidden_act": "silu"} if config.swiglu else {}),
            "layerscale_value": config.layer_scale,
            "num_register_tokens": config.registers,
        }
    return own
