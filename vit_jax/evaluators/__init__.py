"""Evaluators: each opens its own pictures, runs a model for outputs or activations, and returns metrics."""

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from tqdm import tqdm

from vit_jax.cluster.sharding import make_mesh, place_params, tree_shardings, with_shardings
from vit_jax.config import PRETRAINING, Config, Data, Evaluation, MeshShape
from vit_jax.errors import InputError, nearest
from vit_jax.evaluators.classification import Classification
from vit_jax.evaluators.evaluator import Evaluator, Results, Split, Subject, TextHeads, Watch
from vit_jax.evaluators.fewshot import Fewshot
from vit_jax.evaluators.knn import NearestNeighbours
from vit_jax.evaluators.linear_probe import LinearProbe
from vit_jax.evaluators.multi_label import MultiLabel
from vit_jax.evaluators.reconstruction import Reconstruction
from vit_jax.evaluators.together import one_line, run_together
from vit_jax.evaluators.zeroshot import ZeroShot
from vit_jax.tasks import TASKS, best_metric, build_task

__all__ = ["EVALUATORS", "Evaluator", "Evaluators", "Results", "Split", "Subject", "evaluate_config", "evaluate_model"]

# To add an evaluator: add a file next to this one, a line here, and its name to the tasks that it supports.
EVALUATORS: dict[str, Callable[[Subject, Evaluation], Evaluator]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "reconstruction": Reconstruction,
    "fewshot": Fewshot,
    "knn": NearestNeighbours,
    "linear_probe": LinearProbe,
    "zeroshot": ZeroShot,
}

SHOWN = 240  # characters of why an evaluation failed


class Evaluators:
    """The evaluations of a config, with their pictures opened.

    Attributes:
        metrics: names of all scalars, such as "val/accuracy".
        pictures: number of forward passes per evaluation, by name.
    """

    def __init__(self, subject: Subject):
        """Open the pictures of every evaluation of `subject.config`.

        Raises:
            InputError: an evaluator is unknown or does not support the task, or its pictures can't be read.
        """
        check_evaluators(subject.config)
        self._failures = subject.failures
        self._evaluators: list[tuple[str, Evaluator]] = []
        for name, evaluation in subject.config.evaluations():
            kind = evaluation.evaluator or subject.task.evaluators[0]
            self._evaluators.append((name, EVALUATORS[kind](subject, evaluation)))
        self.metrics = {f"{name}/{metric}" for name, evaluator in self._evaluators for metric in evaluator.metrics}
        self.pictures = dict.fromkeys((name for name, _ in self._evaluators), 0)
        for name, evaluator in self._evaluators:
            self.pictures[name] += evaluator.pictures
        best = best_metric(subject.config)
        if best is not None and best not in self.metrics and not best.startswith("train/"):
            raise InputError(f"config.select={best!r}: is not a metric of this run; {nearest(best, self.metrics)}")

    def __call__(self, params: Any, watch: Watch = iter, due: Callable[[str], bool] = lambda name: True) -> Results:
        """Run the evaluations whose names are due; their names prefix the names of their results.

        Raises:
            InputError: an evaluation failed, in this process or another.
        """
        return self._run(params, watch, due, step=None)

    def attempt(
        self, step: int, params: Any, watch: Watch = iter, due: Callable[[str], bool] = lambda name: True
    ) -> Results:
        """Run the evaluations that are due at a step of training; one that fails is reported and has no results."""
        return self._run(params, watch, due, step)

    def _run(self, params: Any, watch: Watch, due: Callable[[str], bool], step: int | None) -> Results:
        results = Results({}, {}, {})
        for name, evaluator in self._evaluators:
            if not due(name):
                continue
            found = run_together(functools.partial(evaluator, params, watch), self._failures)
            if isinstance(found, Exception):
                if step is None:
                    raise found
                if jax.process_index() == 0:
                    why = textwrap.shorten(one_line(found), SHOWN, placeholder=" ...")
                    tqdm.write(f"warning: evaluation {name!r} at step {step} failed ({why}); training goes on")
                continue
            for all_of_kind, new in zip(results, found, strict=True):
                all_of_kind |= {f"{name}/{key}": value for key, value in new.items()}
        return results


def check_evaluators(config: Config) -> None:
    """Raise an `InputError` if an evaluator of a config is unknown, or does not support its task."""
    allowed = TASKS[config.task].evaluators
    for _, evaluation in config.evaluations():
        name = evaluation.evaluator
        if name in EVALUATORS and name not in allowed:
            raise InputError(
                f"config.evaluators: {name!r} does not support task {config.task!r}; choose {' or '.join(allowed)}"
            )
        if name is not None and name not in allowed:
            raise InputError(f"config.evaluators: {name!r}: {nearest(name, allowed)}")


def evaluate_model(
    model: nnx.Module,
    label_names: Sequence[str],
    data: Data,
    *,
    batch: int = 64,
    text_head: TextHeads | None = None,
    **keys: Any,
) -> Results:
    """Evaluate a model from `vit_jax.load` or `vit_jax.create_model` on this machine's devices.

    Args:
        label_names: the classes of its outputs, in order.
        data: where the pictures are; `data.val` names the split.
        batch: number of pictures per forward pass.
        text_head: `vit_jax.weights.zeroshot.open_head`, which the evaluator "zeroshot" needs.
        keys: other keys of `vit_jax.config.Config`, such as `task`, `loss` or `evaluators`.

    Raises:
        InputError: the pictures can't be read, or have other classes.
    """
    config = Config(batch=batch, image_size=model.image_size, channels=model.channels, model=model.config, data=data)
    return evaluate_config(model, label_names, dataclasses.replace(config, **keys), text_head)


def evaluate_config(
    model: nnx.Module, label_names: Sequence[str], config: Config, text_head: TextHeads | None = None
) -> Results:
    """Run the evaluations of a config on a model that it describes; see `evaluate_model`."""
    if config.task not in PRETRAINING and len(label_names) != model.num_classes:
        raise InputError(f"the model has {model.num_classes} outputs, but there are {len(label_names)} label names")
    mesh = make_mesh(MeshShape())
    graph, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    shapes = with_shardings(params, tree_shardings(params, mesh))
    subject = Subject(graph, build_task(config, model.num_classes), config, tuple(label_names), mesh, text_head)
    return Evaluators(subject)(place_params(params, shapes))
