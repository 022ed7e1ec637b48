"""Hugging Face data sets: saved, as parquet, with and without names; and a fraction of every kind of source."""

import dataclasses
import io
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.test_data import write_folder
from tests.test_sources import cache, config_of, records
from tests.test_tfds import TFDS
from vit_jax import data
from vit_jax.errors import InputError

__all__ = ["cache"]  # A fixture of every test here.


def hub_set(names=("cat", "dog")):
    """A data set of 10 pictures whose pixels are their index, with or without class names."""
    rows = {"img": [], "label": [i % 2 for i in range(10)]}
    for i in range(10):
        file = io.BytesIO()
        Image.new("L", (8, 8), i).save(file, "png")
        rows["img"].append({"bytes": file.getvalue(), "path": None})
    features = {
        "img": datasets.Image(),
        "label": datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64"),
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def number(record):
    with Image.open(io.BytesIO(record.picture)) as image:
        return image.getpixel((0, 0))


def numbered_labels(source):
    return [(number(record), record.columns["label"]) for record in records(source)]


@pytest.fixture
def hub_place(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def test_hf_reads_what_was_saved(hub_place):
    rows = hub_set()
    datasets.DatasetDict(train=rows, test=rows.select([3])).save_to_disk(hub_place)
    sources = data.open_sources(config_of(f"hf:{hub_place}", image_key="img"))
    assert sources["train"].label_names == sources["val"].label_names == ("cat", "dog")
    assert numbered_labels(sources["train"]) == [(i, i % 2) for i in range(10)]
    assert numbered_labels(sources["val"]) == [(3, 1)]
    halves = config_of("hf", path=str(hub_place), image_key="img", train="train[:60%]", val="train[60%:]")
    sources = data.open_sources(halves)
    assert np.bincount(sources["train"].labels).tolist() == [3, 3]
    assert sorted(number(record) for source in sources.values() for record in records(source)) == list(range(10))


def test_hf_reads_parquet(hub_place):
    hub_set().to_parquet(hub_place / "train-0.parquet")
    hub_set(names=None).select([0, 1, 2]).to_parquet(hub_place / "test-0.parquet")
    one = data.open_split(config_of(f"hf:{hub_place}/train-0.parquet", image_key="img"), "train")
    assert numbered_labels(one) == [(i, i % 2) for i in range(10)]
    unnamed = data.open_split(config_of(f"hf:{hub_place}/test-0.parquet", image_key="img"), "train")
    assert unnamed.label_names == ("0", "1")
    assert unnamed.labels.tolist() == [0, 1, 0]


def test_hf_refuses(hub_place, monkeypatch):
    hub_set().save_to_disk(hub_place)
    with pytest.raises(
        InputError, match="image_key='image': data set '.*/set' has no such column; there is img, label"
    ):
        data.open_sources(config_of(f"hf:{hub_place}"))
    with pytest.raises(InputError, match="split 'test': can't be read"):
        data.open_sources(config_of(f"hf:{hub_place}", image_key="img"))
    with pytest.raises(InputError, match="names no data set: write hf:PATH_OR_NAME"):
        data.open_sources(config_of("hf"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'vit_jax\[hf\]'"):
        data.open_sources(config_of(f"hf:{hub_place}"))


def test_hf_refuses_classes_that_training_does_not_know(hub_place):
    rows = hub_set()
    datasets.DatasetDict(train=hub_set(("cat", "dog")), test=hub_set(("cat", "cow"))).save_to_disk(hub_place)
    with pytest.raises(InputError, match="split 'test': has class 'cow', unknown in training"):
        data.open_sources(config_of(f"hf:{hub_place}", image_key="img"))
    unlabelled = rows.remove_columns("label").add_column("label", [-1] * 10).cast(rows.features)
    datasets.DatasetDict(train=unlabelled).save_to_disk(hub_place.with_name("unlabelled"))
    with pytest.raises(InputError, match="split 'train': has pictures without a class"):
        data.open_split(config_of(f"hf:{hub_place}-unlabelled".replace("set-", ""), image_key="img"), "train")


def test_every_source_gives_a_fraction_of_its_training_split(hub_place):
    datasets.DatasetDict(train=hub_set(), test=hub_set()).save_to_disk(hub_place)
    root = write_folder(hub_place.with_name("pictures"))
    for whole in (
        config_of("digits"),
        config_of("synthetic"),
        config_of(f"folder:{root}"),
        config_of("tfds:tiny_digits", path=str(TFDS)),
        config_of(f"hf:{hub_place}", image_key="img"),
    ):
        part = dataclasses.replace(whole, data=dataclasses.replace(whole.data, fraction=0.5, fraction_seed=3))
        all_of, some_of = data.open_sources(whole), data.open_sources(part)
        assert len(some_of["train"]) == round(len(all_of["train"]) / 2)
        assert len(some_of["val"]) == len(all_of["val"])
        counts, parts = (np.bincount(sources["train"].labels) for sources in (all_of, some_of))
        assert (abs(parts - counts / 2) <= 1).all()
        assert [record.columns["label"] for record in records(some_of["train"])] == some_of["train"].labels.tolist()
