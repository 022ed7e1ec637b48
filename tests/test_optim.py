"""Optimizers and schedules against formulas written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.config import Optim
from vit_jax.losses import make_targets, softmax_cross_entropy
from vit_jax.optim import build_optimizer, build_schedule

PARAMS = {"layer": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
GRADS = {"layer": {"kernel": jnp.array([0.3, 0.4]), "bias": jnp.array([0.0])}}


def update(config, grads=GRADS, params=PARAMS):
    optimizer = build_optimizer(config, build_schedule(config, 10, 0), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return updates["layer"]


def test_warmup_then_cosine():
    schedule = build_schedule(Optim(lr=0.5), total=100, warmup=20)
    values = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(values, [0, 0.25, 0.5, 0.25, 0], atol=1e-7)


def test_constant_without_warmup():
    schedule = build_schedule(Optim(lr=0.5, schedule="constant"), total=100, warmup=0)
    assert [float(schedule(step)) for step in (0, 99)] == [0.5, 0.5]


def test_warmup_of_the_whole_run():
    schedule = build_schedule(Optim(lr=0.5), total=10, warmup=10)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 5)], [0, 0.25])


def test_adamw_first_step_is_the_sign_plus_decay_of_kernels_alone():
    updates = update(Optim(lr=0.1, schedule="constant", weight_decay=0.5, clip=None))
    np.testing.assert_allclose(updates["kernel"], [-0.1 * (1 + 0.5), -0.1 * (1 - 1.0)], atol=1e-6)
    np.testing.assert_allclose(updates["bias"], [0.0])


def test_sgd_is_the_gradient_clipped_to_its_global_norm():
    updates = update(Optim(name="sgd", lr=0.1, schedule="constant", clip=0.25))
    np.testing.assert_allclose(updates["kernel"], [-0.1 * 0.15, -0.1 * 0.2], rtol=1e-6)
    free = update(Optim(name="sgd", lr=0.1, schedule="constant", clip=None))
    np.testing.assert_allclose(free["kernel"], [-0.03, -0.04], rtol=1e-6)


def test_sgd_momentum_adds_up():
    config = Optim(name="sgd", lr=1.0, schedule="constant", clip=None, momentum=0.5)
    optimizer = build_optimizer(config, build_schedule(config, 10, 0), PARAMS)
    state = optimizer.init(PARAMS)
    for expected in (0.3, 0.45, 0.525):
        updates, state = optimizer.update(GRADS, state, PARAMS)
        np.testing.assert_allclose(updates["layer"]["kernel"][0], -expected, rtol=1e-6)


def test_decay_mask_is_a_pattern_of_names():
    updates = update(Optim(lr=0.1, schedule="constant", weight_decay=0.5, decay=".*", clip=None))
    np.testing.assert_allclose(updates["bias"], [-0.1 * 0.5 * 3], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_numpy(smoothing):
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    labels = np.array([0, 3, 2, 1, 1], np.int32)
    targets = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    expected = -(targets * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)
    computed = softmax_cross_entropy(jnp.array(logits), make_targets(jnp.array(labels), 4, smoothing))
    np.testing.assert_allclose(computed, expected, rtol=1e-5)
    assert softmax_cross_entropy(jnp.array(logits, jnp.bfloat16), jnp.array(targets)).dtype == jnp.float32
