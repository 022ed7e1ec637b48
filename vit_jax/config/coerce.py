"""Converts and range-checks the values of config files and command lines."""

import ast
import dataclasses
import functools
import math
import types
import typing
from typing import Annotated, Any, ClassVar, Literal

from vit_jax.errors import InputError, nearest


class Section:
    """A config section, whose values are converted and checked against the annotations on construction."""

    where: ClassVar[str] = "config"

    def __post_init__(self):
        for key, wanted in annotations(type(self)).items():
            object.__setattr__(self, key, coerce(getattr(self, key), wanted, f"{self.where}.{key}"))


@functools.cache
def annotations(section: type) -> dict[str, Any]:
    """Return {key: annotation} for a section, in order."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def literal(text: str) -> Any:
    """Parse a command-line value: a Python literal, true, false, none, nan or inf; anything else stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        words = {"true": True, "false": False, "none": None, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}
        return words.get(text.lower(), text)


def coerce(value: Any, wanted: Any, where: str) -> Any:
    """Convert `value` to the annotated type `wanted`: a section, Literal, union, tuple or plain type, with its range.

    A single item is accepted for a variable-length tuple.

    Raises:
        InputError: the type is wrong, the value is out of range, or a key is unknown; the message names `where`.
    """
    origin, options, _ = _parts(wanted)
    if origin is Literal and value not in options:
        # The command line parses none as None, but some choices are called "none".
        if value is None and "none" in options:
            return "none"
        raise InputError(f"{where}={value!r}: {nearest(str(value), map(str, options))}")
    try:
        return _convert(value, wanted, where)
    except _MismatchError:
        raise InputError(f"{where}={value!r}: must be {describe(wanted)}") from None


class _MismatchError(Exception):
    pass


@functools.cache
def _parts(wanted: Any) -> tuple[Any, tuple[Any, ...], bool]:
    return typing.get_origin(wanted), typing.get_args(wanted), dataclasses.is_dataclass(wanted)


def _convert(value: Any, wanted: Any, where: str) -> Any:
    origin, options, is_section = _parts(wanted)
    if is_section:
        return _section(value, wanted, where)
    if origin is Annotated:
        kind, *ranges = options
        value = _convert(value, kind, where)
        if all(value in allowed for allowed in ranges):
            return value
    elif origin is Literal:
        if value in options and not isinstance(value, bool):
            return value
    elif origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return _convert(value, option, where)
            except _MismatchError:
                continue
    elif origin is dict:
        if isinstance(value, dict):
            return {key: _convert(item, options[1], f"{where}.{key}") for key, item in value.items()}
    elif origin is tuple and options[1:] == (...,):
        if isinstance(value, (list, tuple)):
            try:
                return tuple(_convert(item, options[0], where) for item in value)
            except _MismatchError:
                pass  # May be a single item that is itself a tuple.
        return (_convert(value, options[0], where),)
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and len(value) == len(options):
            return tuple(_convert(item, option, where) for item, option in zip(value, options, strict=True))
    elif wanted is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
        return value
    raise _MismatchError


def _section(value: Any, wanted: type, where: str) -> Any:
    if isinstance(value, wanted):
        return value
    if not isinstance(value, dict):
        raise InputError(f"{where}={value!r}: is a section; set {where}.KEY=VALUE")
    for key in value:
        if key not in annotations(wanted):
            raise InputError(f"{where}.{key}: no such key; {nearest(key, annotations(wanted))}")
    return wanted(**{key: coerce(item, annotations(wanted)[key], f"{where}.{key}") for key, item in value.items()})


def describe(wanted: Any) -> str:
    """Return an annotation in words: "float in [0, 1)", "int at least 1 or none"."""
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Annotated:
        # A str with a range describes itself, such as a duration.
        return " ".join([*[describe(options[0])][: options[0] is not str], *map(str, options[1:])])
    if origin is Literal:
        return " or ".join(map(repr, options))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, options))
    if origin is dict:
        return f"{{name: {describe(options[1])}}}"
    if origin is tuple and options[1:] == (...,):
        return f"tuple of {describe(options[0])}"
    if origin is tuple:
        return f"({', '.join(map(describe, options))})"
    return "none" if wanted is type(None) else "section" if dataclasses.is_dataclass(wanted) else wanted.__name__
