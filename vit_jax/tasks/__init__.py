"""Tasks: what a model is trained for."""

from vit_jax.config import Config
from vit_jax.tasks.classification import Classification
from vit_jax.tasks.multi_label import MultiLabel
from vit_jax.tasks.task import Task

__all__ = ["TASKS", "Task", "best_metric", "build_task"]

# To add a task: a file beside this one, a line here, and its name in `vit_jax.config.Config`.
TASKS = {"classification": Classification, "multi_label": MultiLabel}


def build_task(config: Config, num_classes: int) -> Task:
    """Return the task of a config for a data set of so many classes.

    Raises:
        InputError: the config asks for what the task can't do.
    """
    return TASKS[config.task](config, num_classes)


def best_metric(config: Config) -> str | None:
    """Return the metric by which the best checkpoint is chosen, such as "val/accuracy"; None keeps no best."""
    if config.keep_best != "auto":
        return config.keep_best
    name, _ = config.evaluations()[0]
    return f"{name}/{TASKS[config.task].best}"
