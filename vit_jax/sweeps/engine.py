"""The engine of a sweep: takes runs from a queue, keeps them going wherever they run, and records how they end."""

import collections
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from vit_jax.errors import STOPPED, InputError, Stop
from vit_jax.sweeps.attempt import Attempt, attempts, exit_code, prepare
from vit_jax.sweeps.plan import Base, Run, program
from vit_jax.sweeps.table import read_runs, write_table
from vit_jax.sweeps.view import View

TICK = 0.2  # seconds
LOOK_EVERY = 2.0  # seconds between looks at how the runs do
TABLE_EVERY = 30.0  # seconds


class Queue(Protocol):
    """The runs of a sweep, in the order in which they start.

    Attributes:
        left: number of runs that are to end.
    """

    left: int

    def take(self) -> list[Run]:
        """Return the next run, or several that are trained together; empty if there is none now."""

    def ended(self, run: Run, code: int, pruned: bool) -> None:
        """Take note of how a run ended: its exit code, and whether it was stopped as unpromising."""

    def unpromising(self, run: Run) -> bool:
        """Return whether a running run should be stopped, as others do better."""


class Listed:
    """The runs of a plan that are not done yet, so many of them together."""

    def __init__(self, runs: list[Run], together: int = 1):
        self.left = len(runs)
        groups = collections.defaultdict(list)
        for run in runs:
            groups[program(run.config) if together > 1 else run.name].append(run)
        self._groups = collections.deque(part for group in groups.values() for part in _parts(group, together))

    def take(self) -> list[Run]:
        return self._groups.popleft() if self._groups else []

    def ended(self, run: Run, code: int, pruned: bool) -> None:
        pass

    def unpromising(self, run: Run) -> bool:
        return False


def _parts(runs: list[Run], most: int) -> list[list[Run]]:
    number = -(-len(runs) // most)
    return [runs[i * len(runs) // number : (i + 1) * len(runs) // number] for i in range(number)]


class Executor(Protocol):
    """Where attempts run.

    Attributes:
        room: number of attempts at once.
        waits: whether it ends with this process, which must then wait until the runs have saved their states.
    """

    room: int
    waits: bool

    def start(self, attempts: list[Attempt]) -> list[Any]:
        """Start attempts, and return for each what has `done()` and, as its `result()`, its exit codes."""


def left(folder: Path, runs: list[Run], retry: bool) -> list[Run]:
    """Return the runs that are not done, and have not failed unless `retry`; those in the middle come first."""
    codes = {run.name: exit_code(folder / run.name) for run in runs}
    todo = [run for run in runs if codes[run.name] is None or (retry and codes[run.name] != 0)]
    return sorted(todo, key=lambda run: not (folder / run.name / "run.json").exists())


def drive(folder: Path, base: Base, queue: Queue, executor: Executor, view: View, *, retry: bool = False) -> None:
    """Run what the queue has until it is empty.

    Raises:
        Stop: a signal asked for it; the running runs have saved their states.
    """
    asked = []
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in _SIGNALS}
    active: dict[Any, tuple[list[Run], Attempt]] = {}
    next_look = time.monotonic()
    next_table = next_look + TABLE_EVERY
    try:
        while True:
            started = []
            while not asked and len(active) + len(started) < executor.room and (runs := queue.take()):
                with _going_on(runs[0].name, view):
                    started.append((runs, prepare(folder, base, runs, retry=retry)))
                    view.started([run.name for run in runs])
            active |= zip(executor.start([attempt for _, attempt in started]), started, strict=True)
            if not active:
                break
            if asked and not executor.waits:
                break
            time.sleep(TICK)
            look = time.monotonic() >= next_look
            next_look = time.monotonic() + LOOK_EVERY if look else next_look
            for runs, attempt in active.values():
                if asked:
                    attempt.stop()
                elif look and all(map(queue.unpromising, runs)):
                    attempt.stop(pruned=True)
            for handle in [handle for handle in active if handle.done()]:
                runs, _ = active.pop(handle)
                with _going_on(runs[0].name, view):
                    for run, code in zip(runs, handle.result(), strict=True):
                        *_, event = attempts(folder / run.name) or [{}]
                        view.ended(run.name, code, event)
                        if code is not None:
                            queue.ended(run, code, bool(event.get("pruned")))
            view.refresh([run.name for runs, _ in active.values() for run in runs])
            if time.monotonic() >= next_table:
                start = time.monotonic()
                try:
                    write_table(folder, read_runs([folder]))
                except InputError as error:
                    view.say(f"warning: {error}; the runs go on")
                # Reading many runs takes seconds, which are those of the runs.
                next_table = time.monotonic() + max(TABLE_EVERY, 50 * (time.monotonic() - start))
    except BaseException:
        for _, attempt in active.values():
            attempt.stop()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        what = "stopped" if executor.waits else "the jobs go on, and --stop cancels them"
        raise Stop(STOPPED, f"{signal.Signals(asked[0]).name}: {what}; run the same command again to continue")


@contextlib.contextmanager
def _going_on(what: str, view: View) -> Iterator[None]:
    """Report that something could not be written, which is no reason to stop the other runs."""
    try:
        yield
    except OSError as error:
        view.say(f"warning: {what} could not be recorded ({error.strerror or error}); the other runs go on")


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
