"""Swin equals timm's and Transformers' with the same weights, which it reads and writes."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import vit_jax
from tests.drawn import logits_of
from tests.drawn_swin import CASES, draw, pictures
from tests.tiny import CONFIG, run_steps
from vit_jax import tree
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape, Model
from vit_jax.errors import InputError
from vit_jax.models import abstract_model
from vit_jax.weights.formats import FORMATS
from vit_jax.weights.rules import write

REFERENCE = np.load(Path(__file__).parent / "data/swin.npz")
SMALL = dict(width=16, num_heads=2, swin=(2, 2), window=3, num_classes=5)


def write_reference(folder, name):
    """Write the folder that the other code base would, without using its code, and return it."""
    code, size, window, shape = CASES[name]
    sizes = {key: getattr(shape, key) for key in ("width", "num_heads", "swin")}
    config = Model(name="Swin-custom", window=window, **sizes)
    model = abstract_model(config=config, num_classes=shape.classes, image_size=(size, size), channels=3)
    params = {key: np.broadcast_to(np.float32(0), x.shape) for key, x in parameters(model).items()}
    arrays = write(FORMATS[code].rules(model.config), params)
    save_file({key: draw(key, x.shape) for key, x in arrays.items()}, folder / "model.safetensors")
    described = {"image_size": size, "layer_norm_eps": 1e-5, "hidden_act": "gelu"}
    if code == "timm":
        # The arguments say what the name doesn't.
        described = {
            "architecture": "swin_base_patch4_window7_224",
            "model_args": {"img_size": size, "window_size": window},
        }
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def parameters(model):
    return tree.flatten(nnx.to_pure_dict(nnx.split(model)[1]))


@pytest.mark.parametrize("name", ["timm 224", "timm small", "huggingface 216", "huggingface small"])
def test_logits_are_those_of_the_code_base(tmp_path, name):
    model, (_, size, window, shape) = vit_jax.load(write_reference(tmp_path, name)), CASES[name]
    assert (model.image_size, model.config.window, model.config.swin) == ((size, size), window, shape.swin)
    logits = logits_of(model, pictures(size))
    np.testing.assert_allclose(logits, REFERENCE[name], rtol=0, atol=2e-5 * np.abs(REFERENCE[name]).max())


@pytest.mark.parametrize("format", ["timm", "huggingface"])
def test_what_is_saved_is_what_was_loaded(tmp_path, format):
    """A folder's arrays are written as they were, and a file of timm's says the picture's size too."""
    (source := tmp_path / "source").mkdir()
    model = vit_jax.load(write_reference(source, f"{format} small"))
    vit_jax.save(model, tmp_path / "saved", format=format)
    old, new = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "saved"))
    assert old.keys() == new.keys()
    for name, array in old.items():
        np.testing.assert_array_equal(new[name], array, err_msg=name)
    again = vit_jax.load(tmp_path / "saved")
    assert (again.config, again.image_size) == (model.config, model.image_size)
    model.resize((40, 24))
    vit_jax.save(model, tmp_path / "one.safetensors")
    assert vit_jax.load(tmp_path / "one.safetensors").image_size == (40, 24)


def test_maps_are_told_from_fine_to_coarse_and_any_size_runs():
    model = vit_jax.create_model("Swin-custom", image_size=32, **SMALL)
    images = jax.random.normal(jax.random.key(0), (1, 28, 40, 3))
    found = model.activations(images, "embedding", "stage/0", "stage/1", "tokens", "pooled", "logits")
    shapes = {"embedding": (1, 7, 10, 16), "stage/0": (1, 7, 10, 16), "stage/1": (1, 4, 5, 32), "tokens": (1, 20, 32)}
    assert {name: found[name].shape for name in shapes} == shapes
    np.testing.assert_allclose(found["tokens"].mean(1), model.features(images), rtol=1e-5, atol=1e-6)


def test_another_window_has_the_bias_resampled():
    model = vit_jax.create_model("Swin-custom", image_size=24, **SMALL)
    table = np.asarray(model.stage1.blocks.window_bias[...])
    model.resize((48, 48))
    np.testing.assert_array_equal(model.stage1.blocks.window_bias[...], table)
    model.resize((8, 24))  # Two rows of patches.
    assert model.stage1.blocks.window_bias.shape == (2, 3, 5, 2)
    np.testing.assert_allclose(model.stage1.blocks.window_bias[...][:, 1], table[:, 2], rtol=1e-6)


def test_weights_load_with_windows_of_another_side(tmp_path):
    model = vit_jax.load(write_reference(tmp_path, "huggingface small"), window=3)
    assert (model.config.window, model.stage1.blocks.window_bias.shape) == (3, (2, 5, 5, 2))
    model(pictures(36))
    with pytest.raises(InputError, match="model.window=0"):
        vit_jax.load(tmp_path, window=0)


def test_only_a_key_drops():
    model = vit_jax.create_model("Swin-custom", image_size=16, drop_path=0.5, **SMALL)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    first, second, none = (model.features(images, key=key) for key in (jax.random.key(1), jax.random.key(2), None))
    assert not jnp.allclose(first, second)
    np.testing.assert_array_equal(none, model.features(images))


def test_losses_are_equal_on_eight_devices():
    model = Model(name="Swin-custom", patch=1, width=16, num_heads=2, swin=(2, 2), window=3, drop_path=0.2)
    config = dataclasses.replace(CONFIG, model=model)
    alone, _ = run_steps(config, make_mesh(MeshShape(), jax.devices()[:1]), 3)
    losses, state = run_steps(config, make_mesh(MeshShape(2, 2, 2)), 3)
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
    kernel = state.params["stage2"]["blocks"]["attn"]["query"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 16, 2, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="Swin-X"), "did you mean 'Swin-"),
        (dict(name="Swin-T", registers=1), "model.registers: means nothing for 'Swin-T', a Swin"),
        (dict(name="Swin-T", pool="map"), "model.pool: means nothing"),
        (dict(name="Swin-custom"), "model.width must be set for 'Swin-custom'"),
        (dict(name="Swin-T", num_heads=5), "num_heads=5 does not divide model.width=96"),
        (dict(name="Swin-T", patch=5), "image size 224x224 is not divisible by the patch size 5"),
        (dict(name="Swin-T", window=0), "model.window=0: must be int at least 1"),
    ],
)
def test_what_fits_no_swin_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        vit_jax.create_model(**options)


def test_transformers_has_no_window_that_a_map_does_not_fill(tmp_path):
    model = vit_jax.create_model("Swin-custom", image_size=16, gelu="exact", norm_eps=1e-5, **SMALL)
    with pytest.raises(InputError, match="can't hold windows of 3 patches"):
        vit_jax.save(model, tmp_path / "folder")
