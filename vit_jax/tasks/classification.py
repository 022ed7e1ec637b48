"""One class per picture."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from vit_jax.config import Config
from vit_jax.errors import InputError
from vit_jax.losses import Smoothing, make_targets
from vit_jax.tasks.task import Batch, Outputs, Targets, Task


def check_pooled(config: Config) -> None:
    """Raise an `InputError` if the model has outputs per token instead of per picture."""
    if config.model.pool == "none":
        raise InputError("config.model.pool='none' has logits for each token, not for a picture; use token, gap or map")


class Classification(Task):
    """The class of each picture: cross-entropy over the classes, or of each class against the rest."""

    evaluators = ("classification", "fewshot", "knn", "linear_probe", "zeroshot")
    best = "accuracy"
    columns = {"label": jax.ShapeDtypeStruct((), jnp.int32)}

    def __init__(self, config: Config, num_classes: int):
        check_pooled(config)
        super().__init__(config, num_classes)

    def targets(self, batch: Batch, smoothing: Smoothing = 0.0) -> Targets:
        return make_targets(batch["label"], self.num_outputs, smoothing)

    def report(self, outputs: Outputs, targets: Targets) -> dict[str, Bool[Array, " batch"]]:
        # With mixed targets, the label with the largest weight counts.
        return {"accuracy": outputs.argmax(-1) == targets.argmax(-1)}
