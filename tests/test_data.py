"""Folders of pictures give the same batches, whether held in memory or read when needed."""

import dataclasses

import numpy as np
from PIL import Image

from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.source import ArraySource

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
