"""Sources: what is in a split, and what they refuse."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.data.sources import ArraySource, FolderSource
from vit_jax.errors import InputError

CONFIG = Config(seed=3, batch=8, image_size=8, channels=3, total="1ep", data=Data(threads=2))


def write_folder(root, per_class=3, classes=("cat", "dog"), splits=("train", "test")):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(per_class):
                picture = Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8))
                picture.save(root / split / name / f"{i}.{'jpg' if i % 2 else 'PNG'}")
    return root


def folder_config(root):
    return dataclasses.replace(CONFIG, data=Data(name="folder", path=str(root), threads=2))


def test_folder_reads_classes_by_name_and_any_case(tmp_path):
    config = folder_config(write_folder(tmp_path))
    sources = data.open_sources(config)
    assert sources["train"].label_names == ("cat", "dog")
    assert len(sources["train"]) == len(sources["val"]) == 6
    held = data.prepare(sources["train"], config)
    assert isinstance(held, ArraySource)
    assert held.labels.tolist() == [0, 0, 0, 1, 1, 1]
    tight = dataclasses.replace(config, data=dataclasses.replace(config.data, cache_mb=0))
    assert isinstance(data.prepare(sources["train"], tight), FolderSource)
    streams = [data.train_batches(source, config, np.arange(8), 0, 3) for source in (held, sources["train"])]
    for one, other in zip(*streams, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])


def test_digits_split_is_fixed_and_stratified():
    config = Config(image_size=8, channels=1, data=Data(name="digits"))
    sources, again = data.open_sources(config), data.open_sources(config)
    assert (len(sources["train"]), len(sources["val"])) == (1437, 360)
    np.testing.assert_array_equal(sources["val"].images, again["val"].images)
    assert Counter(sources["val"].labels.tolist()).most_common()[-1][1] >= 34
    assert sources["train"].images.max() == 255


def test_synthetic_pictures_are_what_the_config_asks_for():
    sources = data.open_sources(dataclasses.replace(CONFIG, image_size=(8, 12), data=Data(name="synthetic")))
    assert sources["train"].images.shape == (1000, 8, 12, 3)
    assert sources["train"].images.dtype == np.uint8


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="config.data.path is not set"):
        data.open_sources(dataclasses.replace(CONFIG, data=Data(name="folder")))
    with pytest.raises(InputError, match="does not exist"):
        data.open_sources(folder_config(tmp_path / "nowhere"))
    (tmp_path / "empty" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="has no pictures"):
        data.open_sources(folder_config(tmp_path / "empty"))
    root = write_folder(tmp_path / "odd")
    (root / "test" / "bird").mkdir()
    with pytest.raises(InputError, match=r"test/bird' has no counterpart in the training split"):
        data.open_sources(folder_config(root))
    with pytest.raises(InputError, match="config.data.name='foldr': did you mean 'folder'"):
        data.open_sources(dataclasses.replace(CONFIG, data=Data(name="foldr")))
