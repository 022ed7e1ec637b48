"""Optimizers, learning-rate schedules, and the rate of each parameter."""

from vit_jax.optim.chain import build_optimizer, build_schedule
from vit_jax.optim.rates import trained_names

__all__ = ["build_optimizer", "build_schedule", "trained_names"]
