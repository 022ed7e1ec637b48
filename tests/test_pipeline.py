"""Batches as a function of (seed, step), bad pictures, and splits held in memory."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from tests.test_data import CONFIG, folder_config, write_folder
from vit_jax import data
from vit_jax.config import Data
from vit_jax.data.bad import BadPictures
from vit_jax.data.pipeline import ahead
from vit_jax.data.sources.source import ArraySource
from vit_jax.errors import InputError


def numbered(count=21):
    """Pictures in which every pixel is the picture's index."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 3)).copy()
    return ArraySource(images, np.arange(count) % 3, ("a", "b", "c"))


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


def streaming(config, **changes):
    """The config, with nothing held in memory."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, cache_mb=0, **changes))


def spoil(root, *names):
    for name in names:
        (root / name).write_bytes(b"no picture")


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_too_many_bad_pictures_stop_with_the_list(tmp_path, content):
    root = write_folder(tmp_path)
    victim = root / "train" / "dog" / "1.jpg"
    victim.write_bytes(victim.read_bytes()[:400] if content is None else content)
    config = folder_config(root)
    source = data.open_sources(config)["train"]
    message = (
        r"^1 of 6 pictures are bad, more than config.data.max_bad=0.001 allows; "
        r"repair or remove: picture '.*train/dog/1.jpg' can't be read: .*$"
    )
    with pytest.raises(InputError, match=message):
        data.prepare(source, config)
    with pytest.raises(InputError, match=message):
        list(data.train_batches(source, config, np.arange(8), 0, 3))
    with pytest.raises(InputError, match=message):
        list(data.eval_batches(source, config, np.arange(8)))
    spoil(root, "train/cat/0.PNG", "train/cat/1.jpg")
    with pytest.raises(InputError, match=r"^3 of 6 .*cat/0.PNG.*; picture.*cat/1.jpg.*; picture.*dog/1.jpg"):
        data.prepare(source, config)


def test_a_bad_picture_is_replaced_by_the_next_good_one_of_its_epoch(tmp_path):
    root = write_folder(tmp_path, per_class=8)
    config = streaming(folder_config(root), max_bad=0.5)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop="random_resized"))
    source = data.open_sources(config)["train"]
    sound = list(data.train_batches(source, config, np.arange(8), 0, 8))
    spoil(root, "train/cat/0.PNG", "train/dog/5.jpg", "train/dog/6.PNG")
    bad = {0, 13, 14}
    batches = list(data.train_batches(source, config, np.arange(8), 0, 8))
    for epoch in range(4):
        order = np.random.default_rng((config.seed, epoch)).permutation(16)
        before, after = (
            {name: np.concatenate([batch[name] for batch in part[2 * epoch : 2 * epoch + 2]]) for name in part[0]}
            for part in (sound, batches)
        )
        assert after["replaced"].tolist() == [int(index in bad) for index in order]
        for place in range(16):
            used = next(i % 16 for i in range(place, place + 16) if int(order[i % 16]) not in bad)
            np.testing.assert_array_equal(after["image"][place], before["image"][used])
            assert after["label"][place] == before["label"][used]
    assert sum(batch["replaced"].sum() for batch in batches) == 12

    # The hosts, threads and first step make no difference.
    hosts = [list(data.train_batches(source, config, np.arange(8)[part], 0, 8)) for part in (slice(3), slice(3, 8))]
    many = streaming(config, threads=16)
    for others in (
        [{name: np.concatenate([one[name], two[name]]) for name in one} for one, two in zip(*hosts, strict=True)],
        list(data.train_batches(source, many, np.arange(8), 0, 8)),
        batches[:3] + list(data.train_batches(source, config, np.arange(8), 3, 8)),
    ):
        for one, two in zip(batches, others, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], two[name])


def test_memory_and_files_treat_bad_pictures_alike(tmp_path):
    root = write_folder(tmp_path, per_class=8)
    spoil(root, "train/cat/0.PNG", "train/dog/5.jpg", "train/dog/6.PNG")
    config = folder_config(root)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, max_bad=0.5))
    source = data.open_sources(config)["train"]
    held = data.prepare(source, config)
    assert isinstance(held, ArraySource)
    for streams in (
        [data.train_batches(one, config, np.arange(8), 0, 9) for one in (held, source)],
        [data.eval_batches(one, config, np.arange(8)) for one in (held, source)],
    ):
        for one, two in zip(*streams, strict=True):
            assert one.keys() == two.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    assert sum(batch["mask"].sum() for batch in data.eval_batches(held, config, np.arange(8))) == 13


def test_bad_pictures_are_named_once_in_the_log(tmp_path, capsys):
    root = write_folder(tmp_path, per_class=8)
    spoil(root, "train/cat/0.PNG", "train/dog/6.PNG")
    config = streaming(folder_config(root), max_bad=0.5)
    source = data.open_sources(config)["train"]
    bad = BadPictures(len(source), 0.5)
    list(data.train_batches(source, config, np.arange(8), 0, 12, bad))
    list(data.eval_batches(source, config, np.arange(8), bad))
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.split("/train/")[1] for line in lines] == [
        f"{name}' can't be read: not a picture" for name in ("cat/0.PNG", "dog/6.PNG")
    ]
    assert all(line.startswith("bad: picture '") for line in lines)


def test_a_long_list_of_bad_pictures_is_cut():
    with pytest.raises(InputError, match=r"^30 of 100 pictures.*: p0; p1; .*; p19; and 10 more$"):
        BadPictures(100, 0.2).report({i: f"p{i}" for i in range(30)})
    BadPictures(100, 0.3).report({i: f"p{i}" for i in range(30)})


@pytest.mark.parametrize("crop", ["random", "random_resized"])
def test_random_crops_are_of_the_picture_and_the_epoch_alone(tmp_path, crop):
    config = folder_config(write_folder(tmp_path, per_class=4))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop=crop))
    source = data.open_sources(config)["train"]
    assert data.prepare(source, config, train=True) is source

    def by_picture(config, batch):
        """Return {(epoch, index): pixels} for the first three epochs, read `batch` pictures at a time."""
        config = dataclasses.replace(config, batch=batch)
        batches = data.train_batches(source, config, np.arange(batch), 0, 24 // batch)
        images = np.concatenate([part["image"] for part in batches])
        orders = [np.random.default_rng((config.seed, epoch)).permutation(8) for epoch in range(3)]
        return {(epoch, int(orders[epoch][i])): images[epoch * 8 + i] for epoch in range(3) for i in range(8)}

    one, two = by_picture(config, 8), by_picture(config, 3)
    for name, pixels in one.items():
        np.testing.assert_array_equal(pixels, two[name])
    assert len({pixels.tobytes() for pixels in one.values()}) > 16
    other = by_picture(dataclasses.replace(config, seed=4), 8)
    assert sum(np.array_equal(one[name], other[name]) for name in one) < 12


def test_batches_are_drawn_ahead():
    drawn = []
    batches = ahead((drawn.append(i) or i for i in range(4)), 2)
    assert next(batches) == 0
    assert drawn == [0, 1, 2]
    assert list(batches) == [1, 2, 3]
    assert list(ahead([], 2)) == []
    assert list(ahead([1], 2)) == [1]
