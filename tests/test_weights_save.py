"""Saved weights: written as in the originals, round trips through every format, and what is refused."""

import pathlib
import re
import runpy
import sys

import numpy as np
import pytest

import vit_jax
from tests.drawn import TINY, drawn_model, logits_of, params_of, pictures
from tests.golden import DATA, FILES, load, relative, same_model
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

BEIT = {
    **{"position": "relative", "position_at": "blocks", "relative_prefix": True, "key_bias": False},
    **{"pool": "gap", "pool_norm": "after", "class_token": True},
}
AIMV2 = {"norm": "rms", "patch_norm": True, "swiglu": True, "linear_bias": False, "qkv_bias": False, "pool": "gap"}
# Options, the formats that hold such a model as it is, and those that hold the same function in other parameters.
MODELS = {
    "plain": ({}, {"google", "timm", "huggingface"}, {"big_vision"}),
    "gap": ({"pool": "gap"}, {"google", "timm", "huggingface", "big_vision"}, set()),
    "exact GELU": ({"gelu": "exact", "norm_eps": 1e-12}, {"timm", "huggingface"}, set()),
    "representation": ({"representation": 24}, {"google"}, {"big_vision"}),
    "norm after the class token": ({"pool_norm": "after"}, {"timm"}, {"google", "huggingface", "big_vision"}),
    "norm after pooling": ({"pool": "gap", "pool_norm": "after"}, {"timm"}, set()),
    "MAP": ({"pool": "map"}, {"timm", "big_vision"}, set()),
    "both pooled": ({"pool": "token_gap", "layer_scale": 0.1, "norm_eps": 1e-6}, {"huggingface"}, set()),
    "rotary": ({"position": "none", "rope": 100.0}, {"timm"}, set()),
    "rotary, counted": ({"position": "none", "rope": 1e4, "rope_unit": "patch"}, {"timm"}, set()),
    "keys without bias": ({"key_bias": False}, {"timm"}, set()),
    "pooled by other heads": ({"pool": "map", "pool_heads": 4, "pool_mlp_dim": 48, "rope": 100.0}, {"timm"}, set()),
    "gated": ({"swiglu": True}, {"timm"}, set()),
    "norms inside": ({"mlp_norm": True, "attention_norm": True}, {"timm"}, set()),
    "norm before the blocks": ({"embedding_norm": True, "patch_bias": False, "gelu": "quick"}, {"timm"}, set()),
    "unread class token": ({"pool": "gap", "class_token": True}, {"timm"}, set()),
    "prefix without position": ({"prefix_position": False}, {"timm", "big_vision"}, {"google", "huggingface"}),
    "registers": ({"registers": 3}, {"timm"}, set()),
    "LayerScale": ({"layer_scale": 0.1}, {"timm"}, set()),
    "QK norm": ({"qk_norm": True}, {"timm"}, set()),
    "unpooled": ({"pool": "none"}, {"timm"}, set()),
    "sine-cosine": ({"position": "sincos2d", "pool": "gap"}, {"big_vision"}, {"google", "timm", "huggingface"}),
    "sine-cosine, class token": ({"position": "sincos2d"}, {"big_vision"}, {"google", "timm", "huggingface"}),
    "no position": ({"position": "none"}, {"google", "timm"}, {"huggingface", "big_vision"}),
    "learned 2-D": ({"position": "learned2d"}, set(), {"google", "timm", "huggingface", "big_vision"}),
    "relative": ({"position": "relative"}, set(), set()),
    "BEiT": (BEIT | {"layer_scale": 0.1, "gelu": "exact"}, {"timm", "huggingface"}, set()),
    "BEiT, not square": (BEIT | {"position_at": "blocks_shared", "image_size": (48, 80)}, {"timm"}, set()),
    "BEiT, keys with bias": (BEIT | {"key_bias": True}, set(), set()),
    "AIMv2": (AIMV2 | {"norm_eps": 1e-5}, {"timm"}, set()),
    "AIMv2, any size": (AIMV2 | {"position": "sincos2d_mae"}, set(), {"timm"}),
    "RMSNorm": ({"norm": "rms"}, set(), set()),
    "in every block": ({"position_at": "blocks"}, set(), set()),
    "hybrid": ({"resnet": (1, 3), "resnet_width": 32, "name": "custom/8"}, {"google"}, set()),
    "timm's hybrid": (
        {"resnet": (1, 3), "resnet_width": 32, "name": "custom/8", "resnet_style": "timm", "position": "learned2d"},
        set(),
        {"timm"},
    ),
    "not square": ({"image_size": (48, 80)}, {"timm", "huggingface"}, set()),
    "grey": ({"channels": 1}, {"google", "timm", "huggingface"}, {"big_vision"}),
}
REFUSED = {
    ("registers", "google"): r"register tokens \(registers=3\)",
    ("LayerScale", "huggingface"): r"can't hold pool='token' in a Dinov2ForImageClassification, which has 'token_gap'",
    ("QK norm", "big_vision"): r"QK norm",
    ("MAP", "huggingface"): r"can't hold a head on a SiglipVisionModel; a timm file can",
    ("norm before the blocks", "huggingface"): r"can't hold a head on a CLIPVisionModel",
    ("rotary, counted", "huggingface"): r"the unit of rotary positions \(rope_unit='patch'\)",
    ("norm after pooling", "huggingface"): r"a norm after pooling",
    ("unread class token", "huggingface"): r"a class token that the head doesn't read",
    ("relative", "timm"): r"the position embedding \(position='relative'\)",
    ("BEiT, not square", "huggingface"): r"a BEiT for pictures of 48x80: Transformers mixes up rows and columns",
    ("BEiT, keys with bias", "timm"): r"biases of keys \(key_bias=True\)",
    ("AIMv2", "huggingface"): r"can't hold a head on a Aimv2VisionModel; a timm file can",
    ("AIMv2", "google"): r"the kind of norm \(norm='rms'\).*linear layers without bias",
    ("RMSNorm", "timm"): r"a gated MLP \(swiglu=False\), .*a norm of patches \(patch_norm=False\)",
    ("in every block", "timm"): r"positions added in the blocks \(position_at='blocks'\)",
    ("hybrid", "timm"): r"the ResNet's epsilons and padding .*load the weights with resnet_style='timm'",
    ("timm's hybrid", "google"): r"the ResNet's epsilons and padding .*load the weights with resnet_style='google'",
    ("hybrid", "huggingface"): r"can't hold a hybrid's ResNet",
    ("exact GELU", "google"): r"the GELU.*the norms' epsilon.*load the weights with gelu='tanh', norm_eps=1e-06",
    ("representation", "timm"): r"a representation layer",
    ("not square", "google"): r"a position grid of 3x5",
}


def beginning(model):
    """Return what the first block gets besides the embedded patches: tokens before them, and positions."""
    params = params_of(model)
    patches = int(np.prod(model.grid(model.image_size)))
    before = [params[name] for name in ("cls", "registers") if name in params]
    tokens = np.concatenate([*before, np.zeros((patches, model.config.width), np.float32)])
    return tokens if model.position is None else tokens + model.position(model.grid(model.image_size))


def same_function(first, second):
    """Check that the tokens start alike, and that all that follows has the same parameters."""
    assert np.array_equal(beginning(first), beginning(second))
    a, b = params_of(first), params_of(second)
    kept = [name.replace("pool_norm/", "norm/") for name in a if not name.startswith(("position/", "cls", "registers"))]
    assert kept
    for name in kept:
        assert np.array_equal(a.get(name, a.get(f"pool_{name}")), b.get(name, b.get(f"pool_{name}"))), name


@pytest.mark.parametrize("what", MODELS)
def test_round_trips_through_every_format_that_holds_it(what, tmp_path):
    options, holds, bakes = MODELS[what]
    model = drawn_model(**TINY | options)
    # A file contains the picture size only if it has position embeddings.
    size = {} if model.config.position == "learned" else {"image_size": model.image_size}
    last = model
    # Through every format, and back to the first.
    for format in [*ENDINGS, *sorted(holds)[:1]]:
        path = tmp_path / f"{format}{ENDINGS[format]}"
        if format in bakes:
            vit_jax.save(model, path, format)
            same_function(vit_jax.load(path), model)
            continue
        if format not in holds:
            with pytest.raises(InputError, match=REFUSED.get((what, format), "can't hold")) as caught:
                vit_jax.save(model, path, format)
            assert "\n" not in str(caught.value)
            assert not path.exists()
            continue
        vit_jax.save(last, path, format)
        last = vit_jax.load(path, **size)
        same_model(last, model)


def test_what_was_written_out_is_said(tmp_path):
    said = vit_jax.save(drawn_model(position="sincos2d"), tmp_path / "hf")
    assert said[:2] == (
        "positions (sincos2d) are written out as a learned table, for 64x64 pixels",
        "class and register tokens get positions of zeros",
    )
    (only, *_) = vit_jax.save(drawn_model(), tmp_path / "x.npz", "big_vision")
    assert only == "positions of class and register tokens are added to the tokens themselves"
    assert vit_jax.save(drawn_model(), tmp_path / "x.npz") == (
        "label names: none are known",
        "preprocessing: not kept, the format has no place for it: "
        "resize crop, filter bilinear, crop_fraction 0.875, mean [0.5], std [0.5]",
    )


@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_the_quickstarts_model_gives_the_same_logits(format, tmp_path):
    quick = dict(name="nano/2", depth=2, num_heads=4, pool="gap", position="sincos2d")
    model = drawn_model(**quick, image_size=8, channels=1, num_classes=10)
    vit_jax.save(model, tmp_path / "folder", format)
    images = pictures(8, 8, channels=1)
    assert relative(logits_of(vit_jax.load(tmp_path / "folder"), images), np.asarray(logits_of(model, images))) < 1e-6


def test_bit_is_held_by_its_own_format_and_timms(tmp_path):
    model = drawn_model(name="BiT-custom", resnet=(1, 3), resnet_width=32)
    for format in (None, "bit", "google"):
        vit_jax.save(model, tmp_path / "bit.npz", format)
        same_model(vit_jax.load(tmp_path / "bit.npz", image_size=64), model)
    timms = drawn_model(name="BiT-custom", resnet=(1, 3), resnet_width=32, resnet_style="timm")
    vit_jax.save(timms, tmp_path / "bit.safetensors")
    same_model(vit_jax.load(tmp_path / "bit.safetensors"), timms)
    for other, format, message in (
        (model, "timm", "a timm file can't hold the ResNet's epsilons and padding .*resnet_style='timm'"),
        (timms, "bit", "a bit file can't hold the ResNet's epsilons and padding .*resnet_style='google'"),
        (model, "huggingface", "a huggingface file can't hold the model 'BiT-custom'"),
        (drawn_model(), "bit", "a bit file can't hold the model 'custom/16'"),
    ):
        with pytest.raises(InputError, match=message):
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

    names = tmp_path / "names.txt"
    names.write_text("".join(f"pet {i}\n" for i in range(7)))
    convert(DATA / "hf_vit", tmp_path / "named", "--labels", names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{tmp_path / 'named'}: custom/16, 7 classes, 64x64 pixels"
    assert printed[1] == "  label names: pet 0; pet 1; pet 2; ..."
    assert printed[2].startswith("  preprocessing: resize crop, filter bilinear, crop_fraction 0.875, ")
    assert vit_jax.load(tmp_path / "named").label_names == tuple(f"pet {i}" for i in range(7))
    names.write_text("cat\ndog\n")
    with pytest.raises(SystemExit) as caught:
        convert(DATA / "hf_vit", tmp_path / "other", "--labels", names)
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: {names}: has 2 names, but the model has 7 outputs\n"
    assert not (tmp_path / "other").exists()
