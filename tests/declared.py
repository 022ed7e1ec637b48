"""Values inside and outside the ranges that a config's keys declare, found from the annotations."""

import math
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from vit_jax.config import Config
from vit_jax.config.coerce import Section, annotations
from vit_jax.config.ranges import Duration, Range


def keys(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name, annotation and default of every key that is not a section."""
    default = section()
    for key, wanted in annotations(section).items():
        value = getattr(default, key)
        if isinstance(value, Section):
            yield from keys(type(value), f"{prefix}{key}.")
        else:
            yield prefix + key, wanted, value


def inside(wanted: Any) -> list[Any]:
    """Return some small values that an annotation allows, including its bounds."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Annotated and isinstance(options[1], Range):
        low, high = (options[1].low, options[1].high)
        low, high = (low if math.isfinite(low) else -2, high if math.isfinite(high) else max(low, 0) + 2)
        step = (high - low) / 3 if options[0] is float else 1
        found = [options[0](low), options[0](low + step), options[0](high)]
        return [value for value in found if value in options[1]]
    if origin is Annotated:
        return [text for text in ("0st", "1st", "2ep", "3_0ex", "50%", "100%") if text in options[1]]
    if origin is Literal:
        return list(options)
    if origin in (typing.Union, types.UnionType):
        return [value for option in options for value in inside(option)]
    if origin is tuple and options[1:] == (...,):
        return [(), *((value,) for value in inside(options[0]))]
    if origin is tuple:
        return list(zip(*(inside(option) for option in options), strict=False))
    return {bool: [False, True], type(None): [None]}.get(wanted, [])


def outside(wanted: Any) -> list[Any]:
    """Return values below and above every range in an annotation, valid in all other respects."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Annotated and isinstance(options[1], Range):
        low, high = (options[1].low, options[1].high)
        near = [low, low - 1, low - 1e-6, high, high + 1, high + 1e-6, math.nan, math.inf, -math.inf]
        near = [options[0](value) for value in near if options[0] is float or math.isfinite(value)]
        return [value for value in near if value not in options[1]]
    if origin is Annotated and isinstance(options[1], Duration):
        return [text for text in ("", "5", "5 ep", "-5st", "0st", "0%", "5%", "101%") if text not in options[1]]
    if origin in (typing.Union, types.UnionType):
        return [value for option in options for value in outside(option)]
    if origin is tuple and options[1:] == (...,):
        return [(value,) for value in outside(options[0])]
    if origin is tuple:
        # A string is the pattern in a table of factors.
        good = [inside(option)[0] if inside(option) else ".*" for option in options]
        return [(*good[:i], value, *good[i + 1 :]) for i, option in enumerate(options) for value in outside(option)]
    return []
