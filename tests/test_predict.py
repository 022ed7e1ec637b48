"""The predict command: a row for every picture asked for, in order, whatever is wrong with some of them."""

import csv
import dataclasses
import io
import itertools
import json
import resource

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from flax import nnx
from PIL import Image

import vit_jax
from tests.test_bad_input import refusal
from vit_jax import predict
from vit_jax.config import Config
from vit_jax.data.rows import decode_as
from vit_jax.errors import BAD_PICTURES, InputError, Stop
from vit_jax.prediction import tables
from vit_jax.prediction.forward import Predictions, Row, Wanted, predictions
from vit_jax.prediction.listing import Asked
from vit_jax.prediction.reading import AHEAD, read_batches
from vit_jax.weights.opened import open_model

NAMES = ("cat", "dog", "eel", "fox")


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """Weights of a small model with a head that is not zero, the names of its classes, and twenty pictures."""
    root = tmp_path_factory.mktemp("predict")
    sizes = dict(width=16, depth=2, num_heads=2, mlp_dim=32)
    model = vit_jax.create_model("Ti/8", num_classes=4, image_size=16, **sizes)
    model.head.kernel = nnx.Param(jax.random.normal(jax.random.key(1), (16, 4)))
    vit_jax.save(model, root / "model.npz")
    (root / "names.txt").write_text("\n".join(NAMES) + "\n")
    rng = np.random.default_rng(0)
    for name in ("b", "a/x", "a.x"):
        (root / "pictures" / name).mkdir(parents=True)
    for i in range(20):
        folder = root / "pictures" / ("b", "a/x", "a.x", "")[i % 4]
        Image.fromarray(rng.integers(0, 256, (20, 24 + i, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (root / "pictures" / "notes.txt").write_text("no picture")
    (root / "pictures" / ".hidden.png").write_bytes(b"")
    return root


def run(where, *arguments):
    """Run the command on the weights; return its exit code."""
    try:
        predict.main([f"--model={where}/model.npz", f"--labels={where}/names.txt", *map(str, arguments)])
    except Stop as stop:
        return stop.code
    return 0


@pytest.fixture(scope="module")
def known(where):
    """The twenty pictures, as the model takes them, and a function from such arrays to what the model makes of them."""
    opened, good = open_model(where / "model.npz"), sorted((where / "pictures").rglob("[0-9]*.png"))
    images = np.stack([decode_as(opened.config, path) for path in good])
    return good, images, activations_of(opened)


def activations_of(opened):
    graph, params = nnx.split(opened.model)
    names = ("logits", "pooled", "tokens")
    compiled = jax.jit(lambda params, images: nnx.merge(graph, params).activations(images, *names))
    return lambda images: {name: np.asarray(array) for name, array in compiled(params, images).items()}


def softmax(logits):
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def read_table(path):
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_row_for_every_file_asked_for(where, known, tmp_path, capsys, ending, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 5)
    good, images, activations = known
    (tmp_path / 'té,"xt.jpg').write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:300])
    bad = [tmp_path / 'té,"xt.jpg', tmp_path / "empty.jpg", tmp_path / "cut.png", tmp_path / "none.jpg"]
    asked = [bad[0], *good[:11], bad[1], bad[2], *good[11:], bad[3], good[0]]
    out = tmp_path / f"out{ending}"
    out.write_text("older")
    assert run(where, *asked, f"--out={out}", "--top=3", "--batch=1") == BAD_PICTURES
    rows = read_table(out)
    assert list(rows[0]) == [
        "path",
        *itertools.chain(*((f"label_{i}", f"probability_{i}") for i in (1, 2, 3))),
        "error",
    ]
    assert [row["path"] for row in rows] == [str(path) for path in asked]
    probabilities = dict(zip(map(str, good), softmax(activations(images)["logits"]), strict=True))
    reasons = dict(zip(map(str, bad), ("not a picture", "not a picture", "truncated", "No such file"), strict=True))
    for row in rows:
        values = [row[f"{key}_{i}"] for i in (1, 2, 3) for key in ("label", "probability")]
        if row["path"] in reasons:
            assert reasons[row["path"]] in row["error"]
            assert values == [None] * 6
        else:
            expected = probabilities[row["path"]]
            order = np.argsort(-expected)[:3]
            assert row["error"] is None
            assert values[::2] == [NAMES[i] for i in order]
            np.testing.assert_allclose(np.array(values[1::2], float), expected[order], rtol=2e-5)
    told = capsys.readouterr().err
    assert "4 classes (named by " in told
    assert "16x16 pixels, resize crop" in told
    assert f"{len(asked)} pictures in " in told
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_summary_names_the_first_bad_pictures(where, tmp_path):
    with pytest.raises(Stop) as caught:
        predict.main([f"--model={where}/model.npz", *(f"{tmp_path}/{i}.jpg" for i in range(8)), "--top=9"])
    reason = "No such file or directory"
    named = ", ".join(f"{tmp_path}/{i}.jpg ({reason})" for i in range(5))
    assert str(caught.value) == f"8 of them can't be read: {named} and 3 more"


def test_a_table_to_the_terminal(where, capsys):
    assert run(where, where / "pictures/b/0.png", where / "none.png", "--top=9") == BAD_PICTURES
    good, bad = capsys.readouterr().out.splitlines()
    path, *cells = good.split("  ")
    assert path == str(where / "pictures/b/0.png")
    assert sorted(cell.split()[0] for cell in cells) == list(NAMES)
    assert sum(float(cell.split()[1]) for cell in cells) == pytest.approx(1, abs=3e-3)
    assert bad.split("  ")[0] == str(where / "none.png")
    assert bad.endswith("error: No such file or directory")


def test_any_number_of_pictures_in_constant_memory(where):
    drawn = 0

    def endless():
        nonlocal drawn
        for number in itertools.count(1):
            drawn = number
            yield Asked(str(where / "pictures/b/0.png"))

    batches = read_batches(endless(), Config(image_size=16), 4, 2)
    for number in range(1, 30):
        next(batches)
        assert drawn <= 4 * (number + AHEAD)
    batches.close()
    found = predictions(open_model(where / "model.npz"), endless(), Wanted(), batch=1)
    drawn = 0
    for number in range(1, 10):
        assert len(next(found).rows) == jax.local_device_count()
        assert drawn <= jax.local_device_count() * (number + AHEAD + 2)
    found.close()


def test_few_pictures_are_no_full_batch(where):
    asked = [Asked(str(where / "pictures/b/0.png"))] * 3
    (found,) = predictions(open_model(where / "model.npz"), asked, Wanted(), batch=64)
    assert len(found.rows) == len(found.images) == 3
    assert len(found.images.base) == 8  # One on each device.


def test_the_mirror_image_is_averaged(where, known):
    good, images, activations = known
    both = [softmax(activations(part)["logits"]) for part in (images, images[:, :, ::-1])]
    expected = np.mean(both, axis=0)
    assert np.abs(both[0] - expected).max() > 1e-3
    rows = predict.predict(where / "model.npz", good, labels=where / "names.txt", flip=True, batch=1)
    for row, values in zip(rows, expected, strict=True):
        np.testing.assert_allclose([dict(row.classes)[name] for name in NAMES], values, rtol=1e-5)


def test_several_classes_each_with_its_own_probability(where, known):
    good, images, activations = known
    opened = open_model(where / "model.npz", labels=where / "names.txt")
    opened = opened._replace(config=dataclasses.replace(opened.config, task="multi_label", loss="sigmoid"))
    (found,) = predictions(opened, [Asked(str(good[0]))], Wanted())
    expected = dict(zip(NAMES, 1 / (1 + np.exp(-activations(images)["logits"][0])), strict=True))
    assert dict(found.rows[0].classes) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("ending", "layer"), [(".npz", None), (".parquet", "tokens")])
def test_features_are_those_of_the_model(where, known, tmp_path, ending, layer):
    (good, images, activations), out = known, tmp_path / f"out{ending}"
    asked = [*good[:10], tmp_path / "none.png", *good[10:]]
    options = [f"--features={out}", *([f"--layer={layer}"] if layer else [])]
    assert run(where, *asked, *options, "--batch=1") == BAD_PICTURES
    if ending == ".npz":
        with np.load(out) as arrays:
            paths, features = arrays["paths"].tolist(), arrays["features"]
    else:
        table = pq.read_table(out)
        paths, features = table["path"].to_pylist(), np.array(table["features"].to_pylist(), np.float32)
        assert table["error"].to_pylist().count(None) == len(good)
    assert paths == [str(path) for path in asked]
    assert features.dtype == np.float32
    assert np.isnan(features[10]).all()
    outputs = activations(images)
    expected = outputs["tokens"][:, 1:].mean(axis=1) if layer == "tokens" else outputs["pooled"]
    np.testing.assert_allclose(np.delete(features, 10, axis=0), expected, rtol=1e-4, atol=1e-5)


def test_size_and_fit_are_chosen(where):
    path, options = where / "pictures/b/0.png", dict(image_size=(16, 32), resize="pad")
    (row,) = predict.predict(where / "model.npz", [path], labels=where / "names.txt", **options)
    opened = open_model(where / "model.npz", **options)
    padded = decode_as(opened.config, path)
    assert padded.shape == (16, 32, 3)
    expected = dict(zip(NAMES, softmax(activations_of(opened)(padded[None])["logits"])[0], strict=True))
    assert dict(row.classes) == pytest.approx(expected, rel=1e-5)


def test_classes_without_names_are_numbered(where):
    (row,) = predict.predict(where / "model.npz", [where / "pictures/b/0.png"])
    assert sorted(name for name, _ in row.classes) == ["0", "1", "2", "3"]


def test_an_output_that_cannot_be_written_is_found_before_any_work(where, tmp_path, capfd):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "x.csv").mkdir()
    for option, message in (
        (f"--out={tmp_path}/none/x.csv", "there is no folder"),
        (f"--out={tmp_path}/file/x.csv", "there is no folder"),
        (f"--out={tmp_path}/x.csv", "is a folder"),
        (f"--out={tmp_path}/x.txt", "use .csv or .jsonl or .parquet"),
        (f"--features={tmp_path}/none/x.npz", "there is no folder"),
        (f"--features={tmp_path}/x.csv", "use .npz or .parquet"),
        (f"--attention={tmp_path}/file", "can't be written: File exists"),
    ):
        # There are no such weights either, which would be found next.
        error = refusal(capfd, predict.main, "--model=none.npz", where / "pictures", option)
        assert message in error
        assert option.split("=")[1] in error
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.csv"]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_a_full_disk_leaves_no_half_file(tmp_path, name, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 5)
    (tmp_path / name).write_text("older")
    rows = [Row(f"{i}.jpg", (("cat" * 500 + str(i), 0.5),), None) for i in range(50)]
    batch = Predictions(rows, 1, np.zeros((50, 1, 1, 3), np.uint8), None, None)

    def write_all():
        with tables.writing_table(tmp_path / name) as write:
            for _ in range(20):
                write(batch)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Limit files to 10 kB, to simulate a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match=rf"{name}: can't be written \(File too large\)"):
            write_all()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / name).read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_mistakes_end_in_one_line(where, tmp_path, capfd, monkeypatch):
    picture, weights = where / "pictures/b/0.png", f"--model={where}/model.npz"
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([f"--features={tmp_path}/x.npz", "--layer=token"], "no activation 'token'"),
        ([f"--features={tmp_path}/x.npz", "--layer=attention/0"], "not features"),
        (["--layer=tokens"], "--features=FILE"),
        (["--top=0"], "0 is less than 1"),
        (["--image_size=1,2,3"], "more than height and width"),
        (["--image_size=17"], "not divisible by the patch size 8"),
        ([f"--labels={where}/pictures/notes.txt"], "has 1 names, but the model has 4 outputs"),
        ([tmp_path / "empty"], "empty: has no pictures"),
        ([tmp_path / "*.jpg"], "*.jpg: has no pictures"),
        ([f"@{tmp_path}/none.txt"], "there is no list"),
    ):
        assert message in refusal(capfd, predict.main, weights, *arguments, picture)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(InputError, match="the list is empty"):
        run(where, "-")
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"]


def test_a_closed_pipe_is_no_traceback(where, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return unused.fileno()

    with open("/dev/null", "w") as unused:
        monkeypatch.setattr("sys.stdout", Closed())
        assert run(where, where / "pictures") == tables.PIPE_CLOSED
