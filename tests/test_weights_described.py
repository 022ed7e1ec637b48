"""Label names and preprocessing: written where a format has a place for them, and read back from there."""

import json
import shutil

import numpy as np
import pytest

import vit_jax
from tests.drawn import drawn_model, params_of
from tests.golden import DATA, same_model
from vit_jax.config import Preprocessing
from vit_jax.errors import InputError
from vit_jax.weights import huggingface_pictures

PETS = tuple(f"pet {i}" for i in range(7))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CROP = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}


def named_model(names=PETS, preprocessing=None, **options):
    preprocessing = preprocessing or Preprocessing("crop", "bicubic", 0.95, **IMAGENET)
    model = drawn_model(mean=preprocessing.mean, std=preprocessing.std, num_classes=len(names), **options)
    model.label_names, model.preprocessing = names, preprocessing
    return model


@pytest.mark.parametrize(("name", "format"), [("x.safetensors", "timm"), ("x", "timm"), ("x", "huggingface")])
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing("crop", "bicubic", 0.95, **IMAGENET),
        Preprocessing("stretch", "bilinear", 1.0),
        Preprocessing("crop", "bilinear", 1.0, (0.1,), (0.2, 0.3, 0.4)),
    ],
)
def test_both_are_kept(name, format, preprocessing, tmp_path):
    model = named_model(preprocessing=preprocessing)
    said = vit_jax.save(model, tmp_path / name, format)
    assert said[0] == "label names: pet 0; pet 1; pet 2; ..."
    assert said[1].startswith(f"preprocessing: resize {preprocessing.resize}, filter {preprocessing.filter}, ")
    back = vit_jax.load(tmp_path / name)
    same_model(back, model)
    assert back.label_names == PETS
    assert back.preprocessing == preprocessing


@pytest.mark.parametrize("format", ["google", "big_vision"])
def test_archives_have_no_place(format, tmp_path):
    names, preprocessing = vit_jax.save(named_model(pool="gap"), tmp_path / "x.npz", format)
    assert names == "label names: not kept, the format has no place for them"
    assert preprocessing.startswith("preprocessing: not kept, the format has no place for it: resize crop")
    assert vit_jax.load(tmp_path / "x.npz").label_names is None


@pytest.mark.parametrize("outputs", [1000, 21_843])
def test_imagenets_heads(outputs, tmp_path):
    model = drawn_model(num_classes=outputs)
    vit_jax.save(model, tmp_path / "unnamed", "huggingface")
    config = json.loads((tmp_path / "unnamed" / "config.json").read_text())
    assert config["id2label"][str(outputs - 1)] == f"LABEL_{outputs - 1}"
    # Placeholders are no names: by their number, the classes are ImageNet's.
    named = vit_jax.load(tmp_path / "unnamed")
    assert len(set(named.label_names)) == outputs
    for format in ("timm", "huggingface"):
        vit_jax.save(named, tmp_path / format, format)
        back = vit_jax.load(tmp_path / format)
        assert back.label_names == named.label_names
        assert np.array_equal(params_of(back)["head/kernel"], params_of(model)["head/kernel"])


def test_names_for_another_number_of_outputs_are_refused(tmp_path):
    model = drawn_model()
    model.label_names = ("cat", "dog")
    with pytest.raises(InputError, match=r"the model has 2 label names, but 7 outputs; set model.label_names"):
        vit_jax.save(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_new_head_has_no_names(tmp_path):
    vit_jax.save(named_model(), tmp_path / "x")
    assert vit_jax.load(tmp_path / "x", num_classes=2).label_names is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, None),
        ({}, Preprocessing("stretch", "bilinear", 1.0)),
        ({"size": 384, "resample": 3}, Preprocessing("stretch", "bicubic", 1.0)),
        ({"size": {"height": 96, "width": 64}, "image_mean": [0.1, 0.2, 0.3]}, ("stretch", 1.0, (0.1, 0.2, 0.3))),
        (CROP, ("crop", 0.875, (0.5,))),
        (CROP | {"do_center_crop": False}, ("crop", 1.0, (0.5,))),
        (CROP | {"size": {"height": 256, "width": 256}}, ("crop", 0.875, (0.5,))),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.8}, ("crop", 0.8, (0.5,))),
        ({"do_normalize": False}, ("stretch", 1.0, (0.0,))),
    ],
)
def test_preprocessors_that_others_wrote(content, expected):
    found = huggingface_pictures.read(content)
    if isinstance(expected, tuple):
        resize, fraction, mean = expected
        assert (found["resize"], found["crop_fraction"], found["mean"]) == (resize, fraction, mean)
    else:
        assert found is expected or Preprocessing(**found) == expected


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"resample": "x"}, "resample='x' in preprocessor_config.json: no filter"),
        (
            "preprocessor_config.json",
            {"size": {"longest_edge": 3}},
            r"size=\{'longest_edge': 3\} in preprocessor_config",
        ),
        ("preprocessor_config.json", {"size": {"shortest_edge": 0}}, "no height and width, nor shortest_edge"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, r"preprocessing.std=\[0, 1, 1\]: must be"),
        ("preprocessor_config.json", [1], "preprocessor_config.json: not a JSON object"),
        ("config.json", {"id2label": {"0": "cat"}}, "id2label in config.json: names 1 classes, but the head has 3"),
        (
            "config.json",
            {"id2label": {"a": "b", "c": "d", "e": "f"}},
            "id2label in config.json: must name the classes 0",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(file, change, message, tmp_path):
    shutil.copytree(DATA / "hf_ijepa", tmp_path / "x")
    content = json.loads((tmp_path / "x" / file).read_text())
    (tmp_path / "x" / file).write_text(json.dumps(content | change if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=message) as caught:
        vit_jax.load(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preprocessing": Preprocessing("pad")}, "not kept, no image processor pads evenly, so it says to stretch"),
        ({"image_size": (48, 80)}, "not kept, no image processor crops to the shape of 48x80, so it says to stretch"),
    ],
)
def test_what_no_processor_does_is_said(options, message, tmp_path):
    (*_, said) = vit_jax.save(named_model(**options), tmp_path / "x", "huggingface")
    assert message in said
    assert vit_jax.load(tmp_path / "x").preprocessing.resize == "stretch"
