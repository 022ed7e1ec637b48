"""The command: continued bit for bit after a kill, evaluated exactly, read back by the other commands."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import vit_jax
from tests.damage import arrays
from tests.quick import FLAGS
from tests.runs import saved_steps
from tests.tiny import CONFIG, FILE
from vit_jax import data
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape
from vit_jax.errors import InputError
from vit_jax.evaluate import evaluate
from vit_jax.evaluators import Evaluators, Subject, evaluate_model
from vit_jax.models import init_params, model_graph
from vit_jax.predict import predict
from vit_jax.runs.checkpoint import load_model
from vit_jax.runs.directory import read_facts
from vit_jax.tasks import build_task

TIMES = ("train/images_per_second", "train/data_wait", "train/seconds", "train/memory_gib")


def start(folder, workdir, limit=()):
    """Start the training command on one device, as a user would."""
    (folder / "tiny.py").write_text(FILE)
    command = [*limit, sys.executable, "-m", "vit_jax.train", f"--config={folder / 'tiny.py'}", f"--workdir={workdir}"]
    with (folder / "output.txt").open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"XLA_FLAGS": FLAGS})


def finish(folder, workdir):
    assert start(folder, workdir).wait(timeout=120) == 0, (folder / "output.txt").read_text()


def records(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def timeless(workdir):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records(workdir)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, folder / "run")
    return folder / "run"


def test_metrics_are_written_once_a_step(whole):
    lines = records(whole)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert {"train/loss", "train/accuracy", "train/grad_norm", "train/lr", *TIMES} <= set(lines[0])
    assert [line["step"] for line in lines if "val/accuracy" in line] == [10, 20]
    assert all(line["val/count"] == 360 for line in lines if "val/count" in line)
    assert lines[-1]["train/loss"] < lines[0]["train/loss"] - 0.15
    assert list((whole / "tensorboard").glob("events.out.tfevents.*"))


def test_killed_twice_and_out_of_disk_and_continued_equals_uninterrupted_to_the_bit(whole, tmp_path):
    workdir = tmp_path / "run"
    for kill_at in (3, 10):
        process = start(tmp_path, workdir)
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline and len(records(workdir)) < kill_at:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    # Limit files to 30 kB, to simulate a full disk: a checkpoint has 150 kB, in two files or in five, as it happens.
    newest = saved_steps(workdir)[-1]
    assert start(tmp_path, workdir, limit=["prlimit", "--fsize=30000"]).wait(timeout=120) == 2
    assert (tmp_path / "output.txt").read_text().splitlines()[-1] == (
        f"error: workdir '{workdir}' can't be written: File too large; once that is fixed, "
        f"the same command continues from checkpoint {newest}"
    )
    finish(tmp_path, workdir)
    assert timeless(workdir) == timeless(whole)
    expected, found = (arrays(folder / "checkpoints" / "20") for folder in (whole, workdir))
    assert expected.keys() == found.keys()
    assert len(expected) > 60
    for name, array in expected.items():
        np.testing.assert_array_equal(array, found[name], err_msg=name)


def test_run_directory_explains_itself(whole):
    facts = read_facts(whole)
    assert facts.config == CONFIG
    assert facts.label_names == tuple("0123456789")
    # Trained on one device, evaluated on eight.
    assert evaluate(whole).scalars["val/accuracy"] == records(whole)[-1]["val/accuracy"]


def test_predict_agrees_with_the_model(whole, tmp_path):
    source = data.open_sources(CONFIG)["val"]
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(source.images[i].squeeze()).save(path)
    model, _ = load_model(whole)
    logits = model(jnp.array(source.images[:4], jnp.float32) / 127.5 - 1)
    for (_, classes, error), expected in zip(predict(whole, paths), jax.nn.softmax(logits), strict=True):
        assert error is None
        assert [name for name, _ in classes] == [str(i) for i in np.argsort(-expected)[:5]]
        np.testing.assert_allclose([p for _, p in classes], np.sort(expected)[::-1][:5], rtol=1e-4)


def test_load_reads_a_run_and_save_hands_it_on(whole, tmp_path):
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1), minval=-1, maxval=1)
    model = vit_jax.load(whole)
    vit_jax.save(model, tmp_path / "out.npz", format="big_vision")
    np.testing.assert_array_equal(vit_jax.load(tmp_path / "out.npz")(images), model(images))
    tuned = vit_jax.load(whole, num_classes=3, image_size=(8, 12))
    assert not tuned(jnp.zeros((1, 8, 12, 1))).any()
    np.testing.assert_array_equal(
        tuned.blocks.mlp.fc1.kernel[...], vit_jax.load(whole, dropout=0.5).blocks.mlp.fc1.kernel[...]
    )
    with pytest.raises(InputError, match="does not fit the model with .*'depth': 3.*blocks/attn/key/bias"):
        vit_jax.load(whole, depth=3)


@pytest.mark.parametrize(
    ("shape", "loss"), [(MeshShape(1), "softmax"), (MeshShape(8), "softmax"), (MeshShape(4, 2), "sigmoid")]
)
def test_evaluation_equals_a_numpy_count(shape, loss):
    """360 pictures in batches of 64 leave a last batch of 40."""
    mesh = make_mesh(shape, jax.devices()[: 1 if shape.data == 1 else 8])
    facts = CONFIG.model_facts(10)
    graph, params = model_graph(**facts), init_params(jax.random.key(0), **facts)
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    config = dataclasses.replace(CONFIG, loss=loss)
    source = data.open_sources(CONFIG)["val"]
    evaluators = Evaluators(Subject(graph, build_task(config, 10), config, source.label_names, mesh))
    results = evaluators(params).scalars
    result = {name.removeprefix("val/"): value for name, value in results.items()}

    logits = np.asarray(nnx.merge(graph, params)(jnp.array(source.images, jnp.float32) * (2 / 255) - 1), np.float64)
    picked = np.arange(360), source.labels
    if loss == "softmax":
        losses = np.log(np.exp(logits).sum(1)) - logits[picked]
    else:
        losses = np.log1p(np.exp(logits)).sum(1) - logits[picked]
    assert result["count"] == 360
    assert result["accuracy"] == (logits.argmax(1) == source.labels).sum() / 360
    np.testing.assert_allclose(result["loss"], losses.mean(), rtol=1e-5)

    # The same for a model without a run.
    model = nnx.merge(graph, params)
    assert evaluate_model(model, source.label_names, CONFIG.data, batch=64, loss=loss).scalars == pytest.approx(results)
