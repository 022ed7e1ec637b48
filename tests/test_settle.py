"""What a config leaves to its data: splits by what is there, the length by the number of pictures."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from tests.test_data import CONFIG, write_folder
from vit_jax import data
from vit_jax.config import Config, Data, make_plan, with_length
from vit_jax.errors import InputError

AUTO = Data(val="auto", test="auto", threads=2)


def config_of(root, **fields):
    return dataclasses.replace(CONFIG, data=dataclasses.replace(AUTO, path=str(root), **fields))


def names(config):
    return config.data.train, config.data.val, config.data.test


def files(config, split):
    source = data.open_split(config, split)
    return {source[i].identifier for i in range(len(source))}


@pytest.mark.parametrize(
    ("splits", "wanted", "said"),
    [
        (("train", "val", "test"), ("train", "val", "test"), "40 train (train/), 40 val (val/), 40 test (test/)"),
        (("train", "validation"), ("train", "validation", None), "40 train (train/), 40 val (validation/)"),
        (("train", "valid", "test"), ("train", "valid", "test"), "40 train (train/), 40 val (valid/), 40 test (test/)"),
        (
            ("train", "test", "other"),
            ("train[10%:]", "train[:10%]", "test"),
            "36 train (90% of train/), 4 val (held out of train/), 40 test (test/)",
        ),
        (
            ("train",),
            ("train[10%:]", "train[:10%]", None),
            "36 train (90% of train/), 4 val (held out of train/)",
        ),
    ],
)
def test_the_splits_of_a_folder_are_those_that_are_there(tmp_path, splits, wanted, said):
    root = write_folder(tmp_path, per_class=20, splits=splits)
    config, lines = data.settle(config_of(root))
    assert names(config) == wanted
    assert lines == [f"pictures: {said}, 2 classes"]
    assert dataclasses.replace(config, data=config_of(root).data) == config_of(root)


def test_a_folder_without_splits_is_divided_class_by_class(tmp_path):
    root = write_folder(tmp_path, per_class=20, splits=(".",))
    config, lines = data.settle(config_of(root))
    assert names(config) == (".[10%:]", ".[:10%]", None)
    assert lines == ["pictures: 36 train (90% of the folder), 4 val (held out of the folder), 2 classes"]
    train, val = files(config, config.data.train), files(config, config.data.val)
    assert not train & val
    assert len(train | val) == 40
    assert {name.split("/")[0] for name in val} == {"cat", "dog"}


def test_rare_classes_keep_a_picture_in_val_and_what_is_lost_is_said(tmp_path):
    root = write_folder(tmp_path, per_class=20, splits=("train",))
    write_folder(tmp_path, per_class=2, classes=("ant", "bee", "cow"), splits=("train",))
    write_folder(tmp_path, per_class=1, classes=("owl",), splits=("train",))
    config, lines = data.settle(config_of(root))
    assert names(config) == ("train[6:]", "train[:6]", None)
    assert {name.split("/")[0] for name in files(config, "train[:6]")} == {"ant", "bee", "cat", "cow", "dog", "owl"}
    assert lines == [
        "pictures: 41 train (87% of train/), 6 val (held out of train/), 6 classes",
        "warning: val has the only picture of 'owl': there is none to train on",
    ]


def test_a_part_of_the_training_set_is_said(tmp_path):
    root = write_folder(tmp_path, per_class=20, splits=("train", "test"))
    config, lines = data.settle(config_of(root, fraction=0.5))
    assert len(data.open_train(config)) == 18
    assert lines == ["pictures: 18 train (45% of train/), 4 val (held out of train/), 40 test (test/), 2 classes"]


def test_what_is_named_stays(tmp_path):
    root = write_folder(tmp_path, per_class=10, splits=("train", "val", "test"))
    assert names(data.settle(config_of(root, val="test", test=None))[0]) == ("train", "test", None)
    assert names(data.settle(config_of(root, train="train[:50%]"))[0]) == ("train[:50%]", "val", "test")
    assert names(data.settle(config_of(root, val="train[:20%]"))[0]) == ("train", "train[:20%]", "test")
    plain = dataclasses.replace(CONFIG, data=Data(path=str(root)))
    assert data.settle(plain) == (plain, [])


def test_listed_pictures_too(tmp_path):
    write_folder(tmp_path, per_class=10, splits=("train",))
    with (tmp_path / "train.csv").open("w") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label"])
        rows.writerows([path.relative_to(tmp_path), path.parent.name] for path in sorted(tmp_path.glob("train/*/*")))
    shutil.copy(tmp_path / "train.csv", tmp_path / "valid.csv")
    assert names(data.settle(config_of(tmp_path, name="csv"))[0]) == ("train", "valid", None)
    (tmp_path / "valid.csv").unlink()
    config, lines = data.settle(config_of(tmp_path, name="csv"))
    assert names(config) == ("train[10%:]", "train[:10%]", None)
    assert lines == ["pictures: 18 train (90% of train), 2 val (held out of train), 2 classes"]


def test_what_cannot_be_settled_is_told_in_one_line(tmp_path):
    root = write_folder(tmp_path / "some", per_class=2, splits=("train", "test"))
    (tmp_path / "one" / "cat").mkdir(parents=True)
    shutil.copy(next(root.glob("train/cat/*")), tmp_path / "one" / "cat")
    (tmp_path / "odd" / "test" / "cat").mkdir(parents=True)
    for path, fields, message in (
        ("some", {"train": "train[:50%]"}, r"can't hold out a part of config.data.train='train\[:50%\]'; name a"),
        ("one", {}, "can't hold out a part of 1 picture"),
        ("odd", {}, r"odd' has 'test', but no 'train'; expected train/CLASS"),
        ("none", {}, r"none' can't be listed: No such file or directory"),
        ("some", {"name": "digits"}, r"config.data.name='digits': only csv, folder, jsonl, records tell which"),
        ("some", {"path": None}, "config.data.path is not set"),
    ):
        config = config_of(tmp_path / path)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))
        with pytest.raises(InputError, match=message) as caught:
            data.settle(config)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("examples", "batch", "total", "warmup"),
    [
        # Kolesnikov et al. (2020), figure 2 and section 3.3, and their code.
        (1_000, 512, 500, 100),
        (19_999, 512, 500, 100),
        (20_000, 512, 10_000, 500),
        (499_999, 512, 10_000, 500),
        (500_000, 512, 20_000, 500),
        (14_000_000, 512, 20_000, 500),
        # As many pictures are seen with a smaller batch.
        (5_000, 64, 4_000, 800),
        # A tiny data set: at most 1,000 epochs, at least 100 steps.
        (60, 64, 938, 188),
        (60, 512, 118, 24),
        (10, 512, 100, 20),
    ],
)
def test_the_length_follows_from_the_number_of_pictures(examples, batch, total, warmup):
    config = Config(batch=batch, total="auto", warmup="auto")
    plan = make_plan(config, examples)
    assert (plan.total, plan.warmup) == (total, warmup)
    assert make_plan(with_length(config, examples), examples) == plan
    assert with_length(dataclasses.replace(config, total="3ep"), examples).total == "3ep"
    assert with_length(dataclasses.replace(config, warmup="7st"), examples).warmup == "7st"


def test_the_length_is_said(tmp_path):
    root = write_folder(tmp_path, per_class=30, splits=("train",))
    config = dataclasses.replace(CONFIG, batch=64, total="auto", warmup="auto", data=Data(path=str(root)))
    settled, lines = data.settle(config)
    assert (settled.total, settled.warmup) == ("938st", "20%")
    assert lines == [
        "length: 938 steps of 64 pictures, 1,000.5 epochs, of which 188 steps are warm-up "
        "(the BiT-HyperRule for 60 pictures)"
    ]
    np.testing.assert_equal(data.settle(settled), (settled, []))
