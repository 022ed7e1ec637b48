"""Evaluators: each opens its own pictures, asks a model for outputs or activations, and returns metrics."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from vit_jax.cluster.sharding import make_mesh, place_params, tree_shardings, with_shardings
from vit_jax.config import Config, Data, Evaluation, MeshShape
from vit_jax.errors import InputError, nearest
from vit_jax.evaluators.classification import Classification
from vit_jax.evaluators.evaluator import Evaluator, Results, Split, Subject, Watch
from vit_jax.evaluators.multi_label import MultiLabel
from vit_jax.tasks import TASKS, best_metric, build_task

__all__ = ["EVALUATORS", "Evaluator", "Evaluators", "Results", "Split", "Subject", "evaluate_model"]

# To add an evaluator: a file beside this one and a line here, and its name in the tasks that it makes sense for.
EVALUATORS: dict[str, Callable[[Subject, Evaluation], Evaluator]] = {
    "classification": Classification,
    "multi_label": MultiLabel,
}


class Evaluators:
    """The evaluations of a config, their pictures opened.

    Attributes:
        metrics: names of all their scalars, such as "val/accuracy".
        pictures: forward passes that each evaluation costs, by name.
    """

    def __init__(self, subject: Subject):
        """Open the pictures of every evaluation of `subject.config`.

        Raises:
            InputError: an evaluator is unknown or makes no sense for the task, or its pictures can't be read.
        """
        check_evaluators(subject.config)
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
            raise InputError(f"config.keep_best={best!r}: is no metric of this run; {nearest(best, self.metrics)}")

    def __call__(self, params: Any, watch: Watch = iter, due: Callable[[str], bool] = lambda name: True) -> Results:
        """Run the evaluations that are due, chosen by name; the names of what they return begin with their own."""
        results = Results({}, {}, {})
        for name, evaluator in self._evaluators:
            if due(name):
                for found, new in zip(results, evaluator(params, watch), strict=True):
                    found |= {f"{name}/{key}": value for key, value in new.items()}
        return results


def check_evaluators(config: Config) -> None:
    """Raise an `InputError` if an evaluator of a config is unknown, or makes no sense for its task."""
    allowed = TASKS[config.task].evaluators
    for _, evaluation in config.evaluations():
        name = evaluation.evaluator
        if name in EVALUATORS and name not in allowed:
            raise InputError(
                f"config.evaluators: {name!r} makes no sense for task {config.task!r}; choose {' or '.join(allowed)}"
            )
        if name is not None and name not in allowed:
            raise InputError(f"config.evaluators: {name!r}: {nearest(name, allowed)}")


def evaluate_model(
    model: nnx.Module,
    label_names: Sequence[str],
    data: Data,
    *,
    batch: int = 64,
    **keys: Any,
) -> Results:
    """Evaluate a model that `vit_jax.load` or `vit_jax.create_model` gave, on this machine's devices.

    Args:
        label_names: the classes that its outputs stand for, in order.
        data: where the pictures are; `data.val` names the split.
        batch: pictures at a time.
        keys: further keys of `vit_jax.config.Config`, such as `task`, `loss` or `evaluators`.

    Raises:
        InputError: the pictures can't be read, or have other classes.
    """
    if len(label_names) != model.num_classes:
        raise InputError(f"the model has {model.num_classes} outputs, but there are {len(label_names)} label names")
    config = Config(batch=batch, image_size=model.image_size, channels=model.channels, model=model.config, data=data)
    config = dataclasses.replace(config, **keys)
    mesh = make_mesh(MeshShape())
    graph, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    shapes = with_shardings(params, tree_shardings(params, mesh))
    subject = Subject(graph, build_task(config, model.num_classes), config, tuple(label_names), mesh)
    return Evaluators(subject)(place_params(params, shapes))
