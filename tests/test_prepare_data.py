"""`scripts/prepare_data.py`: shards of any source are complete, reproducible, and read in the source's order."""

import dataclasses
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.errors import InputError

SCRIPT = Path(__file__).parent.parent / "scripts" / "prepare_data.py"
TFDS = Path(__file__).parent / "data" / "tfds"
CONFIG = Config(image_size=8, data=Data(threads=2))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def prepare():
    """Return the script's `main`."""
    spec = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def write_pictures(root, size=(20, 16), number=23):
    """Write noise pictures of three classes of different sizes, some in subfolders of their class folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", number), ("test", 7)):
        for i in range(count):
            name = ("ant", "bee", "cat", "cat")[i % 4] + ("/deep" if i % 5 == 0 else "")
            path = root / split / name / f"{i}.{'png' if i % 3 == 0 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures")


def open_all(name, **fields):
    return data.open_sources(dataclasses.replace(CONFIG, data=Data(name=name, threads=2, **fields)))


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def assert_same(prepared, sources):
    """Check that every record has the position, label and bytes of the source's."""
    for split, source in sources.items():
        assert prepared[split].label_names == source.label_names
        assert prepared[split].labels.tolist() == source.labels.tolist()
        for index in range(len(source)):
            expected, found = source[index], prepared[split][index]
            picture = expected.picture.read_bytes() if isinstance(expected.picture, Path) else expected.picture
            assert (found.columns["label"], found.picture) == (expected.columns["label"], picture)


def test_folder_and_tar_become_the_same_records(pictures, tmp_path, prepare, capsys):
    prepare(pictures, tmp_path / "folder", "--shard_size=5", "--verify")
    assert (
        "23 train, 7 test pictures in 7 shards; --config.data.name=records --config.data.path="
        in capsys.readouterr().out
    )
    assert_same(open_all(f"records:{tmp_path / 'folder'}"), open_all(f"folder:{pictures}"))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(pictures / "train", "./train")
        tar.add(pictures / "test", "./test")
    prepare(tmp_path / "a.tar", tmp_path / "tar", "--shard_size=5", "--verify", "--threads=1")
    assert contents(tmp_path / "tar") == contents(tmp_path / "folder")
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    assert manifest["label_names"] == ["ant", "bee", "cat"]
    assert manifest["splits"]["train"]["per_class"] == {"ant": 6, "bee": 6, "cat": 11}
    assert [shard["pictures"] for shard in manifest["splits"]["train"]["shards"]] == [5, 5, 5, 4, 4]


def test_records_give_the_batches_fractions_and_slices_of_their_source(pictures, tmp_path, prepare):
    prepare(pictures, tmp_path / "out", "--shard_size=4")
    for fields in ({"fraction": 0.5, "fraction_seed": 7}, {"train": "train[:70%]", "val": "train[70%:]"}):
        assert_same(open_all("records", path=str(tmp_path / "out"), **fields), open_all(f"folder:{pictures}", **fields))


def test_tfds_becomes_records(tmp_path, prepare):
    prepare("tfds:tiny_digits", tmp_path / "out", f"--config.data.path={TFDS}", "--shard_size=16", "--verify")
    assert_same(open_all(f"records:{tmp_path / 'out'}"), open_all("tfds:tiny_digits", path=str(TFDS)))


def test_any_task_first_and_the_last_writes_the_manifest(pictures, tmp_path, prepare, capsys):
    prepare(pictures, tmp_path / "whole", "--shard_size=3")
    for task, finished in ((2, 3), (0, 7), (1, 11)):
        with pytest.raises(InputError, match="holds no finished records: it has no manifest.json"):
            open_all(f"records:{tmp_path / 'parts'}")
        prepare(pictures, tmp_path / "parts", "--shard_size=3", f"--task={task}/3")
        assert (f"{finished} of 11 shards are finished" in capsys.readouterr().out) == (task != 1)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_killed_and_continued_equals_uninterrupted(tmp_path, prepare):
    pictures = write_pictures(tmp_path / "pictures", size=(900, 800), number=40)
    options = [pictures, "--short_side=400", "--shard_size=1", "--threads=1"]
    out = tmp_path / "killed"
    command = [sys.executable, SCRIPT, options[0], out, *options[1:]]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, env=os.environ)
    deadline = time.time() + 60
    while process.poll() is None and time.time() < deadline and not list(out.glob("train-*.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*.json") if path.name != "plan.json"}
    assert 0 < len(finished) < 47
    with pytest.raises(InputError, match="holds no finished records"):
        open_all(f"records:{out}")
    # What a kill leaves behind of an unfinished shard.
    (out / "train-00039-of-00040.partial").write_bytes(b"half a shard")
    prepare(options[0], out, *options[1:])
    prepare(options[0], tmp_path / "whole", *options[1:])
    assert contents(out) == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())


def picture_bytes(pixels, kind="jpeg", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def test_large_pictures_are_shrunk_upright_and_others_left_alone(tmp_path, prepare, capsys):
    ramp = np.linspace(0, 255, 120).astype(np.uint8)
    grey = np.broadcast_to(ramp[:, None], (120, 80)).copy()
    turned = Image.Exif()
    turned[0x0112] = 6  # To be turned clockwise: the bottom of the stored picture is shown on the left.
    files = {
        "a_grey.png": picture_bytes(grey, "png"),
        "b_turned.jpg": picture_bytes(grey, exif=turned),
        "c_small.png": picture_bytes(grey[:40, :60], "png"),
        "d_bad.jpg": b"no picture",
        "e_colour.png": picture_bytes(np.stack([grey, grey * 0, 255 - grey], -1), "png"),
    }
    for name, content in files.items():
        (tmp_path / "pictures" / "train" / "all").mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / "train" / "all" / name).write_bytes(content)
    prepare(tmp_path / "pictures", tmp_path / "out", "--short_side=40", "--verify")
    assert "can't be decoded, kept as it is: " in capsys.readouterr().err
    source = open_all(f"records:{tmp_path / 'out'}", val="train")["train"]
    found = {name: source[index].picture for index, name in enumerate(files)}
    assert found["c_small.png"] == files["c_small.png"]
    assert found["d_bad.jpg"] == files["d_bad.jpg"]
    images = {name: Image.open(io.BytesIO(found[name])) for name in files if name[0] in "abe"}
    assert {name: (image.format, image.mode, image.size) for name, image in images.items()} == {
        "a_grey.png": ("JPEG", "L", (40, 60)),
        "b_turned.jpg": ("JPEG", "L", (60, 40)),
        "e_colour.png": ("JPEG", "RGB", (40, 60)),
    }
    # Dark to light from top to bottom; after turning, from right to left.
    rows = np.asarray(images["a_grey.png"], float).mean(1)
    columns = np.asarray(images["b_turned.jpg"], float).mean(0)
    expected = (np.arange(60) + 0.5) * 255 / 60
    np.testing.assert_allclose(rows, expected, atol=4)
    np.testing.assert_allclose(columns[::-1], expected, atol=4)
    colours = np.asarray(images["e_colour.png"], float).mean(1)
    np.testing.assert_allclose(colours, np.stack([expected, 0 * expected, 255 - expected], 1), atol=8)
    shard = json.loads((tmp_path / "out" / "manifest.json").read_text())["splits"]["train"]["shards"][0]
    assert (shard["shrunk"], shard["bad"]) == (3, [3])


def test_verify_finds_damage(pictures, tmp_path, prepare):
    out = tmp_path / "out"
    prepare(pictures, out, "--shard_size=8")
    shard = out / "train-00001-of-00003.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:70_000] + bytes([whole[70_000] ^ 1]) + whole[70_001:])
    with pytest.raises(InputError, match=r"train-00001-of-00003.array_record' is damaged: delete it and train-00001"):
        prepare(pictures, out, "--shard_size=8", "--verify")
    shard.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"train-00001-of-00003.array_record' is not whole; copy it again"):
        open_all(f"records:{out}")
    shard.unlink()
    with pytest.raises(InputError, match=r"train-00001-of-00003.array_record' can't be read"):
        open_all(f"records:{out}")
    shard.with_suffix(".json").unlink()
    prepare(pictures, out, "--shard_size=8", "--verify")
    assert shard.read_bytes() == whole
    first = next((pictures / "train" / "bee").glob("*.jpg"))
    first.write_bytes(picture_bytes(np.zeros((5, 5, 3), np.uint8)))
    with pytest.raises(InputError, match="differs from record .* of the source"):
        prepare(pictures, out, "--shard_size=8", "--verify")


def test_it_refuses(pictures, tmp_path, prepare):
    out = tmp_path / "out"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(pictures, ".")
    with tarfile.open(tmp_path / "flat.tar", "w") as tar:
        tar.add(pictures / "train" / "bee" / "1.jpg", "bee/1.jpg")
    (tmp_path / "flat" / "bee").mkdir(parents=True)
    (tmp_path / "flat" / "bee" / "1.jpg").touch()
    for arguments, message in (
        ([tmp_path / "nowhere", out], "nowhere' does not exist; give a folder, a tar, or a source such as tfds:NAME"),
        ([tmp_path / "a.tar.gz", out], "has no random access; if it is compressed, decompress it first"),
        ([tmp_path / "flat.tar", out], "has no pictures; expected SPLIT/CLASS"),
        (
            [tmp_path / "flat", out],
            r"flat' holds no SPLIT/CLASS/\*.jpg, .*: there are no subfolders in 'bee'; if",
        ),
        ([pictures, out, "--splits=train,valid"], "valid' does not exist"),
        ([pictures, out, "--task=3/3"], "--task=3/3: must be I/N with I from 0 to N-1"),
        ([pictures, out, "--short_side=0"], "--short_side=0: must be at least 1"),
        (["digits:", out, "--splits=train"], "holds pixels in memory"),
        (
            ["tfds:imagenet2012", out, f"--config.data.path={tmp_path}"],
            "into '.*/downloads/manual': .*ILSVRC2012_img_tr",
        ),
        (["hf:nowhere", out], r"which splits\? --splits=train,test"),
        ([pictures, tmp_path / "a.tar.gz"], "not finished: .*a.tar.gz'; run the same command again to continue"),
        ([tmp_path], "the following arguments are required: OUT"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(*arguments)
    prepare(pictures, tmp_path / "other", "--short_side=320")
    with pytest.raises(InputError, match=r"other' holds the shards of other data or options \(plan.json\)"):
        prepare(pictures, tmp_path / "other")
    with pytest.raises(InputError, match="have no split 'valid': there is train, test"):
        open_all(f"records:{tmp_path / 'other'}", val="valid")
