"""The report on `config.data.test`: once, when training is done, with the selected weights."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.config import Config, Evaluation
from vit_jax.errors import InputError
from vit_jax.evaluators import Evaluators, Subject, Watch
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.runs.metrics import Writer
from vit_jax.step import State
from vit_jax.tasks import TASKS, best_metric


class FinalReport:
    """The evaluation of a run's test split, with its pictures opened, and whether it is still to be made.

    Attributes:
        pictures: number of pictures; 0 without a test split.
    """

    def __init__(self, config: Config, subject: Callable[[Config], Subject], workdir: Path):
        """Open the pictures of `config.data.test`, if there is one.

        Raises:
            InputError: they can't be read.
        """
        self._config, self._workdir, self._evaluate, self.pictures = config, workdir, None, 0
        if config.data.test is not None:
            alone = dataclasses.replace(
                config,
                select=None,
                evaluators={"test": Evaluation(split=config.data.test)},
                data=dataclasses.replace(config.data, test=None),
            )
            self._evaluate = Evaluators(subject(alone))
            self.pictures = self._evaluate.pictures["test"]

    def of(self, config: Config, workdir: Path) -> "FinalReport":
        """Return the report of another run, on the same pictures."""
        other = copy.copy(self)
        other._config, other._workdir = config, workdir
        return other

    def __call__(self, checkpoints: Checkpoints, state: State, writer: Writer | None, watch: Watch) -> list[str]:
        """Evaluate the selected weights, write the metrics, and return a line for people; none if that is done.

        Every process must call this, after the last step's checkpoint is complete.

        Args:
            state: the last.

        Raises:
            InputError: the pictures can't be read, or the selected checkpoint is damaged.
            Stop: the run must stop; when it is continued, the report is made.
        """
        last = int(state.step)
        if self._evaluate is None or self._made():
            return []
        step = checkpoints.selected() or last
        try:
            weights = state.weights if step == last else checkpoints.weights(step, state)
            results = self._evaluate(weights, watch)
        except InputError as error:
            raise InputError(
                f"training is done and saved, but config.data.test={self._config.data.test!r} could not be evaluated: "
                f"{error}; run the same command again to repeat that"
            ) from error
        if writer is not None:
            writer.write(last, results.scalars | {"test/step": step}, results)
        best = best_metric(self._config)
        which = f"the best by {best}" if best is not None else "the last"
        name = f"test/{TASKS[self._config.task].best}"
        found = f"{name} {results.scalars[name]:.4f} on {self.pictures:,} pictures"
        use = "" if step == last else "; use them with --checkpoint=best"
        return [f"{found}, once, with the weights of step {step:,}, {which}{use}"]

    def _made(self) -> bool:
        # It has a line of its own, the last of all.
        found = False
        if jax.process_index() == 0:
            *_, line = (self._workdir / "metrics.jsonl").read_text().splitlines()
            found = any(name.startswith("test/") for name in json.loads(line))
        return bool(multihost_utils.broadcast_one_to_all(np.bool_(found)))
