"""What a model is trained for, as the step, the evaluators and the preflight check see it."""

import abc
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float, Shaped

from vit_jax.config import Config
from vit_jax.losses import LOSSES

Batch = dict[str, jax.Array]
Outputs = Float[Array, "batch outputs"]
Targets = Float[Array, "batch outputs"]


class Task(abc.ABC):
    """What a model is trained for: what it reads of a record, its outputs, targets and loss, and what is reported.

    Attributes:
        evaluators: names of the evaluators that make sense, the task's own first.
        best: the metric of its own evaluator by which one checkpoint is better than another.
        num_outputs: width of the head that goes on the encoder.
    """

    evaluators: ClassVar[tuple[str, ...]]
    best: ClassVar[str]

    def __init__(self, config: Config, num_classes: int):
        """Make the task of a config for a data set of so many classes.

        Raises:
            InputError: the config asks for what the task can't do.
        """
        self.num_outputs, self._loss, self._smoothing = num_classes, LOSSES[config.loss], config.label_smoothing

    @property
    @abc.abstractmethod
    def columns(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What a batch must hold beside "image": the shape and dtype of one record's value, by name."""

    @abc.abstractmethod
    def targets(self, batch: Batch) -> Targets:
        """Return float32 targets, which are mixed as the pictures are, from the columns of a batch."""

    @abc.abstractmethod
    def report(self, outputs: Outputs, targets: Targets) -> dict[str, Shaped[Array, " batch"]]:
        """Return what is told of a training step beside its loss: {metric: a number for each picture}."""

    def forward(self, model: Any, images: jax.Array, key: jax.Array | None) -> Outputs:
        """Return the model's outputs; with a key, dropout and stochastic depth act."""
        return model(images, key=key)

    def loss(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        """Return each picture's loss, float32."""
        return self._loss.cross_entropy(outputs, targets)

    def probabilities(self, outputs: Outputs) -> Float[Array, "batch outputs"]:
        """Return the probability of each class."""
        return self._loss.probabilities(outputs)
