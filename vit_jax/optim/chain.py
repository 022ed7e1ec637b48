"""The learning-rate schedule and the optax chain."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from vit_jax import tree
from vit_jax.config import Optim, Plan
from vit_jax.optim.rates import decay_factors, is_partly_frozen, learning_rates, spread, trained_names

# To add a schedule: a line here; a function of the steps since the warm-up.
SCHEDULES = {
    "cosine": lambda config, plan: optax.cosine_decay_schedule(config.lr, max(plan.total - plan.warmup, 1)),
    "linear": lambda config, plan: optax.linear_schedule(config.lr, 0, max(plan.total - plan.warmup, 1)),
    "rsqrt": lambda config, plan: lambda step: config.lr / jnp.sqrt(1 + jnp.maximum(step, 0) / plan.timescale),
    "constant": lambda config, plan: optax.constant_schedule(config.lr),
}


def build_schedule(config: Optim, plan: Plan) -> optax.Schedule:
    """Return the learning rate by step.

    It rises in a line from 0 to the peak at `plan.warmup`, falls as the chosen schedule has it, and is multiplied by
    what falls in a line from 1 to 0 over the last `plan.cooldown` steps.
    """
    schedule = SCHEDULES[config.schedule](config, plan)
    if plan.warmup:
        schedule = optax.join_schedules([optax.linear_schedule(0, config.lr, plan.warmup), schedule], [plan.warmup])
    if not plan.cooldown:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1, (plan.total - step) / plan.cooldown)


def _adamw(config: Optim, params: Any) -> optax.GradientTransformation:
    b2 = 0.999 if config.b2 is None else config.b2
    return optax.scale_by_adam(config.b1, b2, config.eps, mu_dtype=jnp.dtype(config.momentum_dtype))


def _sgd(config: Optim, params: Any) -> optax.GradientTransformation:
    return optax.trace(_momentum(config), accumulator_dtype=jnp.dtype(config.momentum_dtype))


def _lion(config: Optim, params: Any) -> optax.GradientTransformation:
    b2 = 0.99 if config.b2 is None else config.b2
    return optax.scale_by_lion(config.b1, b2, mu_dtype=jnp.dtype(config.momentum_dtype))


def _adafactor(config: Optim, params: Any) -> optax.GradientTransformation:
    # As Zhai et al. (2022) have it: the second moment's decay stops at 0.999, so that it never stands still.
    second = optax.scale_by_factored_rms(
        min_dim_size_to_factor=32, decay_rate_fn=lambda step, _: jnp.minimum(0.999, 1 - (step + 1.0) ** -0.8)
    )
    # A stacked parameter is as many matrices as there are blocks: factored one by one, never across the depth.
    labels = tree.map_named(lambda name, leaf: f"{leaf.shape[0]} blocks" if is_stacked(name) else "single", params)
    each = optax.GradientTransformation(jax.vmap(second.init), jax.vmap(second.update))
    transforms = {label: second if label == "single" else each for label in set(jax.tree.leaves(labels))}
    first = optax.ema(_momentum(config), debias=False, accumulator_dtype=jnp.dtype(config.momentum_dtype))
    return optax.chain(optax.partition(transforms, labels), first)


# The matrices that Muon makes orthogonal, one for each block: (pattern, axes read, axes written). What meets the pixels
# and the head are left to AdamW (Jordan et al., 2024).
MATRICES = (
    (r".*attn/(query|key|value)/kernel", (-3,), (-2, -1)),
    (r".*attn/out/kernel", (-3, -2), (-1,)),
    (r".*mlp/(fc[12]|gate)/kernel|pre_logits/kernel", (-2,), (-1,)),
    (r".*resnet/block.*/conv\w*/kernel|embedding/conv(?!1/)\d+/kernel", (-4, -3, -2), (-1,)),
)


def _muon(config: Optim, params: Any) -> optax.GradientTransformation:
    def axes(name: str) -> MuonDimensionNumbers | None:
        return next((MuonDimensionNumbers(*axes) for pattern, *axes in MATRICES if re.fullmatch(pattern, name)), None)

    def as_large_as_adamw(name: str, update: jax.Array) -> jax.Array:
        # So that one learning rate suits both (Liu et al., 2025).
        return update * 0.2 * math.sqrt(max(math.prod(update.shape[axis] for axis in side) for side in axes(name)))

    orthogonal = scale_by_muon(
        beta=_momentum(config, 0.95),
        mu_dtype=jnp.dtype(config.momentum_dtype),
        weight_dimension_numbers=lambda updates: tree.map_named(lambda name, _: axes(name), updates),
    )
    resized = optax.stateless(lambda updates, _: tree.map_named(as_large_as_adamw, updates))
    transforms = {"matrix": optax.chain(orthogonal, resized), "other": _adamw(config, params)}
    return optax.partition(transforms, tree.map_named(lambda name, _: "matrix" if axes(name) else "other", params))


def _momentum(config: Optim, default: float = 0.9) -> float:
    return default if config.momentum is None else config.momentum


def is_stacked(name: str) -> bool:
    """Return whether a parameter has a leading axis of blocks, or of a ResNet's units."""
    return name.startswith("blocks/") or "/rest/" in name


# To add an optimizer: a function and a line here. It returns the direction of the update; decay and rates follow.
OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd, "adafactor": _adafactor, "lion": _lion, "muon": _muon}


def build_optimizer(config: Optim, params: Any) -> optax.GradientTransformationExtraArgs:
    """Return what turns gradients into a direction, which minus the learning rate of the step makes the update.

    Clipping by global norm, the chosen optimizer, weight decay, and each parameter's own learning rate.

    Its `update` takes `weight_decay`, the config's if it is not given, which may be traced.

    Its state and its updates are of the parameters that are not frozen alone. Of a parameter that is frozen in some
    blocks, their gradient doesn't count towards the norm, and their update is zero.

    Args:
        params: all parameters, or their shapes.

    Raises:
        InputError: a pattern of the config matches no parameter.
    """
    rates, factors = learning_rates(config, params), decay_factors(config, params)
    trained = tree.select(params, trained_names(config, params))

    def thawed(name: str, x: jax.Array) -> jax.Array:
        # Chosen, not multiplied: 0 times infinity is not 0, and subtracting -0.0 would turn -0.0 into 0.0.
        return jnp.where(spread(rates[name], x.ndim) == 0, 0, x) if is_partly_frozen(rates[name]) else x

    def decay(
        updates: Any, state: Any, params: Any = None, *, weight_decay: float | jax.Array = config.weight_decay, **_: Any
    ) -> tuple[Any, Any]:
        def decayed(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
            return update + weight_decay * factors[name] * param if factors[name] else update

        return tree.map_named(decayed, updates, params), state

    def rated(name: str, update: jax.Array) -> jax.Array:
        return thawed(name, update if rates[name] == 1 else update * spread(rates[name], update.ndim))

    clip = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    if any(map(is_partly_frozen, rates.values())):
        clip = optax.chain(optax.stateless(lambda updates, _: tree.map_named(thawed, updates)), clip)
    return optax.chain(
        clip,
        OPTIMIZERS[config.name](config, trained),
        optax.GradientTransformationExtraArgs(optax.init_empty_state, decay),
        optax.stateless(lambda updates, _: tree.map_named(rated, updates)),
    )
