"""What a run leaves in its directory as it trains: metrics, evaluations, checkpoints, the final report."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.config import Config, Plan
from vit_jax.errors import Stop
from vit_jax.evaluators import Evaluators, Results, Watch
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.runs.final import FinalReport
from vit_jax.runs.metrics import Progress, Writer
from vit_jax.runs.skipped import SkippedUpdates
from vit_jax.step import State
from vit_jax.tasks import best_metric


class Outputs:
    """The outputs of a run whose directory exists; all processes must call each method.

    Attributes:
        replaced: of each batch since the last record, 1 for the pictures that could not be read.
        skipped: the count of skipped updates.
        spent: seconds that the run had taken before it was continued.
    """

    replaced: list[jax.Array | np.ndarray]
    skipped: SkippedUpdates
    spent = 0.0

    def __init__(
        self, config: Config, workdir: Path, plan: Plan, evaluate: Evaluators, report: FinalReport, name: str = ""
    ):
        """Open the checkpoints.

        Args:
            name: what lines for people begin with, if there are several runs.
        """
        self._allowed, self._workdir, self._plan, self._name = config.max_skipped, workdir, plan, name
        self._evaluate, self._report = evaluate, report
        self._writer = self._progress = None
        self.replaced = []
        self.checkpoints = Checkpoints(workdir, config.keep, best_metric(config))

    def open(self, state: State) -> None:
        """Open the metrics at the step of a state, new or restored, and make an evaluation that was broken off there.

        Raises:
            InputError: `metrics.jsonl` can't be read.
        """
        step = int(state.step)
        saved = self.checkpoints.contents(step)["metrics"] if step else {}
        # A checkpoint saved during an evaluation lacks its results, and metrics.jsonl has no line for its step yet.
        logged = self._plan.due(step, self._plan.log_every)
        evaluated = any(not name.startswith(("train/", "data/")) for name in saved)
        unfinished = bool(saved) and self._plan.evaluates(step) and not evaluated
        self.replaced += [] if logged else [np.array(saved["data/bad"])]
        self.skipped = SkippedUpdates(self._allowed, int(state.skipped))
        if jax.process_index() == 0:
            self._writer = Writer(self._workdir, step - unfinished)
            self._progress = Progress(step, self._plan.total, self._name)
            self.spent = self._writer.spent
        if unfinished:
            results = self._evaluate.attempt(step, state.weights, due=functools.partial(self._plan.evaluates, step))
            if self._writer is not None:
                self._writer.write(step, (saved if logged else {}) | results.scalars, results)

    def entry(self, step: int) -> "Entry":
        """Return what is to be written of a step."""
        return Entry(self, step)

    def close(self, state: State, *, done: bool, watch: Watch) -> tuple[int, list[str]]:
        """Finish what is being written and, of a run that is `done`, make the final report.

        Returns:
            The exit code if the run was stopped while it made the report, else 0; and lines for people.

        Raises:
            InputError: the pictures of the report can't be read.
        """
        self.checkpoints.close()
        try:
            return 0, self._report(self.checkpoints, state, self._writer, watch) if done else []
        except Stop as asked:
            return asked.code, []
        finally:
            if self._writer is not None:
                self._writer.close()
                self._progress.close()

    def why_skipped(self, step: int) -> str:
        """Return the error message for a step at which too many updates had been skipped."""
        return self.skipped.why(step, self.checkpoints.latest(), self._workdir)


class Entry:
    """What a run writes of one step: its record and results, then a checkpoint with the same metrics."""

    def __init__(self, outputs: Outputs, step: int):
        self._outputs, self._step = outputs, step
        self._record: dict[str, float | int] = {}
        self._results: Results | None = None
        self._whole = True

    def log(self, metrics: dict[str, Any], pace: dict[str, float]) -> None:
        """Add the metrics of the step, on devices or not, and what the clock read."""
        self._record |= {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
        self._record |= {f"train/{name}": value for name, value in pace.items()}
        self._record |= {"data/bad": count(self._outputs.replaced)}
        self._outputs.replaced.clear()

    def evaluate(self, weights: Any, watch: Watch) -> int:
        """Add the evaluations that are due; return the exit code if the run was asked to stop meanwhile, else 0."""
        due = functools.partial(self._outputs._plan.evaluates, self._step)
        try:
            self._results = self._outputs._evaluate.attempt(self._step, weights, watch, due)
        except Stop as asked:
            self._whole = False
            return asked.code
        self._record |= self._results.scalars
        return 0

    def write(self, cost: dict[str, float]) -> None:
        """Write the record, if there is any, with the cost of the run so far.

        Raises:
            OSError: the disk is full or can't be written.
        """
        outputs = self._outputs
        if outputs._writer is not None and self._whole:
            outputs._progress.update(self._step, self._record)
            if self._record:
                outputs._writer.write(self._step, self._record | cost, self._results)

    def save(self, state: State) -> None:
        """Save a checkpoint."""
        self._outputs.checkpoints.save(state, {"data/bad": count(self._outputs.replaced), **self._record})


def count(replaced: list[jax.Array | np.ndarray]) -> int:
    """Return the number of pictures in some batches that could not be read."""
    return sum(int(part.sum()) for part in replaced)
