"""One attempt at a run: its own process, lock, log and record."""

import collections
import contextlib
import datetime
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, NamedTuple

from vit_jax.errors import NOT_FINITE, STOPPED
from vit_jax.runs.records import read_records
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
    """A run of a sweep, or several that are trained together, by the command in a process of its own.

    The process holds a lock on each run's directory for as long as it lives, whatever becomes of the sweep: whoever
    finds a lock taken waits for that process instead of starting another.
    """

    def __init__(self, folders: list[Path], command: list[str], *, retry: bool = False):
        """Prepare an attempt at the runs in `folders`; with `retry`, even if they failed before."""
        self.folders, self._command, self._retry = folders, command, retry
        self._process = None
        self._stop = self._pruned = False

    def __call__(self, slot: Slot) -> list[int | None]:
        """Run to the end, and return the exit code of each run; None if it was asked to stop before it started."""
        with contextlib.ExitStack() as held:
            locks = [held.enter_context((folder / "lock").open("w")) for folder in self.folders]
            for lock in locks:
                while not take(lock):
                    if self._stop:
                        return [None] * len(locks)
                    time.sleep(POLL)
            codes = [self._known(folder) for folder in self.folders]
            if self._stop or None not in codes:
                return codes
            start = time.monotonic()
            with (self.folders[0] / "log.txt").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"} | slot.environment,
                    pass_fds=[lock.fileno() for lock in locks],
                    start_new_session=True,  # Ctrl-C is for the sweep, which asks its runs to stop.
                )
            if slot.cores:
                with contextlib.suppress(ProcessLookupError):  # It may have ended already.
                    os.sched_setaffinity(self._process.pid, slot.cores)
        # If the disk is full, the run goes on nevertheless, and recording its end fails too, which is reported.
        with contextlib.suppress(OSError):
            self._record_start()
        if self._stop:  # Asked while the process was starting.
            self._process.send_signal(signal.SIGTERM)
        code = self._process.wait()
        if self._stop and code == -signal.SIGTERM:
            code = STOPPED  # Python itself was not there yet to handle it.
        end = {"event": "end", "time": now(), "seconds": round(time.monotonic() - start, 3)}
        codes = [0 if code == NOT_FINITE and is_complete(folder) else code for folder in self.folders]
        for folder, own in zip(self.folders, codes, strict=True):
            failed = {"lines": last_lines(self.folders[0])} if own else {}
            pruned = {"pruned": True} if self._pruned and own == STOPPED else {}
            record(folder, end | {"exit": own} | failed | pruned)
        return codes

    def _known(self, folder: Path) -> int | None:
        # Whoever held the lock may have finished the run, and known nobody to tell.
        code = exit_code(folder)
        if self._retry and code:
            code = None
        if code is None and log_ends_well(folder):
            code = 0
            record(folder, {"event": "end", "time": now(), "seconds": None, "exit": code})
        return code

    def _record_start(self) -> None:
        event = {"event": "start", "time": now(), "host": socket.gethostname(), "pid": self._process.pid}
        for folder in self.folders:
            record(folder, event)
            if folder != self.folders[0]:
                with (folder / "log.txt").open("a") as log:
                    log.write(f"trained together with others: see ../{self.folders[0].name}/log.txt\n")

    def running(self) -> bool:
        """Return whether the process of the runs is alive."""
        if self._process is None:
            return False
        with (self.folders[0] / "lock").open("a") as lock:
            return not take(lock)

    def fresh(self) -> "Attempt":
        """Return another attempt at the same runs, for another process."""
        return Attempt([folder.absolute() for folder in self.folders], self._command, retry=self._retry)

    def stop(self, *, pruned: bool = False) -> None:
        """Ask the runs to save their states and end, for good if they are `pruned`."""
        if self._stop:
            return
        self._stop, self._pruned = True, pruned
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def prepare(folder: Path, base: Base, runs: list[Run], *, retry: bool = False) -> Attempt:
    """Create the folders of runs with their `command.json`, and return an attempt at them.

    Args:
        folder: of the sweep.

    Raises:
        OSError: the disk is full or can't be written.
    """
    folders = [folder / run.name for run in runs]
    for run, own in zip(runs, folders, strict=True):
        command = base.command(run, own)
        facts = {"config": run.spec, "overrides": run.settings(), "fixed": base.fixed, "argv": command}
        own.mkdir(parents=True, exist_ok=True)
        replace(own / "command.json", json.dumps(facts, indent=1) + "\n")
    if len(runs) > 1:
        command = [sys.executable, "-m", "vit_jax.sweeps.together", *map(str, folders)]
    return Attempt(folders, command, retry=retry)


def replace(path: Path, text: str) -> None:
    """Write a file as a whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def record(folder: Path, event: dict[str, Any]) -> None:
    """Append an event to the attempts at a run."""
    path = folder / "attempts.jsonl"
    torn = path.exists() and not path.read_bytes().endswith(b"\n")  # By a kill or a full disk.
    with path.open("a") as lines:
        lines.write("\n" * torn + json.dumps(event) + "\n")


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


def is_complete(folder: Path) -> bool:
    """Return whether the metrics of a run go to its last step."""
    try:
        total = json.loads((folder / "run.json").read_text())["size"]["steps"]
    except (OSError, ValueError, KeyError):
        return False
    *_, last = read_records(folder, last=20_000) or [{}]
    return last.get("step") == total


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


def take(lock: IO) -> bool:
    """Return whether a file could be locked for this process and those that inherit it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
