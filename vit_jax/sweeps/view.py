"""What a sweep shows while it goes: a table on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from vit_jax.errors import STOPPED, InputError
from vit_jax.runs.records import read_records

EVERY = 2.0  # seconds
SHOWN = 30  # running runs


class View:
    """Shows the running runs with their progress, and a line for each that ends.

    Attributes:
        failed: names of the runs that failed.
    """

    def __init__(self, folder: Path, total: int, metric: str | None):
        """Show a sweep of which `total` runs are not done yet."""
        self._folder, self._total, self._metric = folder, total, metric
        self.failed = []
        self._ended = 0
        self._next = 0.0
        self._live = None
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(refresh_per_second=4, transient=True)
            self._live.start()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def started(self, names: list[str]) -> None:
        """Show that runs were started, together if they are several."""
        if self._live is None:
            print(f"started {' with '.join(names)}", flush=True)

    def ended(self, name: str, code: int | None, event: dict[str, Any]) -> None:
        """Show how a run ended: its attempt's exit code and last event."""
        if code is None:
            return
        stopped = code == STOPPED and not event.get("pruned")
        self._ended += not stopped
        self.failed += [name] if code not in (0, STOPPED) else []
        record = last_record(self._folder / name)
        found = f"  {self._metric} {record[self._metric]:.4f}" if record.get(self._metric) is not None else ""
        seconds = f"  {event['seconds']:.0f} s" if event.get("seconds") else ""
        how = "pruned" if event.get("pruned") else {0: "done", STOPPED: "stopped"}.get(code, f"FAILED ({code})")
        why = f"  {event['lines'][-1]}" if code not in (0, STOPPED) and event.get("lines") else ""
        self.say(f"{how} {name}{found}{seconds}{why}  [{self._ended} of {self._total}]")

    def refresh(self, running: list[str]) -> None:
        """Show how far the running runs are, every few seconds."""
        if self._live is None or time.monotonic() < self._next:
            return
        from rich.table import Table

        self._next = time.monotonic() + EVERY
        counts = f"{self._ended} of {self._total} ended, {len(self.failed)} failed, {len(running)} running"
        table = Table(title=counts, title_justify="left")
        for column in ("run", "step", "train/loss", self._metric or "metric", "minutes"):
            table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
        for name in running[:SHOWN]:
            record = last_record(self._folder / name)
            numbers = [record.get(key) for key in ("train/loss", self._metric)]
            shown = ["" if number is None else f"{number:.4f}" for number in numbers]
            minutes = f"{record['train/seconds'] / 60:.1f}" if "train/seconds" in record else ""
            table.add_row(name, str(record.get("step", "")), *shown, minutes)
        self._live.update(table)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()


def last_record(folder: Path) -> dict[str, Any]:
    """Return each metric of a run as it was written last; empty if there are none yet."""
    record = {}
    with contextlib.suppress(InputError):  # Whoever needs the metrics says what is wrong with them.
        for each in read_records(folder, last=20_000):
            record |= each
    return record
