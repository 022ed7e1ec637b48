"""What the formats of weight files say about a model, and what they can't hold."""

import math
import re
from collections.abc import Iterable
from typing import Any

from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models.position import num_prefix

# What options are called where a format can't hold them.
WORDS = {
    "resnet": "a hybrid's ResNet",
    "resnet_style": "the ResNet's epsilons and padding",
    "tokenizer": "a convolutional tokenizer",
    "pool": "the head's pooling",
    "pool_heads": "heads of the pooling",
    "pool_mlp_dim": "an MLP of the pooling's own width",
    "pool_prefix": "pooling over class and register tokens",
    "pool_norm": "a norm after pooling",
    "unread_class": "a class token that the head doesn't read",
    "registers": "register tokens",
    "representation": "a representation layer",
    "position": "the position embedding",
    "position_at": "positions added in the blocks",
    "prefix": "how prefix tokens are placed",
    "relative_prefix": "how a relative bias is for prefix tokens",
    "gelu": "the GELU",
    "norm": "the kind of norm",
    "norm_eps": "the norms' epsilon",
    "layer_scale": "LayerScale",
    "qkv_bias": "queries, keys and values without bias",
    "key_bias": "biases of keys",
    "qk_norm": "QK norm",
    "rope": "rotary positions",
    "rope_unit": "the unit of rotary positions",
    "swiglu": "a gated MLP",
    "mlp_norm": "a norm in the MLP",
    "attention_norm": "a norm in attention",
    "linear_bias": "linear layers without bias",
    "patch_bias": "patches without bias",
    "patch_norm": "a norm of patches",
    "embedding_norm": "a norm before the blocks",
    "attention_pattern": "attention to some of the patches",
}

ANY = object()  # in a table of what a format holds: any value

# What a plain format holds; each format's own table changes lines of it.
PLAIN = {
    "resnet": (None,),
    "resnet_style": ANY,
    "tokenizer": (None,),
    "pool": ("token", "gap"),
    "pool_heads": (None,),
    "pool_mlp_dim": (None,),
    "pool_prefix": (False,),
    "pool_norm": ("before",),
    "unread_class": (False,),
    "registers": (0,),
    "representation": (None,),
    "position": ("learned",),
    "position_at": ("stem",),
    "prefix": (None, "learned"),
    "relative_prefix": (False,),
    "gelu": ("tanh",),
    "norm": ("layer",),
    "norm_eps": (1e-6,),
    "layer_scale": (None,),
    "qkv_bias": (True,),
    "key_bias": (True,),
    "qk_norm": (False,),
    "rope": (None,),
    "rope_unit": (None,),
    "swiglu": (False,),
    "mlp_norm": (False,),
    "attention_norm": (False,),
    "linear_bias": (True,),
    "patch_bias": (True,),
    "patch_norm": (False,),
    "embedding_norm": (False,),
    "attention_pattern": ("full",),
}


def refuse(config: Model, supported: dict, format: str) -> None:
    """Raise `InputError` naming everything in a resolved config that a format's table does not hold."""
    values = {key: getattr(config, key, None) for key in WORDS}
    values["resnet_style"] = None if config.resnet is None else config.resnet_style
    values["rope_unit"] = None if config.rope is None else config.rope_unit
    values["unread_class"] = config.class_token and config.pool not in ("token", "token_gap")
    values["prefix"] = prefix_of(config)
    wrong = [key for key in supported if not holds(supported, key, values[key])]
    if wrong:
        named = ", ".join(f"{WORDS[key]} ({key}={values[key]!r})" for key in wrong)
        hint = ""
        if set(wrong) <= {"gelu", "norm_eps", "resnet_style"}:
            changes = ", ".join(f"{key}={supported[key][0]!r}" for key in wrong)
            hint = f"; load the weights with {changes} to have the format's, at a small change of the outputs"
        elif wrong == ["attention_pattern"]:
            hint = "; load the weights with attention_pattern='full', whose outputs are others"
        raise InputError(f"a {format} file can't hold {named}{hint}")


def holds(supported: dict, key: str, value: Any) -> bool:
    """Return whether a format's table holds a value."""
    return supported[key] is ANY or value in supported[key]


def prefix_of(config: Model) -> str | None:
    """Return whether class and register tokens have "learned" positions or "zero"; None where it doesn't matter."""
    if config.patch is None or not num_prefix(config) or config.position not in ("learned", "learned2d"):
        return None
    return "learned" if config.prefix_position else "zero"


def grid_of(patches: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Return `grid`, or by the convention of the files that store only how many patches there are, the square.

    Raises:
        InputError: the number is no square, or not that of `grid`.
    """
    if grid is None:
        side = math.isqrt(patches)
        if side * side != patches or not patches:
            raise InputError(f"{patches} positions are no square grid; give grid=(rows, columns)")
        return side, side
    if grid[0] * grid[1] != patches:
        raise InputError(f"grid={grid}: the file has {patches} positions")
    return grid


def grid_of_offsets(number: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Return the (rows, columns) of patches between which there are so many offsets, by the same convention.

    Raises:
        InputError: as `grid_of`.
    """
    side = math.isqrt(number)
    if grid is None and side * side == number and side % 2:
        return (side + 1) // 2, (side + 1) // 2
    if grid is None:
        raise InputError(f"{number} offsets between patches are of no square grid; give grid=(rows, columns)")
    if (2 * grid[0] - 1) * (2 * grid[1] - 1) != number:
        raise InputError(f"grid={grid}: the file has {number} offsets between patches")
    return grid


def count(names: Iterable[str], pattern: str) -> int:
    """Return how many different numbers the pattern's group takes in names that it matches at their start."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})
