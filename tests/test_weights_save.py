"""Saved weights: written as in the originals, round trips through every format, and what is refused."""

import pathlib
import re
import runpy
import sys

import numpy as np
import pytest

import vit_jax
from tests.drawn import TINY, drawn_model
from tests.golden import DATA, FILES, load, same_model
from vit_jax.errors import InputError
from vit_jax.weights.files import read_arrays


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_written_as_it_was(case, tmp_path):
    format = (
        case.split("_")[0] if case.startswith("timm") else {"bit": "bit", "hf_vit": "huggingface"}.get(case, "google")
    )
    if case.startswith("bigvision"):
        format = "big_vision"
    ending = {"timm": ".safetensors", "huggingface": ""}.get(format, ".npz")
    vit_jax.save(load(case), tmp_path / f"out{ending}", format)
    inside = "model.safetensors" if format == "huggingface" else ""
    ours, theirs = (read_arrays(path / inside) for path in (tmp_path / f"out{ending}", DATA / FILES[case]))
    if case == "bigvision_gap_scan":
        theirs = {
            name.replace("encoderblock", f"encoderblock_{i}"): array[i] if "encoderblock" in name else array
            for i in range(2)
            for name, array in theirs.items()
        }
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name


ENDINGS = {"google": ".npz", "timm": ".safetensors", "huggingface": "", "big_vision": ".npz"}

# Options, and the formats that can hold such a model.
MODELS = {
    "plain": ({}, {"google", "timm", "huggingface"}),
    "gap": ({"pool": "gap"}, {"google", "timm", "big_vision"}),
    "exact GELU": ({"gelu": "exact", "norm_eps": 1e-12}, {"timm", "huggingface"}),
    "representation": ({"representation": 24}, {"google"}),
    "norm after pooling": ({"pool": "gap", "pool_norm": "after"}, {"timm"}),
    "MAP": ({"pool": "map"}, {"timm", "big_vision"}),
    "unread class token": ({"pool": "gap", "class_token": True}, {"timm"}),
    "prefix without position": ({"prefix_position": False}, {"timm", "big_vision"}),
    "registers": ({"registers": 3}, {"timm"}),
    "LayerScale": ({"layer_scale": 0.1}, {"timm"}),
    "QK norm": ({"qk_norm": True}, {"timm"}),
    "unpooled": ({"pool": "none"}, {"timm"}),
    "sine-cosine": ({"position": "sincos2d", "pool": "gap"}, {"big_vision"}),
    "no position": ({"position": "none"}, {"google", "timm"}),
    "learned 2-D": ({"position": "learned2d"}, set()),
    "relative": ({"position": "relative"}, set()),
    "in every block": ({"position_at": "blocks"}, set()),
    "hybrid": ({"resnet": (1, 3), "resnet_width": 32, "name": "custom/8"}, {"google"}),
    "not square": ({"image_size": (48, 80)}, {"timm", "huggingface"}),
    "grey": ({"channels": 1}, {"google", "timm", "huggingface"}),
}
REFUSED = {
    ("registers", "google"): r"register tokens \(registers=3\)",
    ("LayerScale", "huggingface"): r"LayerScale \(layer_scale=0.1\)",
    ("QK norm", "big_vision"): r"QK norm",
    ("MAP", "huggingface"): r"the head's pooling \(pool='map'\)",
    ("hybrid", "timm"): r"a hybrid's ResNet",
    ("exact GELU", "google"): r"the GELU.*the norms' epsilon.*load the weights with gelu='tanh', norm_eps=1e-06",
    ("representation", "timm"): r"a representation layer",
    ("not square", "google"): r"a position grid of 3x5",
}


@pytest.mark.parametrize("what", MODELS)
def test_round_trips_through_every_format_that_holds_it(what, tmp_path):
    options, holds = MODELS[what]
    model = drawn_model(**TINY | options)
    # A file contains the picture size only if it has position embeddings.
    size = {} if model.config.position == "learned" else {"image_size": model.image_size}
    last = model
    # Through every format, and back to the first.
    for format in [*ENDINGS, *sorted(holds)[:1]]:
        path = tmp_path / f"{format}{ENDINGS[format]}"
        if format not in holds:
            with pytest.raises(InputError, match=REFUSED.get((what, format), "can't hold")) as caught:
                vit_jax.save(model, path, format)
            assert "\n" not in str(caught.value)
            assert not path.exists()
            continue
        vit_jax.save(last, path, format)
        last = vit_jax.load(path, **size)
        same_model(last, model)


def test_bit_is_held_by_its_own_format_alone(tmp_path):
    model = drawn_model(name="BiT-custom", resnet=(1, 3), resnet_width=32)
    for format in (None, "bit", "google"):
        vit_jax.save(model, tmp_path / "bit.npz", format)
        same_model(vit_jax.load(tmp_path / "bit.npz", image_size=64), model)
    for other, format in ((model, "timm"), (drawn_model(), "bit")):
        with pytest.raises(InputError, match=f"a {format} file can't hold the model"):
            vit_jax.save(other, tmp_path / "x.npz", format)


def test_names_of_known_sizes_are_found(tmp_path):
    for name in ("Ti/16", "R+Ti/16"):
        vit_jax.save(drawn_model(name=name, image_size=32), tmp_path / "x.npz")
        model = vit_jax.load(tmp_path / "x.npz")
        assert model.config == drawn_model(name=name, image_size=32).config


def test_where_nothing_can_be_saved(tmp_path):
    model = drawn_model()
    for where, message in (
        ("gs://bucket/x.npz", "saved to a path on this machine"),
        (tmp_path / "x.h5", "no format ends so"),
        (tmp_path / "none" / "x.npz", "there is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            vit_jax.save(model, where)
    with pytest.raises(InputError, match=r"format='tim' is unknown; did you mean 'timm'"):
        vit_jax.save(model, tmp_path / "x.npz", "tim")


def test_convert_from_the_shell(tmp_path, monkeypatch, capsys):
    script = str(pathlib.Path(__file__).parents[1] / "scripts" / "convert.py")

    def convert(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")

    convert(DATA / "hf_vit", tmp_path / "x.npz", "--set", "gelu=tanh", "--set", "norm_eps=1e-6", "--image_size", "96")
    same_model(vit_jax.load(tmp_path / "x.npz"), load("hf_vit", gelu="tanh", norm_eps=1e-6, image_size=(96, 96)))
    with pytest.raises(SystemExit) as caught:
        convert(DATA / "hf_vit", tmp_path / "y.npz")
    assert caught.value.code == 2
    assert re.fullmatch(r"error: a google file can't hold the GELU.*\n", capsys.readouterr().err)
