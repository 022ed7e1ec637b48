"""The parts of the ResNets in hybrids and BiT. test_weights compares their outputs with the originals'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.drawn import drawn_model, logits_of, params_of, pictures
from vit_jax.config import Model, from_dict
from vit_jax.errors import InputError
from vit_jax.models.resnet import StdConv, Unit
from vit_jax.models.variants import HYBRIDS, NAMES, name_of, reduction, resolve

FLOAT32 = jnp.dtype("float32")


@pytest.mark.parametrize("bit", [False, True])
def test_a_convolution_ignores_the_scale_and_mean_of_its_kernel(bit):
    conv = StdConv(3, 4, 6, bit=bit, dtype=FLOAT32, rngs=nnx.Rngs(0))
    maps = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    before = conv(maps)
    conv.kernel = nnx.Param(conv.kernel[...] * 7 + 3)
    np.testing.assert_allclose(conv(maps), before, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("bit", [False, True])
@pytest.mark.parametrize("size", [8, 9])
def test_a_stride_halves_the_size_rounding_up(bit, size):
    unit = Unit(32, 32, stride=2, bit=bit, dtype=FLOAT32, rngs=nnx.Rngs(0))
    assert unit(jnp.ones((1, size, size, 32))).shape == (1, -(-size // 2), -(-size // 2), 128)


def test_a_hybrids_unit_starts_as_its_shortcut():
    unit = Unit(128, 32, bit=False, dtype=FLOAT32, rngs=nnx.Rngs(0))
    maps = jax.random.normal(jax.random.key(1), (2, 5, 5, 128))
    assert unit.conv_proj is None
    np.testing.assert_allclose(unit(maps), jax.nn.relu(maps), atol=1e-6)


@pytest.mark.parametrize("name", ["BiT-custom", "custom/8"])
def test_stacked_units_are_units_one_after_another(name):
    encoder = {} if name == "BiT-custom" else dict(width=32, depth=1, num_heads=2, mlp_dim=64)
    model = drawn_model(name=name, resnet=(1, 3), resnet_width=32, **encoder)
    stage = (model.resnet if name == "BiT-custom" else model.embedding.resnet).block2
    maps = jax.random.normal(jax.random.key(1), (2, 8, 8, 128))
    graph, params = nnx.split(stage.rest)

    @jax.jit
    def one_by_one(maps):
        maps = stage.first(maps)
        for i in range(2):
            maps = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], params))(maps)
        return maps

    np.testing.assert_allclose(jax.jit(stage)(maps), one_by_one(maps), rtol=1e-4, atol=1e-4)


def test_bit_runs_on_any_size_and_has_a_head_of_features():
    model = drawn_model(name="BiT-custom", resnet=(1, 1), resnet_width=32)
    assert logits_of(model, pictures(50, 70)).shape == (2, 7)
    assert params_of(model)["head/kernel"].shape == (4 * 64, 7)


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_config_finds_its_name(name):
    assert name_of(resolve(Model(name=name))) == name


def test_stages_are_set_in_a_config():
    assert from_dict({"model": {"name": "R+S/32", "resnet": [1, 2]}}).model.resnet == (1, 2)
    with pytest.raises(InputError, match=r"config.model.resnet=\[1, 'a'\]: must be"):
        from_dict({"model": {"resnet": [1, "a"]}})


def test_a_hybrids_patch_is_what_a_token_covers():
    for (stem, patch), stages in HYBRIDS.items():
        config = resolve(Model(name=f"{stem}+S/{patch}"))
        assert config.resnet == stages
        assert config.patch == reduction(config) == patch
    model = drawn_model(name="R+Ti/16", depth=1, image_size=64)
    assert model.config.patch == 32
    assert model.embedding.kernel.shape == (8, 8, 64, 192)
    assert jax.eval_shape(model.embedding, pictures()).shape == (2, 2, 2, 192)
