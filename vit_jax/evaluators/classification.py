"""Loss and top-1 accuracy over a whole split."""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.config import Evaluation
from vit_jax.evaluators.evaluator import Results, Subject, Watch
from vit_jax.losses import make_targets
from vit_jax.step import Batch


class Classification:
    """The training loss without label smoothing, and the fraction of pictures whose top class is correct.

    Every picture counts once: rows with "mask" 0 add nothing, and sums are divided by the count at the end.
    """

    metrics = ("loss", "accuracy", "count")

    def __init__(self, subject: Subject, evaluation: Evaluation):
        self._split = subject.open(evaluation)
        self.pictures = len(self._split)

        @jax.jit
        def sums_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
            logits, mask = subject.outputs(params, batch), batch["mask"]
            loss = subject.task.loss(logits, make_targets(batch["label"], logits.shape[-1], smoothing=0.0))
            right = logits.argmax(-1) == batch["label"]
            return {
                "loss": (loss * mask).sum(),
                "right": (right * mask).sum(dtype=jnp.int32),
                "count": mask.sum(dtype=jnp.int32),
            }

        self._sums_of = sums_of

    def __call__(self, params: Any, watch: Watch) -> Results:
        sums = [self._sums_of(params, batch) for batch in watch(self._split.batches())]
        loss, right, count = (
            sum(float(batch[name]) for batch in jax.device_get(sums)) for name in ("loss", "right", "count")
        )
        return Results({"loss": loss / count, "accuracy": right / count, "count": int(count)}, {}, {})
