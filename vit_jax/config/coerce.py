"""Checked, typed values from what config files and command lines say."""

import ast
import dataclasses
import types
import typing
from typing import Any, Literal

from vit_jax.errors import InputError, nearest


def literal(text: str) -> Any:
    """Return the Python value that a command-line text spells: a number, a tuple, true, none, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def coerce(value: Any, wanted: Any, where: str) -> Any:
    """Return `value` as the annotated type `wanted`: a dataclass, Literal, union, tuple, or plain type.

    Raises:
        InputError: it is of another type, or has an unknown key; the message names `where`.
    """
    if dataclasses.is_dataclass(wanted):
        return _section(value, wanted, where)
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        # On a command line, none spells None, and some choices are called so.
        value = "none" if value is None and "none" in options else value
        if value in options:
            return value
        raise InputError(f"{where}={value!r}: {nearest(str(value), options)}")
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return coerce(value, option, where)
            except InputError:
                continue
    elif origin is tuple:
        options = options[:1] * len(value) if options[1:] == (...,) and isinstance(value, (list, tuple)) else options
        if isinstance(value, (list, tuple)) and len(value) == len(options):
            return tuple(coerce(item, option, where) for item, option in zip(value, options, strict=True))
    elif wanted is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
        return value
    name = getattr(wanted, "__name__", str(wanted)) if origin is None else str(wanted)
    raise InputError(f"{where}={value!r}: must be {name.replace('NoneType', 'None')}")


def _section(value: Any, wanted: type, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}={value!r}: is a section; set {where}.KEY=VALUE")
    annotations = typing.get_type_hints(wanted)
    for key in value:
        if key not in annotations:
            raise InputError(f"{where}.{key}: no such key; {nearest(key, annotations)}")
    return wanted(**{key: coerce(item, annotations[key], f"{where}.{key}") for key, item in value.items()})
