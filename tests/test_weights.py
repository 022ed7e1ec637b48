"""Weight files: the outputs that their owners gave, round trips, and what is refused."""

import pathlib
import re
import runpy
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from drawn import TINY, drawn_model, params_of, pictures

import vit_jax
from vit_jax.errors import InputError
from vit_jax.weights.files import read_arrays, write_npz, write_safetensors

DATA = pathlib.Path(__file__).parent / "data" / "weights"
EXPECTED = np.load(DATA / "expected.npz")

# Case: its file and what it doesn't say.
FILES = {
    "vit_token": "google_vit_token.npz",
    "vit_gap": "google_vit_gap.npz",
    "vit_token_prelogits": "google_vit_token_prelogits.npz",
    "hybrid_stages": "google_hybrid_stages.npz",
    "hybrid_stem_only": "google_hybrid_stem_only.npz",
    "bigvision_gap_sincos2d": "bigvision_gap_sincos2d.npz",
    "bigvision_map": "bigvision_map.npz",
    "bigvision_tok_rep": "bigvision_tok_rep.npz",
    "bigvision_gap_scan": "bigvision_gap_scan.npz",
    "bit": "google_bit.npz",
    "timm_token": "timm_token.safetensors",
    "timm_avg": "timm_avg.safetensors",
    "timm_reg4_gap_ls": "timm_reg4_gap_ls.safetensors",
    "timm_token_reg_qknorm": "timm_token_reg_qknorm.safetensors",
    "timm_map": "timm_map.safetensors",
    "hf_vit": "hf_vit",
}


def load(case, **options):
    return vit_jax.load(DATA / FILES[case], **({"num_heads": 2} if "timm" in case else {}), **options)


def relative(got, wanted):
    return float(np.abs(np.asarray(got, np.float32) - wanted).max() / np.abs(wanted).max())


def same_model(first, second):
    assert first.config == second.config
    assert (first.num_classes, first.image_size, first.channels) == (
        second.num_classes,
        second.image_size,
        second.channels,
    )
    a, b = params_of(first), params_of(second)
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


@pytest.mark.parametrize("case", FILES)
def test_outputs_are_the_owners(case):
    model, images = load(case), EXPECTED[f"{case}/images"]

    @jax.jit
    def look(images):
        inner = {} if case == "bit" else model.activations(images)
        return inner | {"features": model.features(images), "logits": model(images)}

    got = look(images)
    got |= {"encoder_norm": got.get("encoded"), "pre_logits": got["features"]}
    # What timm calls features are the tokens.
    got |= {"features": got.get("encoded")}
    got |= {f"block_{i}": block for i, block in enumerate(got.get("blocks", ()))}
    keys = [key.split("/")[1] for key in EXPECTED.files if key.startswith(f"{case}/")]
    keys = [key for key in keys if key != "images" and not key.startswith("resized")]
    assert "logits" in keys
    for key in keys:
        assert relative(got[key], EXPECTED[f"{case}/{key}"]) < 2e-5, key


@pytest.mark.parametrize("case", FILES)
def test_bfloat16_is_near(case):
    model = load(case, dtype="bfloat16")
    logits = jax.jit(model)(EXPECTED[f"{case}/images"])
    assert logits.dtype == np.float32
    assert relative(logits, EXPECTED[f"{case}/logits"]) < 3e-2


@pytest.mark.parametrize("case", ["vit_token", "vit_gap"])
def test_another_resolution_by_load_and_by_call(case):
    resized, images = load(case, image_size=96), EXPECTED[f"{case}/resized_images"]
    np.testing.assert_allclose(resized.position((6, 6)), EXPECTED[f"{case}/resized_pos_embedding"][0], atol=1e-6)
    for model in (resized, load(case)):
        assert relative(jax.jit(model)(images), EXPECTED[f"{case}/resized_logits"]) < 2e-5


def test_published_plain_names_are_read(tmp_path):
    arrays = read_arrays(DATA / FILES["vit_token"])
    plain = {"LayerNorm_2": "LayerNorm_1", "MlpBlock_3": "MlpBlock_0", "Attention_1": "Attention_0"}
    for old, new in plain.items():
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    write_npz(tmp_path / "plain.npz", arrays)
    same_model(vit_jax.load(tmp_path / "plain.npz"), load("vit_token"))


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

# Options, and the formats that hold such a model.
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
    # The pictures' size is in a file only where there are positions.
    size = {} if model.config.position == "learned" else {"image_size": model.image_size}
    last = model
    # There, and back to the first.
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


def test_heads_follow_the_width_where_the_file_is_silent(tmp_path):
    arrays = read_arrays(DATA / FILES["timm_token"])
    write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(InputError, match="does not say how many heads.*give num_heads="):
        vit_jax.load(tmp_path / "x.safetensors")
    vit_jax.save(drawn_model(name="Ti/16", depth=1, gelu="exact", image_size=32), tmp_path / "y.safetensors")
    arrays = read_arrays(tmp_path / "y.safetensors")
    safetensors.numpy.save_file(arrays, tmp_path / "y.safetensors")
    assert vit_jax.load(tmp_path / "y.safetensors").config.num_heads == 3


@pytest.mark.parametrize("case", ["vit_token_prelogits", "timm_avg", "hf_vit", "bigvision_map", "bit"])
def test_a_new_head_is_zero_and_the_rest_is_the_files(case):
    model, whole = load(case, num_classes=3), load(case)
    new, old = params_of(model), params_of(whole)
    assert model.num_classes == 3
    for name in new:
        if name.startswith("head/"):
            assert new[name].shape == (*old[name].shape[:-1], 3)
            assert not new[name].any()
        else:
            assert np.array_equal(new[name], old[name])


def test_a_representation_layer_goes_with_its_head():
    model = load("vit_token_prelogits", num_classes=3, representation=None)
    assert model.pre_logits is None
    assert model.head.kernel.shape == (32, 3)


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("vit_token", {"depth": 1}, r"unexpected \(16\): Transformer/encoderblock_1/LayerNorm_0/bias, "),
        ("vit_token", {"depth": 5}, r"missing \(48\): Transformer/encoderblock_\{2\.\.4\}/LayerNorm_0/scale, "),
        ("vit_token", {"width": 48}, r"misshaped .*cls \(1, 1, 32\), wanted \(1, 1, 48\)"),
        ("vit_token", {"name": "S/16"}, r"missing \(160\): .*encoderblock_\{2\.\.11\}.*; misshaped .*wanted \(384,"),
        ("timm_token", {"registers": 2}, r"missing \(1\): reg_token; misshaped .*pos_embed \(1, 17, 32\), wanted"),
        ("hf_vit", {"pool": "gap", "class_token": False}, r"unexpected \(1\): vit.embeddings.cls_token; misshaped"),
        (
            "vit_token",
            {"qk_norm": True},
            r"missing \(4\): blocks/attn/key_norm/bias \(for which this format has no place\)",
        ),
        ("vit_token", {"widht": 1}, r"widht: no such key; did you mean 'width'"),
        ("vit_token", {"gelu": "fast"}, r"gelu='fast': choose one of tanh, exact"),
        ("vit_token", {"grid": (2, 9)}, r"grid=\(2, 9\): the file has 16 positions"),
        ("vit_token", {"image_size": 90}, r"90x90 is not divisible by the patch size 16"),
        ("hybrid_stages", {"patch": 16}, r"patch size of a hybrid, 'custom/8', can't be changed"),
        ("bit", {"patch": 16}, r"is a ResNet, which has no patches"),
    ],
)
def test_what_does_not_fit_is_listed(case, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load(case, **options)
    assert "\n" not in str(caught.value)


def test_not_strict_takes_what_fits_and_warns():
    with pytest.warns(UserWarning, match=r"missing \(16\): Transformer/encoderblock_2/LayerNorm_0/scale"):
        model = load("vit_token", depth=3, strict=False)
    got, whole = params_of(model), params_of(load("vit_token"))
    assert np.array_equal(got["embedding/kernel"], whole["embedding/kernel"])
    assert got["blocks/norm1/scale"].shape == (3, 32)


def test_files_that_are_no_weights_are_told_in_one_line(tmp_path):
    vit_token = read_arrays(DATA / FILES["vit_token"])

    def told(path, message, **options):
        with pytest.raises(InputError, match=message) as caught:
            vit_jax.load(path, **options)
        assert "\n" not in str(caught.value)

    write_npz(tmp_path / "foreign.npz", {"a/b": np.zeros(3, np.float32)})
    told(tmp_path / "foreign.npz", r"no weights of a known format \(bit, google, .*it holds a/b")
    headless = {name: array for name, array in vit_token.items() if not name.startswith("head")}
    write_npz(tmp_path / "headless.npz", headless)
    told(tmp_path / "headless.npz", "has no head; give num_classes=")
    assert vit_jax.load(tmp_path / "headless.npz", num_classes=4).num_classes == 4
    write_npz(tmp_path / "bare.npz", {name: a for name, a in vit_token.items() if not name.startswith("embedding")})
    told(tmp_path / "bare.npz", "has no 'embedding/kernel'")
    name = "Transformer/posembed_input/pos_embedding"
    write_npz(tmp_path / "odd.npz", vit_token | {name: vit_token[name][:, :16]})
    told(tmp_path / "odd.npz", r"15 positions are no square grid; give grid=\(rows, columns\)")
    assert vit_jax.load(tmp_path / "odd.npz", grid=(3, 5)).image_size == (48, 80)
    write_npz(tmp_path / "flat.npz", vit_token | {"embedding/kernel": vit_token["embedding/kernel"].reshape(-1, 32)})
    told(tmp_path / "flat.npz", "flat.npz: ")
    (tmp_path / "empty").mkdir()
    told(tmp_path / "empty", r"a directory without model.safetensors")
    told(tmp_path / "nothing.npz", "does not exist")


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


def reference(grid, new):
    """Resample with corners aligned, one axis after the other, by NumPy's linear interpolation."""
    for axis, size in enumerate(new):
        at = np.linspace(0, grid.shape[axis] - 1, size)
        grid = np.apply_along_axis(lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, grid)
    return grid


@pytest.mark.parametrize("size", [(160, 320), (384, 384)])
@pytest.mark.parametrize("options", [{}, {"pool": "gap"}, {"registers": 4, "gelu": "exact"}])
def test_s16_at_other_sizes(size, options, tmp_path):
    path = tmp_path / ("x.safetensors" if "registers" in options else "x.npz")
    whole = drawn_model(name="S/16", depth=1, image_size=224, **options)
    vit_jax.save(whole, path)
    model = vit_jax.load(path, image_size=size)
    assert model.image_size == size
    wanted = reference(np.asarray(whole.position.grid), (size[0] // 16, size[1] // 16))
    np.testing.assert_allclose(model.position.grid, wanted, atol=1e-6)
    if model.position.prefix is not None:
        assert np.array_equal(model.position.prefix, whole.position.prefix)
    elsewhere = whole.position((size[0] // 16, size[1] // 16))
    np.testing.assert_allclose(elsewhere, model.position((size[0] // 16, size[1] // 16)), atol=1e-6)


def test_a_jitted_call_compiles_once_a_resolution():
    model = load("vit_token")
    call = jax.jit(model)
    for height, width in ((64, 64), (32, 96), (64, 64), (32, 96)):
        assert call(pictures(height, width)).shape == (2, 7)
    assert call._cache_size() == 2
    bicubic = load("vit_token", resample="bicubic")
    assert not np.allclose(bicubic(pictures(96, 96)), model(pictures(96, 96)), atol=1e-6)


@pytest.mark.parametrize("patch", [8, 14, 32])
def test_patches_of_another_size_embed_what_they_did(patch, tmp_path):
    vit_jax.save(drawn_model(name="B/16", depth=1, image_size=224), tmp_path / "x.npz")
    whole = vit_jax.load(tmp_path / "x.npz")
    model = vit_jax.load(tmp_path / "x.npz", patch=patch)
    assert model.config.name == f"custom/{patch}"
    assert model.image_size == (224, 224)
    assert model.position.grid.shape == (224 // patch, 224 // patch, 768)
    images = pictures(32, 32)
    # Each patch by itself, as the resize of FlexiViT is defined.
    patches = images.reshape(2, 2, 16, 2, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(8, 16, 16, 3)
    resized = jax.image.resize(patches, (8, patch, patch, 3), "bilinear", antialias=True)
    error = relative(model.embedding(resized), np.asarray(whole.embedding(patches)))
    assert error < (1e-4 if patch > 16 else 1)


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
