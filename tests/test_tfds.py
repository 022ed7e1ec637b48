"""TFDS sets: read without TensorFlow, sliced and labelled as requested, refused with the command that prepares them."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_sources import cache, config_of, records
from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.errors import InputError

__all__ = ["cache"]  # A fixture of every test here.
TFDS = Path(__file__).parent / "data" / "tfds"


def test_tfds_reads_encoded_pictures_without_tensorflow():
    sources = data.open_sources(config_of("tfds:tiny_digits:1.0.0", path=str(TFDS)))
    assert (len(sources["train"]), len(sources["val"])) == (40, 10)
    assert sources["train"].label_names == tuple(f"digit {i}" for i in range(10))
    digits = data.open_sources(Config(image_size=8, channels=1, data=Data(name="digits")))
    known = {
        image.tobytes(): label
        for split in digits.values()
        for image, label in zip(split.images, split.labels, strict=True)
    }
    for record in records(sources["train"]):
        assert isinstance(record.picture, bytes)
        with Image.open(io.BytesIO(record.picture)) as image:
            assert known[np.asarray(image).tobytes()] == record.columns["label"]
    assert "tensorflow" not in sys.modules


def test_tfds_slices_and_other_labels():
    config = config_of("tfds:tiny_digits", path=str(TFDS), label_key="real_label")
    source = data.open_split(config, "train")
    assert source.label_names == ("even", "odd")
    parts = [data.open_split(config, split) for split in ("train[:75%]", "train[30:]")]
    assert [len(part) for part in parts] == [30, 10]
    together = [*records(parts[0]), *records(parts[1])]
    assert [record[:2] for record in together] == [record[:2] for record in records(source)]


def test_tfds_labels_are_read_once(cache, monkeypatch):
    config = config_of("tfds:tiny_digits", path=str(TFDS))
    expected = [record.columns["label"] for record in records(data.open_split(config, "train"))]
    assert data.open_split(config, "train").labels.tolist() == expected
    again = data.open_split(config, "train")
    monkeypatch.setattr(type(again), "__getitem__", None)
    assert again.labels.tolist() == expected


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tfds", {}, "names no set: write tfds:NAME"),
        (
            "tfds:tiny_digits:2.0.0",
            {},
            r"isn't prepared in .*pip install.*builder\('tiny_digits:2.0.0', data_dir=.*array_record",
        ),
        ("tfds:imagenet2012", {}, "first, by hand, into '.*/tfds/downloads/manual': .* ILSVRC2012_img_train.tar and"),
        ("tfds:tiny_digits", {"label_key": "file_name"}, "has no ClassLabel of that name; there is .*label"),
        ("tfds:tiny_digits", {"image_key": "picture"}, "has no Image of that name; there is image"),
        ("tfds:tiny_digits", {"train": "valid"}, r"split 'valid' .* there is train \(40\), test \(10\)"),
        ("tfds:tiny_digits", {"train": "train[50:]"}, r"split 'train\[50:\]' .* there is train \(40\), test \(10\)"),
    ],
)
def test_tfds_refuses(name, fields, message):
    with pytest.raises(InputError, match=message):
        data.open_sources(config_of(name, path=str(TFDS), **fields))


def test_tfds_prepared_for_tensorflow_alone_is_refused_with_the_command(tmp_path):
    shutil.copytree(TFDS, tmp_path / "sets")
    info = tmp_path / "sets" / "tiny_digits" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        InputError, match="is prepared as tfrecord.*set config.data.path='.*/sets/array_record': pip inst"
    ):
        data.open_sources(config_of("tfds:tiny_digits", path=str(tmp_path / "sets")))
