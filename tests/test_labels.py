"""Names of classes: ImageNet's, files of names, and matching by name."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from vit_jax.errors import InputError
from vit_jax.labels import imagenet_ids, imagenet_names, match, read_names, told_apart

SMALL, LARGE = imagenet_names(1000), imagenet_names(21843)
# As Transformers' own files have them.
TRANSFORMERS = tuple(re.sub(r" \(n\d+\)", "", name) for name in SMALL)


@pytest.mark.parametrize(
    ("num_classes", "index", "synset", "name"),
    [
        (1000, 0, "n01440764", "tench, Tinca tinca"),
        (1000, 134, "n02012849", "crane (n02012849)"),
        (1000, 207, "n02099601", "golden retriever"),
        (1000, 517, "n03126707", "crane (n03126707)"),
        (1000, 638, "n03710637", "maillot"),
        (1000, 639, "n03710721", "maillot, tank suit"),
        (1000, 850, "n04399382", "teddy, teddy bear"),
        (1000, 999, "n15075141", "toilet tissue, toilet paper, bathroom tissue"),
        (21843, 0, "n00004475", "organism, being"),
        (21843, 9205, "n03931044", "picture, image, icon, ikon"),
        (21843, 15027, "n09859684", "bleacher"),
        (21843, 21842, "n15102894", "knothole"),
        (21841, 9205, "n03931765", "picture frame"),
    ],
)
def test_known_classes(num_classes, index, synset, name):
    assert imagenet_ids(num_classes)[index] == synset
    assert imagenet_names(num_classes)[index] == name


@pytest.mark.parametrize("num_classes", [1000, 21841, 21843])
def test_counts_uniqueness_and_order(num_classes):
    names, ids = imagenet_names(num_classes), imagenet_ids(num_classes)
    assert len(set(names)) == len(set(ids)) == len(names) == len(ids) == num_classes
    assert list(ids) == sorted(ids)
    assert all(re.fullmatch(r"n\d{8}", synset) for synset in ids)
    assert all(name == name.strip() and name for name in names)


def test_the_order_is_that_of_tfds_and_the_heads_differ_as_published():
    labels = Path(importlib.util.find_spec("tensorflow_datasets").origin).parent / "datasets/imagenet2012/labels.txt"
    assert imagenet_ids(1000) == tuple(labels.read_text().split())
    assert set(imagenet_ids(1000)) - set(imagenet_ids(21843)) == {"n04399382"}
    without = [synset for index, synset in enumerate(imagenet_ids(21843)) if index not in (9205, 15027)]
    assert imagenet_ids(21841) == tuple(without)


def test_other_heads_have_no_names_and_importing_reads_none():
    assert imagenet_names(10) is imagenet_ids(21842) is None
    code = "import vit_jax.labels.imagenet as i; print(i._classes.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "0\n"


def test_what_is_beside_the_code_is_packaged():
    root = Path(__file__).parent.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    beside = {path.name for path in (root / "vit_jax/labels").iterdir() if path.is_file() and path.suffix != ".py"}
    assert beside == set(listed["vit_jax.labels"])


def test_names_that_occur_twice_are_told_apart_only_where_they_are_imagenet_s():
    assert TRANSFORMERS.count("crane") == 2
    assert told_apart(TRANSFORMERS) == SMALL
    assert told_apart(TRANSFORMERS[::-1]) == TRANSFORMERS[::-1]
    assert told_apart(["cat", "cat"]) == ("cat", "cat")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.txt", "cat\nNew\u2028foundland, dog\nÉlan\n"),
        ("a.txt", "\ufeffcat\r\nNew\u2028foundland, dog \r\nÉlan\r\n\r\n\n"),
        ("labels", "cat\nNew\u2028foundland, dog\nÉlan"),
        ("a.json", json.dumps(["cat", "New\u2028foundland, dog", "Élan"])),
        ("a.JSON", json.dumps({"2": "Élan", "0": "cat", "1": "New\u2028foundland, dog"})),
        ("config.json", '{"num": 3, "id2label": {"0": "cat", "2": "Élan", "1": "New\u2028foundland, dog"}}'),
        ("run.json", json.dumps({"config": {}, "label_names": ["cat", "New\u2028foundland, dog", "Élan"]})),
    ],
)
def test_files_of_names(tmp_path, file, content):
    (tmp_path / file).write_bytes(content.encode())
    assert read_names(tmp_path / file) == ("cat", "New\u2028foundland, dog", "Élan")


def test_ten_and_more_names_by_number_are_in_the_order_of_numbers(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"id2label": {str(index): name for index, name in enumerate(TRANSFORMERS)}}))
    assert read_names(path) == SMALL


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.txt", None, "can't be read (No such file or directory)"),
        ("a.txt", b"", "is empty; give one name a line"),
        ("a.txt", b" \n\n", "is empty; give one name a line"),
        ("a.json", b"[]", "is empty; give one name a line"),
        ("a.txt", b"cat\ndog\nemu\ncat\n", "'cat' is there twice, line 1 and line 4"),
        ("a.txt", b"cat\n\ndog\n", "line 2 is ''; every class needs a name"),
        ("a.txt", b"\x89PNG\r\n\xff\xfe", "is not UTF-8 text"),
        ("a.txt", b"c\0a\0t\0", "line 1 is 'c\\x00a\\x00t\\x00'"),
        ("a.json", b'["cat", "dog", "cat"]', "'cat' is there twice, entry 1 and entry 3"),
        ("a.json", b'{"1": "cat", "0": "cat"}', "'cat' is there twice, number 0 and number 1"),
        ("a.json", b'["cat", 5]', "entry 2 is 5; every class needs a name"),
        ("a.json", b'{"0": ["n01440764", "tench"]}', "number 0 is ['n01440764', 'tench']"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "the numbers of its 2 names are not 0 to 1: 1 is missing"),
        ("a.json", b'{"id2label": {"1": "cat"}}', "the numbers of its 1 names are not 0 to 0: 0 is missing"),
        ("a.json", b'{"cat": 0}', "has neither a list of names nor names by number; give a list of names"),
        ("a.json", b'"cat"', "has neither a list of names nor names by number; give a list of names"),
        ("a.json", b'["cat", ', "Expecting value: line 1 column 9 (char 8); give a list of names"),
        ("a.json", b"[" * 100_000, "give a list of names"),
    ],
)
def test_bad_files_of_names(tmp_path, file, content, message):
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_names(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_matching_is_by_name_whatever_the_order():
    found = match(("emu", "cat"), ("cat", "dog", "emu"), "here")
    assert found.dtype == np.int32
    assert found.tolist() == [2, 0]
    order = np.random.default_rng(0).permutation(21843)
    shuffled = [LARGE[index] for index in order]
    np.testing.assert_array_equal(match(shuffled, LARGE, "here"), order)
    np.testing.assert_array_equal(match(LARGE, shuffled, "here"), np.argsort(order))


@pytest.mark.parametrize("model", [SMALL, TRANSFORMERS, imagenet_ids(1000)])
def test_imagenet_classes_go_by_id_and_by_any_name_of_their_own(model):
    data = ("toilet paper", "n02099601", "Tinca tinca", "crane (n03126707)", "n02012849", "maillot", "tank suit")
    if model == imagenet_ids(1000):
        data = data[:5]  # Without names, nothing says which of two classes the name of both is.
    assert match(data, model, "here").tolist() == [999, 207, 0, 517, 134, 638, 639][: len(data)]
    assert match(SMALL, model, "here").tolist() == list(range(1000))
    assert match(TRANSFORMERS, model, "here").tolist() == list(range(1000))
    assert match(imagenet_ids(1000)[::-1], model, "here").tolist() == list(range(999, -1, -1))


def test_classes_of_one_head_are_found_in_another_by_their_ids():
    names = [name for name in LARGE if name != "hen (n01514859)"]
    with pytest.raises(InputError, match=r"1 class \('teddy, teddy bear'\) that the model lacks; .* 20,844 classes"):
        match(SMALL, LARGE, "here")
    with pytest.raises(InputError, match=r"1 class \('hen'\) that the model lacks \('hen' is the name of 3 of its"):
        match(["hen"], LARGE, "here")
    with pytest.raises(InputError, match=r"1 class \('Tinca tinca'\) that the model lacks; .* 21,842 classes"):
        match(["Tinca tinca"], names, "here")


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        (
            ("a", "b", "c", "cat"),
            ("cat", "x", "y"),
            "here: the data has 3 classes ('a', 'b', 'c') that the model lacks; the model has 2 classes ('x', 'y') "
            "that the data lacks; rename classes, or give evaluate the model's names with --labels=FILE",
        ),
        (
            "abcde",
            ("a",),
            "here: the data has 4 classes ('b', 'c', 'd', ...) that the model lacks; the model has none that the "
            "data lacks; rename classes, or give evaluate the model's names with --labels=FILE",
        ),
        (
            ("Cat",),
            ("cat",),
            "here: the data has 1 class ('Cat') that the model lacks; the model has 1 class ('cat') that the data "
            "lacks; rename classes, or give evaluate the model's names with --labels=FILE",
        ),
        (
            ("cat",),
            ("cat", "cat"),
            "here: the data has 1 class ('cat') that the model lacks ('cat' is the name of 2 of its classes); the "
            "model has 2 classes ('cat', 'cat') that the data lacks; rename classes, or give evaluate the model's "
            "names with --labels=FILE",
        ),
        (
            ("tench", "cock", "Tinca tinca"),
            SMALL,
            "here: the data's classes 'tench' and 'Tinca tinca' are one class of the model, 'tench, Tinca tinca'; "
            "merge them",
        ),
    ],
)
def test_classes_that_do_not_match(data, model, message):
    with pytest.raises(InputError) as caught:
        match(data, model, "here")
    assert str(caught.value) == message
