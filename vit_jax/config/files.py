"""Builds a `Config` from a config file's `ConfigDict` and `--config.KEY=VALUE` arguments."""

import dataclasses
import importlib.util
import inspect
import os
import traceback
import types
from collections.abc import Callable
from typing import Any, TypeVar

from ml_collections import ConfigDict

from vit_jax.config.coerce import literal
from vit_jax.config.experiment import Config, from_dict
from vit_jax.errors import InputError

T = TypeVar("T")


def load_config(spec: str, overrides: dict[str, str] | None = None) -> Config:
    """Run the config file `path.py[:arg]` and apply overrides such as {"optim.lr": "3e-4"}.

    Raises:
        InputError: the file is missing or fails, a key is unknown, or a value has the wrong type.
    """
    path, arg = split_spec(spec)

    def run(module: types.ModuleType) -> dict[str, Any]:
        values = module.get_config(arg or None)
        if not isinstance(values, (ConfigDict, dict)):
            raise InputError(f"get_config() returned {values!r}; it must return an ml_collections.ConfigDict")
        return values.to_dict() if isinstance(values, ConfigDict) else values

    return override(from_dict(_run_file(path, run)), overrides or {})


def load_sweep(spec: str) -> list[dict[str, Any]]:
    """Return what the `sweep()` of a config file `path.py[:arg]` yields: the overrides of each run.

    Raises:
        InputError: the file is missing or fails, or has no `sweep()`.
    """
    path, arg = split_spec(spec)

    def runs(module: types.ModuleType) -> list[dict[str, Any]]:
        sweep = getattr(module, "sweep", None)
        if not callable(sweep):
            raise InputError("has no sweep(arg), the function that yields the overrides of each run; or give --grid")
        yielded = list(sweep(arg or None) if inspect.signature(sweep).parameters else sweep())
        for each in yielded:
            if not isinstance(each, dict) or not all(isinstance(key, str) for key in each):
                raise InputError(f"sweep() yielded {each!r}; it must yield dicts such as {{'optim.lr': 1e-3}}")
        return yielded

    return _run_file(path, runs)


def split_spec(spec: str) -> tuple[str, str]:
    """Return the path and the argument of `path.py[:arg]`."""
    path, _, arg = spec.partition(":")
    return path, arg


def _run_file(path: str, use: Callable[[types.ModuleType], T]) -> T:
    if not os.path.isfile(path):
        raise InputError(f"config file {path!r} does not exist; see configs/README.md for a list")
    try:
        module_spec = importlib.util.spec_from_file_location("vit_jax_config", path)
        if module_spec is None:
            raise InputError(f"config file {path!r} must end in .py")
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise InputError("has no get_config(arg), the function that returns the config")
        return use(module)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path)]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        raise InputError(f"{path}, line {line}: {type(error).__name__}: {error}") from error


def parse_overrides(arguments: list[str]) -> dict[str, str]:
    """Return {"optim.lr": "3e-4"} for the argument `--config.optim.lr=3e-4`; raise `InputError` for any other."""
    overrides = {}
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not option.startswith("--config."):
            raise InputError(f"argument {argument!r} is unknown; set config keys with --config.KEY=VALUE")
        if not equals:
            raise InputError(f"argument {argument!r} has no value; write {option}=VALUE")
        overrides[option.removeprefix("--config.")] = value
    return overrides


def override(config: Config, overrides: dict[str, str]) -> Config:
    """Return the config with overrides such as {"data.path": "pictures"}."""
    values = dataclasses.asdict(config)
    for key, text in overrides.items():
        _set(values, key, literal(text))
    return from_dict(values)


def _set(values: dict, dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise InputError(f"config.{dotted}: {section!r} is a value, not a section")
    values[last] = value
