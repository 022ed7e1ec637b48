"""timm's hybrids, BiTs and folders, and Transformers' I-JEPA: as their owners wrote them, and what isn't known."""

import json
import shutil

import numpy as np
import pytest

import vit_jax
from tests.drawn import TINY, drawn_model, logits_of
from tests.golden import DATA, relative, same_model
from vit_jax.config import Model, Preprocessing
from vit_jax.errors import InputError
from vit_jax.models.variants import resolve
from vit_jax.weights.files import read_arrays, write_safetensors
from vit_jax.weights.timm_config import architecture_of

# Written by tests/data/make_timm.py.
EXPECTED = np.load(DATA / "expected_timm.npz")
FILES = {
    "timm_hybrid": "timm_hybrid.safetensors",
    "timm_hybrid_stem": "timm_hybrid_stem.safetensors",
    "timm_bit": "timm_bit.safetensors",
    "timm_folder": "timm_folder",
    "hf_ijepa": "hf_ijepa",
}
OWLS = ("cat", "dog", "great owl")


def load(case, **options):
    return vit_jax.load(DATA / FILES[case], **({"num_heads": 2} if "hybrid" in case else {}), **options)


def arrays_of(path):
    return read_arrays(path / "model.safetensors" if path.is_dir() else path)


def told(path, message, **options):
    with pytest.raises(InputError, match=message) as caught:
        vit_jax.load(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", FILES)
def test_outputs_are_the_owners(case):
    assert relative(logits_of(load(case), EXPECTED[f"{case}/images"]), EXPECTED[f"{case}/logits"]) < 1e-5


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_written_as_it_was(case, tmp_path):
    model, out = load(case), tmp_path / FILES[case]
    vit_jax.save(model, out, case.split("_")[0].replace("hf", "huggingface"))
    ours, theirs = arrays_of(out), arrays_of(DATA / FILES[case])
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), name
    back = vit_jax.load(out, **({"image_size": model.image_size} if case == "timm_bit" else {}))
    same_model(back, model)
    assert (back.label_names, back.preprocessing) == (model.label_names, model.preprocessing)


def test_a_new_head_goes_on_a_bit():
    model = load("timm_bit", num_classes=3)
    assert model.head.kernel.shape == (256, 3)
    assert not model.head.kernel[...].any()


def test_outputs_of_the_originals_style_differ():
    # Otherwise there would be no need of resnet_style.
    for case in ("timm_hybrid", "timm_bit"):
        logits = logits_of(load(case, resnet_style="google"), EXPECTED[f"{case}/images"])
        assert 1e-5 < relative(logits, EXPECTED[f"{case}/logits"]) < 0.2


def test_what_folders_say_of_pictures_and_classes():
    model = load("timm_folder")
    assert model.label_names == OWLS
    assert model.preprocessing == Preprocessing("stretch", "bilinear", 1.0, (0.3,), (0.2,))
    assert (model.config.mean, model.config.std, model.image_size, model.channels) == ((0.3,), (0.2,), (32, 48), 1)
    model = load("hf_ijepa")
    assert model.label_names == OWLS
    assert model.preprocessing == Preprocessing("stretch", "bicubic", 1.0, (0.485, 0.456, 0.406), (0.5,))


def test_a_folders_config_is_as_timm_writes_it(tmp_path):
    vit_jax.save(load("timm_folder"), tmp_path / "x", "timm")
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "x", DATA / "timm_folder"))
    assert ours["architecture"] == "vit_base_patch16_224"
    for key in ("num_classes", "num_features", "global_pool", "label_names"):
        assert ours[key] == theirs[key]
    for key, value in theirs["model_args"].items():
        # The number of classes is said once: Transformers' wrapper of timm takes no second.
        assert ours["model_args"].get(key) == (None if key == "num_classes" else value)
    same = theirs["pretrained_cfg"].keys() - {"tag", "pool_size", "license"}
    assert {key: ours["pretrained_cfg"][key] for key in same} == {key: theirs["pretrained_cfg"][key] for key in same}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "vit_base_patch16_rpn_224"},
            "architecture='vit_base_patch16_rpn_224' in config.json: no such",
        ),
        ({"model_args": {"act_layer": "relu"}}, "act_layer='relu' in config.json: only gelu, gelu_tanh and quick_gelu"),
        ({"model_args": {"norm_layer": "rmsnorm"}}, "model_args in config.json: norm_layer='rmsnorm' isn't known here"),
        ({"model_args": {"pool_include_prefix": True}}, "pool_include_prefix=True isn't known here"),
        ({"model_args": {"global_pool": "max"}}, "global_pool='max' in config.json: only 'token', 'avg', 'map', ''"),
        ({"model_args": {"img_size": [0, 32]}}, r"image_size=\(0, 32\): must be pixels"),
        ({"model_args": [1]}, "are not as this format has them"),
        ({"model_args": {"num_heads": 5}}, "num_heads=5 does not divide model.width=32"),
        ({"pretrained_cfg": {"crop_mode": "zoom"}}, "crop_mode='zoom' in config.json: only center, squash, border"),
        ({"pretrained_cfg": {"crop_pct": 3}}, r"preprocessing.crop_fraction=3: must be float in \(0, 1\]"),
        ({"pretrained_cfg": {"mean": ["a"]}}, r"preprocessing.mean=\['a'\]: must be tuple of float"),
        ({"label_names": ["cat"]}, "label_names in config.json: names 1 classes, but the head has 3 outputs"),
        (
            {"label_names": {"0": "cat", "5": "dog", "2": "owl"}},
            "label_names in config.json: must name the classes 0, 1",
        ),
        ({"label_names": [1, 2, 3]}, "label_names in config.json: must name the classes 0, 1"),
    ],
)
def test_folders_that_are_wrong_are_told_in_one_line(change, message, tmp_path):
    shutil.copytree(DATA / "timm_folder", tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) and key != "label_names" else value
    (tmp_path / "x" / "config.json").write_text(json.dumps(config))
    told(tmp_path / "x", message)


def test_what_only_an_architectures_name_says(tmp_path):
    arrays = arrays_of(DATA / "timm_token.safetensors")
    write_safetensors(tmp_path / "model.safetensors", arrays)

    def found(name, **config):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name, **config}))
        return vit_jax.load(tmp_path).config

    assert found("test_vit").num_heads == 2
    assert found("vit_so400m_patch16_siglip_512").num_heads == 16
    assert found("vit_so400m_patch16_siglip_512", model_args={"num_heads": 4}).num_heads == 4
    assert found("vit_so400m_patch16_siglip_512").gelu == "tanh"
    assert found("vit_so400m_patch14_siglip_224").gelu == "exact"
    # A config.json on one level, as older ones are; where it says nothing of pictures, timm's own defaults.
    model = found("test_vit", input_size=[3, 64, 64], labels=[str(i) for i in range(7)])
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert vit_jax.load(tmp_path).label_names == tuple("0123456")


def test_a_folder_names_an_architecture_of_timms():
    def name(**options):
        return architecture_of(resolve(Model(**options)))

    assert name(name="S/16") == "vit_small_patch16_224"
    assert name(name="S/14") == name(**TINY) == "vit_base_patch16_224"
    assert name(name="R+Ti/16") == "vit_tiny_r_s16_p8_224"
    assert name(name="R26+B/32") == "vit_small_r26_s32_224"
    assert name(name="R50+B/16") == "vit_base_r50_s16_224"
    assert name(name="R50+L/32") == "vit_large_r50_s32_224"
    assert name(name="BiT-R152x4") == "resnetv2_152x4_bit"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {**TINY, "norm_eps": 1e-12},
            "a timm folder can't hold the norms' epsilon.*load the weights with norm_eps=1e-06",
        ),
        (
            {**TINY, "name": "custom/8", "resnet": (1, 2), "resnet_width": 32, "resnet_style": "timm"},
            r"can't hold a hybrid with resnet=\(1, 2\) and resnet_width=32: .* a .safetensors file holds the arrays",
        ),
        (
            {"name": "BiT-custom", "resnet": (1, 2), "resnet_width": 32, "resnet_style": "timm"},
            r"can't hold a BiT with resnet=\(1, 2\) and resnet_width=32: .* a .safetensors file holds the arrays",
        ),
    ],
)
def test_what_only_a_lone_file_holds(options, message, tmp_path):
    model = drawn_model(**options)
    with pytest.raises(InputError, match=message) as caught:
        vit_jax.save(model, tmp_path / "x", "timm")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()
    vit_jax.save(model, tmp_path / "x.safetensors")
    same_model(vit_jax.load(tmp_path / "x.safetensors"), model)


def test_mlps_of_any_width_are_in_the_ratio(tmp_path):
    # timm rounds down: of 7 * (61 / 7), in floats, 60 would be left.
    for width, mlp_dim in ((32, 75), (7, 61)):
        model = drawn_model(name="custom/16", width=width, depth=1, num_heads=1, mlp_dim=mlp_dim)
        vit_jax.save(model, tmp_path / "x", "timm")
        arguments = json.loads((tmp_path / "x" / "config.json").read_text())["model_args"]
        assert int(arguments["embed_dim"] * arguments["mlp_ratio"]) == mlp_dim
        same_model(vit_jax.load(tmp_path / "x"), model)
