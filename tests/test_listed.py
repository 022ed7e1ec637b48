"""Labels in JSON lines beside the pictures; CSV files are in test_multi_label.py."""

import dataclasses
import json

import pytest

from tests.test_bad_input import refusal
from tests.test_data import CONFIG, write_folder
from tests.tiny import FILE
from vit_jax import data, train
from vit_jax.config import Data
from vit_jax.errors import InputError

FIRST, SECOND = "train/cat/0.PNG", "train/dog/1.jpg"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path, splits=("train",))


def write(folder, *rows, name="train.jsonl"):
    (folder / name).write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return dataclasses.replace(CONFIG, data=Data(name=f"{name.split('.')[1]}:{folder}"))


def test_one_label_each_is_classification_and_other_columns_are_kept(folder):
    config = write(folder, {"path": FIRST, "label": "cat", "year": 2020}, "", {"path": SECOND, "label": ["dog"]})
    source = data.open_split(config, "train")
    assert source.label_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 1]
    assert (source[0].picture, source[0].identifier, source[0].columns["year"]) == (folder / FIRST, FIRST, 2020)
    # The same as the CSV file that says the same.
    other = write(folder, "path,label", f"{FIRST},cat", f"{SECOND},dog", name="train.csv")
    listed = data.open_split(other, "train")
    assert (listed.labels.tolist(), listed.label_names) == (source.labels.tolist(), source.label_names)


def test_any_number_of_labels(folder):
    config = write(folder, {"path": FIRST, "label": ["cat", "dog"]}, {"path": SECOND, "label": []})
    source = data.open_split(config, "train")
    assert source.columns == ("labels",)
    assert source.labels.tolist() == [[1, 1], [0, 0]]
    assert data.open_split(config, "train[:50%]").lacks == source.lacks


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], r"line 1: is not JSON: "),
        (
            ["[1]"],
            r"line 1: must be an object with 'path' and 'label', such as {\"path\": \"1.jpg\", \"label\": \"cat\"}",
        ),
        ([{"path": FIRST, "labels": "cat"}], r"line 1: must be an object with 'path' and 'label'"),
        ([{"path": FIRST, "label": 3}], r"line 1: 'label' must be text, or a list of texts"),
        (
            [{"path": FIRST, "label": "cat"}, {"path": "no.jpg", "label": "cat"}],
            r"line 2: there is no picture '.*/no.jpg'",
        ),
        (
            [{"path": FIRST, "label": "cat"}, {"path": f"./{FIRST}", "label": "dog"}],
            r"line 2: './train/cat/0.PNG' is listed twice, first in line 1; give all its labels in one",
        ),
        ([], r"train.jsonl' lists no pictures"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(folder, rows, message):
    config = write(folder, *rows)
    with pytest.raises(InputError, match=message) as caught:
        data.open_split(config, "train")
    assert "\n" not in str(caught.value)


def test_unknown_classes_and_missing_files_are_refused(folder):
    config = write(folder, {"path": FIRST, "label": ["cat", "owl"]})
    with pytest.raises(InputError, match=r"line 1: label 'owl' is unknown to the training split"):
        data.open_split(config, "train", ("cat",))
    with pytest.raises(InputError, match=r"test.jsonl' does not exist; expected SPLIT.jsonl with the columns path and"):
        data.open_split(config, "test")
    with pytest.raises(InputError, match=r"config.data.name='jsonl' names no folder: write jsonl:DIR, or set"):
        data.open_split(dataclasses.replace(CONFIG, data=Data(name="jsonl")), "train")


def test_a_picture_in_two_classes_is_named_where_one_is_needed(folder, capfd):
    write(folder, {"path": FIRST, "label": "cat"}, {"path": SECOND, "label": ["cat", "dog"]})
    (folder / "tiny.py").write_text(FILE)
    arguments = [f"--config={folder}/tiny.py", f"--workdir={folder}/run", f"--config.data.name=jsonl:{folder}"]
    error = refusal(capfd, train.main, *arguments, "--config.data.val=train")
    assert f"train.jsonl', line 2: '{SECOND}' has 2 labels); config.task says what a model is trained for" in error
    assert not (folder / "run").exists()
