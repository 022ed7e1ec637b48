"""timm's AIMv2 (Fini et al., 2025): a `VisionTransformer` with RMSNorm, of patches too, and gates apart."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.weights.supported import ANY, PLAIN

SUPPORTED = PLAIN | {
    "pool": ("token", "gap", "none"),
    "pool_norm": ANY,
    "unread_class": ANY,
    "registers": ANY,
    "position": ("learned", "none"),
    "prefix": ANY,
    "gelu": ANY,
    "norm": ("rms",),
    "norm_eps": ANY,
    "layer_scale": ANY,
    "qkv_bias": ANY,
    "swiglu": (True,),
    "linear_bias": ANY,
    "patch_norm": (True,),
}


def has_aimv2(arrays: Iterable[str]) -> bool:
    """Return whether the names are an AIMv2's."""
    return "patch_embed.norm.weight" in arrays and "patch_embed.norm.bias" not in arrays


def fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of `Model` that the arrays of an AIMv2 say, whose heads are 128 wide."""
    width = len(arrays["patch_embed.norm.weight"])
    return {
        "num_heads": width // 128 if width % 128 == 0 else None,
        "mlp_dim": arrays["blocks.0.mlp.fc2.weight"].shape[1],
        "swiglu": True,
        "norm": "rms",
        "norm_eps": 1e-5,
        "qkv_bias": "blocks.0.attn.qkv.bias" in arrays,
        "linear_bias": "blocks.0.attn.proj.bias" in arrays,
        "patch_norm": True,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in arrays else None,
    }


def architecture_of(config: Model) -> str:
    """Return the name of an architecture that, given arguments, is a model of this resolved config.

    Raises:
        InputError: there is none.
    """
    if config.norm_eps != 1e-5:
        raise InputError(f"a timm folder can't hold norm_eps={config.norm_eps!r} of an AIMv2, only 1e-05")
    return "aimv2_large_patch14_224"
