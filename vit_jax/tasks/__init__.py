"""Tasks: what a model is trained for."""

from vit_jax.config import Config
from vit_jax.tasks.classification import Classification
from vit_jax.tasks.mae import Mae
from vit_jax.tasks.masked_patches import MaskedPatches
from vit_jax.tasks.multi_label import MultiLabel
from vit_jax.tasks.next_patch import NextPatch
from vit_jax.tasks.task import Task

__all__ = ["TASKS", "Task", "best_metric", "build_task", "is_lower_better"]

# To add a task: add a file next to this one, a line here, and its name to `vit_jax.config.Config`.
TASKS = {
    "classification": Classification,
    "multi_label": MultiLabel,
    "masked_patches": MaskedPatches,
    "mae": Mae,
    "next_patch": NextPatch,
}


def build_task(config: Config, num_classes: int) -> Task:
    """Return the task of a config for a data set with `num_classes` classes.

    Raises:
        InputError: the task does not support the config.
    """
    return TASKS[config.task](config, num_classes)


def best_metric(config: Config) -> str | None:
    """Return the metric that selects the best checkpoint, such as "val/accuracy"; None keeps no best."""
    if config.select != "auto":
        return config.select
    task = TASKS[config.task]
    names = [name for name, each in config.evaluations() if each.evaluator in (None, task.evaluators[0])]
    return f"{names[0]}/{task.best}" if names else None


def is_lower_better(metric: str) -> bool:
    """Return whether a metric, such as "val/loss", is to be low; others, such as an accuracy, are to be high."""
    return metric.endswith(("loss", "ece"))
