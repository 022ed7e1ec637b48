"""Compact transformers: published parameter counts, tokens by convolution, sequence pooling, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.drawn import drawn_model, params_of, pictures
from vit_jax import tree
from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.inside.filters import first_kernel
from vit_jax.models import abstract_model
from vit_jax.models.compact import max_pool
from vit_jax.models.variants import name_of, resolve

SIZES = dict(name="custom/4", width=32, depth=2, num_heads=2, mlp_dim=64)
TINY = SIZES | dict(tokenizer=(3, 2), pool="seq", qkv_bias=False)


# Millions of parameters for 10 classes at 32 pixels, and for 1000 at 224, as Hassani et al. (2021) report them.
@pytest.mark.parametrize(
    ("name", "classes", "image_size", "millions"),
    [
        ("CCT-2/3x2", 10, 32, 0.284),
        ("CCT-4/3x2", 10, 32, 0.482),
        ("CCT-6/3x2", 10, 32, 3.327),
        ("CCT-7/3x2", 10, 32, 3.853),
        ("CCT-7/3x1", 10, 32, 3.760),
        ("ViT-Lite-6/4", 10, 32, 3.191),
        ("ViT-Lite-7/4", 10, 32, 3.717),
        ("CCT-14/7x2", 1000, 224, 22.36),
    ],
)
def test_parameters_are_as_many_as_reported(name, classes, image_size, millions):
    model = abstract_model(config=Model(name=name), num_classes=classes, image_size=image_size, channels=3)
    number = tree.count(params_of(model)) / 1e6
    assert abs(number - millions) < (0.01 if millions > 10 else 0.001), number
    assert name_of(model.config) == name


def test_tokens_are_convolutions_relu_and_pooling():
    model = drawn_model(**TINY, image_size=(32, 48))
    maps = images = pictures(32, 48)
    for conv in (model.embedding.conv1, model.embedding.conv2):
        maps = jax.lax.conv_general_dilated(
            maps, conv.kernel[...], (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        maps = jax.lax.reduce_window(
            jax.nn.relu(maps), -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
        )
    embedded = model.activations(images, "embedding")["embedding"]
    assert embedded.shape == (2, 8, 12, 32)
    np.testing.assert_allclose(embedded, maps, atol=1e-4)


def test_the_gradient_of_pooling_is_that_of_a_window():
    maps, cotangent = (
        jax.random.uniform(jax.random.key(0), (2, 8, 6, 3)),
        jax.random.normal(jax.random.key(1), (2, 4, 3, 3)),
    )

    def by_window(maps):
        return jax.lax.reduce_window(
            maps, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
        )

    for ours, theirs in zip(jax.vjp(max_pool, maps), jax.vjp(by_window, maps), strict=True):
        ours, theirs = (x(cotangent)[0] if callable(x) else x for x in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_sequence_pooling_weighs_the_patches_by_a_softmax():
    model = drawn_model(**TINY, image_size=32, class_token=True)
    seen = model.activations(pictures(32, 32), "tokens", "pooled")
    patches, score = np.asarray(seen["tokens"][:, 1:]), model.pool.score
    scores = patches @ np.asarray(score.kernel[...]) + np.asarray(score.bias[...])
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(seen["pooled"], (weights * patches).sum(axis=1), atol=1e-5)


def test_what_meets_the_pixels_is_the_first_convolution():
    words, kernel = first_kernel(drawn_model(**TINY))
    assert (words, kernel.shape) == ("first convolution", (3, 3, 3, 64))


def test_a_cct_has_no_class_token_and_pools_as_it_is_told():
    found = {pool: resolve(Model(name="CCT-2/3x2", pool=pool)) for pool in ("token", "seq", "gap", "map")}
    assert {pool: model.pool for pool, model in found.items()} == {p: "seq" if p == "token" else p for p in found}
    assert not any(model.class_token for model in found.values())


def test_queries_keys_and_values_have_no_bias_and_the_output_has():
    names = {name for name in params_of(drawn_model(**TINY)) if "/attn/" in name and name.endswith("bias")}
    assert names == {"blocks/attn/out/bias"}
    assert resolve(Model(name="ViT-Lite-7/4")).qkv_bias is False
    assert resolve(Model(name="S/16")).qkv_bias is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "CCT-2/3"}, "model 'CCT-2/3' is unknown: .* did you mean 'CCT-2/3x2'"),
        ({"name": "ViT-Lite-7/3x1"}, "model 'ViT-Lite-7/3x1' is unknown"),
        ({"name": "CCT-3/3x2"}, "model 'CCT-3/3x2' is unknown"),
        ({"name": "CCT-2/4x2"}, r"model.tokenizer=\(4, 2\): the convolutions' side must be odd and at least 3"),
        ({"name": "CCT-2/3x2", "patch": 8}, "model.patch=8: 2 convolutions of side 3 make patches of 4"),
        (SIZES | {"tokenizer": (3, 1)}, "model.patch=4: 1 convolutions of side 3 make patches of 2"),
        ({"name": "R+CCT-2/3x2"}, "model.tokenizer: a hybrid has a ResNet in its place"),
        ({"name": "CCT-2/3x2", "image_size": 34}, "34x34 is not divisible by the patch size 4"),
        ({"name": "Swin-T", "qkv_bias": False}, "model.qkv_bias: means nothing for 'Swin-T'"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        vit_jax.create_model(**{"num_classes": 10, "image_size": 32} | options)


def test_weights_of_these_sizes_with_a_bias_are_no_vit_lite(tmp_path):
    sizes = dict(name="custom/4", width=128, depth=2, num_heads=2, mlp_dim=128, gelu="exact")
    vit_jax.save(drawn_model(**sizes, image_size=16), tmp_path / "timm.safetensors")
    config = vit_jax.load(tmp_path / "timm.safetensors").config
    assert (config.name, config.qkv_bias, config.mlp_dim) == ("custom/4", True, 128)


def test_another_patch_is_refused():
    with pytest.raises(InputError, match="patch=8: convolutions make the patches of 'custom/4'; leave it out"):
        drawn_model(**TINY).resize((64, 64), patch=8)


@pytest.mark.parametrize("file", ["out.npz", "out.safetensors", "folder"])
def test_formats_without_it_refuse_it(tmp_path, file):
    with pytest.raises(InputError, match="can't hold a convolutional tokenizer"):
        vit_jax.save(drawn_model(**TINY), tmp_path / file)
