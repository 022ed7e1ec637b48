"""Models: exact parameter counts, shapes, determinism, what each option changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from vit_jax import tree
from vit_jax.errors import InputError

TINY = dict(width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=5, image_size=16)


def params_of(model):
    return nnx.to_pure_dict(nnx.split(model)[1])


def images(shape=(3, 16, 16, 3)):
    return jax.random.uniform(jax.random.key(1), shape, minval=-1, maxval=1)


@pytest.mark.parametrize(
    ("name", "pool", "expected"),
    [
        ("Ti/16", "token", 5_717_416),
        ("S/16", "token", 22_050_664),
        ("S/32", "token", 22_878_952),
        ("B/8", "token", 86_576_872),
        ("B/16", "token", 86_567_656),
        ("B/32", "token", 88_224_232),
        ("L/16", "token", 304_326_632),
        ("L/32", "token", 306_535_400),
        ("H/14", "token", 632_045_800),
        ("B/16", "gap", 86_566_120),
        ("g/14", "gap", 1_012_608_616),
        ("G/14", "gap", 1_844_437_352),
    ],
)
def test_parameter_count(name, pool, expected):
    shapes = jax.eval_shape(lambda: params_of(vit_jax.create_model(name, pool=pool)))
    assert tree.count(shapes) == expected


def test_listed_models_resolve():
    for name in vit_jax.list_models():
        assert tree.count(jax.eval_shape(lambda name=name: params_of(vit_jax.create_model(name)))) > 1e6


def test_initialisers_are_the_papers():
    params = tree.flatten(params_of(vit_jax.create_model("S/4", num_classes=10, image_size=32)))
    assert params["blocks/attn/query/kernel"].shape == (12, 384, 6, 64)
    limit = (6 / (384 + 384)) ** 0.5
    query = params["blocks/attn/query/kernel"]
    assert limit * 0.999 < float(jnp.abs(query).max()) <= limit
    assert not jnp.array_equal(query[0], query[1])
    np.testing.assert_allclose(float(params["blocks/mlp/fc1/bias"].std()), 1e-6, rtol=0.05)
    np.testing.assert_allclose(float(params["position/grid"].std()), 0.02, rtol=0.05)
    np.testing.assert_allclose(float(params["embedding/kernel"].std()), (1 / 48) ** 0.5, rtol=0.05)
    for zero in ("cls", "head/kernel", "head/bias", "blocks/attn/out/bias"):
        assert not params[zero].any()


def test_same_seed_same_bits_other_seed_other_bits():
    first, again, other = (params_of(vit_jax.create_model("Ti/8", **TINY, seed=seed)) for seed in (3, 3, 4))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    assert not jnp.array_equal(first["embedding"]["kernel"], other["embedding"]["kernel"])


@pytest.mark.parametrize("options", [{}, {"pool": "gap"}, {"position": "sincos2d"}, {"position": "none"}])
def test_patch_embedding_is_a_strided_convolution_and_logits_have_their_shape(options):
    model = vit_jax.create_model("Ti/4", **TINY, **options)
    expected = jax.lax.conv_general_dilated(
        images(), model.embedding.kernel[...], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(model.embedding(images()), expected, atol=1e-5)
    model.head.kernel[...] = jnp.ones_like(model.head.kernel[...])
    logits = model(images())
    assert logits.shape == (3, 5)
    assert logits.dtype == jnp.float32
    assert logits.std(axis=0).min() > 0


def test_block_equals_plain_numpy():
    """The encoder against the paper's equations 1 to 4, written out."""
    model = vit_jax.create_model("Ti/8", **TINY, pool="token", seed=2)
    p = jax.tree.map(np.asarray, params_of(model))

    def norm(x, weights):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * weights["scale"] + weights["bias"]

    x = np.asarray(images())
    patches = x.reshape(3, 2, 8, 2, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 4, -1)
    tokens = patches @ p["embedding"]["kernel"].reshape(-1, 16) + p["embedding"]["bias"]
    tokens = np.concatenate([np.broadcast_to(p["cls"], (3, 1, 16)), tokens], axis=1)
    tokens = tokens + np.concatenate([p["position"]["prefix"], p["position"]["grid"].reshape(4, 16)])
    for layer in range(2):
        b = jax.tree.map(lambda leaf, layer=layer: leaf[layer], p["blocks"])
        h = norm(tokens, b["norm1"])
        q, k, v = (
            np.einsum("nti,ihd->nhtd", h, b["attn"][name]["kernel"]) + b["attn"][name]["bias"][:, None]
            for name in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(8))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        tokens = tokens + np.einsum("nhtd,hdo->nto", mixed, b["attn"]["out"]["kernel"]) + b["attn"]["out"]["bias"]
        h = norm(tokens, b["norm2"]) @ b["mlp"]["fc1"]["kernel"] + b["mlp"]["fc1"]["bias"]
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        tokens = tokens + h @ b["mlp"]["fc2"]["kernel"] + b["mlp"]["fc2"]["bias"]
    np.testing.assert_allclose(model.encode(images()), norm(tokens, p["norm"]), atol=2e-5)


def test_randomness_needs_a_key():
    model = vit_jax.create_model("Ti/8", **TINY, dropout=0.5, drop_path=0.5)
    tokens, again = model.encode(images()), model.encode(images())
    assert jnp.array_equal(tokens, again)
    noisy = [model.encode(images(), jax.random.key(seed)) for seed in (0, 0, 1)]
    assert jnp.array_equal(noisy[0], noisy[1])
    assert not jnp.array_equal(noisy[0], noisy[2])
    assert not jnp.array_equal(noisy[0], tokens)


def test_drop_path_keeps_the_expectation_and_drops_whole_pictures():
    from vit_jax.models.layers import drop_path

    ones = jnp.ones((4000, 2, 3))
    dropped = drop_path(ones, jnp.float32(0.25), jax.random.key(0))
    assert set(np.unique(dropped).round(4)) == {0.0, np.float32(1.3333)}
    assert jnp.array_equal(dropped.min((1, 2)), dropped.max((1, 2)))
    np.testing.assert_allclose(float(dropped.mean()), 1, atol=0.03)


def test_unroll_does_not_change_the_result():
    outputs = [vit_jax.create_model("Ti/8", **TINY, unroll=unroll).encode(images()) for unroll in (1, 2)]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def test_bfloat16_is_near_float32():
    exact, rounded = (vit_jax.create_model("Ti/8", **TINY, dtype=d).encode(images()) for d in ("float32", "bfloat16"))
    assert rounded.dtype == jnp.bfloat16
    assert float(jnp.abs(exact - rounded).max() / jnp.abs(exact).max()) < 3e-2


def test_pictures_of_any_shape_and_channels():
    model = vit_jax.create_model("Ti/8", **TINY | {"image_size": (16, 24)}, channels=1, representation=7)
    assert model(images((2, 16, 24, 1))).shape == (2, 5)
    assert model.position.grid.shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vit_jax.create_model("X/16"), r"model 'X/16' is unknown.*SIZE/PATCH"),
        (lambda: vit_jax.create_model("B-16"), r"did you mean 'B/16'"),
        (lambda: vit_jax.create_model("S/16", image_size=30), r"30x30 is not divisible by the patch size 16"),
        (lambda: vit_jax.create_model("S/16", num_heads=7), r"num_heads=7 does not divide model.width=384"),
        (lambda: vit_jax.create_model("S/16", widht=7), r"no option 'widht'; did you mean 'width'"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
