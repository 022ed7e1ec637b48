"""Evaluations with their own names, pictures and intervals; run directories of earlier versions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.drawn import drawn_model
from tests.runs import records
from tests.test_data import write_folder
from tests.tiny import CONFIG, FILE
from vit_jax import evaluate, train
from vit_jax.config import Data, Evaluation, differences, from_dict
from vit_jax.errors import InputError
from vit_jax.evaluators import evaluate_model
from vit_jax.runs.directory import read_facts
from vit_jax.tasks import best_metric

DATA = Path(__file__).parent / "data"


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    return tmp_path / "tiny.py"


def test_evaluations_have_their_own_names_pictures_and_cadence(config_file, capsys):
    named = {"val": {}, "seen": {"split": "train[:10%]", "every": "4st"}}
    arguments = [f"--config={config_file}", f"--workdir={config_file.parent}/run", "--config.total=10st"]
    train.main([*arguments, f"--config.evaluators={named}", "--config.eval_every=5st"])
    steps = {
        name: [r["step"] for r in records(config_file.parent / "run") if f"{name}/accuracy" in r] for name in named
    }
    assert steps == {"val": [5, 10], "seen": [4, 8, 10]}
    last = records(config_file.parent / "run")[-1]
    assert (last["val/count"], last["seen/count"]) == (360, 144)
    capsys.readouterr()
    evaluate.main([f"--workdir={config_file.parent}/run"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == pytest.approx({name: value for name, value in last.items() if name in printed})
    assert len(printed) == 6


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
    with pytest.raises(InputError, match=r"test/dog' has no counterpart in the training split"):
        evaluate_model(drawn_model(num_classes=2, image_size=16), ["cat", "cow"], data)


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
    today = from_dict(json.loads((tmp_path / "run.json").read_text())["config"] | {"evaluators": None})
    assert not differences(config, today)
    np.testing.assert_equal(from_dict(CONFIG.__dict__), CONFIG)
