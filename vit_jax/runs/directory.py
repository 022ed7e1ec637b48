"""Run directories: the facts of a run (`run.json`), its finished steps, and disk errors."""

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from vit_jax.config import Config, Preprocessing, differences, from_dict
from vit_jax.errors import InputError

# Keys of a config that had another name in earlier versions.
RENAMED = {"keep_best": "select"}


class Facts(NamedTuple):
    """What a reader of a run needs besides its parameters."""

    config: Config
    label_names: tuple[str, ...]


def read_facts(workdir: Path) -> Facts:
    """Return the facts of a run directory.

    Raises:
        InputError: it is not a run directory, or `run.json` can't be read.
    """
    path = workdir / "run.json"
    try:
        values = json.loads(path.read_text())
        config = {RENAMED.get(key, key): value for key, value in values["config"].items()}
        return Facts(from_dict(config), tuple(values["label_names"]))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{str(workdir)!r} is not a run directory: it has no run.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}") from error


def open_workdir(workdir: Path, facts: Facts, size: dict[str, int] | None = None) -> None:
    """Create a run directory, or check that the existing one belongs to the same experiment.

    Args:
        size: "parameters", "step_flops", "steps" and "devices" of the run, for those who compare runs.

    Raises:
        InputError: it can't be written, or belongs to another config.
    """
    path = workdir / "run.json"
    if path.exists():
        old = read_facts(workdir)
        changes = differences(old.config, facts.config)
        if old.label_names != facts.label_names:
            changes.append(f"label names: {len(old.label_names)} classes -> {len(facts.label_names)}, or other names")
        if changes:
            raise InputError(
                f"workdir {str(workdir)!r} holds a run of another config ({'; '.join(changes)}); choose another workdir"
            )
        return
    values = {
        "config": dataclasses.asdict(facts.config),
        "label_names": facts.label_names,
        "size": size or {},
        "preprocessing": Preprocessing.of(facts.config.data, facts.config.model).described(facts.config.height_width()),
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(values, indent=1) + "\n")
            os.replace(partial, path)
    except OSError as error:
        raise InputError(f"workdir {str(workdir)!r} can't be written: {error.strerror}") from error


def finished_steps(workdir: Path) -> list[int]:
    """Return the steps of the finished checkpoints, in ascending order."""
    try:
        # Orbax renames a checkpoint to its number only when all of it is written.
        return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return []


_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def reporting_full_disk(workdir: Path) -> Iterator[None]:
    """Turn disk errors during a run into one line that names the newest checkpoint.

    Raises:
        InputError: the disk or quota is full, or can't be written; finished checkpoints are intact.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # TensorStore reports operating system errors as a ValueError with the same text.
        reasons = [os.strerror(number) for number in _REFUSED]
        reason = next((reason for reason in reasons if reason in str(error)), None)
        if reason is None:
            raise
        steps = finished_steps(workdir)
        kept = f"continues from checkpoint {steps[-1]}" if steps else "starts over: there is no checkpoint yet"
        raise InputError(
            f"workdir {str(workdir)!r} can't be written: {reason}; once that is fixed, the same command {kept}"
        ) from error
