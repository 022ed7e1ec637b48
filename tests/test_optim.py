"""Optimizers and schedules against their formulas."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import CONFIG
from vit_jax import tree
from vit_jax.config import Optim, Plan
from vit_jax.losses import make_targets, sigmoid_cross_entropy, softmax_cross_entropy
from vit_jax.models import init_params
from vit_jax.optim.chain import OPTIMIZERS, build_optimizer, build_schedule

PARAMS = {"layer": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
GRADS = {"layer": {"kernel": jnp.array([0.3, 0.4]), "bias": jnp.array([0.0])}}


def plan(total, warmup=0, cooldown=0, timescale=1):
    return Plan(1, 1, total, warmup, cooldown, timescale, log_every=1, save_every=1, evaluations={})


def direction(config, grads=GRADS, params=PARAMS):
    optimizer = build_optimizer(config, params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return updates["layer"]


def values(schedule, *steps):
    return [float(schedule(step)) for step in steps]


def test_warmup_then_cosine():
    schedule = build_schedule(Optim(lr=0.5), plan(100, warmup=20))
    np.testing.assert_allclose(values(schedule, 0, 10, 20, 60, 100), [0, 0.25, 0.5, 0.25, 0], atol=1e-7)


def test_warmup_then_a_line():
    schedule = build_schedule(Optim(lr=0.5, schedule="linear"), plan(100, warmup=20))
    np.testing.assert_allclose(values(schedule, 0, 10, 20, 40, 100), [0, 0.25, 0.5, 0.375, 0], atol=1e-7)


def test_constant_without_warmup():
    schedule = build_schedule(Optim(lr=0.5, schedule="constant"), plan(100))
    assert values(schedule, 0, 99) == [0.5, 0.5]


def test_constant_then_cooldown():
    schedule = build_schedule(Optim(lr=0.5, schedule="constant"), plan(100, cooldown=20))
    np.testing.assert_allclose(values(schedule, 0, 80, 85, 90, 99, 100), [0.5, 0.5, 0.375, 0.25, 0.025, 0], atol=1e-7)


def test_reciprocal_square_root_with_warmup_and_cooldown():
    """Zhai et al. (2022): lr sqrt(timescale / (timescale + steps since the warm-up)), times the last line to 0."""
    schedule = build_schedule(Optim(lr=0.5, schedule="rsqrt"), plan(400, warmup=10, cooldown=100, timescale=30))
    expected = [0, 0.25, 0.5, 0.25, 0.5 * (30 / 320) ** 0.5, 0.5 * (30 / 370) ** 0.5 / 2, 0]
    np.testing.assert_allclose(values(schedule, 0, 5, 10, 100, 300, 350, 400), expected, rtol=1e-6)
    later = build_schedule(Optim(lr=0.5, schedule="rsqrt"), plan(400, warmup=100, timescale=30))
    np.testing.assert_allclose(values(later, 0, 50, 100, 190), [0, 0.25, 0.5, 0.25], rtol=1e-6)


def test_warmup_of_the_whole_run():
    schedule = build_schedule(Optim(lr=0.5), plan(10, warmup=10))
    np.testing.assert_allclose(values(schedule, 0, 5), [0, 0.25])


def test_adamw_first_step_is_the_sign_plus_decay_of_kernels_alone():
    first = direction(Optim(weight_decay=0.5, clip=None))
    np.testing.assert_allclose(first["kernel"], [1 + 0.5, 1 - 1.0], atol=1e-5)
    np.testing.assert_allclose(first["bias"], [0.0])


def test_sgd_is_the_gradient_clipped_to_its_global_norm():
    clipped = direction(Optim(name="sgd", clip=0.25))
    np.testing.assert_allclose(clipped["kernel"], [0.15, 0.2], rtol=1e-6)
    free = direction(Optim(name="sgd", clip=None))
    np.testing.assert_allclose(free["kernel"], [0.3, 0.4], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sgd_momentum_adds_up(dtype):
    config = Optim(name="sgd", clip=None, momentum=0.5, momentum_dtype=dtype)
    optimizer = build_optimizer(config, PARAMS)
    state = optimizer.init(PARAMS)
    for expected in (0.3, 0.45, 0.525):
        updates, state = optimizer.update(GRADS, state, PARAMS)
        np.testing.assert_allclose(updates["layer"]["kernel"][0], expected, rtol=1e-6 if dtype == "float32" else 4e-3)


def test_decay_is_a_table_of_patterns():
    decayed = direction(Optim(weight_decay=0.5, decay=((".*/bias", 2.0), (".*", 1.0)), clip=None))
    np.testing.assert_allclose(decayed["bias"], [2 * 0.5 * 3], rtol=1e-6)
    np.testing.assert_allclose(decayed["kernel"], [1 + 0.5, 1 - 1.0], atol=1e-5)


def test_lion_is_the_sign():
    np.testing.assert_allclose(direction(Optim(name="lion"))["kernel"], [1, 1])


@pytest.fixture(scope="module")
def tiny():
    """Parameters of the tiny ViT with gates in its MLPs, and gradients."""
    draw = np.random.default_rng(0)
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, swiglu=True))
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), **config.model_facts(10)))
    return tuple(jax.tree.map(lambda x: jnp.array(draw.normal(size=x.shape), x.dtype), shapes) for _ in range(2))


def newton_schulz(matrix):
    """Jordan et al. (2024): five steps that bring every singular value near 1."""
    matrix = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        square = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * square + 2.0315 * square @ square) @ matrix
    return matrix


def test_muon_makes_every_blocks_matrix_orthogonal_and_leaves_the_rest_to_adamw(tiny):
    params, grads = tiny
    found = tree.flatten(direction_of(Optim(name="muon", clip=None), grads, params))
    adamw = tree.flatten(direction_of(Optim(clip=None), grads, params))
    # As (depth, read, written): width 32, 2 heads of 16, an MLP of 64.
    matrices = {f"blocks/attn/{name}/kernel": (2, 32, 32) for name in ("query", "key", "value", "out")}
    matrices |= {f"blocks/mlp/{name}/kernel": (2, 32, 64) for name in ("fc1", "gate")}
    matrices |= {"blocks/mlp/fc2/kernel": (2, 64, 32)}
    for name, update in found.items():
        if name not in matrices:
            np.testing.assert_array_equal(update, adamw[name], err_msg=name)
            continue
        gradient = tree.flatten(grads)[name].reshape(matrices[name])
        for made, matrix in zip(np.reshape(update, matrices[name]), gradient, strict=True):
            expected = newton_schulz(np.float64(matrix)) * 0.2 * max(matrix.shape) ** 0.5
            np.testing.assert_allclose(made, expected, atol=1e-4, err_msg=name)


def test_adafactor_factors_every_block_by_itself():
    """Against the formula of Shazeer and Stern (2018), on stacked matrices that all differ."""
    params = {"blocks": {"kernel": jnp.ones((40, 32, 48)), "bias": jnp.ones((40, 48))}, "head": jnp.ones((48, 5))}
    grads = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
    found = direction_of(Optim(name="adafactor", clip=None, momentum=0.0), grads, params)
    for layer in (0, 39):
        squares = np.square(np.asarray(grads["blocks"]["kernel"][layer], np.float64))
        second = np.outer(squares.mean(1), squares.mean(0)) / squares.mean()
        expected = grads["blocks"]["kernel"][layer] / np.sqrt(second)
        np.testing.assert_allclose(found["blocks"]["kernel"][layer], expected, rtol=1e-4)
    for name, update in (("bias", found["blocks"]["bias"]), ("head", found["head"])):
        np.testing.assert_allclose(np.abs(update), 1, rtol=1e-5, err_msg=name)
    state = build_optimizer(Optim(name="adafactor", momentum_dtype="bfloat16"), params).init(params)
    sizes = {name: leaf.size * leaf.dtype.itemsize for name, leaf in tree.flatten(state).items()}
    second = sum(size for name, size in sizes.items() if "ema" not in name and name.endswith("blocks/kernel"))
    assert second == 4 * 40 * (32 + 48 + 1)
    assert sum(size for name, size in sizes.items() if "ema/blocks/kernel" in name) == 2 * 40 * 32 * 48


def direction_of(config, grads, params):
    optimizer = build_optimizer(config, params)
    return jax.jit(optimizer.update)(grads, optimizer.init(params), params)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_first_moment_in_half_the_bytes(tiny, name):
    params, _ = tiny
    shapes = {
        dtype: jax.eval_shape(build_optimizer(Optim(name=name, momentum_dtype=dtype), params).init, params)
        for dtype in ("float32", "bfloat16")
    }
    halved = [
        (tree.name_of(path), full, half)
        for (path, full), half in zip(
            jax.tree_util.tree_leaves_with_path(shapes["float32"]), jax.tree.leaves(shapes["bfloat16"]), strict=True
        )
        if full.dtype != half.dtype
    ]
    assert all(half.dtype == jnp.bfloat16 for _, _, half in halved)
    assert sum(full.size for _, full, _ in halved) == tree.count(params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name):
    """A least-squares problem of two stacked matrices, from 1 to under 0.05 in 60 steps."""
    keys = jax.random.split(jax.random.key(0), 3)
    target, inputs = jax.random.normal(keys[0], (2, 32, 32)) / 6, jax.random.normal(keys[1], (2, 64, 32))
    params = {"blocks": {"mlp": {"fc1": {"kernel": jnp.zeros((2, 32, 32))}}}}
    lr = {"adamw": 0.02, "sgd": 4.0, "adafactor": 0.05, "lion": 0.02, "muon": 0.05}[name]
    optimizer = build_optimizer(Optim(name=name, clip=None), params)
    schedule = build_schedule(Optim(lr=lr), plan(60, warmup=5))

    def loss_of(params):
        return jnp.square(inputs @ (params["blocks"]["mlp"]["fc1"]["kernel"] - target)).mean()

    def step(carry, i):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(grads, state, params)
        return (jax.tree.map(lambda x, u: x - schedule(i) * u, params, updates), state), loss

    losses = jax.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(60)))()[1]
    assert losses[-1] < 0.05 * losses[0], losses[-1] / losses[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropies_equal_numpy(smoothing):
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    labels = np.array([0, 3, 2, 1, 1], np.int32)
    targets = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    expected = -(targets * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)
    made = make_targets(jnp.array(labels), 4, smoothing)
    np.testing.assert_allclose(softmax_cross_entropy(jnp.array(logits), made), expected, rtol=1e-5)
    p = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum(1)
    np.testing.assert_allclose(sigmoid_cross_entropy(jnp.array(logits), made), expected, rtol=1e-5)
    for loss in (softmax_cross_entropy, sigmoid_cross_entropy):
        assert loss(jnp.array(logits, jnp.bfloat16), jnp.array(targets)).dtype == jnp.float32


def test_adamw_is_optaxs(tiny):
    params, grads = tiny
    config = Optim(weight_decay=0.1, clip=None)
    decayed = tree.map_named(lambda name, _: name.endswith("/kernel"), params)
    reference = optax.adamw(1.0, weight_decay=0.1, mask=decayed)
    # Operation by operation: compiled, two programs may round differently what is fused.
    with jax.disable_jit():
        expected, _ = reference.update(grads, reference.init(params), params)
        found = direction_of(config, grads, params)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, -y), found, expected)
