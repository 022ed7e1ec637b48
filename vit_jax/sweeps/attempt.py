"""One attempt at a run: its own process, lock, log and record."""

import collections
import datetime
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.errors import STOPPED
from vit_jax.sweeps.plan import Base, Run

TAIL = 5  # lines of the output of a run that failed
POLL = 0.1  # seconds


class Slot(NamedTuple):
    """Where a run computes.

    Attributes:
        environment: variables that choose its devices.
        cores: numbers of the CPU's cores that it is pinned to; empty: all.
    """

    environment: dict[str, str] = {}
    cores: tuple[int, ...] = ()


class Attempt:
    """A run of a sweep, trained by the command in a process of its own.

    The process holds a lock on the run's directory for as long as it lives, whatever becomes of the sweep: whoever
    finds the lock taken waits for that process instead of starting another.
    """

    def __init__(self, folder: Path, command: list[str], *, retry: bool = False):
        """Prepare an attempt at the run in `folder`; with `retry`, even if it failed before."""
        self.folder, self._command, self._retry = folder, command, retry
        self._process = None
        self._stop = self._pruned = False

    def __call__(self, slot: Slot) -> int | None:
        """Run to the end, and return the exit code; None if it was asked to stop before it started."""
        with (self.folder / "lock").open("w") as lock:
            while not _taken(lock):
                if self._stop:
                    return None
                time.sleep(POLL)
            # Whoever held the lock may have finished the run, and known nobody to tell.
            code = exit_code(self.folder)
            if self._retry and code:
                code = None
            if code is None and log_ends_well(self.folder):
                code = 0
                record(self.folder, {"event": "end", "time": now(), "seconds": None, "exit": code})
            if code is not None or self._stop:
                return code
            start = time.monotonic()
            with (self.folder / "log.txt").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"} | slot.environment,
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,  # Ctrl-C is for the sweep, which asks its runs to stop.
                )
            if slot.cores:
                os.sched_setaffinity(self._process.pid, slot.cores)
        record(
            self.folder,
            {"event": "start", "time": now(), "host": socket.gethostname(), "pid": self._process.pid},
        )
        if self._stop:  # Asked while the process was starting.
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait()
        if self._stop and code == -signal.SIGTERM:
            code = STOPPED  # Python itself was not there yet to handle it.
        end = {"event": "end", "time": now(), "seconds": round(time.monotonic() - start, 3), "exit": code}
        end |= {"lines": last_lines(self.folder)} if code else {}
        record(self.folder, end | ({"pruned": True} if self._pruned and code == STOPPED else {}))
        return code

    def running(self) -> bool:
        """Return whether the process of the run is alive."""
        if self._process is None:
            return False
        with (self.folder / "lock").open("a") as lock:
            return not _taken(lock)

    def fresh(self) -> "Attempt":
        """Return another attempt at the same run, for another process."""
        return Attempt(self.folder.absolute(), self._command, retry=self._retry)

    def stop(self, *, pruned: bool = False) -> None:
        """Ask the run to save its state and end, for good if it is `pruned`."""
        if self._stop:
            return
        self._stop, self._pruned = True, pruned
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def prepare(folder: Path, base: Base, run: Run) -> list[str]:
    """Create the folder of a run with its `command.json`, and return the command.

    Raises:
        OSError: the disk is full or can't be written.
    """
    command = base.command(run, folder)
    facts = {"config": run.spec, "overrides": run.settings(), "fixed": base.fixed, "argv": command}
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "command.json", json.dumps(facts, indent=1) + "\n")
    return command


def replace(path: Path, text: str) -> None:
    """Write a file as a whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def record(folder: Path, event: dict[str, Any]) -> None:
    """Append an event to the attempts at a run."""
    with (folder / "attempts.jsonl").open("a") as lines:
        lines.write(json.dumps(event) + "\n")


def attempts(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a run, oldest first; a line that was cut off by a kill or a full disk is left out."""
    path = folder / "attempts.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def exit_code(folder: Path) -> int | None:
    """Return the exit code that a run has ended with; None: it has not, or can be continued."""
    *_, last = attempts(folder) or [{}]
    code = last.get("exit")
    return None if code == STOPPED and not last.get("pruned") else code


def log_ends_well(folder: Path) -> bool:
    """Return whether the last line of the output says that the run is complete."""
    return any(line.startswith("done: ") for line in last_lines(folder)[-1:])


def last_lines(folder: Path) -> list[str]:
    """Return the last lines of a run's output."""
    path = folder / "log.txt"
    if not path.exists():
        return []
    with path.open(errors="replace") as lines:
        return [line.rstrip("\n") for line in collections.deque((x for x in lines if x.strip()), TAIL)]


def now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _taken(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
