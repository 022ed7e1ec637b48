"""Run directories: what a run is (`run.json`), and a disk that takes no more."""

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from vit_jax.config import Config, differences, from_dict
from vit_jax.errors import InputError


class Facts(NamedTuple):
    """What a reader of a run must know beside its parameters."""

    config: Config
    label_names: tuple[str, ...]


def read_facts(workdir: Path) -> Facts:
    """Return the facts of a run directory.

    Raises:
        InputError: it is none, or `run.json` can't be read.
    """
    path = workdir / "run.json"
    try:
        values = json.loads(path.read_text())
        return Facts(from_dict(values["config"]), tuple(values["label_names"]))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{str(workdir)!r} is not a run directory: it has no run.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}") from error


def open_workdir(workdir: Path, facts: Facts) -> None:
    """Create a run directory, or check that the one there is of the same experiment.

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
        "preprocessing": {
            "resize": f"shorter side to size / {facts.config.data.crop_fraction}, bilinear, centre cut out; "
            "pictures of the model's size as they are",
            "values": "pixel * 2 / 255 - 1",
        },
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
    """Return the steps whose checkpoints were finished, rising."""
    try:
        # Orbax gives a checkpoint its number, by one rename, when all of it is written.
        return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return []


_REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextlib.contextmanager
def reporting_full_disk(workdir: Path) -> Iterator[None]:
    """Turn what the disk refuses, while a run is going, into one line that names the newest checkpoint.

    Raises:
        InputError: a disk or a quota is full, or it can't be written; what was finished before is as it was.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # TensorStore tells of an error of the system in the words of a ValueError.
        reasons = [os.strerror(number) for number in _REFUSED]
        reason = next((reason for reason in reasons if reason in str(error)), None)
        if reason is None:
            raise
        steps = finished_steps(workdir)
        kept = f"goes on from checkpoint {steps[-1]}" if steps else "begins anew: there is no checkpoint yet"
        raise InputError(
            f"workdir {str(workdir)!r} can't be written: {reason}; once that is mended, the same command {kept}"
        ) from error
