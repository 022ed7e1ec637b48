"""What the learning rate and the weight decay of each parameter are multiplied by."""

import difflib
import re
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_jax import tree
from vit_jax.config import Optim
from vit_jax.errors import InputError

# One factor of a parameter, or of a stacked one a factor for each block.
Factors = dict[str, float | tuple[float, ...]]

# What comes before the blocks; what is neither of these nor a block comes after them.
FIRST = r"(embedding(_norm)?|cls|registers|position)(/.*)?"


def learning_rates(config: Optim, params: Any) -> Factors:
    """Return {name: factor of the learning rate}: `lr_mults` times what the layer has; 0 is frozen.

    A layer has `layer_decay` to the power of its distance from the last, and 0 before the `last_blocks`.

    Args:
        params: parameters or their shapes.

    Raises:
        InputError: a pattern matches no parameter, or the model has no blocks for `layer_decay`, or too few for
            `last_blocks`.
    """
    shapes = tree.flatten(params)
    mults = _look_up(config.lr_mults, shapes, 1.0, "config.optim.lr_mults")
    asked = {key: getattr(config, key) for key in ("layer_decay", "last_blocks")}
    asked = {key: value for key, value in asked.items() if value is not None}
    if not asked:
        return mults
    depth = next((leaf.shape[0] for name, leaf in shapes.items() if name.startswith("blocks/")), 0)
    for key, value in asked.items():
        if not depth:
            raise InputError(f"config.optim.{key}={value}: the model has no blocks; unset it")
    if asked.get("last_blocks", 0) > depth:
        raise InputError(f"config.optim.last_blocks={config.last_blocks}: the model has {depth} blocks")
    decay = asked.get("layer_decay", 1.0)
    frozen = depth + 1 - config.last_blocks if "last_blocks" in asked else 0
    layers = [decay ** (depth + 1 - layer) if layer >= frozen else 0.0 for layer in range(depth + 2)]

    def factor(name: str, mult: float) -> float | tuple[float, ...]:
        if name.startswith("blocks/"):
            each = tuple(mult * layer for layer in layers[1:-1])
            return each if any(each) else 0.0
        return mult * (layers[0] if re.fullmatch(FIRST, name) else layers[-1])

    return {name: factor(name, mult) for name, mult in mults.items()}


def trained_names(config: Optim, params: Any) -> frozenset[str]:
    """Return the names of the parameters that are not frozen.

    Raises:
        InputError: a pattern matches no parameter, or all are frozen.
    """
    names = frozenset(name for name, rate in learning_rates(config, params).items() if rate != 0)
    if not names:
        raise InputError("config.optim freezes every parameter; give some of them a factor above 0 in lr_mults")
    return names


def weight_decays(config: Optim, params: Any) -> dict[str, float]:
    """Return {name: weight decay}, to be multiplied by the parameter's learning rate.

    Raises:
        InputError: a pattern matches no parameter.
    """
    return {name: config.weight_decay * factor for name, factor in decay_factors(config, params).items()}


def decay_factors(config: Optim, params: Any) -> dict[str, float]:
    """Return {name: factor of the weight decay}.

    Raises:
        InputError: a pattern matches no parameter.
    """
    return _look_up(config.decay, tree.flatten(params), 0.0, "config.optim.decay")


def format_rates(config: Optim, params: Any) -> str:
    """Return a table for people: each parameter's learning rate at the peak, block by block, and its weight decay."""
    rates, decays = learning_rates(config, params), weight_decays(config, params)
    width = max(map(len, rates))
    lines = [f"{'parameter':{width}}  {'decay':>8}  learning rate at the peak"]
    for name, factor in rates.items():
        blocks = factor if isinstance(factor, tuple) else (factor,)
        text = "frozen" if factor == 0 else " ".join(f"{config.lr * block:.3g}" for block in blocks)
        decay = "" if factor == 0 else f"{decays[name]:.3g}"
        margin = " " * (width + 12)
        lines.append(f"{name:{width}}  {decay:>8}  " + textwrap.fill(text, 72, subsequent_indent=margin).strip())
    return "\n".join(lines)


def _look_up(table: Iterable[tuple[str, float]], names: Iterable[str], default: float, where: str) -> dict[str, float]:
    names = list(names)
    for pattern, _ in table:
        if not any(re.fullmatch(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0)[0]
            raise InputError(f"{where}: {pattern!r} matches the whole name of no parameter; the nearest is {near!r}")
    return {name: next((f for pattern, f in table if re.fullmatch(pattern, name)), default) for name in names}


def is_partly_frozen(factor: float | tuple[float, ...]) -> bool:
    """Return whether some blocks of a parameter, but not all, are frozen."""
    return isinstance(factor, tuple) and 0 in factor


def spread(factor: float | tuple[float, ...], ndim: int) -> float | np.ndarray:
    """Return a factor in the shape that multiplies an array of so many axes, the first of them depth."""
    return np.asarray(factor, np.float32).reshape(-1, *(1,) * (ndim - 1)) if isinstance(factor, tuple) else factor
