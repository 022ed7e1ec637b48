"""timm's class `Beit`: BEiT and BEiT v2, whose blocks are like an `Eva`'s, with relative positions each or shared."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.weights import timm_eva
from vit_jax.weights.rules import Rule, offsets
from vit_jax.weights.supported import ANY, PLAIN

TABLES = {
    "blocks": "blocks.{i}.attn.relative_position_bias_table",
    "blocks_shared": "rel_pos_bias.relative_position_bias_table",
}
# What `model_args` calls them.
ARGUMENTS = {"blocks": "use_rel_pos_bias", "blocks_shared": "use_shared_rel_pos_bias"}


def has_beit(arrays: Iterable[str]) -> bool:
    """Return whether the names are those of a `Beit` with relative positions."""
    return any(name.format(i=0) in arrays for name in TABLES.values())


def fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of `Model` that the arrays of a `Beit` say.

    Raises:
        InputError: it has positions of several kinds.
    """
    places = [place for place, name in TABLES.items() if name.format(i=0) in arrays]
    if len(places) > 1 or "pos_embed" in arrays:
        raise InputError("of a BEiT only relative positions are known, either those of each block or shared ones")
    table = table_of(arrays)
    own = {"position": "relative", "relative_prefix": True, "position_at": places[0], "num_heads": table.shape[1]}
    return timm_eva.block_fields(arrays) | own


def table_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the first table of relative positions, (offsets + 3, heads)."""
    return next(arrays[name.format(i=0)] for name in TABLES.values() if name.format(i=0) in arrays)


def check_arguments(architecture: str, arguments: dict[str, Any]) -> None:
    """Raise an `InputError` if the arguments make something of a `Beit` that isn't built here."""
    if not architecture.startswith("beit"):
        return
    if arguments.get("use_abs_pos_emb"):
        raise InputError("model_args in config.json: use_abs_pos_emb=True isn't known here, only False")
    each, shared = arguments.get(ARGUMENTS["blocks"], True), arguments.get(ARGUMENTS["blocks_shared"], False)
    if bool(each) == bool(shared):
        raise InputError(
            f"model_args in config.json: use_rel_pos_bias={each!r} with use_shared_rel_pos_bias={shared!r} isn't known "
            "here, only one of them"
        )


def table_rule(config: Model) -> Rule:
    """Return the rule of the table or tables of relative positions."""
    return offsets(TABLES["blocks" if config.position_at == "blocks" else "blocks_shared"])


def supported(config: Model) -> dict[str, Any]:
    """Return the table of what a `Beit` holds."""
    return PLAIN | {
        "pool": ("token", "gap", "none"),
        "pool_norm": ANY,
        "unread_class": ANY,
        "position": ("relative",),
        "position_at": ANY,
        "relative_prefix": (True,),
        "gelu": ANY,
        "norm_eps": ANY,
        "layer_scale": ANY,
        "qkv_bias": ANY,
        "key_bias": (False,) if config.qkv_bias else ANY,
        "swiglu": ANY,
        "mlp_norm": ANY,
    }


def architecture_of(config: Model) -> str:
    """Return the name of an architecture that, given `arguments`, is a model of this resolved config.

    Raises:
        InputError: there is none.
    """
    if config.norm_eps != 1e-6 or (config.gelu != "exact" and not config.swiglu):
        raise InputError(
            f"a timm folder can't hold norm_eps={config.norm_eps!r} and gelu={config.gelu!r} of a BEiT, only 1e-06 and "
            "'exact'; load the weights with these, at a small change of the outputs"
        )
    return "beit_base_patch16_224"


def arguments(config: Model, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the `model_args` of a `Beit`, given those that it shares with a `VisionTransformer`."""
    same = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "global_pool", "init_values", "qkv_bias")
    return {key: shared[key] for key in same} | {
        "use_abs_pos_emb": False,
        **{name: (place == "blocks") == (config.position_at == "blocks") for place, name in ARGUMENTS.items()},
        "use_fc_norm": config.pool_norm == "after",
        "swiglu_mlp": config.swiglu,
        "scale_mlp": config.mlp_norm,
    }
