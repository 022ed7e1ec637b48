"""Several labels per picture, from the CSV file to the evaluation: pairs of handwritten digits side by side."""

import csv
import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from tests.drawn import drawn_model, logits_of
from tests.pairs import compose
from tests.runs import assert_equal_runs, saved_steps
from tests.test_bad_input import refusal
from tests.tiny import FILE
from vit_jax import data, evaluate, train
from vit_jax.config import Config, Data, Evaluation
from vit_jax.data.sources.listed import open_csv
from vit_jax.errors import InputError
from vit_jax.evaluators import evaluate_model
from vit_jax.losses import sigmoid_cross_entropy
from vit_jax.runs.checkpoint import load_model
from vit_jax.tasks import build_task

OVERRIDES = (
    *("--config.task=multi_label", "--config.loss=sigmoid", "--config.data.name=csv", "--config.image_size=(8,16)"),
    *("--config.total=12st", "--config.eval_every=6st", "--config.save_every=3st", "--config.keep=9"),
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    digits = data.open_sources(Config(image_size=8, channels=1, data=Data(name="digits")))
    compose(digits["train"], folder, "train", 300, channels=1)
    compose(digits["val"], folder, "test", 100, channels=1)
    (folder / "tiny.py").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def run(pairs):
    train.main([f"--config={pairs}/tiny.py", f"--workdir={pairs}/run", f"--config.data.path={pairs}", *OVERRIDES])
    return pairs / "run"


def test_the_source_has_every_column(pairs):
    source = open_csv(Config(), str(pairs), "train", None)
    with (pairs / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert source.label_names == tuple(str(digit) for digit in range(10))
    assert source.columns == ("labels",)
    assert len(source) == 300
    for record, row in zip((source[i] for i in range(300)), rows, strict=True):
        assert record.identifier == row["path"]
        assert record.columns["left"] == row["left"]
        shown = {source.label_names[i] for i in np.flatnonzero(record.columns["labels"])}
        assert shown == set(row["label"].split(";"))
        with Image.open(record.picture) as image:
            assert image.size == (16, 8)


def test_training_evaluates_what_scikit_learn_computes(run, pairs, capsys):
    model, (config, label_names) = load_model(run)
    source = data.open_split(config, "test", label_names)
    images = np.stack([np.asarray(Image.open(source[i].picture))[..., None] for i in range(100)])
    # Compiled, as the command's: operation by operation, the last bits differ, and near ties are ranked otherwise.
    logits = np.asarray(logits_of(model, jnp.asarray(images)), np.float64)
    shown = source.labels.any(0)
    precision = average_precision_score(source.labels[:, shown], logits[:, shown], average="macro")

    evaluate.main([f"--workdir={run}"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    for found in (printed, last):
        assert found["val/mean_average_precision"] == pytest.approx(precision, abs=1e-6)
        assert found["val/f1"] == pytest.approx(f1_score(source.labels, logits >= 0, average="micro"), abs=1e-6)
        assert found["val/count"] == 100
        loss = np.log1p(np.exp(logits)).sum(1) - (logits * source.labels).sum(1)
        assert found["val/loss"] == pytest.approx(loss.mean(), rel=1e-5)
    assert 0 <= last["train/f1"] <= 1

    results = json.loads((run / "evaluation" / "val-12.json").read_text())
    assert {f"val/{name}": results[name] for name in ("loss", "f1", "mean_average_precision", "count")} == {
        name: last[name] for name in last if name.startswith("val/")
    }
    classes = results["classes"]
    assert [row["label"] for row in classes] == [name for name, here in zip(label_names, shown, strict=True) if here]
    assert np.mean([row["average_precision"] for row in classes]) == pytest.approx(precision, abs=1e-6)
    assert (run / "evaluation" / "val-precision_recall-12.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_f1_counts_classes_from_its_threshold(run, threshold, capsys):
    model, (config, label_names) = load_model(run)
    source = data.open_split(config, "test", label_names)
    images = np.stack([np.asarray(Image.open(source[i].picture))[..., None] for i in range(100)])
    decided = 1 / (1 + np.exp(-np.asarray(model(jnp.asarray(images)), np.float64))) >= threshold
    found = evaluate.evaluate(run, {"evaluators.val.threshold": str(threshold)})
    assert found.scalars["val/f1"] == pytest.approx(f1_score(source.labels, decided, average="micro"), abs=1e-12)
    shown = np.flatnonzero(source.labels.any(0))
    expected = f1_score(source.labels[:, shown], decided[:, shown], average=None, zero_division=0.0)
    assert [row["f1"] for row in found.tables["val/classes"]] == pytest.approx(expected.tolist(), abs=1e-12)


def test_one_class_alone_has_the_f1_of_yes_and_no(pairs):
    sizes = dict(name="custom/2", width=32, depth=1, num_heads=2, mlp_dim=32)
    model = drawn_model(num_classes=1, image_size=(8, 16), channels=1, **sizes)
    rows = list(csv.DictReader((pairs / "test.csv").read_text().splitlines()))
    lines = ["path,label", *(f"{row['path']},{'7' if '7' in row['label'] else ''}" for row in rows)]
    (pairs / "one.csv").write_text("\n".join(lines))
    shown = ["7" in row["label"] for row in rows]
    images = np.stack([np.asarray(Image.open(pairs / row["path"]))[..., None] for row in rows])
    probabilities = 1 / (1 + np.exp(-np.asarray(model(jnp.asarray(images)), np.float64)[:, 0]))
    # Between two pictures, so that rounding decides nothing.
    threshold = float(np.sort(probabilities)[49:51].mean())
    found = evaluate_model(
        *(model, ["7"], Data(name="csv", path=str(pairs), val="one")),
        **dict(task="multi_label", loss="sigmoid", evaluators={"val": Evaluation(threshold=threshold)}),
    )
    expected = f1_score(shown, probabilities >= threshold)
    assert 0 < expected < 1
    assert found.scalars["val/f1"] == pytest.approx(expected, abs=1e-12)
    (row,) = found.tables["val/classes"]
    assert (row["f1"], row["pictures"]) == (found.scalars["val/f1"], sum(shown))


def test_continued_equals_uninterrupted_to_the_bit(run, pairs, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    # As if it had been killed after its first checkpoint.
    for step in saved_steps(tmp_path / "run")[1:]:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    command = [f"--config={pairs}/tiny.py", f"--workdir={tmp_path}/run", f"--config.data.path={pairs}", *OVERRIDES]
    train.main(command)
    assert_equal_runs(run, tmp_path / "run")


def test_loss_and_report_of_no_label_at_all():
    task = build_task(Config(task="multi_label", loss="sigmoid"), 3)
    outputs = jnp.array([[-1.0, -2.0, -3.0], [1.0, 2.0, -1.0], [1.0, -1.0, 1.0]])
    targets = task.targets({"labels": jnp.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], jnp.uint8)})
    assert task.report(outputs, targets)["f1"].tolist() == pytest.approx([1.0, 2 / 3, 0.0])
    np.testing.assert_allclose(task.loss(outputs, targets), sigmoid_cross_entropy(outputs, targets))


def write(pairs, tmp_path, lines):
    (tmp_path / "train").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "train" / name).write_bytes((pairs / "train" / name).read_bytes())
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    return Config(data=Data(name="csv", path=str(tmp_path)))


def test_one_label_each_is_classification_and_none_is_allowed(pairs, tmp_path):
    config = write(pairs, tmp_path, ["path,label", "train/0.png,cat", "train/1.png, dog "])
    source = data.open_split(config, "train")
    assert [record.columns["label"] for record in (source[0], source[1])] == [0, 1]
    assert source.labels.tolist() == [0, 1]
    (tmp_path / "train.csv").write_text("path,label\ntrain/0.png,cat;dog\ntrain/1.png,\n")
    source = data.open_split(config, "train")
    assert source.labels.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,labels", "train/0.png,cat"], r"train.csv' has no column 'label'; it has path, labels"),
        (["path,label", "train/2.png,cat"], r"line 2: there is no picture '.*train/2.png'"),
        (["path,label", "train/0.png,cat", "train/0.png,dog"], r"line 3: 'train/0.png' is listed twice"),
        (["path,label"], r"train.csv' lists no pictures"),
        (["path,label", "train/0.png,cat,dog"], r"line 2: has 3 columns, but the first line names 2"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(pairs, tmp_path, lines, message):
    config = write(pairs, tmp_path, lines)
    with pytest.raises(InputError, match=message) as caught:
        data.open_split(config, "train")
    assert "\n" not in str(caught.value)


def test_unknown_labels_and_missing_files_are_refused(pairs, tmp_path):
    config = write(pairs, tmp_path, ["path,label", "train/0.png,cat;owl"])
    with pytest.raises(InputError, match=r"line 2: label 'owl' is unknown to the training split"):
        data.open_split(config, "train", ("cat",))
    with pytest.raises(InputError, match=r"test.csv' does not exist; expected SPLIT.csv with the columns path"):
        data.open_split(config, "test")


def test_several_labels_are_no_classes(pairs, capfd):
    arguments = [f"--config={pairs}/tiny.py", f"--workdir={pairs}/none", f"--config.data.path={pairs}", *OVERRIDES]
    arguments += ["--config.task=classification"]
    error = refusal(capfd, train.main, *arguments)
    assert re.search("the task needs 'label' for every picture, but the data has .*labels", error)
    assert not (pairs / "none").exists()
