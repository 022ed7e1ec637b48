"""Sources: the same three facts for each, slices of them, and what they refuse."""

import dataclasses
import os
import shutil
from collections import Counter

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tests.test_data import write_folder
from vit_jax import data
from vit_jax.cache import read_cached
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import Config, Data, MeshShape
from vit_jax.data.pipeline import LABEL, check_columns
from vit_jax.data.sources import folder
from vit_jax.data.sources.relabelled import relabel
from vit_jax.data.sources.source import ArraySource, parse_split, stratified_order, take_fraction, take_slice
from vit_jax.errors import InputError
from vit_jax.experiment import build_experiment

CONFIG = Config(image_size=8, channels=3, data=Data(threads=2))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache for every test."""
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config_of(name, **fields):
    return dataclasses.replace(CONFIG, data=Data(name=name, threads=2, **fields))


def records(source):
    return [source[index] for index in range(len(source))]


def settle(root, when=1e9):
    """Make every folder look as if it changed long ago."""
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
    assert source.labels.tolist() == [record.columns["label"] for record in records(source)] == [0, 0, 0, 1, 1, 1]
    assert records(data.open_split(config_of(f"folder:{root}"), "train")) == records(source)


def test_a_class_folder_may_be_a_link_but_no_loop_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.jpg").touch()
    (tmp_path / "pictures" / "train").mkdir(parents=True)
    (tmp_path / "pictures" / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    source = data.open_split(config_of(f"folder:{tmp_path / 'pictures'}"), "train")
    assert [record.picture for record in records(source)] == [tmp_path / "pictures" / "train" / "cat" / "1.jpg"]


def test_labels_of_a_split_count_along_the_training_split(tmp_path):
    root = write_folder(tmp_path / "pictures", classes=("ant", "bee", "cat"))
    shutil.rmtree(root / "test" / "bee")
    sources = data.open_sources(config_of("folder", path=str(root)))
    assert sources["val"].label_names == sources["train"].label_names == ("ant", "bee", "cat")
    assert {(record.picture.parent.name, record.columns["label"]) for record in records(sources["val"])} == {
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
    # The change is so recent that another could go unnoticed, so the listing isn't cached yet.
    (root / "train" / "cat" / "deep" / "newer.png").touch()
    assert "newer.png" in look()
    assert len(scans) == 3
    settle(root, when=1.1e9)
    assert look() == look()
    assert len(scans) == 4
    shutil.rmtree(root / "train" / "cat" / "deep")
    assert look() == {"0.PNG", "1.jpg", "2.PNG"}


def test_pictures_in_no_class_folder_have_no_label(tmp_path):
    root = write_folder(tmp_path, splits=("train",))
    for i, path in enumerate(sorted((root / "train").rglob("*.*"))):
        path.rename(root / "train" / f"{i}{path.suffix}")
    for path in (root / "train").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    settle(root)
    for _ in range(2):  # The second time from the cache.
        source = data.open_split(config_of(f"folder:{root}"), "train[:5]")
        assert (source.label_names, source.columns, source.labels.tolist()) == ((), (), [0] * 5)
        found = {record.picture for record in records(source)}
        assert len(found) == 5
        assert found < set((root / "train").iterdir())
        assert source[0].columns == {}
    for unlabelled in (source, relabel(source, np.zeros(0, int), ("ant", "cat"))):
        with pytest.raises(InputError, match="needs 'label' .*, but the data has none .*no class folder"):
            check_columns(unlabelled, LABEL)
    with pytest.raises(InputError, match="config.data.fraction=0.01: is 0 of 5 pictures"):
        take_fraction(source, 0.01, 0)
    with pytest.raises(InputError, match="config.task='classification' needs label .* the data has no labels"):
        build_experiment(CONFIG, make_mesh(MeshShape(), jax.devices()[:1]), 0, 6)


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
    assert read_cached("listings", "nothing") is None


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


def test_digits_are_those_of_scikit_learn_in_a_fixed_stratified_split():
    sources = data.open_sources(dataclasses.replace(CONFIG, data=Data(name="digits")))
    digits = load_digits()
    split = train_test_split(digits.images, digits.target, test_size=360, stratify=digits.target, random_state=0)
    for name, images, labels in zip(("train", "val"), split[:2], split[2:], strict=True):
        np.testing.assert_array_equal(sources[name].images[..., 2], np.round(images * (255 / 16)))
        np.testing.assert_array_equal(sources[name].labels, labels)
    assert Counter(sources["val"].labels.tolist()).most_common()[-1][1] >= 34
    with pytest.raises(InputError, match="source 'digits' has no split 'valid'; there is train and test"):
        data.open_split(config_of("digits"), "valid")


def test_synthetic_pictures_are_what_the_config_asks_for():
    sources = data.open_sources(dataclasses.replace(CONFIG, image_size=(8, 12), data=Data(name="synthetic")))
    assert sources["train"].images.shape == (1000, 8, 12, 3)
    assert sources["train"].images.dtype == np.uint8


def labelled(counts):
    """Pictures sorted by class whose pixels are their index."""
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
        with pytest.raises(InputError, match=r"config.data.fraction=.*: must be float in \(0, 1\]"):
            Data(fraction=fraction)
