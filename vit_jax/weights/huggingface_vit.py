"""The ViTs of Transformers' families: fields of `Model` from arrays and config, rules, and what a config says."""

from typing import Any

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.weights.huggingface_families import FAMILIES, Family
from vit_jax.weights.rules import Rule, convolution, flattened, linear, norm, offsets, positions, reshaped, same

# Where BEiT has its relative positions.
BEIT_TABLES = {
    "blocks": "encoder.layer.{i}.attention.attention.relative_position_bias.relative_position_bias_table",
    "blocks_shared": "encoder.relative_position_bias.relative_position_bias_table",
}


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
    if kind == "beit":
        found |= _beit_fields(prefix, arrays, notes)
    if kind == "aimv2_vision_model":
        found |= _aimv2_fields(prefix, arrays, notes)
    if "layer_scale" in found:
        found["layer_scale"] = float(notes.get("layerscale_value", found["layer_scale"]))
    found["swiglu"] = f"{layer}{family.mlp[0]}.weight" in arrays
    registers = arrays.get(f"{prefix}embeddings.register_tokens")
    return found | {"registers": 0 if registers is None else registers.shape[1]}


def beit_table(prefix: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the first table of BEiT's relative positions, (offsets + 3, heads)."""
    names = (prefix + name.format(i=0) for name in BEIT_TABLES.values())
    return next(arrays[name] for name in names if name in arrays)


def _beit_fields(prefix: str, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> dict[str, Any]:
    if "lm_head.weight" in arrays:
        raise InputError("holds a BeitForMaskedImageModeling, whose head tells visual words; of BEiT, load a BeitModel")
    places = [place for place, name in BEIT_TABLES.items() if prefix + name.format(i=0) in arrays]
    if len(places) != 1 or f"{prefix}embeddings.position_embeddings" in arrays:
        raise InputError("of BEiT only relative positions are known, either those of each layer or shared ones")
    found = {"position_at": places[0], "num_heads": beit_table(prefix, arrays).shape[1]}
    if f"{prefix}encoder.layer.0.lambda_1" in arrays:
        found["layer_scale"] = float(notes.get("layer_scale_init_value", 0.1))
    if f"{prefix}pooler.layernorm.weight" not in arrays:
        found |= {"pool": "token", "pool_norm": "before"}
    return found


def _aimv2_fields(prefix: str, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> dict[str, Any]:
    out, last = (f"{prefix}encoder.layers.0.{name}.bias" in arrays for name in ("attention.out_proj", "ffn.down_proj"))
    if out != last:
        raise InputError("of AIMv2 only qkv_bias and mlp_bias that are alike are known")
    native = f"{prefix}embeddings.position_embedding.weight" not in arrays
    found = {"linear_bias": last, "position": "sincos2d_mae" if native else "learned"}
    found["pool"] = "probe" if f"{prefix}head.cls_token" in arrays else "gap"
    return found | {"norm_eps": float(notes.get("rms_norm_eps", 1e-5))}


def rules(config: Model, kind: str, prefix: str) -> list[Rule]:
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
        offsets(prefix + BEIT_TABLES["blocks" if config.position_at == "blocks" else "blocks_shared"])
        if kind == "beit"
        else positions(prefix + family.position, leading=not family.position.endswith(".weight"), owners=1),
        *(linear if kind == "siglip2_vision_model" else convolution)("embedding", prefix + family.patches),
        *norm("embedding/norm", f"{prefix}embeddings.rms_norm"),
        *norm("embedding_norm", f"{prefix}pre_layrnorm"),
        *norm("blocks/norm1", layer + family.norms[0]),
        *[
            rule
            for ours, name in _attention(family).items()
            for rule in linear(f"blocks/attn/{ours}", layer + name, outputs=2)
        ],
        *linear("blocks/attn/out", layer + family.out),
        same("blocks/scale1", layer + family.scale.format(1)),
        *norm("blocks/norm2", layer + family.norms[1]),
        *mlp,
        same("blocks/scale2", layer + family.scale.format(2)),
        *norm("norm", prefix + family.last),
        *norm("pool_norm", prefix + ("pooler.layernorm" if kind == "beit" else family.last)),
        *(_pool_rules(f"{prefix}{family.pool}.") if family.pool else []),
        *(_probe_rules(f"{prefix}head.") if config.pool == "probe" else []),
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


def _probe_rules(prefix: str) -> list[Rule]:
    return [
        reshaped("pool/probe", f"{prefix}cls_token"),
        *linear("pool/key", f"{prefix}k_proj", outputs=2),
        *linear("pool/value", f"{prefix}v_proj", outputs=2),
        *linear("pool/out", f"{prefix}output_proj"),
    ]


def described(config: Model, kind: str, has_head: bool) -> dict[str, Any]:
    """Return what `config.json` says of the architecture, beside what all families call alike.

    Raises:
        InputError: the family has no class with such a head.
    """
    family = FAMILIES[kind]
    name, pool = family.classes[has_head], family.head_pool if has_head else family.fields["pool"]
    if kind == "beit":
        pool = "gap" if config.pool_norm == "after" else "token"
    if kind == "aimv2_vision_model" and not has_head:
        pool = config.pool
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
    if kind == "beit":
        own |= {
            "use_relative_position_bias": config.position_at == "blocks",
            "use_shared_relative_position_bias": config.position_at != "blocks",
            "use_mean_pooling": config.pool_norm == "after",
            # There, zero means that there is none.
            "layer_scale_init_value": 0.0 if config.layer_scale is None else config.layer_scale or 1e-5,
        }
    if kind == "aimv2_vision_model":
        if config.linear_bias != config.qkv_bias:
            raise InputError("a huggingface file can't hold an AIMv2 with linear_bias other than qkv_bias")
        own |= {
            "hidden_act": "silu",
            "mlp_bias": config.linear_bias,
            "rms_norm_eps": config.norm_eps,
            "use_head": config.pool == "probe",
            "is_native": config.position != "learned",
        }
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
