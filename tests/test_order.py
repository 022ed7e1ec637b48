"""The order of training pictures: classes drawn equally, for any number of hosts, from any step."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from tests.test_data import CONFIG, folder_config, write_folder
from tests.test_sources import labelled
from vit_jax import data
from vit_jax.config import Data, from_dict
from vit_jax.data.order import make_order
from vit_jax.errors import InputError

BALANCED = dataclasses.replace(CONFIG, data=Data(balance="classes", threads=2))


def epochs(counts, number, config=BALANCED):
    source = labelled(counts)
    order = make_order(source, config)
    return source.labels, [order(epoch) for epoch in range(number)]


def test_none_is_every_picture_once_in_the_order_of_the_seed_and_the_epoch():
    _, found = epochs([10, 20], 3, CONFIG)
    for epoch, (index, visit) in enumerate(found):
        np.testing.assert_array_equal(index, np.random.default_rng((CONFIG.seed, epoch)).permutation(30))
        assert set(visit.tolist()) == {epoch}


@pytest.mark.parametrize("counts", [[100, 2], [50, 1, 7, 0, 3], [4, 4], [3]])
def test_an_epoch_has_as_many_of_every_class_and_as_many_pictures_as_before(counts):
    labels, found = epochs(counts, 5)
    here = np.count_nonzero(counts)
    drawn = np.concatenate([epoch.index for epoch in found])
    for epoch in found:
        assert len(epoch.index) == len(labels)
        each = np.bincount(labels[epoch.index], minlength=len(counts))[np.nonzero(counts)]
        assert each.sum() == len(labels)
        assert each.max() - each.min() <= 1
    # Over any number of epochs too: what one has more of, the next has less of.
    for number in range(1, 6):
        each = np.bincount(labels[drawn[: number * len(labels)]], minlength=len(counts))[np.nonzero(counts)]
        assert each.max() - each.min() <= 1
    assert len({tuple(epoch.index) for epoch in found}) == (5 if here > 1 else len({tuple(e.index) for e in found}))


def test_every_picture_of_a_class_appears_before_any_repeats():
    labels, found = epochs([30, 7], 6)
    for label, count in ((0, 30), (1, 7)):
        drawn = [
            (index, visit) for epoch in found for index, visit in zip(*epoch, strict=True) if labels[index] == label
        ]
        turns = [drawn[start : start + count] for start in range(0, len(drawn) - count, count)]
        assert len(turns) >= 3
        for time, turn in enumerate(turns):
            assert len({index for index, _ in turn}) == count
            assert {visit for _, visit in turn} == {time}
        assert len({tuple(index for index, _ in turn) for turn in turns}) == len(turns)


def test_classes_are_mixed_within_an_epoch():
    labels, (first, *_) = epochs([90, 10], 1)
    drawn = labels[first.index].tolist()
    assert 35 <= sum(one != other for one, other in zip(drawn, drawn[1:], strict=False)) <= 65


def ids(batches):
    return [batch["image"][:, 0, 0, 0].tolist() for batch in batches]


def test_batches_do_not_depend_on_start_or_hosts():
    source = labelled([40, 4, 9])
    config = dataclasses.replace(BALANCED, image_size=1, batch=8)
    source.images = np.broadcast_to(source.images, (53, 1, 1, 3))
    whole = ids(data.train_batches(source, config, np.arange(8), 0, 20))
    assert ids(data.train_batches(source, config, np.arange(8), 13, 20)) == whole[13:]
    hosts = [ids(data.train_batches(source, config, rows, 0, 20)) for rows in np.split(np.arange(8), 4)]
    assert [sum(parts, []) for parts in zip(*hosts, strict=True)] == whole
    other = dataclasses.replace(config, seed=4)
    assert ids(data.train_batches(source, other, np.arange(8), 0, 20)) != whole
    drawn = Counter(source.labels[i] for batch in whole for i in batch)
    assert max(drawn.values()) - min(drawn.values()) <= 8


def test_memory_and_files_agree_and_repeated_pictures_are_cropped_anew(tmp_path):
    root = write_folder(tmp_path, per_class=6)
    for i in range(1, 6):
        (root / "train" / "dog" / f"{i}.{'jpg' if i % 2 else 'PNG'}").unlink()
    config = folder_config(root)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, balance="classes"))
    source = data.open_sources(config)["train"]
    held = data.prepare(source, config, train=True)
    for one, two in zip(*(data.train_batches(x, config, np.arange(8), 0, 6) for x in (held, source)), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop="random_resized"))
    dogs = [
        batch["image"][row].tobytes()
        for batch in data.train_batches(source, config, np.arange(8), 0, 4)
        for row in np.flatnonzero(batch["label"] == 1)
    ]
    # Of 32 pictures, 28 are in whole epochs; they are of one file.
    assert 14 <= len(dogs) <= 18
    assert len(set(dogs)) >= len(dogs) - 2


def test_balance_needs_one_label_per_picture():
    config = from_dict({"task": "multi_label", "loss": "sigmoid", "data": {"balance": "classes"}})
    source = labelled([3, 3])
    source.columns = ("labels",)
    with pytest.raises(InputError, match="balance='classes': needs one label per picture, not task 'multi_label'"):
        data.prepare(source, config, train=True, columns={"labels": jax.ShapeDtypeStruct((2,), np.uint8)})
