"""What a run reports: `metrics.jsonl`, TensorBoard events, throughput, a progress bar."""

import contextlib
import json
import math
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar
from tqdm import tqdm

from vit_jax.evaluators import Results
from vit_jax.runs.records import read_records
from vit_jax.runs.results import Figures, write_tables


class Writer:
    """Appends one JSON object per step to `metrics.jsonl`, and the same numbers to TensorBoard event files.

    Records of later steps than `step`, left by a run that was killed, are dropped: those steps are repeated.

    Attributes:
        spent: seconds that the run had taken by the last record that is kept.
    """

    def __init__(self, workdir: Path, step: int):
        path, self._evaluation = workdir / "metrics.jsonl", workdir / "evaluation"
        self._figures = Figures(self._evaluation)
        kept = [record for record in read_records(workdir) if record["step"] <= step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(partial, path)
        self._lines = path.open("a", buffering=1)
        self.spent = max((record.get("train/seconds", 0.0) for record in kept), default=0.0)
        folder = workdir / "tensorboard"
        folder.mkdir(exist_ok=True)
        # Not `SummaryWriter`: if its thread can't write, the run waits for it forever.
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._events = RecordWriter(str(folder / name))
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, metrics: dict[str, float | int], results: Results | None = None) -> None:
        """Write the metrics of a step, at most once per step, and the tables and figures of its evaluations.

        Raises:
            OSError: the disk is full or can't be written.
        """
        try:
            # JSON has no NaN or infinity.
            values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in metrics.items():
                self._add(Event(step=step, summary=scalar(name, value)))
            self._events.flush()
            if results is not None:
                write_tables(self._evaluation, step, results)
                self._figures.add(step, results)
        except OSError:
            # Close now: flushing the buffers at exit would fail too, and report the error again.
            for file in (self._lines, self._events):
                with contextlib.suppress(OSError):
                    file.close()
            raise

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())

    def close(self) -> None:
        """Draw the figures that wait, flush and close the files."""
        try:
            self._figures.finish()
        finally:
            self._lines.close()
            self._events.close()


class Clock:
    """Pictures per second, and the share of time spent waiting for data, since the last reading; and the cost so far.

    Args:
        spent: seconds that the run took before it was continued.
    """

    def __init__(self, batch: int, spent: float = 0.0):
        self.batch = batch
        self._began = time.perf_counter() - spent
        self._reset(0)

    def cost(self) -> dict[str, float]:
        """Return "train/seconds" and "train/memory_gib".

        The seconds are of all the loop, compiling, evaluating and saving included.
        The memory is the most that a device has held at once; on a CPU, the most that the process has.
        """
        return {"train/seconds": time.perf_counter() - self._began, "train/memory_gib": peak_bytes() / 2**30}

    def _reset(self, step: int) -> None:
        self._step, self._start, self._waited, self._paused = step, time.perf_counter(), 0.0, 0.0

    def waiting(self, batches: Iterable) -> Iterator:
        """Yield the batches, timing the wait for each."""
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - start
            yield batch

    @contextlib.contextmanager
    def pause(self, state: Any) -> Iterator[None]:
        """Exclude what is not training, such as evaluation; starts once `state` is computed."""
        jax.block_until_ready(state)
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def start(self, step: int) -> None:
        """Start measuring at `step`, after compilation."""
        self._reset(step)

    def read(self, step: int) -> dict[str, float]:
        """Return "images_per_second" and "data_wait" in [0, 1] since the last reading, and reset."""
        seconds = max(time.perf_counter() - self._start - self._paused, 1e-9)
        rates = {
            "images_per_second": (step - self._step) * self.batch / seconds,
            "data_wait": min(self._waited / seconds, 1.0),
        }
        self._reset(step)
        return rates


def peak_bytes() -> int:
    """Return the largest memory so far: resident on a CPU, else of the fullest of this process's devices."""
    if jax.default_backend() == "cpu":
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024
    return max((each.memory_stats() or {}).get("peak_bytes_in_use", 0) for each in jax.local_devices())


class Progress:
    """A progress bar on a terminal; elsewhere, one plain line per report.

    Args:
        name: of the run, which is put before each line; there is no bar then, since there are other runs.
    """

    def __init__(self, step: int, total: int, name: str = ""):
        self._total, self._name = total, f"{name}: " * bool(name)
        self._first, self._start = step, time.perf_counter()
        self._bar = (
            tqdm(total=total, initial=step, unit="step", dynamic_ncols=True)
            if not name and sys.stderr.isatty()
            else None
        )

    def update(self, step: int, metrics: dict[str, float | int]) -> None:
        """Move to `step` and show its metrics, if any."""
        shown = "  ".join(f"{name} {_format(name, value)}" for name, value in metrics.items() if _is_shown(name))
        line = f"{self._name}step {step}/{self._total}  {shown}"
        if self._bar is not None:
            if any(not name.startswith(("train/", "data/")) for name in metrics):
                self._bar.write(line)
            if metrics:
                self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step - self._bar.n)
        elif metrics:
            pace = (time.perf_counter() - self._start) / (step - self._first)
            print(f"{line}  left {tqdm.format_interval((self._total - step) * pace)}", flush=True)

    def close(self) -> None:
        """Close the bar, leaving it on the screen."""
        if self._bar is not None:
            self._bar.close()


_HIDDEN = ("/count", "/accuracy_low", "/accuracy_high")
_SHOWN = ("train/loss", "train/images_per_second", "train/data_wait")


def _is_shown(name: str) -> bool:
    return name in _SHOWN or not (name.startswith(("train/", "data/")) or name.endswith(_HIDDEN))


def _format(name: str, value: float) -> str:
    if name.endswith("images_per_second"):
        return f"{value:,.0f}"
    return f"{value:.0%}" if name.endswith("data_wait") else f"{value:.4f}"
