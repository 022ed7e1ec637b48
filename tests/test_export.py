"""Exported files: what they compute, what lies beside them, and the programs of docs/export.md."""

import json
import re
import subprocess
import sys

import export as command
import jax
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

import vit_jax
from tests.drawn import drawn_model, logits_of
from tests.programs import PROGRAMS, exact_pixels, program_pixels
from vit_jax.config import Config
from vit_jax.data.rows import decode_as
from vit_jax.errors import InputError
from vit_jax.export import export_model, onnx, stablehlo
from vit_jax.weights.opened import Opened

KINDS = {
    "vit": {
        "attention_pattern": "axial",
        "gelu": "exact",
        "position": "sincos2d",
        "pool": "gap",
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.3, 0.25),
    },
    "tokens": {"registers": 2, "position": "relative", "pool": "map", "qk_norm": True, "layer_scale": 0.1},
    "hybrid": {"name": "R+mu/16", "resnet_style": "timm"},
    "swin": {"name": "Swin-custom", "width": 16, "num_heads": 2, "swin": (2, 2), "window": 3},
    "bit": {"name": "BiT-custom", "resnet": (1, 2), "resnet_width": 32},
}
NAMES = ("cat", "dog", "hen", "cow", "owl", "fox", "élan")


def opened(image_size=64, loss="softmax", **options):
    model = drawn_model(image_size=image_size, **options)
    return Opened(
        model, Config(image_size=image_size, model=model.config, loss=loss), NAMES, "named by the test", False
    )


def pictures(number, *size):
    return np.random.default_rng(2).integers(0, 256, (number, *size, 3), np.uint8)


def read(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_stablehlo_equals_the_model_for_any_batch(tmp_path, kind):
    given, path = opened(**KINDS[kind]), tmp_path / "model.stablehlo"
    assert export_model(given, path) <= 1e-5
    exported = jax_export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu", "rocm")
    images = pictures(3, 64, 64)
    wanted = jax.nn.softmax(logits_of(given.model, images))
    for number in (1, 3):
        np.testing.assert_allclose(exported.call(images[:number]), wanted[:number], atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("default")  # Those of jax2onnx are not ours.
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_equals_the_model_for_any_batch(tmp_path, kind):
    given, path = opened(**KINDS[kind]), tmp_path / "model.onnx"
    assert export_model(given, path) <= 1e-4
    images = pictures(3, 64, 64)
    wanted = jax.nn.softmax(logits_of(given.model, images))
    for number in (1, 3):
        found = onnx.run(path.read_bytes(), images[:number])
        np.testing.assert_allclose(found, wanted[:number], atol=1e-4, rtol=0)
    assert read(path)["reader"]["written_by"].startswith("jax2onnx ")
    name = {"image": "picture.png"}
    Image.fromarray(pictures(1, 90, 70)[0]).save(tmp_path / name["image"])
    assert re.match(r"0\.\d+ \w+\n", run_program("onnx", tmp_path, name["image"]))


@pytest.mark.parametrize(
    ("output", "function"),
    [
        ("logits", lambda model, images: model(images)),
        ("features", lambda model, images: model.features(images)),
        ("probabilities", lambda model, images: jax.nn.sigmoid(model(images))),
    ],
)
def test_other_outputs_and_a_size_that_is_no_square(tmp_path, output, function):
    given, path, images = opened((32, 64), "sigmoid"), tmp_path / "model.stablehlo", pictures(2, 32, 64)
    export_model(given, path, output)
    found = stablehlo.run(path.read_bytes(), images)
    np.testing.assert_allclose(found, jax.jit(lambda images: function(given.model, images))(images), atol=1e-5)
    assert read(path)["output"] == {"what": output, "dtype": "float32", "shape": ["batch", found.shape[1]]}


def test_the_dtype_is_stated_whatever_the_machine(tmp_path):
    modules = {}
    for dtype in ("float32", "bfloat16"):
        export_model(opened(attention="cudnn"), tmp_path / "model.stablehlo", dtype=dtype)
        exported = jax_export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
        modules[dtype] = exported.mlir_module()
    products = re.findall(r"stablehlo.dot_general.*", modules["float32"])
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)
    assert "bf16" not in modules["float32"]
    assert "bf16" in modules["bfloat16"]
    # Attention is that of plain XLA; JAX's own check of the batch size runs everywhere.
    assert set(re.findall(r"custom_call @(\w+)", modules["float32"])) == {"shape_assertion"}


def test_what_lies_beside_the_file(tmp_path):
    path = tmp_path / "model.stablehlo"
    given = opened(**KINDS["vit"])
    export_model(given, path)
    found = read(path)
    assert found["labels"] == list(NAMES)
    assert found["preprocessing"] == {
        "image_size": [64, 64],
        "resize": "crop",
        "filter": "bilinear",
        "crop_fraction": 0.875,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
    }
    assert found["input"] == {"dtype": "uint8", "shape": ["batch", 64, 64, 3]}
    assert found["model"] == "custom/16"
    assert found["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(jax.tree.map(np.asarray, given.model)))
    assert jax.__version__ in found["reader"]["read_by"]
    assert "6 months" in found["reader"]["read_by"]
    assert found["reader"]["platforms"] == ["cpu", "cuda", "tpu", "rocm"]
    assert {file.name for file in tmp_path.iterdir()} == {"model.stablehlo", "model.stablehlo.json"}


def run_program(kind, folder, picture):
    (folder / "classify.py").write_text(PROGRAMS[kind])
    hidden = "import sys; sys.modules['vit_jax'] = None; exec(open('classify.py').read())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", hidden, picture], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_of_the_page_runs_without_this_package(tmp_path):
    given = opened()
    export_model(given, tmp_path / "model.stablehlo")
    smooth = Image.fromarray(pictures(1, 6, 8)[0]).resize((100, 75), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "picture.jpg")
    image = decode_as(given.config, tmp_path / "picture.jpg")
    np.testing.assert_array_equal(image, program_pixels(tmp_path / "picture.jpg", (64, 64), 0.875))
    probabilities = np.asarray(jax.nn.softmax(given.model(image[None])))[0]
    best = np.argsort(-probabilities)[:5]
    wanted = "".join(f"{probabilities[i]:.3f} {NAMES[i]}\n" for i in best)
    assert run_program("stablehlo", tmp_path, "picture.jpg") == wanted


@pytest.mark.parametrize("turn", [1, 6, 3])
@pytest.mark.parametrize("size", [(64, 64), (75, 100), (110, 75), (301, 997), (640, 227), (63, 65)])
def test_pillow_makes_the_pixels_of_evaluation_as_the_page_tells_it(tmp_path, size, turn):
    path, exif = tmp_path / "picture.jpg", Image.Exif()
    exif[0x0112] = turn
    coarse = pictures(1, *(max(2, side // 8) for side in size))[0]
    smooth = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    smooth.save(path, exif=exif, quality=90)
    for image_size in (64, 24):
        ours = decode_as(Config(image_size=image_size), path)
        np.testing.assert_array_equal(exact_pixels(path, (image_size, image_size), 0.875), ours)
        if min(size) * 0.875 < 2 * image_size and turn != 6:
            np.testing.assert_array_equal(program_pixels(path, (image_size, image_size), 0.875), ours)


def test_the_page_has_both_programs_and_they_differ_only_in_what_runs_them():
    assert PROGRAMS.keys() == {"stablehlo", "onnx"}
    own = [set(program.splitlines()) for program in PROGRAMS.values()]
    assert len(own[0] ^ own[1]) == 8


def test_the_command(tmp_path, capsys):
    model = drawn_model()
    vit_jax.save(model, tmp_path / "model.safetensors")
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    arguments = ["--image_size=32", f"--labels={tmp_path}/labels.txt", "--output=logits", "--resize=stretch"]
    command.main([f"{tmp_path}/model.safetensors", f"{tmp_path}/out.stablehlo", *arguments])
    assert re.search(
        r"out\.stablehlo: logits, float32, 0\.2 MiB; max \|difference\| from the model", capsys.readouterr().out
    )
    assert read(tmp_path / "out.stablehlo")["labels"] == list(NAMES)
    assert read(tmp_path / "out.stablehlo")["preprocessing"]["resize"] == "stretch"
    model.resize((32, 32))
    images = pictures(2, 32, 32)
    found = stablehlo.run((tmp_path / "out.stablehlo").read_bytes(), images)
    np.testing.assert_allclose(found, model(images), atol=1e-5)


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("model.pb", {}, "no format ends so; use .stablehlo or .onnx"),
        ("none/model.stablehlo", {}, "there is no folder"),
        ("folder.stablehlo", {}, "it is a folder"),
        ("model.onnx", {}, "no_such_library is not installed; pip install 'vit_jax[onnx]'"),
        ("model.stablehlo", {"dtype": "float16"}, ".stablehlo files compute in float32 or bfloat16"),
    ],
)
def test_refusals_are_one_line_and_leave_what_is_there(tmp_path, monkeypatch, out, options, message):
    monkeypatch.setattr(onnx, "LIBRARIES", ("no_such_library",))
    (tmp_path / "folder.stablehlo").mkdir()
    before = (tmp_path / "model.stablehlo").write_text("old")
    with pytest.raises(InputError) as caught:
        export_model(opened(), tmp_path / out, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len((tmp_path / "model.stablehlo").read_text()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="its folder can't be written to"):
        command.main(["no_such_model.npz", str(tmp_path / "model.stablehlo")])


def test_a_file_that_differs_from_the_model_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "model.stablehlo").write_text("old")
    run = stablehlo.run
    for wrong in (lambda found: found + 3e-5, lambda found: found * np.nan):
        monkeypatch.setattr(stablehlo, "run", lambda content, images, wrong=wrong: wrong(run(content, images)))
        with pytest.raises(InputError, match="its outputs differ from the model's by"):
            export_model(opened(), tmp_path / "model.stablehlo")
    assert [path.name for path in tmp_path.iterdir()] == ["model.stablehlo"]
    assert (tmp_path / "model.stablehlo").read_text() == "old"


def test_a_model_that_is_too_large_is_refused_before_it_is_traced(tmp_path, monkeypatch):
    monkeypatch.setattr("vit_jax.export.MOST_BYTES", 4 * 40_000)
    with pytest.raises(InputError, match=r"custom/16 has 4\d,\d{3} parameters; such a file holds 2 GiB at most"):
        export_model(opened(), tmp_path / "model.stablehlo")
