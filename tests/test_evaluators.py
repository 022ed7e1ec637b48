"""Evaluations with their own names, pictures and intervals; run directories of earlier versions."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests.drawn import drawn_model
from tests.runs import records, saved_steps
from tests.test_data import write_folder
from tests.tiny import CONFIG, FILE
from vit_jax import evaluate, train
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Config, Data, Evaluation, MeshShape, differences, from_dict
from vit_jax.config.coerce import literal
from vit_jax.errors import InputError, Stop
from vit_jax.evaluators import EVALUATORS, Evaluators, Subject, evaluate_model
from vit_jax.runs.directory import read_facts
from vit_jax.runs.metrics import Progress
from vit_jax.tasks import best_metric, build_task
from vit_jax.tasks.classification import Classification

DATA = Path(__file__).parent / "data"
SMALL = dict(name="custom/2", width=32, depth=2, num_heads=2, mlp_dim=64)


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    return tmp_path / "tiny.py"


def subject_of(config, names):
    """Return a small model with these classes, ready to be evaluated."""
    graph, _ = nnx.split(drawn_model(num_classes=len(names), image_size=16))
    return Subject(graph, build_task(config, len(names)), config, names, make_mesh(MeshShape()))


def test_evaluations_have_their_own_names_pictures_and_cadence(config_file, capsys):
    named = {"val": {}, "seen": {"split": "train[:10%]", "every": "2st"}}
    arguments = [f"--config={config_file}", f"--workdir={config_file.parent}/run", "--config.total=6st"]
    train.main([*arguments, f"--config.evaluators={named}", "--config.eval_every=3st"])
    steps = {
        name: [r["step"] for r in records(config_file.parent / "run") if f"{name}/accuracy" in r] for name in named
    }
    assert steps == {"val": [3, 6], "seen": [2, 4, 6]}
    last = records(config_file.parent / "run")[-1]
    assert (last["val/count"], last["seen/count"]) == (360, 144)
    capsys.readouterr()
    evaluate.main([f"--workdir={config_file.parent}/run"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == pytest.approx({name: value for name, value in last.items() if name in printed})
    assert len(printed) == 14
    found = json.loads((config_file.parent / "run" / "evaluation" / "seen-4.json").read_text())
    assert found["step"] == 4
    at_4 = next(record for record in records(config_file.parent / "run") if record["step"] == 4)
    assert {f"seen/{metric}": found[metric] for metric in ("loss", "accuracy", "ece")}.items() <= at_4.items()
    assert np.shape(found["confusion"]) == (10, 10)
    assert (config_file.parent / "run" / "evaluation" / "seen-confusion-6.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_may_have_no_evaluation(config_file):
    arguments = [f"--config={config_file}", f"--workdir={config_file.parent}/run", "--config.total=2st"]
    train.main([*arguments, "--config.evaluators={}"])
    assert not [name for record in records(config_file.parent / "run") for name in record if name.startswith("val/")]


def test_another_source_may_be_evaluated(tmp_path):
    write_folder(tmp_path / "one")
    write_folder(tmp_path / "two", per_class=5, splits=("other",))
    evaluations = {"own": Evaluation(), "far": Evaluation(path=str(tmp_path / "two"), split="other")}
    found = evaluate_model(
        drawn_model(num_classes=2, image_size=16),
        ["cat", "dog"],
        Data(name="folder", path=str(tmp_path / "one")),
        evaluators=evaluations,
    )
    assert (found.scalars["own/count"], found.scalars["far/count"]) == (6, 10)


def test_classes_must_be_the_models(tmp_path):
    data = Data(name="folder", path=str(write_folder(tmp_path)))
    with pytest.raises(InputError, match="the model has 3 outputs, but there are 2 label names"):
        evaluate_model(drawn_model(num_classes=3, image_size=16), ["cat", "dog"], data)
    with pytest.raises(
        InputError, match=r"the data has 1 class \('dog'\) that the model lacks; the model has 1 class \('cow'"
    ):
        evaluate_model(drawn_model(num_classes=2, image_size=16), ["cat", "cow"], data)


def test_classes_are_matched_by_name_where_a_source_has_an_order_of_its_own():
    data, reverse = Data(name="digits"), "9876543210"
    model = drawn_model(num_classes=12, image_size=8, channels=1, **SMALL)
    own, other = (evaluate_model(model, [*names, "x", "y"], data) for names in ("0123456789", reverse))
    assert [row["label"] for row in other.tables["val/classes"]] == [*reverse, "x", "y"]
    # The model's output i is another digit; what it takes a digit for stays.
    assert other.tables["val/confusion"][:10] == own.tables["val/confusion"][9::-1]
    assert other.tables["val/confusion"][10:] == [[0] * 12] * 2


def test_several_labels_are_matched_by_name(tmp_path):
    for split, lines in (("test", ["0.png,cat;dog", "1.png,dog", "2.png,"]), ("one", ["0.png,cow", "1.png,cat"])):
        (tmp_path / f"{split}.csv").write_text("\n".join(["path,label", *lines]))
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 80 * i, np.uint8)).save(tmp_path / f"{i}.png")
    data, names = Data(name="csv", path=str(tmp_path)), ("ant", "cow", "dog", "cat")
    config = Config(image_size=8, task="multi_label", loss="sigmoid", data=data)
    subject = subject_of(config, names)
    expected = {"test": [[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], "one": [[0, 1, 0, 0], [0, 0, 0, 1]]}
    for split, labels in expected.items():
        found = subject.open(Evaluation(split=split))
        assert found.label_names == names
        (batch,) = found.batches()
        np.testing.assert_array_equal(batch["labels"][: len(labels)], labels)
    # Where every picture has one label, the column "label" is matched too.
    source = subject.source(Evaluation(split="one"))
    assert [source[i].columns["label"] for i in range(2)] == [1, 3]
    assert source.labels.tolist() == [1, 3]


def test_a_split_may_be_opened_with_its_own_or_another_splits_classes(tmp_path):
    write_folder(tmp_path, classes=("cat", "cow", "dog"), splits=("train",))
    write_folder(tmp_path, classes=("dog",), splits=("test",))
    config = Config(image_size=16, data=Data(path=str(tmp_path)))
    subject = subject_of(config, tuple("0123456789"))
    train, own = subject.open(Evaluation(), "train", "any"), subject.open(Evaluation(), classes="any")
    assert (train.label_names, own.label_names) == (("cat", "cow", "dog"), ("dog",))
    test = subject.open(Evaluation(), classes=train.label_names)
    assert test is subject.open(Evaluation(split="test"), classes=train.label_names)
    (batch,) = test.batches()
    assert batch.keys() == {"image", "label", "mask"}
    assert batch["label"][batch["mask"] > 0].tolist() == [2, 2, 2]
    with pytest.raises(InputError, match="split 'test' of 'folder': the data has 1 class"):
        subject.open(Evaluation())


def test_data_that_vanishes_ends_no_run(tmp_path, monkeypatch, capsys):
    write_folder(tmp_path / "pictures", per_class=40)
    (tmp_path / "tiny.py").write_text(FILE)
    here, away = tmp_path / "pictures" / "test", tmp_path / "away"
    update = Progress.update

    def meddle(progress, step, metrics):
        update(progress, step, metrics)
        if step == 3:
            here.rename(away)
        elif step == 7:
            away.rename(here)

    monkeypatch.setattr(Progress, "update", meddle)
    overrides = (
        *("--config.data.name=folder", f"--config.data.path={tmp_path / 'pictures'}", "--config.data.cache_mb=0"),
        *("--config.total=8st", "--config.eval_every=2st", "--config.save_every=4st"),
    )
    train.main([f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'run'}", *overrides])
    evaluated = {record["step"] for record in records(tmp_path / "run") if "val/accuracy" in record}
    assert evaluated == {2, 8}
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, 9))
    assert saved_steps(tmp_path / "run") == [4, 8]
    assert {path.name for path in (tmp_path / "run" / "evaluation").glob("*.json")} == {"val-2.json", "val-8.json"}
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2
    for step, line in zip((4, 6), warnings, strict=True):
        assert line.startswith(f"warning: evaluation 'val' at step {step} failed (")
        assert "pictures are bad, more than config.data.max_bad" in line
        assert line.endswith("; training goes on")

    here.rename(away)
    with pytest.raises(InputError, match="test' does not exist"):
        evaluate.main([f"--workdir={tmp_path / 'run'}"])


class Broken:
    """An evaluator with a mistake in its code."""

    metrics, pictures = ("score",), 1

    def __init__(self, subject, evaluation):
        self.failure = RuntimeError("two\nlines")

    def __call__(self, params, watch):
        raise self.failure


def test_what_no_evaluation_may_hide_passes(monkeypatch, capsys):
    monkeypatch.setitem(EVALUATORS, "broken", Broken)
    monkeypatch.setattr(Classification, "evaluators", ("classification", "broken"))
    config = Config(image_size=8, channels=1, select=None, data=Data(name="digits"))
    config = dataclasses.replace(config, evaluators={"val": Evaluation("broken")})
    subject = subject_of(config, tuple("0123456789"))
    evaluators = Evaluators(subject)
    (_, broken), *_ = evaluators._evaluators
    assert evaluators.attempt(3, None).scalars == {}
    told = capsys.readouterr().out
    assert told == "warning: evaluation 'val' at step 3 failed (RuntimeError: two lines); training goes on\n"
    with pytest.raises(RuntimeError, match="two"):
        evaluators(None)
    for failure in (Stop(75), KeyboardInterrupt(), MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")):
        broken.failure = failure
        with pytest.raises(type(failure)):
            evaluators.attempt(3, None)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("threshold=1.5", "threshold=1.5: must be float in (0, 1)"),
        ("shots=(5,0)", "shots=(5, 0): must be tuple of int at least 1"),
        ("seeds=-1", "seeds=-1: must be tuple of int in [0, 4294967296)"),
        ("l2=0", "l2=0: must be tuple of float above 0"),
        ("neighbours=0", "neighbours=0: must be tuple of int at least 1"),
        ("head=squares", "head='squares': did you mean 'least_squares'?"),
    ],
)
def test_keys_of_an_evaluation_have_ranges(key, message):
    name, _, value = key.partition("=")
    with pytest.raises(InputError, match=re.escape(message)):
        from_dict({"evaluators": {"val": {name: literal(value)}}})


@pytest.mark.parametrize("name", ["train", "data", "a/b", ""])
def test_names_that_would_be_confused_are_refused(name):
    with pytest.raises(InputError, match="can't be a name: use a word, but not 'train' or 'data'"):
        from_dict({"evaluators": {name: {}}})


def test_run_directories_of_version_0_1_0_are_read(tmp_path):
    """As written by the last commit before the package was divided."""
    shutil.copy(DATA / "run-0.1.0.json", tmp_path / "run.json")
    config, label_names = read_facts(tmp_path)
    assert label_names == tuple(str(digit) for digit in range(10))
    assert (config.ema, config.total, config.model.depth, config.task) == (0.99, "6ep", 4, "classification")
    assert best_metric(config) == "val/accuracy"
    # Today's command gives the same experiment.
    values = json.loads((tmp_path / "run.json").read_text())["config"]
    today = from_dict({"select": values.pop("keep_best"), **values, "evaluators": None})
    assert not differences(config, today)
    np.testing.assert_equal(from_dict(CONFIG.__dict__), CONFIG)
