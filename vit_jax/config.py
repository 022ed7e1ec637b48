"""Typed, frozen experiment configurations: ConfigDict ends here.

A config file is a Python file with `get_config(arg=None)` that returns an `ml_collections.ConfigDict`. `load` runs it,
applies the overrides of the command line and checks every key and type against the dataclasses below, which are also
the reference of what can be set. A config states independent facts; what follows from them is computed here.
"""

import ast
import dataclasses
import importlib.util
import math
import re
import traceback
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from ml_collections import ConfigDict

from vit_jax.architecture import Model, height_width
from vit_jax.errors import InputError, nearest


@dataclass(frozen=True)
class Data:
    """Where pictures come from.

    Attributes:
        name: a source of `vit_jax.data.SOURCES`.
        path: the folder, where the source has one.
        train, val: names of the splits; for a folder, its subfolders.
        threads: reader threads of one process; changes speed, never batches.
        cache_mb: a split that is no larger than this once decoded is decoded once and held in memory.
    """

    name: str = "folder"
    path: str | None = None
    train: str = "train"
    val: str = "test"
    threads: int = 8
    cache_mb: int = 2048


@dataclass(frozen=True)
class Augment:
    """Augmentation of whole batches inside the jitted step.

    Attributes:
        flip: mirror left to right with probability 1/2.
        shift: move by up to this many pixels each way, edges repeated.
        mixup: alpha of the Beta distribution of Zhang et al. (2018); 0 turns it off.
    """

    flip: bool = False
    shift: int = 0
    mixup: float = 0.0


@dataclass(frozen=True)
class Optim:
    """Optimizer and learning rate.

    Attributes:
        lr: the peak, reached after `Config.warmup`.
        weight_decay: decoupled (Loshchilov & Hutter, 2019), multiplied by the learning rate.
        decay: regular expression; parameters whose whole name matches are decayed.
        clip: global gradient norm above which gradients are scaled down; None turns it off.
        b1, b2, eps: of AdamW.   momentum: of SGD.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    decay: str = r".*/kernel"
    clip: float | None = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9


@dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; one -1 takes the rest."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Config:
    """One experiment.

    Attributes:
        batch: pictures in the global batch of a step.
        image_size: height and width, pixels.
        total, warmup, log_every, eval_every, save_every: durations with a unit: "100st" steps, "90ep" epochs,
            "1_000_000ex" pictures, "5%" of the total.
        keep: how many of the newest checkpoints stay.
    """

    seed: int = 0
    batch: int = 128
    image_size: int | tuple[int, int] = 224
    channels: int = 3
    total: str = "90ep"
    warmup: str = "0st"
    log_every: str = "50st"
    eval_every: str = "5%"
    save_every: str = "5%"
    keep: int = 2
    label_smoothing: float = 0.0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    mesh: MeshShape = field(default_factory=MeshShape)

    def __post_init__(self):
        for name in ("batch", "channels", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"config.{name}={getattr(self, name)}: must be at least 1")
        for name in ("total", "warmup", "log_every", "eval_every", "save_every"):
            parse_duration(getattr(self, name), f"config.{name}")
        if self.total.endswith("%"):
            raise InputError(f"config.total={self.total!r}: can't be a part of itself; use st, ep or ex")
        try:
            re.compile(self.optim.decay)
        except re.error as error:
            raise InputError(f"config.optim.decay={self.optim.decay!r}: not a regular expression ({error})") from error

    def height_width(self) -> tuple[int, int]:
        """Return `image_size` as (height, width)."""
        return height_width(self.image_size)


# What may change between the runs of one experiment: it alters how the run is computed, never what comes out.
EXECUTION = ("mesh", "data.path", "data.threads", "data.cache_mb", "model.unroll", "keep")


def parse_duration(text: str, where: str) -> tuple[float, str]:
    """Split "90ep" into (90.0, "ep"); raise `InputError` naming `where`."""
    match = re.fullmatch(r"(\d[\d_]*\.?\d*)(st|ep|ex|%)", text)
    if not match:
        raise InputError(
            f"{where}={text!r}: not a duration; write 100st (steps), 90ep (epochs), 1_000ex (images) or 5%"
        )
    return float(match[1]), match[2]


def steps(text: str, *, batch: int, examples: int, total: int | None = None) -> int:
    """Return a duration in steps, rounded up; `total` is what percentages are of."""
    value, unit = parse_duration(text, "duration")
    factor = {"st": 1, "ex": 1 / batch, "ep": examples / batch, "%": (total or 0) / 100}[unit]
    return math.ceil(round(value * factor, 6))


def parse_arg(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Read a config file's argument, "model=mu/4,debug": each value takes the type of its default."""
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, equals, text = item.partition("=")
        if key not in defaults:
            raise InputError(f"config argument {key!r} is unknown; {nearest(key, defaults)}")
        value = True if not equals else text if isinstance(defaults[key], str) else literal(text)
        wanted = type(defaults[key])
        values[key] = value if defaults[key] is None else _coerce(value, wanted, f"config argument {key}")
    return types.SimpleNamespace(**values)


def load(spec: str, overrides: dict[str, str] | None = None) -> Config:
    """Run the config file `path.py[:arg]` and apply overrides such as {"optim.lr": "3e-4"}.

    Raises:
        InputError: no such file, an error inside it, an unknown key or a value of the wrong type.
    """
    path, _, arg = spec.partition(":")
    try:
        module_spec = importlib.util.spec_from_file_location("vit_jax_config", path)
        if module_spec is None:
            raise InputError(f"config file {path!r} must end in .py")
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        values = module.get_config(arg or None)
    except FileNotFoundError as error:
        raise InputError(f"config file {path!r} does not exist; see configs/README.md for those there are") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path)]
        line = lines[-1] if lines else getattr(error, "lineno", "?")
        raise InputError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
    values = values.to_dict() if isinstance(values, ConfigDict) else dict(values)
    for key, text in (overrides or {}).items():
        _set(values, key, literal(text))
    return from_dict(values)


def from_dict(values: dict[str, Any]) -> Config:
    """Build a `Config`; raise `InputError` for an unknown key or a value of the wrong type."""
    return _coerce(values, Config, "config")


def differences(old: Config, new: Config) -> list[str]:
    """List `key: old -> new` for every key that decides what a run computes."""
    old, new = (_flatten(dataclasses.asdict(config)) for config in (old, new))
    return [
        f"{key}: {old[key]!r} -> {new[key]!r}"
        for key in old
        if old[key] != new[key] and not any(key == free or key.startswith(free + ".") for free in EXECUTION)
    ]


def _flatten(values: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _set(values: dict, dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"config.{dotted}: {section!r} is a value, not a section")
    values[last] = value


def literal(text: str) -> Any:
    """Return the Python value that a command line's text means; text that means none is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _coerce(value: Any, wanted: Any, where: str) -> Any:
    """Return `value` as the annotated type `wanted`, or raise `InputError` that names `where`."""
    if dataclasses.is_dataclass(wanted):
        return _coerce_section(value, wanted, where)
    origin, options = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        if value in options:
            return value
        raise InputError(f"{where}={value!r}: {nearest(str(value), options)}")
    if origin in (typing.Union, types.UnionType):
        for option in options:
            try:
                return _coerce(value, option, where)
            except InputError:
                continue
    elif origin is tuple:
        if isinstance(value, (list, tuple)) and len(value) == len(options) and options[-1] is not ...:
            return tuple(_coerce(item, option, where) for item, option in zip(value, options, strict=True))
        if isinstance(value, (list, tuple)) and options[-1] is ...:
            return tuple(_coerce(item, options[0], where) for item in value)
    elif wanted is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
        return value
    name = getattr(wanted, "__name__", str(wanted)) if origin is None else str(wanted)
    raise InputError(f"{where}={value!r}: must be {name.replace('NoneType', 'None')}")


def _coerce_section(value: Any, wanted: type, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where}={value!r}: is a section; set {where}.KEY=VALUE")
    annotations = typing.get_type_hints(wanted)
    for key in value:
        if key not in annotations:
            raise InputError(f"{where}.{key}: no such key; {nearest(key, annotations)}")
    return wanted(**{key: _coerce(item, annotations[key], f"{where}.{key}") for key, item in value.items()})
