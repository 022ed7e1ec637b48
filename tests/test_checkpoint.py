"""Checkpoints: a damaged one is never restored, the best is kept, and a full disk loses no earlier one."""

import asyncio
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import damage, hosts_checkpoint
from tests.quick import FLAGS
from tests.tiny import CONFIG
from vit_jax import tree
from vit_jax.cluster.sharding import make_mesh, tree_shardings
from vit_jax.config import MeshShape
from vit_jax.errors import InputError
from vit_jax.models import init_params
from vit_jax.runs.checkpoint import Checkpoints, load_params
from vit_jax.runs.directory import Facts, finished_steps, open_workdir, reporting_full_disk
from vit_jax.runs.metrics import Writer
from vit_jax.step import init_state

MODEL = CONFIG.model_facts(10)


def make_state(step, mesh):
    """Return a state with its own random parameters and moments, split over a mesh."""

    def init():
        params = init_params(jax.random.key(0), **MODEL)
        return init_state(params, optax.adamw(1e-3), frozenset(tree.flatten(params)))

    shapes = jax.eval_shape(init)
    random = np.random.default_rng(step)
    state = jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), shapes)._replace(step=np.int32(step))
    return jax.device_put(state, tree_shardings(shapes, mesh))


def shapes_of(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def same(one, two):
    return jax.tree.structure(one) == jax.tree.structure(two) and jax.tree.all(jax.tree.map(np.array_equal, one, two))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshShape(2, 2, 2))


@pytest.fixture(scope="module")
def states(mesh):
    return {step: make_state(step, mesh) for step in range(1, 7)}


@pytest.fixture(scope="module")
def saved(states, tmp_path_factory):
    """A run with checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    save(workdir, states[1], states[2])
    return workdir


def save(workdir, *states, scores=None, **keep):
    open_workdir(workdir, Facts(CONFIG, tuple("0123456789")))
    checkpoints = Checkpoints(workdir, **{"keep": 2, "select": "val/accuracy"} | keep)
    for state, score in zip(states, scores or [None] * len(states), strict=True):
        checkpoints.save(state, {} if score is None else {"val/accuracy": score})
    checkpoints.close()


def restore(workdir, state):
    checkpoints = Checkpoints(workdir, 2)
    restored = checkpoints.restore(shapes_of(state))
    checkpoints.close()
    return restored


def test_no_damage_is_taken_for_the_state(states, saved, tmp_path, capsys, monkeypatch):
    """One kind of damage per file, in turn; `python -m tests.damage --command` tries all, with the command.

    No read is cancelled when another fails: a deadlock could come of it.
    """
    cancel, cancelled = asyncio.runners._cancel_all_tasks, []
    monkeypatch.setattr(
        asyncio.runners,
        "_cancel_all_tasks",
        lambda loop: (cancelled.append(len(asyncio.all_tasks(loop))), cancel(loop)),
    )
    newest = saved / "checkpoints" / "2"
    alone = make_state(2, make_mesh(MeshShape(1), jax.devices()[:1]))
    kinds = itertools.cycle(damage.DAMAGES)
    fell_back = 0
    for number, path in enumerate(damage.files(newest)):
        kind = next(kinds)
        workdir = tmp_path / str(number)
        shutil.copytree(saved, workdir)
        if not damage.damage(workdir / "checkpoints" / "2" / path, kind):
            continue
        restored = restore(workdir, alone)
        told = capsys.readouterr().err
        if int(restored.step) == 2:
            assert same(restored, states[2]), path
            assert told == ""
            assert finished_steps(workdir) == [1, 2]
        else:
            assert same(restored, states[1]), path
            assert told.startswith("warning: checkpoint 2 is damaged (")
            assert told.endswith("); going back to checkpoint 1\n")
            assert told.count("\n") == 1
            assert finished_steps(workdir) == [1]
            assert len(damage.files(workdir / "checkpoints" / "damaged-2")) >= len(damage.files(newest)) - 1
            fell_back += 1
        shutil.rmtree(workdir)
    assert fell_back > 5
    assert not any(cancelled)


def test_what_is_restored_is_not_gathered_on_the_host(states, saved):
    assert all(array._npy_value is None for array in jax.tree.leaves(restore(saved, states[2])))


def test_nothing_whole_is_left(states, saved, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for step in ("1", "2"):
        damage.damage(workdir / "checkpoints" / step / "contents" / "metadata", "one bit")
    with pytest.raises(InputError, match=r"has no intact checkpoint \(damaged: 2, 1\); put a copy of one there, or"):
        restore(workdir, states[1])
    assert capsys.readouterr().err.count("warning: ") == 2
    assert finished_steps(workdir) == [1, 2]


def test_what_was_damaged_is_saved_again_and_does_not_count(states, saved, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for _ in range(2):
        (workdir / "checkpoints" / "2" / "params" / "manifest.ocdbt").unlink()
        shutil.rmtree(workdir / "checkpoints" / "2" / "params" / "ocdbt.process_0")
        checkpoints = Checkpoints(workdir, 2)
        assert int(checkpoints.restore(shapes_of(states[1])).step) == 1
        checkpoints.save(states[2])
        checkpoints.close()
        assert finished_steps(workdir) == [1, 2]
    assert same(restore(workdir, states[2]), states[2])
    assert {path.name for path in (workdir / "checkpoints").glob("d*")} == {"damaged-2", "damaged-2-again"}


def test_a_checkpoint_under_another_number_is_damaged(states, saved, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    os.rename(workdir / "checkpoints" / "1", workdir / "checkpoints" / "9")
    assert same(restore(workdir, states[2]), states[2])
    assert "checkpoint 9 is damaged (ValueError: it was saved as checkpoint 1)" in capsys.readouterr().err


def test_unfinished_ones_are_not_seen_and_cleared(states, saved, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    shutil.copytree(workdir / "checkpoints" / "2", workdir / "checkpoints" / "3.orbax-checkpoint-tmp-17")
    assert Checkpoints(workdir).latest() == 2
    assert (workdir / "checkpoints" / "3.orbax-checkpoint-tmp-17").exists()
    assert same(restore(workdir, states[2]), states[2])
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"1", "2"}


def test_the_newest_and_the_best_are_kept(states, mesh, tmp_path):
    scores = [0.1, 0.7, None, float("nan"), 0.6, None]
    save(tmp_path / "run", *states.values(), scores=scores)
    assert finished_steps(tmp_path / "run") == [2, 5, 6]
    # When another process continues the run, the best stays the best.
    save(tmp_path / "run", make_state(8, mesh), make_state(9, mesh), scores=[0.69, 0.5])
    assert finished_steps(tmp_path / "run") == [2, 8, 9]
    assert same(load_params(tmp_path / "run", MODEL, mesh, "best"), states[2].params)
    assert same(load_params(tmp_path / "run", MODEL, mesh, "8"), make_state(8, mesh).params)
    for wrong, message in (("7", "has no checkpoint 7; there are 2, 8, 9"), ("last", "must be newest, best or a step")):
        with pytest.raises(InputError, match=message):
            load_params(tmp_path / "run", MODEL, mesh, wrong)
    damage.damage(tmp_path / "run" / "checkpoints" / "2" / "params" / "_METADATA", "half")
    with pytest.raises(InputError, match="checkpoint 2 of run .* is damaged"):
        load_params(tmp_path / "run", MODEL, mesh, "best")


def test_the_lowest_loss_is_the_best(states, tmp_path):
    checkpoints = Checkpoints(tmp_path, 1, "val/loss")
    for step, loss in enumerate((0.4, 0.2, 0.3, 0.5, 0.6, 0.7), start=1):
        checkpoints.save(states[step], {"val/loss": loss})
    checkpoints.close()
    assert finished_steps(tmp_path) == [2, 6]


def test_reading_alone_passes_over_and_moves_nothing(states, saved, mesh, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(saved, workdir)
    for path in (workdir / "checkpoints" / "2" / "training").rglob("*"):
        if path.is_file():
            path.unlink()
    assert same(load_params(workdir, MODEL, mesh), states[2].params)  # Only items that are read need to exist.
    damage.damage(workdir / "checkpoints" / "2" / "params" / "_METADATA", "half")
    assert same(load_params(workdir, MODEL, mesh), states[1].params)
    assert "going back to checkpoint 1" in capsys.readouterr().err
    assert finished_steps(workdir) == [1, 2]


def test_another_model_is_refused_by_name(states, saved):
    def refusal(change):
        shapes = shapes_of(states[2])
        change(shapes.params)
        with pytest.raises(InputError) as caught:
            restore(saved, shapes)
        assert str(caught.value).startswith(f"checkpoint 2 of run {str(saved)!r} does not fit the model: ")
        return str(caught.value)

    def more_classes(params):
        params["head"]["kernel"] = jax.ShapeDtypeStruct((32, 12), jnp.float32)

    def no_head(params):
        del params["head"]

    def one_more(params):
        params["head"]["scale"] = jax.ShapeDtypeStruct((2,), jnp.float32)

    def half(params):
        params["head"]["bias"] = jax.ShapeDtypeStruct((10,), jnp.bfloat16)

    assert "params/head/kernel: float32[32, 10], but float32[32, 12] in the model" in refusal(more_classes)
    assert "params/head/bias: float32[10], but missing in the model and 1 more" in refusal(no_head)
    assert "params/head/scale: missing, but float32[2] in the model" in refusal(one_more)
    assert "params/head/bias: float32[10], but bfloat16[10] in the model" in refusal(half)
    assert finished_steps(saved) == [1, 2]


@pytest.fixture
def full_disk():
    """Limit files to 40 kB, to simulate a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_metrics_that_cannot_be_written_are_told(tmp_path, full_disk):
    writer = Writer(tmp_path, 0)
    written = []

    @reporting_full_disk(tmp_path)
    def write_on_a_full_disk():
        full_disk()
        for step in range(1, 2000):
            writer.write(step, {"train/loss": 1.0})
            written.append(step)

    with pytest.raises(InputError, match="File too large; once that is fixed, the same command starts over"):
        write_on_a_full_disk()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    steps = [json.loads(line)["step"] for line in lines if line.endswith("\n")]
    assert steps == list(range(1, len(steps) + 1))
    assert 100 < len(written) <= len(steps) <= len(written) + 1


def test_two_processes_decide_alike_and_one_continues(tmp_path):
    """Only the second process needs the lost part; both go back."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=4"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hosts_checkpoint", address, str(process), str(tmp_path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for process in range(2)
    ]
    for process in processes:
        output, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
        assert json.loads(output.splitlines()[-1]) == [2, 1, 2]  # Gloo prints first.
        told = [line for line in error.decode().splitlines() if line.startswith("warning: ")]
        assert len(told) == 1
        assert told[0].startswith("warning: checkpoint 2 is damaged (")
    assert hosts_checkpoint.restored(tmp_path) == 2
