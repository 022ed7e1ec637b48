"""Data: sources, decoding, and batches as a function of (seed, step)."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vit_jax import data
from vit_jax.config import Augment, Config, Data
from vit_jax.data import augment as aug
from vit_jax.data.decode import decode
from vit_jax.data.sources import ArraySource, FolderSource
from vit_jax.errors import InputError

CONFIG = Config(seed=3, batch=8, image_size=8, channels=3, total="1ep", data=Data(threads=2))


def numbered(count=21):
    """Pictures whose every pixel is their own number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 3)).copy()
    return ArraySource(images, np.arange(count) % 3, ("a", "b", "c"))


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


def ids(batches):
    return [batch["image"][:, 0, 0, 0].tolist() for batch in batches]


def test_every_epoch_visits_every_picture_once_in_another_order():
    batches = ids(data.train_batches(numbered(), CONFIG, np.arange(8), 0, 21))
    stream = [i for batch in batches for i in batch]
    epochs = [stream[start : start + 21] for start in range(0, 168, 21)]
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_batches_do_not_depend_on_start_hosts_or_threads():
    whole = ids(data.train_batches(numbered(), CONFIG, np.arange(8), 0, 12))
    assert ids(data.train_batches(numbered(), CONFIG, np.arange(8), 5, 12)) == whole[5:]
    hosts = [ids(data.train_batches(numbered(), CONFIG, np.arange(8)[part], 0, 12)) for part in (slice(5), slice(5, 8))]
    assert [first + second for first, second in zip(*hosts, strict=True)] == whole
    many = dataclasses.replace(CONFIG, data=Data(threads=16))
    assert ids(data.train_batches(numbered(), many, np.arange(8), 0, 12)) == whole
    assert ids(data.train_batches(numbered(), dataclasses.replace(CONFIG, seed=4), np.arange(8), 0, 12)) != whole


@pytest.mark.parametrize("count", [1, 7, 8, 9, 21])
def test_evaluation_sees_every_picture_exactly_once(count):
    seen = Counter()
    for batch in data.eval_batches(numbered(count), CONFIG, np.arange(8)):
        assert batch["image"].shape == (8, 8, 8, 3)
        seen.update(batch["image"][batch["mask"] > 0, 0, 0, 0].tolist())
    assert seen == Counter(range(count))


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


def test_decode_covers_and_cuts_the_centre(tmp_path):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert decode(tmp_path / "wide.png", (10, 10), 3).min() == 255
    assert decode(tmp_path / "wide.png", (5, 5), 1).shape == (5, 5, 1)
    Image.fromarray(wide[..., 0]).save(tmp_path / "grey.png")
    assert decode(tmp_path / "grey.png", (10, 20), 3).shape == (10, 20, 3)
    assert decode(wide, (10, 40), 3) is wide


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_corrupt_picture_is_named(tmp_path, content):
    root = write_folder(tmp_path)
    victim = root / "train" / "dog" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:400] if content is None else content)
    config = folder_config(root)
    with pytest.raises(InputError, match=r"picture '.*train/dog/1.jpg' can't be read: .*; repair or remove it"):
        data.prepare(data.open_sources(config)["train"], config)
    with pytest.raises(InputError, match=r"train/dog/1.jpg"):
        list(data.train_batches(data.open_sources(config)["train"], config, np.arange(8), 0, 3))


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


def test_flip_mirrors_about_half():
    images = jax.random.normal(jax.random.key(0), (400, 2, 4, 1))
    flipped = np.asarray(aug.flip(jax.random.key(1), images))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert ((flipped == np.asarray(images)).all((1, 2, 3)) ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_shift_moves_by_whole_pixels_and_repeats_edges():
    image = np.arange(25.0, dtype=np.float32).reshape(1, 5, 5, 1)
    moved = np.asarray(aug.shift(jax.random.key(0), jnp.repeat(image, 200, 0), 1))
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode="edge")
    possible = [padded[y : y + 5, x : x + 5] for y in range(3) for x in range(3)]
    counts = [sum(np.array_equal(picture, candidate) for picture in moved) for candidate in possible]
    assert sum(counts) == 200
    assert min(counts) > 5


def test_mixup_blends_pictures_and_targets_alike():
    images = np.random.default_rng(0).normal(size=(6, 2, 2, 1)).astype(np.float32)
    targets = np.eye(6, dtype=np.float32)
    mixed, blended = (np.asarray(x) for x in aug.mixup(jax.random.key(0), jnp.array(images), jnp.array(targets), 0.4))
    weights = np.diag(blended)
    assert (weights >= 0.5).all()
    np.testing.assert_allclose(blended.sum(1), 1, rtol=1e-6)
    expected = images * weights[:, None, None, None] + np.roll(images, 1, 0) * (1 - weights[:, None, None, None])
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_augment_does_only_what_is_asked():
    images = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    same, unchanged = aug.augment(jax.random.key(0), jnp.array(images), jnp.array(targets), Augment())
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(unchanged, targets)
    assert aug.normalise(jnp.array([[[[0]], [[255]]]], jnp.uint8)).ravel().tolist() == [-1, 1]
