"""The runs of a sweep: what each overrides, its config and its name."""

import dataclasses
import functools
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.config import Config, flatten
from vit_jax.config.coerce import literal
from vit_jax.config.experiment import is_runtime
from vit_jax.config.files import load_config, override
from vit_jax.errors import InputError, nearest
from vit_jax.sweeps.mapped import KEYS

LONGEST = 100  # characters of a name before its digest; a file system allows 255


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: of its directory: what it overrides, and a digest of its whole config.
        spec: its config file and argument.
        overrides: what it sets itself; "config" is its part of the argument, and already in `spec`.
    """

    name: str
    spec: str
    overrides: dict[str, str]
    config: Config

    def settings(self) -> dict[str, str]:
        """Return the overrides that are keys of the config."""
        return {key: text for key, text in self.overrides.items() if key != "config"}


class Base(NamedTuple):
    """What all runs of a sweep have in common.

    Attributes:
        spec: the config file and argument, `path.py[:arg]`.
        fixed: overrides of every run.
    """

    spec: str
    fixed: dict[str, str]

    def command(self, run: Run, workdir: Path) -> list[str]:
        """Return the command that trains a run."""
        keys = [f"--config.{key}={text}" for key, text in (self.fixed | run.settings()).items()]
        return [sys.executable, "-m", "vit_jax.train", f"--config={run.spec}", f"--workdir={workdir}", *keys]


def shown(argv: list[str]) -> str:
    """Return a command as a person would type it."""
    return shlex.join(["python", *argv[1:]])


def plan_runs(base: Base, each: Iterable[dict[str, str]]) -> list[Run]:
    """Return the runs with these overrides, as a command line has them; "config" adds to the config's argument.

    Raises:
        InputError: there are none, two are equal, or an override is no key of the config or has a wrong value.
    """
    configs, runs = {}, {}
    for overrides in each:
        spec = base.spec
        if "config" in overrides:
            spec += ("," if ":" in spec else ":") + overrides["config"]
        if spec not in configs:
            configs[spec] = load_config(spec, base.fixed)
        settings = {key: text for key, text in overrides.items() if key != "config"}
        for key in settings.keys() & base.fixed.keys():
            raise InputError(f"--config.{key}={base.fixed[key]}: the sweep itself sets {key}; leave it out")
        config = override(configs[spec], settings)
        digest = config_digest(config, settings)
        name = f"{name_of(overrides)}-{digest}"
        if digest in runs:
            raise InputError(f"two runs of the sweep are equal: {runs[digest].name} and {name}")
        runs[digest] = Run(name, spec, overrides, config)
    if not runs:
        raise InputError(f"the sweep of {base.spec} has no runs")
    return list(runs.values())


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what a `sweep()` yields for a run as a command line has it."""
    return {
        key: value if isinstance(value, str) and (key == "config" or literal(value) == value) else repr(value)
        for key, value in values.items()
    }


def name_of(overrides: dict[str, str]) -> str:
    """Return what a run overrides as part of a file's name."""
    text = ",".join(f"{key}={text}" for key, text in overrides.items() if key != "config")
    text = ",".join(filter(None, [overrides.get("config", ""), text]))
    return re.sub(r"[^A-Za-z0-9.,=+-]+", "_", text)[:LONGEST] or "base"


def program(config: Config) -> str:
    """Return what runs have in common that can be trained together: all but the numbers of `vit_jax.step.Numbers`."""
    values = flatten(dataclasses.asdict(config))
    return json.dumps({key: value for key, value in values.items() if key not in KEYS}, sort_keys=True)


@functools.cache
def _defaults() -> dict[str, Any]:
    return flatten(dataclasses.asdict(Config()))


def config_digest(config: Config, settings: dict[str, str]) -> str:
    """Return 8 hexadecimal digits that tell runs apart by what they learn, and by what they set themselves."""
    default, values = _defaults(), flatten(dataclasses.asdict(config))
    # A new key with its default, or another place for the data, is still the same run.
    facts = {key: value for key, value in values.items() if value != default.get(key) and not is_runtime(key)}
    facts |= {key: values[key] for key in settings if key in values}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def only(runs: list[Run], wanted: dict[str, list[str]]) -> list[Run]:
    """Return the runs that override each of these keys with one of its values.

    Raises:
        InputError: the sweep overrides no such key, or no run is left.
    """
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    for key in wanted:
        if key not in keys:
            raise InputError(f"--only: the sweep does not vary {key!r}; {nearest(key, keys)}")
    left = [
        run
        for run in runs
        if all(
            literal(run.overrides.get(key, "")) in [literal(value) for value in values]
            for key, values in wanted.items()
        )
    ]
    if not left:
        asked = " ".join(f"{key}={','.join(values)}" for key, values in wanted.items())
        raise InputError(f"--only {asked}: no run has these values")
    return left
