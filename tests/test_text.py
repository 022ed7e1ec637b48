"""Text towers of CLIP and SigLIP: tokens, embeddings and probabilities are Transformers'."""

import json
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.golden import DATA, relative
from vit_jax.errors import InputError
from vit_jax.weights.files import read_arrays, write_safetensors
from vit_jax.weights.tokenizer import FILES

# Written by tests/data/make_text.py.
TEXT = pathlib.Path(__file__).parent / "data" / "text"
EXPECTED = np.load(TEXT / "expected.npz")
TEXTS, LABELS = json.loads((TEXT / "texts.json").read_text()).values()
FOLDERS = ("clip", "clip_old", "siglip", "siglip2")


@pytest.fixture(scope="module")
def pairs():
    return {folder: vit_jax.load(TEXT / folder, text=True) for folder in FOLDERS}


@pytest.fixture(scope="module")
def encode(pairs):
    """Compiled encoders of texts."""
    return {folder: jax.jit(pair.encode_text) for folder, pair in pairs.items()}


def expected(folder, what):
    return EXPECTED[f"{folder}/{what}"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_tokens_are_the_owners(pairs, folder):
    for text, ours, theirs in zip(TEXTS, pairs[folder].tokenize(TEXTS), expected(folder, "tokens"), strict=True):
        assert ours.tolist() == theirs.tolist(), text


@pytest.mark.parametrize("folder", FOLDERS)
def test_embeddings_and_probabilities_are_the_owners(pairs, encode, folder):
    pair = pairs[folder]
    texts, images = encode[folder](expected(folder, "labels")), jax.jit(pair.encode_images)(EXPECTED["pictures"])
    assert texts.dtype == images.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(texts, axis=1), 1, rtol=1e-6)
    assert relative(texts, expected(folder, "texts")) < 1e-5
    assert relative(encode[folder](expected(folder, "tokens")), expected(folder, "awkward")) < 1e-5
    assert relative(images, expected(folder, "images")) < 1e-5
    probabilities = pair.probabilities(images, texts)
    np.testing.assert_allclose(probabilities, expected(folder, "probabilities"), rtol=1e-5)
    assert pair.loss == ("softmax" if "clip" in folder else "sigmoid")


def test_what_pads_a_text_is_seen_by_a_siglip_alone(encode):
    for folder, same in (("clip", True), ("siglip", False)):
        tokens = expected(folder, "labels")
        # After the texts and the tokens that end them.
        changed = np.where(np.arange(tokens.shape[1]) >= 40, 5, tokens)
        assert (relative(encode[folder](changed), encode[folder](tokens)) < 1e-6) == same
    short = encode["clip"](expected("clip", "labels")[:, :40])
    assert relative(short, expected("clip", "texts")) < 1e-5


def test_the_image_tower_is_what_load_returns_otherwise(pairs):
    alone = vit_jax.load(TEXT / "clip")
    assert alone.config == pairs["clip"].image.config
    assert alone.num_classes == 0
    larger = vit_jax.load(TEXT / "clip", text=True, image_size=64, host=True, dtype="bfloat16")
    assert isinstance(larger.text.embedding[...], np.ndarray)
    assert larger.image.position.grid.shape == (8, 8, 16)
    assert larger.text.config.dtype == "bfloat16"


def test_only_a_clip_means_the_highest_token_by_the_number_2(pairs, tmp_path):
    assert pairs["clip_old"].text.end == "highest"
    folder = changed(tmp_path, "clip_old")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "metaclip_2"}
    (folder / "config.json").write_text(json.dumps(config))
    assert vit_jax.load(folder, text=True).text.end == 2


def changed(tmp_path, folder, change=lambda arrays: arrays, **text_config):
    """Copy a folder, its arrays and what its config says of the text tower changed."""
    shutil.copytree(TEXT / folder, tmp_path / "x")
    write_safetensors(tmp_path / "x/model.safetensors", change(read_arrays(TEXT / folder / "model.safetensors")))
    config = json.loads((tmp_path / "x/config.json").read_text())
    config["text_config"] |= text_config
    (tmp_path / "x/config.json").write_text(json.dumps(config))
    return tmp_path / "x"


def lacking(part):
    return lambda arrays: {name: array for name, array in arrays.items() if part not in name}


@pytest.mark.parametrize(
    ("folder", "change", "config", "message"),
    [
        ("siglip", lacking("text_model."), {}, "has no text tower to read texts or labels with; those of CLIP and"),
        ("clip", lacking("text_projection"), {}, "x: has no 'text_model.head.weight', which a text tower has"),
        ("clip", lacking("visual_projection"), {}, r"does not fit the text tower of its config: missing \(1\): visual"),
        (
            "siglip",
            lacking("text_model.encoder.layers.1.mlp.fc2.bias"),
            {},
            r"missing \(1\): text_model.encoder.layers.1.mlp.fc2.bias",
        ),
        ("clip", lacking("logit_scale"), {}, r"missing \(1\): logit_scale"),
        (
            "clip",
            lambda arrays: arrays | {"text_model.more": np.ones(1, np.float32)},
            {},
            r"unexpected \(1\): text_mod",
        ),
        ("clip", lacking("nothing"), {"num_attention_heads": 3}, "num_attention_heads=3 does not divide the width 16"),
        ("siglip", lacking("nothing"), {"hidden_act": "relu"}, "text_config: hidden_act='relu' in config.json: only"),
        ("clip", lacking("nothing"), {"eos_token_id": [1, 2]}, "its text tower is not as Transformers writes them"),
    ],
)
def test_a_pair_that_is_not_whole_is_refused_in_one_line(tmp_path, folder, change, config, message):
    with pytest.raises(InputError, match=message) as caught:
        vit_jax.load(changed(tmp_path, folder, change, **config), text=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        (DATA / "timm_token.safetensors", {"num_heads": 2}, "has no text tower .* not as timm or OpenCLIP do"),
        (DATA / "today/hf_clip", {}, "hf_clip: has no text tower"),
        (TEXT / "clip", {"num_classes": 3}, "num_classes=3: with text=True texts are the classes"),
        (TEXT / "clip", {"checkpoint": "best"}, "it is not a run directory"),
    ],
)
def test_text_where_it_means_nothing_is_refused(where, options, message):
    with pytest.raises(InputError, match=message):
        vit_jax.load(where, text=True, **options)


def test_a_run_has_no_text_tower(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="a run directory has no text tower"):
        vit_jax.load(tmp_path, text=True)


def test_a_pair_is_not_saved(pairs, tmp_path):
    with pytest.raises(InputError, match=r"text towers are not written; save the image tower, model\.image"):
        vit_jax.save(pairs["clip"], tmp_path / "x")


def damaged(tmp_path, folder, **files):
    """Copy a folder without its tokenizer but with `files`."""
    shutil.copytree(TEXT / folder, tmp_path / "x", ignore=shutil.ignore_patterns(*FILES))
    for name, content in files.items():
        (tmp_path / "x" / name.replace("_json", ".json").replace("_model", ".model")).write_text(content)
    return vit_jax.load(tmp_path / "x", text=True)


def test_a_folder_without_a_tokenizer_loads_all_the_same(tmp_path):
    pair = damaged(tmp_path, "clip")
    with pytest.raises(
        InputError, match=r"x: has no tokenizer: neither tokenizer\.json, spiece\.model nor vocab\.json"
    ):
        pair.tokenize(["a cat"])
    with pytest.raises(InputError, match=r"tokenize takes a list of texts: \['a cat'\]"):
        pair.tokenize("a cat")


@pytest.mark.parametrize(
    ("folder", "files", "message"),
    [
        ("clip", {"tokenizer_json": "{"}, "tokenizer.json: not a whole tokenizer"),
        ("siglip", {"spiece_model": "no model"}, "spiece.model: not a whole tokenizer"),
        ("clip", {"tokenizer_json": (TEXT / "siglip2/tokenizer.json").read_text()}, "looks for token .* at a text's"),
        ("siglip", {"tokenizer_json": (TEXT / "siglip2/tokenizer.json").read_text()}, "which knows 5. tokens"),
        ("clip", {"tokenizer_config_json": "3", "tokenizer_json": ""}, "tokenizer_config.json: not a JSON object"),
    ],
)
def test_a_wrong_tokenizer_is_refused_in_one_line(tmp_path, folder, files, message):
    with pytest.raises(InputError, match=message) as caught:
        damaged(tmp_path, folder, **files).tokenize(["a cat"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("folder", "package"), [("clip", "tokenizers"), ("siglip", "sentencepiece")])
def test_a_missing_package_is_named_with_its_extra(folder, package, monkeypatch):
    pair = vit_jax.load(TEXT / folder, text=True)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"{package} is not installed, which reads texts; pip install 'vit_jax\[text\]'"
    ):
        pair.tokenize(["a cat"])


def test_a_text_longer_than_the_positions_is_refused(pairs):
    with pytest.raises(InputError, match="a text of 65 tokens: the model has positions for 64"):
        pairs["siglip"].encode_text(np.zeros((1, 65), np.int32))
