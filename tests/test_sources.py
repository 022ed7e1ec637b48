"""Sources: the same three facts of each, parts of them, and what they refuse."""

import dataclasses
import io
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.test_data import write_folder
from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.data import folder, kept
from vit_jax.data.sources import ArraySource, parse_split, stratified_order, take_fraction, take_slice
from vit_jax.errors import InputError

CONFIG = Config(image_size=8, channels=3, data=Data(threads=2))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test."""
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config_of(name, **fields):
    return dataclasses.replace(CONFIG, data=Data(name=name, threads=2, **fields))


def records(source):
    return [source[index] for index in range(len(source))]


def settle(root, when=1e9):
    """Let every folder have changed long ago."""
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            os.utime(path, (when, when))


def test_folder_has_every_picture_at_any_depth_in_any_case(tmp_path):
    root = tmp_path / "pictures"
    names = ["cat/1.jpg", "cat/deep/er/2.JPEG", "cat/3.PnG", "dog/ä b.webp", "dog/5.bmp", "dog/x/6.Gif"]
    others = ["cat/notes.txt", "cat/.hidden.jpg", "dog/.thumbnails/7.jpg", ".git/8.jpg", "9.jpg"]
    for name in names + others:
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    source = data.open_split(config_of("folder", path=str(root)), "train")
    assert source.label_names == ("cat", "dog")
    assert {record.picture for record in records(source)} == {root / "train" / name for name in names}
    assert source.labels.tolist() == [record.label for record in records(source)] == [0, 0, 0, 1, 1, 1]
    assert records(data.open_split(config_of(f"folder:{root}"), "train")) == records(source)


def test_labels_of_a_split_count_along_the_training_split(tmp_path):
    root = write_folder(tmp_path / "pictures", classes=("ant", "bee", "cat"))
    shutil.rmtree(root / "test" / "bee")
    sources = data.open_sources(config_of("folder", path=str(root)))
    assert sources["val"].label_names == sources["train"].label_names == ("ant", "bee", "cat")
    assert {(record.picture.parent.name, record.label) for record in records(sources["val"])} == {
        ("ant", 0),
        ("cat", 2),
    }


def test_a_folder_is_listed_once_and_again_when_it_changed(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "pictures")
    (root / "train" / "cat" / "deep").mkdir()
    settle(root)
    scans = []
    scan = folder._scan
    monkeypatch.setattr(folder, "_scan", lambda *arguments: scans.append(arguments) or scan(*arguments))

    def look():
        return {record.picture.name for record in records(data.open_split(config_of(f"folder:{root}"), "train"))}

    assert look() == look() == {"0.PNG", "1.jpg", "2.PNG"}
    assert len(scans) == 1
    (root / "train" / "cat" / "deep" / "new.png").touch()
    assert look() == {"0.PNG", "1.jpg", "2.PNG", "new.png"}
    # The change is so fresh that another could follow unseen: the listing isn't kept yet.
    (root / "train" / "cat" / "deep" / "newer.png").touch()
    assert "newer.png" in look()
    assert len(scans) == 3
    settle(root, when=1.1e9)
    assert look() == look()
    assert len(scans) == 4
    shutil.rmtree(root / "train" / "cat" / "deep")
    assert look() == {"0.PNG", "1.jpg", "2.PNG"}


def test_a_cache_that_cannot_be_used_does_no_harm(tmp_path, cache):
    root = write_folder(tmp_path / "pictures")
    settle(root)
    cache.write_text("a file where a folder should be")
    assert len(data.open_split(config_of(f"folder:{root}"), "train")) == 6
    cache.unlink()
    assert len(data.open_split(config_of(f"folder:{root}"), "train")) == 6
    (listing,) = cache.rglob("*.npz")
    for damage in (b"", listing.read_bytes()[:200]):
        listing.write_bytes(damage)
        assert len(data.open_split(config_of(f"folder:{root}"), "train")) == 6
    assert kept.read_kept("listings", "nothing") is None


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="config.data.path is not set"):
        data.open_sources(config_of("folder"))
    with pytest.raises(InputError, match="does not exist; expected SPLIT/CLASS"):
        data.open_sources(config_of("folder", path=str(tmp_path / "nowhere")))
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="has no pictures"):
        data.open_sources(config_of("folder", path=str(tmp_path / "empty")))
    root = write_folder(tmp_path / "odd")
    (root / "test" / "bird").mkdir()
    with pytest.raises(InputError, match=r"test/bird' has no counterpart in the training split"):
        data.open_sources(config_of("folder", path=str(root)))
    with pytest.raises(InputError, match="config.data.name='foldr': did you mean 'folder'"):
        data.open_sources(config_of("foldr"))


def test_digits_split_is_fixed_and_stratified():
    config = Config(image_size=8, channels=1, data=Data(name="digits"))
    sources, again = data.open_sources(config), data.open_sources(config)
    assert (len(sources["train"]), len(sources["val"])) == (1437, 360)
    np.testing.assert_array_equal(sources["val"].images, again["val"].images)
    assert Counter(sources["val"].labels.tolist()).most_common()[-1][1] >= 34
    assert sources["train"].images.max() == 255
    with pytest.raises(InputError, match="source 'digits' has no split 'valid'; there is train and test"):
        data.open_split(config, "valid")


def test_synthetic_pictures_are_what_the_config_asks_for():
    sources = data.open_sources(dataclasses.replace(CONFIG, image_size=(8, 12), data=Data(name="synthetic")))
    assert sources["train"].images.shape == (1000, 8, 12, 3)
    assert sources["train"].images.dtype == np.uint8


def labelled(counts):
    """Pictures in order of class that are their own numbers."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return ArraySource(images, labels, tuple(map(str, range(len(counts)))))


def test_fractions_are_balanced_nested_and_the_same_for_a_seed():
    source = labelled([100, 50, 50, 2])
    parts = {f: take_fraction(source, f, seed=1).images.ravel() for f in (0.02, 0.1, 0.5, 1.0)}
    sizes = [len(parts[f]) for f in (0.02, 0.1, 0.5, 1.0)]
    assert sizes == [4, 20, 101, 202]
    assert set(parts[0.02]) < set(parts[0.1]) < set(parts[0.5]) < set(parts[1.0])
    assert all((np.diff(part.astype(int)) > 0).all() for part in parts.values())
    counts = {f: Counter(source.labels[part].tolist()) for f, part in parts.items()}
    assert counts[0.02] == {0: 1, 1: 1, 2: 1, 3: 1}
    assert counts[0.1] == {0: 9, 1: 5, 2: 5, 3: 1}
    assert counts[0.5] == {0: 50, 1: 25, 2: 25, 3: 1}
    np.testing.assert_array_equal(parts[0.1], take_fraction(source, 0.1, seed=1).images.ravel())
    assert set(parts[0.1]) != set(take_fraction(source, 0.1, seed=2).images.ravel())
    assert set(parts[0.1]) != set(range(20))


def test_every_beginning_of_a_stratified_order_is_balanced():
    labels = np.tile(np.arange(5), 12)
    order = stratified_order(labels, seed=0)
    assert sorted(order) == list(range(60))
    for size in range(1, 61):
        counts = np.bincount(labels[order[:size]], minlength=5)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", ("train", None, None)),
        ("train[:99%]", ("train", None, "99%")),
        ("train[50_000:]", ("train", "50_000", None)),
        ("val-2[-10%:-1]", ("val-2", "-10%", "-1")),
    ],
)
def test_splits_and_slices_are_parsed(text, expected):
    assert parse_split(text) == expected


@pytest.mark.parametrize(
    "text", ["", "train[", "train[5]", "train[:5", "train[a:b]", "train[::2]", "[:5]", "train[:5.5%]"]
)
def test_a_slice_that_is_none_is_refused(text):
    with pytest.raises(InputError, match=r"must be a name, or a name and a slice such as train\[:99%\]"):
        parse_split(text)


def test_slices_part_a_source_class_by_class():
    source = labelled([40, 40, 20])
    first, second = take_slice(source, None, "80%"), take_slice(source, "80%", None)
    assert sorted([*first.images.ravel(), *second.images.ravel()]) == list(range(100))
    assert np.bincount(second.labels).tolist() == [8, 8, 4]
    for start, stop in (("80", None), ("-20%", None), ("-20", "1_000")):
        np.testing.assert_array_equal(take_slice(source, start, stop).images, second.images)
    with pytest.raises(InputError, match=r"the slice \[90%:10\] of 100 pictures is empty"):
        take_slice(source, "90%", "10")


def test_fraction_is_checked():
    for fraction in (0.0, -0.5, 1.5):
        with pytest.raises(InputError, match="config.data.fraction=.*: must be above 0 and at most 1"):
            Data(fraction=fraction)


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
            assert known[np.asarray(image).tobytes()] == record.label
    assert "tensorflow" not in sys.modules


def test_tfds_slices_and_other_labels():
    config = config_of("tfds:tiny_digits", path=str(TFDS), label_key="real_label")
    source = data.open_split(config, "train")
    assert source.label_names == ("even", "odd")
    parts = [data.open_split(config, split) for split in ("train[:75%]", "train[30:]")]
    assert [len(part) for part in parts] == [30, 10]
    assert records(parts[0]) + records(parts[1]) == records(source)


def test_tfds_labels_are_read_once(cache, monkeypatch):
    config = config_of("tfds:tiny_digits", path=str(TFDS))
    expected = [record.label for record in records(data.open_split(config, "train"))]
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


def hub_set(names=("cat", "dog")):
    """A data set of 10 pictures that are their own numbers, its classes named or not."""
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
    assert [(number(record), record.label) for record in records(sources["train"])] == [(i, i % 2) for i in range(10)]
    assert [(number(record), record.label) for record in records(sources["val"])] == [(3, 1)]
    halves = config_of("hf", path=str(hub_place), image_key="img", train="train[:60%]", val="train[60%:]")
    sources = data.open_sources(halves)
    assert np.bincount(sources["train"].labels).tolist() == [3, 3]
    assert sorted(number(record) for source in sources.values() for record in records(source)) == list(range(10))


def test_hf_reads_parquet(hub_place):
    hub_set().to_parquet(hub_place / "train-0.parquet")
    hub_set(names=None).select([0, 1, 2]).to_parquet(hub_place / "test-0.parquet")
    one = data.open_split(config_of(f"hf:{hub_place}/train-0.parquet", image_key="img"), "train")
    assert [(number(record), record.label) for record in records(one)] == [(i, i % 2) for i in range(10)]
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
