"""Loaded weights: outputs equal to the originals', other heads, sizes and patches, and weights that do not fit."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

import vit_jax
from tests.drawn import drawn_model, logits_of, params_of, pictures
from tests.golden import DATA, EXPECTED, FILES, load, relative, same_model
from vit_jax.errors import InputError
from vit_jax.weights.files import read_arrays, write_npz, write_safetensors


@pytest.mark.parametrize("case", FILES)
def test_outputs_are_the_owners(case):
    model, images = load(case), EXPECTED[f"{case}/images"]

    @jax.jit
    def look(images):
        blocks = [name for name in model.activation_names() if name.startswith("block/")]
        inner = [] if case == "bit" else ["embedding", *blocks]
        return model.activations(images, "pooled", "logits", "tokens", *inner)

    got = look(images)
    got |= {"encoder_norm": got["tokens"], "encoded": got["tokens"], "pre_logits": got["pooled"]}
    # timm's features are our tokens.
    got |= {"features": got["tokens"]}
    got |= {name.replace("/", "_"): got[name] for name in list(got) if name.startswith("block/")}
    keys = [key.split("/")[1] for key in EXPECTED.files if key.startswith(f"{case}/")]
    keys = [key for key in keys if key != "images" and not key.startswith("resized")]
    assert "logits" in keys
    for key in keys:
        assert relative(got[key], EXPECTED[f"{case}/{key}"]) < 2e-5, key


@pytest.mark.parametrize("case", FILES)
def test_bfloat16_is_near(case):
    model = load(case, dtype="bfloat16")
    logits = logits_of(model, EXPECTED[f"{case}/images"])
    assert logits.dtype == np.float32
    assert relative(logits, EXPECTED[f"{case}/logits"]) < 3e-2


@pytest.mark.parametrize("case", ["vit_token", "vit_gap"])
def test_another_resolution_by_load_and_by_call(case):
    resized, images = load(case, image_size=96), EXPECTED[f"{case}/resized_images"]
    np.testing.assert_allclose(resized.position((6, 6)), EXPECTED[f"{case}/resized_pos_embedding"][0], atol=1e-6)
    for model in (resized, load(case)):
        assert relative(logits_of(model, images), EXPECTED[f"{case}/resized_logits"]) < 2e-5


def test_published_plain_names_are_read(tmp_path):
    arrays = read_arrays(DATA / FILES["vit_token"])
    plain = {"LayerNorm_2": "LayerNorm_1", "MlpBlock_3": "MlpBlock_0", "Attention_1": "Attention_0"}
    for old, new in plain.items():
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    write_npz(tmp_path / "plain.npz", arrays)
    same_model(vit_jax.load(tmp_path / "plain.npz"), load("vit_token"))


def test_the_rest_of_a_big_vision_run_is_left(tmp_path):
    rest = {"opt/0/count": np.int64(3), "opt/1/params/head/bias": np.zeros(7, np.float32), "chrono/steps": np.int64(3)}
    write_npz(tmp_path / "x.npz", read_arrays(DATA / FILES["bigvision_map"]) | rest)
    same_model(vit_jax.load(tmp_path / "x.npz"), load("bigvision_map"))


def test_group_norms_of_published_hybrids_have_leading_axes(tmp_path):
    arrays = read_arrays(DATA / FILES["hybrid_stages"])
    norms = {name: array[None, None, None] for name, array in arrays.items() if "/gn" in name}
    write_npz(tmp_path / "x.npz", arrays | norms)
    same_model(vit_jax.load(tmp_path / "x.npz"), load("hybrid_stages"))


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
        ("vit_token", {"name": "S/16"}, r"holds 'custom/16', not 'S/16' \(width 32, not 384, depth 2, not 12, mlp_dim"),
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
        ("hybrid_stages", {"patch": 16}, r"patch=16: convolutions make the patches of 'custom/8'; leave it out"),
        ("bit", {"patch": 16}, r"is a ResNet, which has no patches"),
        ("bit", {"name": "B/16"}, r"does not hold a model of the kind of 'B/16'"),
        ("vit_token", {"patch": 0}, r"patch=0: must be at least 1"),
        ("vit_token", {"num_classes": 0}, r"num_classes=0: must be at least 1"),
        ("vit_token", {"image_size": (64, 0)}, r"image_size=\(64, 0\): must be pixels, or \(height, width\)"),
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
    assert vit_jax.load(tmp_path / "headless.npz").head is None
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


def reference(grid, new):
    """Resample with corners aligned, one axis after the other, with NumPy's linear interpolation."""
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, r"num_heads=5 does not divide model.width=32"),
        ({"hidden_act": "swish"}, r"hidden_act='swish' in config.json: only gelu, "),
        ({"hidden_act": []}, r"are not as this format has them \(unhashable"),
        ({"image_size": [0, 64]}, r"image_size=\(0, 64\): must be pixels"),
        (
            {"image_size": 96},
            r"misshaped \(1\): vit.embeddings.position_embeddings \(1, 17, 32\), wanted \(1, 37, 32\)",
        ),
        ([], r"config.json: not a JSON object"),
        (None, r"does not say how many heads"),
    ],
)
def test_configs_that_are_wrong_are_told_in_one_line(change, message, tmp_path):
    path = tmp_path / "hf"
    shutil.copytree(DATA / "hf_vit", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | change if isinstance(change, dict) else [1]))
    if change is None:
        (path / "config.json").unlink()
    with pytest.raises(InputError, match=message) as caught:
        vit_jax.load(path)
    assert "\n" not in str(caught.value)
    if change is None:
        same_model(vit_jax.load(path, num_heads=2), load("hf_vit"))


@pytest.mark.parametrize(
    "note", ["{", "[]", "{}", '{"model": {"width": 1.5}, "grid": [4, 4]}', '{"model": {}, "grid": 5}']
)
def test_notes_that_are_wrong_are_told_in_one_line(note, tmp_path):
    write_safetensors(tmp_path / "x.safetensors", read_arrays(DATA / FILES["timm_token"]), {"vit_jax": note})
    with pytest.raises(InputError, match=r"x\.safetensors: ") as caught:
        vit_jax.load(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


def test_a_timm_directory_says_how_it_pools(tmp_path):
    arrays = read_arrays(DATA / FILES["timm_token"])
    write_safetensors(tmp_path / "model.safetensors", arrays)
    for named, pool in (("avg", "gap"), ("token", "token")):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "global_pool": named}))
        assert vit_jax.load(tmp_path, num_heads=2).config.pool == pool
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "global_pool": "max"}))
    with pytest.raises(InputError, match="global_pool='max' in config.json: only 'token', 'avg', 'map'"):
        vit_jax.load(tmp_path, num_heads=2)


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
    # Each patch separately, as FlexiViT defines its resize.
    patches = images.reshape(2, 2, 16, 2, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(8, 16, 16, 3)
    resized = jax.image.resize(patches, (8, patch, patch, 3), "bilinear", antialias=True)
    error = relative(model.embedding(resized), np.asarray(whole.embedding(patches)))
    assert error < (1e-4 if patch > 16 else 1)
