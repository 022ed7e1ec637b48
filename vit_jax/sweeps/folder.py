"""The folder of a sweep: whose it is, who works on it now, and how to stop them."""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_jax.config.experiment import is_runtime
from vit_jax.errors import InputError
from vit_jax.sweeps.attempt import attempts, replace, take
from vit_jax.sweeps.plan import Base


def check_folder(folder: Path, base: Base) -> None:
    """Check that a folder is, or can become, that of the sweep.

    Raises:
        InputError: it is a run directory, or holds a sweep of another config or with other overrides.
    """
    if (folder / "run.json").exists():
        raise InputError(f"workdir {str(folder)!r} is a run directory; a sweep needs a folder of its own")
    path = folder / "sweep.json"
    if not path.exists():
        return
    try:
        old = Base(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}") from error
    changes = [f"config: {old.spec} -> {base.spec}"] if old.spec != base.spec else []
    changes += [
        f"{key}: {old.fixed.get(key)} -> {base.fixed.get(key)}"
        for key in sorted(old.fixed | base.fixed)
        if old.fixed.get(key) != base.fixed.get(key) and not is_runtime(key)
    ]
    if changes:
        raise InputError(f"workdir {str(folder)!r} holds another sweep ({'; '.join(changes)}); choose another workdir")


@contextlib.contextmanager
def working_on(folder: Path, base: Base) -> Iterator[None]:
    """Hold the folder of a sweep, and create it if necessary.

    Raises:
        InputError: another command works on it, or it can't be written.
    """
    check_folder(folder, base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
        replace(folder / "sweep.json", json.dumps(base._asdict(), indent=1) + "\n")
    except OSError as error:
        raise InputError(f"workdir {str(folder)!r} can't be written: {error.strerror}") from error
    with lock:
        if not take(lock):
            holder = _holder(folder)
            who = f" by process {holder['pid']} of {holder['host']}" if holder else ""
            raise InputError(f"the sweep in {str(folder)!r} is already running{who}; see --stop")
        lock.truncate(0)
        lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        lock.flush()
        yield


def stop(folder: Path) -> int:
    """Ask the sweep in a folder to stop, and runs that outlived a sweep that was killed; return how many processes.

    Raises:
        InputError: it runs on another host.
    """
    asked = [_stop(folder / "lock", _holder(folder))]
    for path in sorted(folder.glob("*/attempts.jsonl")):
        *_, last = attempts(path.parent) or [{}]
        asked.append(_stop(path.parent / "lock", last))
    return sum(asked)


def _stop(path: Path, holder: dict[str, Any] | None) -> bool:
    if not path.exists() or not holder or "pid" not in holder:
        return False
    with path.open("a+") as lock:
        if take(lock):
            return False
        if holder["host"] != socket.gethostname():
            raise InputError(
                f"{str(path.parent)!r} is held by process {holder['pid']} of {holder['host']}: stop it there"
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder["pid"], signal.SIGTERM)
        while not take(lock):
            time.sleep(0.1)
    return True


def _holder(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "lock").read_text())
    except (OSError, ValueError):
        return None
