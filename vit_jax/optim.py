"""The learning-rate schedule and the optax chain."""

from typing import Any

import optax

from vit_jax import tree
from vit_jax.config import Optim

# To add an optimizer or a schedule: a function, and a line in the table below it.


def _adamw(config: Optim, schedule: optax.Schedule, decayed: Any) -> optax.GradientTransformation:
    return optax.adamw(
        schedule, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay, mask=decayed
    )


def _sgd(config: Optim, schedule: optax.Schedule, decayed: Any) -> optax.GradientTransformation:
    return optax.chain(
        optax.trace(config.momentum),
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.scale_by_learning_rate(schedule),
    )


OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd}

SCHEDULES = {
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, max(steps, 1)),
    "constant": lambda lr, steps: optax.constant_schedule(lr),
}


def build_schedule(config: Optim, total: int, warmup: int) -> optax.Schedule:
    """Return the learning rate by step: linear from 0 to the peak at `warmup`, then the chosen decay until `total`."""
    decay = SCHEDULES[config.schedule](config.lr, total - warmup)
    return optax.join_schedules([optax.linear_schedule(0, config.lr, warmup), decay], [warmup]) if warmup else decay


def build_optimizer(config: Optim, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
    """Return clipping by global norm, then the chosen optimizer; `params` may be shapes, its names choose the decay."""
    optimizer = OPTIMIZERS[config.name](config, schedule, tree.mask(params, config.decay))
    return optimizer if config.clip is None else optax.chain(optax.clip_by_global_norm(config.clip), optimizer)
