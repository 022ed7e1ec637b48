"""Loss and top-1 accuracy over a whole split."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.config import Config
from vit_jax.losses import LOSSES, make_targets

Batch = dict[str, jax.Array]


def make_classification(
    eval_step: Callable[[Any, Batch], jax.Array], config: Config
) -> Callable[[Any, Iterable[Batch]], dict]:
    """Return a function from parameters and the batches of a split to its metrics; the loss is that of training.

    Every picture counts once: rows whose "mask" is 0 add nothing, and sums are divided by the count at the end.
    """

    cross_entropy = LOSSES[config.loss].cross_entropy

    @jax.jit
    def sums_of(params: Any, batch: Batch) -> dict[str, jax.Array]:
        logits, mask = eval_step(params, batch), batch["mask"]
        loss = cross_entropy(logits, make_targets(batch["label"], logits.shape[-1], smoothing=0.0))
        right = logits.argmax(-1) == batch["label"]
        return {
            "loss": (loss * mask).sum(),
            "right": (right * mask).sum(dtype=jnp.int32),
            "count": mask.sum(dtype=jnp.int32),
        }

    def evaluate(params: Any, batches: Iterable[Batch]) -> dict[str, float]:
        sums = [sums_of(params, batch) for batch in batches]
        loss, right, count = (
            sum(float(batch[name]) for batch in jax.device_get(sums)) for name in ("loss", "right", "count")
        )
        return {"loss": loss / count, "accuracy": right / count, "count": int(count)}

    return evaluate
