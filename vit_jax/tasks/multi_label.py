"""Any number of classes per picture, including none."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.config import Config
from vit_jax.errors import InputError
from vit_jax.losses import Smoothing
from vit_jax.tasks.classification import check_pooled
from vit_jax.tasks.task import Batch, Outputs, Targets, Task


class MultiLabel(Task):
    """The classes in each picture: a yes or no for each, with the sigmoid loss summed over the classes."""

    evaluators = ("multi_label", "fewshot", "knn", "linear_probe")
    best = "mean_average_precision"

    def __init__(self, config: Config, num_classes: int):
        check_pooled(config)
        if config.loss != "sigmoid":
            raise InputError(f"config.loss={config.loss!r}: task 'multi_label' needs config.loss='sigmoid'")
        if config.label_smoothing:
            raise InputError(
                f"config.label_smoothing={config.label_smoothing}: task 'multi_label' needs 0; smoothing spreads "
                "the one label of a picture over all classes"
            )
        super().__init__(config, num_classes)

    @property
    def columns(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {"labels": jax.ShapeDtypeStruct((self.num_outputs,), jnp.uint8)}

    def targets(self, batch: Batch, smoothing: Smoothing = 0.0) -> Targets:
        return batch["labels"].astype(jnp.float32)

    def report(self, outputs: Outputs, targets: Targets) -> dict[str, Float[Array, " batch"]]:
        """Return the F1 of each picture: its classes of probability 1/2 or more against its labels."""
        predicted, shown = outputs >= 0, targets >= 0.5
        right, either = (predicted & shown).sum(-1), predicted.sum(-1) + shown.sum(-1)
        return {"f1": jnp.where(either == 0, 1.0, 2 * right / jnp.maximum(either, 1))}
