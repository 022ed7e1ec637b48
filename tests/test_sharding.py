"""Sharding: the mesh, partition rules, placement, and that no mesh changes the arithmetic."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.sharding import PartitionSpec as P

from tests.tiny import CONFIG, MODEL, run_steps
from vit_jax import data, list_models, tree
from vit_jax.cluster.sharding import (
    batch_rows,
    make_mesh,
    place_batch,
    shard_bytes,
    spec_of,
    tree_shardings,
    with_shardings,
)
from vit_jax.config import Augment, Config, MeshShape, Model, Optim
from vit_jax.errors import InputError
from vit_jax.experiment import batch_shapes, build_experiment, unrolled
from vit_jax.models import init_params
from vit_jax.models.layers import REMAT
from vit_jax.preflight.check import compile_step
from vit_jax.runs.checkpoint import Checkpoints


def test_mesh_takes_the_rest():
    assert dict(make_mesh(MeshShape()).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(MeshShape(data=2, fsdp=-1, tensor=2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("shape", [MeshShape(3), MeshShape(-1, 3), MeshShape(-1, -1), MeshShape(16), MeshShape(0, 8)])
def test_mesh_that_does_not_fit(shape):
    with pytest.raises(InputError, match="devices, but there are 8; -1 takes the rest"):
        make_mesh(shape)


def test_rules_split_what_divides():
    mesh = make_mesh(MeshShape(data=1, fsdp=4, tensor=2))
    assert spec_of("params/blocks/attn/query/kernel", (12, 64, 4, 16), mesh) == P(None, "fsdp", "tensor", None)
    assert spec_of("opt_state/0/mu/blocks/mlp/fc2/kernel", (12, 256, 64), mesh) == P(None, "tensor", "fsdp")
    assert spec_of("pool/mlp/fc1/kernel", (64, 256), mesh) == P("fsdp", "tensor")
    assert spec_of("resnet/block1/rest/conv2/kernel", (2, 3, 3, 64, 64), mesh) == P(None, None, None, None, "fsdp")
    assert spec_of("head/bias", (10,), mesh) == P(None)
    # If an axis does not divide evenly, another is split; the depth never is.
    assert spec_of("blocks/attn/query/kernel", (12, 62, 3, 16), mesh) == P(None, None, None, "fsdp")
    assert spec_of("blocks/attn/query/kernel", (12, 62, 3, 18), mesh) == P(None, None, None, None)


@pytest.mark.parametrize("name", list_models())
def test_each_of_eight_devices_holds_an_eighth(name):
    mesh = make_mesh(MeshShape(data=1, fsdp=8))
    pool = {} if name.startswith(("BiT", "Swin")) else {"pool": "map"}
    facts = Config(model=Model(name=name, **pool)).model_facts(num_classes=1000)
    shapes = jax.eval_shape(functools.partial(init_params, **facts), jax.random.key(0))
    placed = with_shardings(shapes, tree_shardings(shapes, mesh))
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    assert whole / 8 <= shard_bytes(placed) <= whole * (1 / 8 + 0.02)
    # So that no large array hides among the others.
    left = {
        name: x.size * x.dtype.itemsize for name, x in tree.flatten(placed).items() if x.sharding.is_fully_replicated
    }
    assert max(left.values()) <= whole * 0.005, left


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_the_state_is_born_split(optimizer):
    config = dataclasses.replace(CONFIG, model=Model(name="S/4"), optim=Optim(name=optimizer), ema=0.9)
    mesh = make_mesh(MeshShape(data=1, fsdp=8))
    experiment = build_experiment(config, mesh, 10, 1000)
    state = experiment.shapes
    assert shard_bytes(state) <= sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) * (1 / 8 + 0.02)
    if optimizer == "adamw":
        on_first = [x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(experiment.init(jax.random.key(0)))]
        assert sum(on_first) == shard_bytes(state)


def test_a_block_is_gathered_at_a_time():
    """Each device receives every block's kernels once per pass, and its part of their gradients."""
    config = dataclasses.replace(CONFIG, batch=8, model=dataclasses.replace(MODEL, width=64, depth=5, drop_path=0.0))
    mesh = make_mesh(MeshShape(data=1, fsdp=8))
    experiment = build_experiment(config, mesh, 10, 1000)
    compiled = compile_step(
        experiment.train_step.trace(experiment.shapes, batch_shapes(config, mesh, experiment.task), experiment.numbers),
        mesh,
    )
    split = {
        name: x.size * 4 * 7 // 8
        for name, x in tree.flatten(experiment.shapes.params).items()
        if not x.sharding.is_fully_replicated
    }
    blocks = sum(size for name, size in split.items() if name.startswith("blocks/"))
    assert blocks > 0.9 * sum(split.values())
    assert compiled.received["all-gather"] == sum(split.values()) + blocks
    assert compiled.received["reduce-scatter"] == sum(split.values())
    assert "all-to-all" not in compiled.received


def test_batch_rows_are_divided_or_refused():
    assert batch_rows(16, make_mesh(MeshShape(data=4, fsdp=2))).tolist() == list(range(16))
    with pytest.raises(InputError, match="config.batch=12 is not divisible by the 8 devices"):
        batch_rows(12, make_mesh(MeshShape()))
    assert len(batch_rows(12, make_mesh(MeshShape(data=4, tensor=2)))) == 12


def test_placed_batch_is_the_batch():
    mesh = make_mesh(MeshShape(data=2, fsdp=2, tensor=2))
    local = {"image": np.arange(8 * 3).reshape(8, 3), "label": np.arange(8)}
    placed = place_batch(local, batch_rows(8, mesh), 8, mesh)
    np.testing.assert_array_equal(placed["image"], local["image"])
    assert placed["label"].sharding.shard_shape((8,)) == (2,)


@pytest.fixture(scope="module")
def alone():
    return run_steps(CONFIG, make_mesh(MeshShape(), jax.devices()[:1]), 10)


@pytest.mark.parametrize("shape", [MeshShape(8), MeshShape(2, 4), MeshShape(1, 2, 4), MeshShape(2, 2, 2)])
def test_losses_are_equal_on_every_mesh(alone, shape):
    mesh = make_mesh(shape)
    losses, state = run_steps(CONFIG, mesh, 10)
    assert losses[-1] < losses[0] - 0.05
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    kernel = state.params["blocks"]["mlp"]["fc1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 32 // shape.fsdp, 64 // shape.tensor)


def test_pictures_of_different_devices_are_mixed_alike():
    config = dataclasses.replace(CONFIG, augment=Augment(mixup=0.4), model=dataclasses.replace(MODEL, depth=1))
    alone, _ = run_steps(config, make_mesh(MeshShape(), jax.devices()[:1]), 2)
    np.testing.assert_allclose(run_steps(config, make_mesh(MeshShape(2, 2, 2)), 2)[0], alone, rtol=1e-5)


def test_losses_are_equal_when_continued_on_another_mesh(tmp_path):
    source = data.open_sources(CONFIG)["train"]

    def run(mesh, first, last, state=None):
        experiment = build_experiment(CONFIG, mesh, 10, len(source))
        if first == 0:
            state = experiment.init(jax.random.key(CONFIG.seed))
        elif state is None:
            state = Checkpoints(tmp_path).restore(experiment.shapes)
        rows, losses = batch_rows(CONFIG.batch, mesh), []
        for batch in data.train_batches(source, CONFIG, rows, first, last):
            state, metrics = experiment.train_step(
                state, place_batch(batch, rows, CONFIG.batch, mesh), experiment.numbers
            )
            losses.append(float(metrics["loss"]))
        return losses, state

    eight = make_mesh(MeshShape(8))
    _, state = run(eight, 0, 4)
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(state)
    checkpoints.close()
    expected, _ = run(eight, 4, 12, state)
    assert len(expected) == 8
    assert expected[-1] < expected[0] - 0.1
    for shape, number in ((MeshShape(4), 4), (MeshShape(), 1), (MeshShape(2, 2, 2), 8)):
        losses, _ = run(make_mesh(shape, jax.devices()[:number]), 4, 12)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_same_devices_same_bits(alone):
    losses, state = run_steps(CONFIG, make_mesh(MeshShape(), jax.devices()[:1]), 10)
    assert losses == alone[0]
    equal = jax.tree.map(np.array_equal, state, alone[1])
    assert jax.tree.all(equal), [name for name, same in tree.flatten(equal).items() if not same]


def test_optimizer_state_is_split_as_its_parameters(alone):
    mesh = make_mesh(MeshShape(data=1, fsdp=8))
    shardings = tree.flatten(tree_shardings(alone[1], mesh))
    kernels = [name for name in shardings if name.endswith("blocks/mlp/fc1/kernel")]
    assert len(kernels) == 3  # The parameter and AdamW's two moments.
    assert {shardings[name].spec for name in kernels} == {P(None, "fsdp", "tensor")}


def test_what_fused_attention_keeps_is_stored():
    fused = Primitive("dot_product_attention_fwd_wrapper")  # JAX's name for cuDNN's.
    assert REMAT["none"](fused)
    assert not REMAT["none"](jax.lax.exp_p)


@pytest.mark.parametrize(
    ("platform", "devices", "fsdp", "changes", "unroll"),
    [
        ("gpu", 1, 1, {}, 2),
        ("gpu", 8, 1, {}, 2),
        ("gpu", 8, 8, {}, 1),
        ("gpu", 1, 1, {"unroll": 1}, 1),
        ("tpu", 1, 1, {}, 1),
        ("cpu", 1, 1, {}, 2),
        ("cpu", 8, 1, {}, 1),
        ("cpu", 1, 1, {"remat": "full"}, 1),
        ("cpu", 1, 1, {"patch": 1}, 1),  # Scores of 16 Mi tokens.
    ],
)
def test_all_blocks_are_one_iteration_where_that_is_faster_and_fits(platform, devices, fsdp, changes, unroll):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **changes))
    config = dataclasses.replace(config, image_size=4096) if "patch" in changes else config
    assert unrolled(config, platform, devices, fsdp).model.unroll == unroll
