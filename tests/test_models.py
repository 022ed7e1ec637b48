"""Models: exact parameter counts, shapes, determinism, what each option changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import TypeCheckError

import vit_jax
from tests.drawn import activations_of, drawn_model, encode, logits_of, params_of, pictures
from vit_jax import tree
from vit_jax.config import Model
from vit_jax.errors import InputError
from vit_jax.models import abstract_model
from vit_jax.models.drops import Drops, draw_drops, residual_of_subset
from vit_jax.models.layers import add_position, apply_blocks, gelu
from vit_jax.pixels import as_input

TINY = dict(width=16, depth=2, num_heads=2, mlp_dim=32, num_classes=5, image_size=16)


COUNTS = {
    "Ti/16": 5_717_416,
    "S/32": 22_878_952,
    "S/16": 22_050_664,
    "B/32": 88_224_232,
    "B/16": 86_567_656,
    "B/8": 86_576_872,
    "L/32": 306_535_400,
    "L/16": 304_326_632,
    "H/14": 632_045_800,
    "g/14": 1_012_611_432,
    "G/14": 1_844_440_680,
    "ViT-Lite-7/4": 4_757_736,
    "CCT-2/3x2": 804_649,
    "CCT-7/3x1": 7_160_297,
    "R+Ti/16": 6_337_704,
    "R26+S/32": 36_431_912,
    "R26+B/32": 101_383_976,
    "R50+B/16": 98_659_112,
    "R50+L/32": 328_994_856,
    "BiT-R50x1": 25_549_352,
    "BiT-R50x3": 217_319_080,
    "BiT-R101x1": 44_541_480,
    "BiT-R101x3": 387_934_888,
    "BiT-R152x2": 236_335_208,
    "BiT-R152x4": 936_533_224,
    "Swin-T": 28_288_354,
    "Swin-S": 49_606_258,
    "Swin-B": 87_768_224,
    "Swin-L": 196_532_476,
}


def test_shapes_are_checked_in_tests():
    with pytest.raises(TypeCheckError, match="add_position"):
        add_position(jnp.ones((2, 3, 4)), jnp.ones((3, 5)))


def count(name, **options):
    facts = dict(num_classes=1000, image_size=224, channels=3)
    return tree.count(params_of(abstract_model(config=Model(name=name, **options), **facts)))


def test_the_table_names_every_listed_model():
    assert list(COUNTS) == vit_jax.list_models()


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count(name):
    assert count(name) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("B/16", {"pool": "gap"}, 86_566_120),
        ("g/14", {"pool": "gap"}, 1_012_608_616),
        ("G/14", {"pool": "gap"}, 1_844_437_352),
        ("B/16", {"registers": 4, "prefix_position": False}, COUNTS["B/16"] + 4 * 768 - 768),
        ("B/16", {"layer_scale": 1e-5, "qk_norm": True}, COUNTS["B/16"] + 12 * (2 * 768 + 4 * 64)),
        ("B/16", {"position": "none"}, COUNTS["B/16"] - 197 * 768),
        ("B/16", {"position": "learned2d"}, COUNTS["B/16"] - (196 - 14) * 768),
        ("B/16", {"position": "relative"}, COUNTS["B/16"] - 197 * 768 + 27 * 27 * 12),
        ("B/16", {"pool": "probe"}, COUNTS["B/16"] - 768 + 3 * 768 * 769),
        ("B/16", {"norm": "rms", "patch_norm": True, "linear_bias": False}, COUNTS["B/16"] + 768 - 768 * (25 + 12 * 6)),
        ("B/16", {"position_at": "blocks_shared"}, COUNTS["B/16"]),
        ("B/16", {"position_at": "blocks"}, COUNTS["B/16"] + 11 * 197 * 768),
    ],
)
def test_parameter_count_with_options(name, options, expected):
    assert count(name, **options) == expected


def test_initialisers_are_the_papers():
    params = params_of(vit_jax.create_model("S/4", num_classes=10, image_size=32))
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
    assert (params_of(vit_jax.create_model("Ti/8", **TINY, head_bias=-10.0))["head/bias"] == -10).all()


def test_same_seed_same_bits_other_seed_other_bits():
    first, again, other = (params_of(vit_jax.create_model("Ti/8", **TINY, seed=seed)) for seed in (3, 3, 4))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, first, again))
    assert not jnp.array_equal(first["embedding/kernel"], other["embedding/kernel"])


@pytest.mark.parametrize("patch", [4, 8])
def test_patch_embedding_is_a_strided_convolution(patch):
    model = drawn_model(patch=patch)
    expected = jax.lax.conv_general_dilated(
        pictures(), model.embedding.kernel[...], (patch, patch), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(model.embedding(pictures()), expected + model.embedding.bias[...], atol=1e-4)


def test_block_equals_plain_numpy():
    """The encoder against the paper's equations 1 to 4, written out."""
    model = drawn_model(image_size=32)
    p = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.split(model)[1]))

    def norm(x, weights):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * weights["scale"] + weights["bias"]

    x = np.asarray(pictures(32, 32))
    patches = x.reshape(2, 2, 16, 2, 16, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, -1)
    tokens = patches @ p["embedding"]["kernel"].reshape(-1, 32) + p["embedding"]["bias"]
    tokens = np.concatenate([np.broadcast_to(p["cls"], (2, 1, 32)), tokens], axis=1)
    tokens = tokens + np.concatenate([p["position"]["prefix"], p["position"]["grid"].reshape(4, 32)])
    for layer in range(2):
        b = jax.tree.map(lambda leaf, layer=layer: leaf[layer], p["blocks"])
        h = norm(tokens, b["norm1"])
        q, k, v = (
            np.einsum("nti,ihd->nhtd", h, b["attn"][name]["kernel"]) + b["attn"][name]["bias"][:, None]
            for name in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(16))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        tokens = tokens + np.einsum("nhtd,hdo->nto", mixed, b["attn"]["out"]["kernel"]) + b["attn"]["out"]["bias"]
        h = norm(tokens, b["norm2"]) @ b["mlp"]["fc1"]["kernel"] + b["mlp"]["fc1"]["bias"]
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        tokens = tokens + h @ b["mlp"]["fc2"]["kernel"] + b["mlp"]["fc2"]["bias"]
    np.testing.assert_allclose(encode(model, 32, 32), norm(tokens, p["norm"]), atol=2e-5)


def test_a_list_is_a_picture_size_too():
    sizes = TINY | dict(image_size=[16, 32])
    assert vit_jax.create_model("Ti/8", **sizes).image_size == (16, 32)


def test_randomness_needs_a_key():
    model = drawn_model(dropout=0.5, drop_path=0.5)
    features = model.features(pictures())
    assert np.array_equal(features, model.features(pictures()))
    drop = jax.jit(lambda images, key: model.features(images, key=key))
    noisy = [drop(pictures(), jax.random.key(seed)) for seed in (0, 0, 1)]
    assert jnp.array_equal(noisy[0], noisy[1])
    assert not jnp.array_equal(noisy[0], noisy[2])
    assert not jnp.array_equal(noisy[0], features)


def test_drop_path_keeps_the_expectation_and_drops_whole_pictures():
    drops = draw_drops(Model(drop_path=0.5), 3, jnp.zeros(4000), jax.random.key(0))
    assert drops.key is None
    for factors, kept in zip(drops.factors, (1, 0.75, 0.5), strict=True):
        np.testing.assert_allclose(np.unique(factors), np.unique([1 / kept, 0 if kept < 1 else 1]), rtol=1e-6)
        np.testing.assert_allclose(factors.mean(1), (1, 1), atol=0.05)
    # Both branches, and every block, draw anew.
    pattern = np.asarray(drops.factors[1:] > 0).reshape(4, 4000)
    assert np.abs(np.corrcoef(pattern) - np.eye(4)).max() < 0.06
    graph, params = nnx.split(drawn_model(depth=1).blocks)
    block = nnx.merge(graph, jax.tree.map(lambda x: x[0], params))
    tokens = jax.random.normal(jax.random.key(1), (2, 5, 32))
    first, second = block(tokens, Drops(jnp.array([[0.0, 1.0], [0.0, 1.0]])))
    np.testing.assert_array_equal(first, tokens[0])
    np.testing.assert_allclose(second, block(tokens)[1], atol=1e-6)


def test_subset_drops_so_many_of_every_group_and_keeps_the_expectation():
    tokens = jax.random.normal(jax.random.key(0), (64, 2, 3))
    draw = jax.jit(lambda key: residual_of_subset(tokens, lambda kept: 3 * kept, 0.3, key))
    factors = np.stack([(draw(jax.random.key(seed)) / tokens).round(4) for seed in range(100)])
    # 11 of 16 are kept.
    np.testing.assert_allclose(np.unique(factors), [1, 1 + 3 * 16 / 11], atol=1e-3)
    assert np.ptp(factors, axis=(2, 3)).max() == 0
    kept = (factors[:, :, 0, 0] > 1).reshape(100, 4, 16)
    assert (kept.sum(2) == 11).all()
    assert np.abs(kept.mean((0, 1)) - 11 / 16).max() < 0.1
    assert len(np.unique(kept.reshape(400, 16), axis=0)) > 300


@functools.cache
def gradient_of_blocks(**options):
    """Return the compiled gradient of the blocks alone, and its arguments."""
    config = Model(name="Ti/16", width=32, depth=2, num_heads=2, mlp_dim=64, **options)
    model = abstract_model(config=config, num_classes=7, image_size=64, channels=3)
    graph, params = nnx.split(model.blocks)
    draw = np.random.default_rng(0)
    params, tokens = jax.tree.map(
        lambda x: jnp.array(draw.normal(size=x.shape) / 6, jnp.float32), (params, np.empty((16, 5, 32)))
    )

    def loss(params, tokens, key):
        return apply_blocks(nnx.merge(graph, params), tokens, model.config, key)[0].std()

    arguments = params, tokens, jax.random.key(1)
    return jax.jit(jax.grad(loss)).lower(*arguments).compile(), arguments


def test_what_a_subset_drops_costs_no_flops():
    full, part = (
        gradient_of_blocks(drop_path=0.5, **options)[0].cost_analysis()["flops"]
        for options in ({}, {"drop_path_subset": True})
    )
    assert 0.5 < part / full < 0.55


def test_what_is_computed_again_drops_the_same():
    once, again = (
        nnx.to_pure_dict(compiled(*arguments))
        for compiled, arguments in (gradient_of_blocks(drop_path=0.5, **options) for options in ({}, {"remat": "full"}))
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), once, again)


def test_unroll_does_not_change_the_result():
    outputs = [encode(drawn_model(unroll=unroll)) for unroll in (1, 2)]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_has_the_slope_of_the_formula(approximate):
    x = jnp.linspace(-8, 8, 2001)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda x: gelu(x, approximate))))(x)
    with jax.enable_x64(True):
        exact = jax.vmap(jax.value_and_grad(lambda x: nnx.gelu(x, approximate=approximate)))(x.astype(jnp.float64))
    np.testing.assert_allclose(value, exact[0], atol=1e-6)
    np.testing.assert_allclose(slope, exact[1], atol=3e-6)  # Automatic differentiation is off by 3.6e-6.


def test_bfloat16_is_near_float32():
    exact, rounded = (encode(drawn_model(dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == jnp.bfloat16
    assert np.abs(exact - rounded).max() / np.abs(exact).max() < 3e-2


def test_pictures_of_any_shape_and_channels():
    model = drawn_model(image_size=(32, 48), channels=1, representation=7)
    assert logits_of(model, pictures(32, 48, channels=1)).shape == (2, 7)
    assert model.position.grid.shape == (2, 3, 32)


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({"pool": "token"}, 1),
        ({"pool": "gap"}, 0),
        ({"pool": "gap", "class_token": True, "registers": 2}, 3),
        ({"pool": "map", "registers": 2}, 2),
        ({"pool": "token", "pool_norm": "after", "representation": 5, "prefix_position": False}, 1),
        ({"pool": "token", "gelu": "exact", "qk_norm": True, "layer_scale": 0.1}, 1),
    ],
)
def test_every_head_gives_one_vector_a_picture(options, prefix):
    model = drawn_model(**options)
    seen = activations_of(model, pictures(), ("tokens", "logits"))
    tokens, logits = seen["tokens"], seen["logits"]
    assert tokens.shape == (2, prefix + 16, 32)
    assert logits.shape == (2, 7)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_unpooled_gives_logits_of_every_token():
    assert logits_of(drawn_model(pool="none", registers=1), pictures()).shape == (2, 17, 7)


def test_average_pooling_reads_the_patches_alone():
    model = drawn_model(pool="gap", class_token=True, registers=2)
    seen = activations_of(model, pictures(), ("pooled", "tokens"))
    features, tokens = seen["pooled"], seen["tokens"]
    np.testing.assert_allclose(features, tokens[:, 3:].mean(axis=1), atol=1e-6)


def test_layer_scale_of_one_and_prefix_positions_of_zero_change_nothing():
    plain, changed = drawn_model(), drawn_model(layer_scale=1.0, prefix_position=False)
    params = params_of(plain)
    plain.position.prefix = nnx.Param(jnp.zeros((1, 32)))
    values = {name: params.get(name, jnp.ones((2, 32))) for name in params_of(changed)}
    graph, state = nnx.split(changed)
    changed = nnx.merge(graph, tree.map_named(lambda name, _: values[name], nnx.to_pure_dict(state)))
    np.testing.assert_allclose(encode(plain), encode(changed), atol=1e-6)


def test_activations_are_those_of_the_call():
    model = drawn_model(registers=1)
    names = ("embedding", "block/1", "tokens", "pooled", "logits", "stage/0", "attention/0", "attention/1")
    seen = activations_of(model, pictures(), names)
    assert set(seen) == set(names)
    assert seen["embedding"].shape == seen["stage/0"].shape == (2, 4, 4, 32)
    assert seen["block/1"].shape == (2, 18, 32)
    np.testing.assert_allclose(seen["tokens"], model.norm(seen["block/1"]), atol=1e-6)
    np.testing.assert_allclose(seen["stage/0"].reshape(2, 16, 32), seen["tokens"][:, 2:], atol=1e-6)
    np.testing.assert_allclose(seen["pooled"], model.features(pictures()), atol=1e-6)
    np.testing.assert_allclose(seen["logits"], model(pictures()), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"position": "relative", "position_at": "blocks"}, {"position_at": "blocks_shared"}, {"qk_norm": True}],
)
def test_attention_weights_are_those_that_the_block_uses(options):
    """Computing the second block by hand from these weights gives its output tokens."""
    model = drawn_model(**options)
    seen = model.activations(pictures(), "block/0", "block/1", "attention/1")
    weights = seen["attention/1"]
    assert weights.shape == (2, 2, 17, 17)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    graph, state = nnx.split(model.blocks)
    block = nnx.merge(graph, jax.tree.map(lambda x: x[1], state))
    tokens = seen["block/0"]
    if options.get("position_at") == "blocks_shared":
        tokens = tokens + model.position((4, 4))
    value = block.attn.value(block.norm1(tokens))
    tokens = tokens + block.attn.out(jnp.einsum("bhqk,bkhd->bqhd", weights, value))
    tokens = tokens + block.mlp(block.norm2(tokens))
    np.testing.assert_allclose(tokens, seen["block/1"], atol=1e-5)


def test_every_kind_of_model_is_asked_alike():
    hybrid = drawn_model(**TINY | dict(name="custom/8", width=32), resnet=(1, 1), resnet_width=32)
    bit = vit_jax.create_model("BiT-custom", resnet=(1, 1), resnet_width=32, num_classes=7, image_size=64)
    for model, shapes in (
        (hybrid, [(2, 16, 16, 128), (2, 8, 8, 256), (2, 8, 8, 32)]),
        (bit, [(2, 16, 16, 128), (2, 8, 8, 256)]),
    ):
        names = [name for name in model.activation_names() if name.startswith("stage/")]
        seen = activations_of(model, pictures(), ("pooled", "tokens", *names))
        assert [seen[name].shape for name in names] == shapes
        assert seen["tokens"].ndim == 3
        np.testing.assert_allclose(seen["pooled"], model.features(pictures()), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"has no activation 'attention/0'; it has logits, pooled, tokens, stage/I"):
        bit.activations(pictures(), "attention/0")


@pytest.mark.parametrize("name", ["custom/16", "BiT-custom"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 64, 64, 1), np.float32),
            r"pictures of shape \(batch, height, width, 3\), not \(2, 64, 64, 1\)",
        ),
        (np.zeros((2, 3, 64, 64), np.float32), r"the channels come last: transpose \(0, 2, 3, 1\)"),
        (np.zeros((64, 64, 3), np.float32), r"for a single picture, add a batch axis: images\[None\]"),
        (np.zeros((2, 64), np.float32), r"not \(2, 64\)"),
        (np.zeros((2, 64, 64, 3), np.int32), r"takes normalised floats or uint8 pixels, not int32"),
        (np.zeros((2, 64, 64, 3), bool), r"not bool"),
    ],
)
def test_pictures_that_are_none_are_refused_while_tracing(name, images, message):
    sizes = (
        dict(width=32, depth=1, num_heads=2, mlp_dim=48) if name == "custom/16" else dict(resnet=(1,), resnet_width=32)
    )
    model = vit_jax.create_model(name, num_classes=7, image_size=64, **sizes)
    for call in (model, lambda images: model.activations(images, "pooled")):
        with pytest.raises(InputError, match=message) as caught:
            jax.eval_shape(call, jax.ShapeDtypeStruct(images.shape, images.dtype))
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=message):
            call(images)


def test_pixels_are_normalised():
    model, pixels = drawn_model(), np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(model(pixels), model(pixels.astype(np.float32) * (2 / 255) - 1), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vit_jax.create_model("X/16"), r"model 'X/16' is unknown.*SIZE/PATCH"),
        (lambda: vit_jax.create_model("B-16"), r"did you mean 'B/16'"),
        (lambda: vit_jax.create_model("S/16", unroll=-1), r"model.unroll=-1: must be int at least 1 or none"),
        (lambda: vit_jax.create_model("S/16", image_size=30), r"30x30 is not divisible by the patch size 16"),
        (lambda: vit_jax.create_model("S/16", num_heads=7), r"num_heads=7 does not divide model.width=384"),
        (lambda: vit_jax.create_model("S/16", widht=7), r"no option 'widht'; did you mean 'width'"),
        (lambda: vit_jax.create_model("R50+S/8"), r"R50 has no stages for patch 8; set model.resnet="),
        (lambda: vit_jax.create_model("R26+S/32", patch=16, resnet=(2, 2, 2, 2)), r"16 is not divisible by 32"),
        (
            lambda: vit_jax.create_model("S/16", resnet=(2, 0)),
            r"model.resnet=\(2, 0\): must be tuple of int at least 1 or none",
        ),
        (
            lambda: vit_jax.create_model("S/16", resnet=(), resnet_width=48),
            r"resnet_width=48: must be a multiple of 32",
        ),
        (lambda: vit_jax.create_model("custom/16", width=32), r"model.depth must be set for 'custom/16'"),
        (lambda: vit_jax.create_model("BiT-R50x1", pool="gap"), r"model.pool: means nothing for 'BiT-R50x1'"),
        (lambda: vit_jax.create_model("BiT-R51x1"), r"did you mean 'BiT-R50x1'"),
        (lambda: vit_jax.create_model("BiT-custom"), r"model.resnet and model.resnet_width must be set"),
        (lambda: vit_jax.create_model("S/16", class_token=False), r"model.pool='token' reads the class token"),
        (lambda: drawn_model()(pictures(64, 70)), r"64x70 is not divisible by the patch size 16"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_pixels_are_normalised_as_the_config_says():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    model = vit_jax.create_model("nano/4", num_classes=3, image_size=32, depth=1, mean=mean, std=std)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    normalised = ((pixels / 255 - mean) / std).astype(np.float32)
    np.testing.assert_allclose(as_input(pixels, 3, model.config), normalised, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.features(pixels), model.features(normalised), rtol=1e-4, atol=1e-5)


def test_a_mean_for_other_channels_is_refused():
    model = vit_jax.create_model("nano/4", image_size=32, mean=(0.1, 0.2))
    with pytest.raises(InputError, match=r"model.mean=\(0.1, 0.2\): must be one number, or one for each of 3 channels"):
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8))
