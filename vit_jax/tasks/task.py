"""The task interface, used by the step, the evaluators and the preflight check."""

import abc
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float, Shaped

from vit_jax.config import Config
from vit_jax.losses import LOSSES, Smoothing
from vit_jax.packing import Packed

Batch = dict[str, jax.Array]
Outputs = Float[Array, "batch outputs"]
Targets = Float[Array, "batch outputs"]


class Task(abc.ABC):
    """What a model is trained for: the columns it reads, its outputs, targets and loss, and the metrics reported.

    Attributes:
        evaluators: names of the evaluators that support the task, the default first.
        best: the metric of the default evaluator that ranks checkpoints.
        num_outputs: width of the head.
    """

    evaluators: ClassVar[tuple[str, ...]]
    best: ClassVar[str]
    num_outputs: int

    def __init__(self, config: Config, num_classes: int):
        """Create the task of a config for a data set with `num_classes` classes.

        Raises:
            InputError: the task does not support the config.
        """
        self.num_outputs, self._loss = num_classes, LOSSES[config.loss]

    @property
    @abc.abstractmethod
    def columns(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The columns of a batch besides "image": shape and dtype of one record's value, by name."""

    @abc.abstractmethod
    def targets(self, batch: Batch, smoothing: Smoothing = 0.0) -> Targets:
        """Return float32 targets from the columns of a batch; augmentation mixes them along with the pictures.

        Args:
            smoothing: `config.label_smoothing`, for a task that has it.
        """

    @abc.abstractmethod
    def report(self, outputs: Outputs, targets: Targets) -> dict[str, Shaped[Array, " batch"]]:
        """Return a training step's metrics besides the loss: {metric: one number per picture}."""

    def forward(self, model: Any, images: jax.Array | Packed, key: jax.Array | None) -> Outputs:
        """Return the model's outputs; with a key, dropout and stochastic depth are active."""
        return model(images, key=key)

    def loss(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        """Return each picture's loss in float32."""
        return self._loss.cross_entropy(outputs, targets)

    def probabilities(self, outputs: Outputs) -> Float[Array, "batch outputs"]:
        """Return the probability of each class."""
        return self._loss.probabilities(outputs)
