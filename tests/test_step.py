"""The step: accumulation and remat don't change the update, skipped or frozen values keep their bits; the average."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.tiny import CONFIG
from vit_jax import tree
from vit_jax.cluster.sharding import BATCH, make_mesh
from vit_jax.config import Augment, Config, MeshShape, Optim
from vit_jax.errors import InputError
from vit_jax.experiment import Experiment, build_experiment
from vit_jax.runs.checkpoint import Checkpoints, load_model
from vit_jax.runs.directory import Facts, open_workdir

# Only draws for the whole batch: mirroring, but no stochastic depth. It also compiles faster.
CALM = dataclasses.replace(CONFIG, augment=Augment(flip=True), model=dataclasses.replace(CONFIG.model, drop_path=0.0))
# Quick to compile, for tests that don't depend on the pictures.
BARE = dataclasses.replace(CALM, augment=Augment(), batch=32, optim=Optim(lr=1e-2, weight_decay=0.05))
ONE = functools.cache(lambda: make_mesh(MeshShape(), jax.devices()[:1]))


def changed(config: Config, **model) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def build(config: Config, shape: MeshShape | None = None) -> Experiment:
    return build_experiment(config, ONE() if shape is None else make_mesh(shape), 10, 1000)


def batches(config: Config):
    """Yield batches of noise that is brighter for higher labels."""
    draw = np.random.default_rng(0)
    while True:
        labels = draw.integers(0, 10, config.batch, np.int32)
        images = draw.integers(0, 25, (config.batch, *config.height_width(), config.channels), np.uint8)
        yield {"image": images + np.uint8(25) * labels.astype(np.uint8)[:, None, None, None], "label": labels}


def run(experiment: Experiment, config: Config, number: int, state=None):
    """Return copies of the states after each step, and the metrics."""
    state = experiment.init(jax.random.key(config.seed)) if state is None else state
    states, metrics = [jax.device_get(state)], []
    for _, batch in zip(range(number), batches(config), strict=False):
        state, now = experiment.train_step(state, batch, experiment.numbers)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(now))
    return states, metrics


def placed(experiment: Experiment, state):
    return jax.device_put(state, jax.tree.map(lambda x: x.sharding, experiment.shapes))


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for name, leaf in tree.flatten(found).items():
        np.testing.assert_array_equal(leaf, tree.flatten(expected)[name], err_msg=name)


@pytest.fixture(scope="module")
def averaged():
    """Twenty steps with a moving average, without accumulation or remat."""
    config = dataclasses.replace(CALM, ema=0.15)
    experiment = build(config)
    return config, experiment, *run(experiment, config, 20)


@pytest.mark.parametrize(("accumulate", "remat"), [(2, "none"), (8, "full")])
def test_losses_are_equal_in_parts_and_computed_again(averaged, accumulate, remat):
    whole = [now["loss"] for now in averaged[3]]
    config = dataclasses.replace(changed(CALM, remat=remat), accumulate=accumulate)
    losses = [now["loss"] for now in run(build(config), config, 20)[1]]
    assert losses[-1] < losses[0] - 0.15
    np.testing.assert_allclose(losses, whole, rtol=1e-5)


def test_average_follows_the_parameters(averaged):
    _, _, states, _ = averaged
    assert_same(states[0].ema, states[0].params)
    expected = jax.tree.map(np.float64, states[0].params)
    for k, state in enumerate(states[1:6]):
        decay = min(0.15, (1 + k) / (10 + k))
        expected = jax.tree.map(lambda e, x, d=decay: d * e + (1 - d) * x, expected, state.params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), state.ema, expected)
    assert state.weights is state.ema


def test_average_is_what_is_loaded(averaged, tmp_path):
    config, experiment, states, _ = averaged
    open_workdir(tmp_path, Facts(config, tuple("0123456789")))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(placed(experiment, states[5]))
    checkpoints.close()
    model, _ = load_model(tmp_path)
    assert_same(nnx.to_pure_dict(nnx.split(model)[1]), states[5].ema)
    assert not np.array_equal(states[5].ema["head"]["kernel"], states[5].params["head"]["kernel"])
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert_same(jax.device_get(checkpoints.restore(experiment.shapes)), states[5])
    checkpoints.close()


@pytest.mark.parametrize(
    ("name", "value", "loss_is_finite"),
    [("embedding/bias", np.nan, False), ("blocks/mlp/fc1/bias", np.inf, False), ("head/kernel", 3e19, True)],
)
def test_update_that_is_not_finite_is_skipped_to_the_bit(averaged, name, value, loss_is_finite):
    """With a bad number at step 3, only the counts change; without it, the run continues."""
    config, experiment, states, metrics = averaged
    signs = np.random.default_rng(0).choice([-1, 1], 10)
    spoilt = tree.map_named(
        lambda at, x: np.full_like(x, value) * (signs if at == name == "head/kernel" else 1), states[2].params
    )
    bad = states[2]._replace(params=tree.map_named(lambda at, x, y: y if at == name else x, states[2].params, spoilt))
    (_, after), (found,) = run(experiment, config, 1, placed(experiment, bad))
    assert np.isfinite(found["loss"]) == loss_is_finite
    assert (found["skipped"], after.step, after.skipped) == (1, 3, 1)
    for part in ("params", "opt_state", "ema"):
        assert_same(getattr(after, part), getattr(bad, part))
    mended = after._replace(params=states[2].params)
    (_, after), (found,) = run(experiment, config, 1, placed(experiment, mended))
    assert (found["skipped"], after.step, after.skipped) == (0, 4, 1)
    assert np.isfinite(found["loss"])
    assert not np.array_equal(after.params["head"]["bias"], states[2].params["head"]["bias"])
    assert [int(m["skipped"]) for m in metrics] == [0] * 20


def flops(experiment: Experiment, config: Config) -> float:
    batch = jax.eval_shape(lambda: next(batches(config)))
    return experiment.train_step.lower(experiment.shapes, batch, experiment.numbers).compile().cost_analysis()["flops"]


def test_frozen_backbone_keeps_its_bits_and_costs_no_gradient(averaged):
    rates = ((r"head/.*", 1.0), (r".*", 0.0))
    optim = Optim(lr=0.1, lr_mults=rates, weight_decay=0.5, decay=((r".*", 1.0),))
    config = dataclasses.replace(CALM, optim=optim, ema=0.9)
    experiment = build(config)
    states, _ = run(experiment, config, 3)
    names = set(tree.flatten(states[0].params))
    for name in names - {"head/kernel", "head/bias"}:
        for part in ("params", "ema"):
            first, last = (tree.flatten(getattr(states[k], part))[name] for k in (0, 3))
            np.testing.assert_array_equal(first, last, err_msg=name)
    assert np.abs(states[3].params["head"]["kernel"]).min() > 0
    assert {name.partition("/mu/")[2] for name in tree.flatten(states[0].opt_state) if "/mu/" in name} == {
        "head/kernel",
        "head/bias",
    }
    assert flops(experiment, config) < 0.45 * flops(averaged[1], averaged[0])


def test_parts_and_subsets_stay_on_their_devices():
    """On 8 devices, gradients are summed, and no activations are exchanged."""
    config = dataclasses.replace(changed(BARE, drop_path=0.25, drop_path_subset=True), accumulate=2, batch=256)
    experiment = build(config, MeshShape(8))
    sharding = NamedSharding(experiment.shapes.step.sharding.mesh, P(BATCH))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(lambda: next(batches(config))),
    )
    program = experiment.train_step.lower(experiment.shapes, batch, experiment.numbers).compile().as_text()
    moves = r"(all-(?:gather|reduce|to-all)|reduce-scatter|collective-(?:permute|broadcast))(?:-start)?\("
    assert set(re.findall(moves, program)) == {"all-reduce"}
    # Of the 16 rows per device in each part, 12 pass through a branch.
    assert "f32[12,16,64]" in program
    assert "f32[16,16,64]" not in program


@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        ({"accumulate": 3}, {}, r"config.batch=32 can't be cut into config.accumulate=3 equal parts on 8 devices"),
        ({"accumulate": 8}, {}, r"make it a multiple of 64$"),
        ({}, {"drop_path": 0.2}, r"drops from groups of 16 pictures, but a device has 4 at a time"),
        ({"batch": 128}, {"drop_path": 0.03}, r"drop_path=0.03 drops none of 16 pictures"),
        ({"batch": 128}, {"drop_path": 0.98}, r"drop_path=0.98 drops all of 16 pictures"),
        ({"optim": Optim(lr_mults=((".*", 0.0),))}, {}, r"freezes every parameter; give some of them a factor"),
        (
            {"optim": Optim(decay=((".*kernl", 1.0),))},
            {},
            r"decay: '\.\*kernl' matches .* no parameter; the nearest is",
        ),
    ],
)
def test_batch_that_cannot_be_cut_and_patterns_without_a_match(change, model, message):
    config = dataclasses.replace(changed(BARE, drop_path_subset=bool(model), **model), **change)
    with pytest.raises(InputError, match=message) as caught:
        build(config, MeshShape(8))
    assert "\n" not in str(caught.value)


def test_configs_that_differ_in_numbers_alone_share_a_program():
    def text(**changes):
        optim = {key: changes.pop(key) for key in ("lr", "weight_decay", "b1", "clip") if key in changes}
        config = dataclasses.replace(BARE, **changes)
        config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, **optim))
        experiment = build(config)
        batch = jax.eval_shape(lambda: next(batches(config)))
        return experiment.train_step.lower(experiment.shapes, batch, experiment.numbers).as_text()

    program = text()
    assert program == text(seed=6, lr=3e-4, weight_decay=0.0, label_smoothing=0.1)
    for change in (
        {"b1": 0.8},
        {"clip": None},
        {"total": "30st"},
        {"warmup": "6st"},
        {"ema": 0.9},
        {"loss": "sigmoid"},
    ):
        assert program != text(**change), change


def test_every_number_reaches_the_step():
    """One program with another config's numbers makes that config's updates; with one of them missing, it doesn't."""
    other = dataclasses.replace(CALM, seed=6, label_smoothing=0.1, optim=Optim(lr=3e-3, weight_decay=0.5))
    ours, theirs = build(CALM), build(other)
    wanted = run(theirs, other, 2)
    for name in (None, *ours.numbers._fields):
        own = {} if name is None else {name: getattr(ours.numbers, name)}
        found = run(ours._replace(numbers=theirs.numbers._replace(**own)), other, 2)
        equal = [np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (found, wanted)), strict=True)]
        assert all(equal) == (name is None), name
