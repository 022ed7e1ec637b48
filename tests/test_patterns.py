"""Every attention pattern equals full attention with a mask, forward and backward."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests.drawn import drawn_model, params_of
from tests.tiny import CONFIG, MODEL, run_steps
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape
from vit_jax.errors import InputError
from vit_jax.models import create_model
from vit_jax.models.patterns import parse_pattern, seen_by
from vit_jax.models.tiles import by_pattern

# Pattern, rows and columns of patches, tokens before them, number of the block.
CASES = [
    ("axial", (5, 7), 2, 0),
    ("axial", (5, 7), 1, 1),
    ("axial:both", (5, 7), 1, 0),
    ("local:2", (9, 6), 1, 0),
    ("local:9", (4, 11), 0, 0),
    ("blocks:4", (5, 7), 2, 1),
    ("blocks:2", (4, 4), 0, 0),
    ("strided:4", (5, 7), 1, 0),
    ("fixed:9", (5, 7), 3, 0),
]
HEADS = 2


def attends(text, grid, block, one, other):
    """Whether patch `one` attends to `other`, by the words of the issue and the papers."""
    kind, _, number = text.partition(":")
    (row, column), (other_row, other_column) = divmod(one, grid[1]), divmod(other, grid[1])
    if kind == "axial":
        if number == "both":
            return row == other_row or column == other_column
        return row == other_row if block % 2 == 0 else column == other_column
    number = int(number)
    if kind == "local":
        return abs(row - other_row) <= number and abs(column - other_column) <= number
    if kind == "blocks":
        start = number // 2 if block % 2 else 0
        return all(
            (one - start) // number == (two - start) // number
            for one, two in ((row, other_row), (column, other_column))
        )
    if kind == "strided":
        return abs(one - other) < number or (one - other) % number == 0
    return one // number == other // number or other % number == number - 1


def mask_of(text, grid, prefix, block):
    tokens = prefix + grid[0] * grid[1]
    pairs = itertools.product(range(tokens), repeat=2)
    seen = [min(i, j) < prefix or attends(text, grid, block, i - prefix, j - prefix) for i, j in pairs]
    return np.reshape(seen, (tokens, tokens))


def dense(query, key, value, table, mask, grid, prefix):
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    row, column = (axis.reshape(-1) for axis in np.mgrid[: grid[0], : grid[1]])
    bias = table[row[:, None] - row + grid[0] - 1, column[:, None] - column + grid[1] - 1]
    scores = scores.at[:, :, prefix:, prefix:].add(jnp.moveaxis(bias, -1, 0))
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(mask, scores, -jnp.inf)), value)


@pytest.mark.parametrize(("text", "grid", "prefix", "block"), CASES)
def test_it_is_masked_attention_forward_and_backward(text, grid, prefix, block):
    pattern, tokens = parse_pattern(text), prefix + grid[0] * grid[1]
    *keys, key = jax.random.split(jax.random.key(tokens), 5)
    *inputs, weights = (jax.random.normal(key, (2, tokens, HEADS, 4)) for key in keys)
    table = jax.random.normal(key, (2 * grid[0] - 1, 2 * grid[1] - 1, HEADS))
    mask = mask_of(text, grid, prefix, block)
    np.testing.assert_array_equal(seen_by(pattern, grid, prefix, block), mask)

    @jax.jit
    def both(weights, *inputs):
        found, ours = [], functools.partial(by_pattern, pattern=pattern, grid=grid, prefix=prefix, block=block)
        for attend in (ours, functools.partial(dense, mask=mask, grid=grid, prefix=prefix)):
            out, back = jax.vjp(attend, *inputs)
            found.append((out, *back(weights)))
        return found

    for ours, right in zip(*both(weights, *inputs, table), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize(("text", "position"), [("axial", "relative"), ("local:1", "learned")])
def test_a_model_has_the_parameters_of_full_attention_and_follows_the_picture(text, position):
    facts = dict(num_classes=3, image_size=(16, 24), depth=2, width=16, num_heads=2, mlp_dim=16, position=position)
    full, model = (create_model("custom/4", **facts, registers=1, attention_pattern=each) for each in ("full", text))
    graph, params = nnx.split(model)
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(params)) == jax.tree.map(
        jnp.shape, nnx.to_pure_dict(nnx.split(full)[1])
    )
    images = jax.random.normal(jax.random.key(0), (1, 16, 24, 3))

    @jax.jit
    def blocks(images):
        found = nnx.merge(graph, params).activations(images, "block/1", "attention/1")
        moved = nnx.merge(graph, params).activations(images.at[:, -1, -1].add(9), "block/0", "attention/0")
        return found, moved, nnx.merge(graph, params).activations(images, "block/0", "attention/0")

    found, moved, first = blocks(images)
    rows = found["attention/1"]
    np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(rows[0, 0] > 0, seen_by(parse_pattern(text), (4, 6), 2, 1))
    # Patch (0, 0) does not attend to the last one, which changed, in the first block.
    np.testing.assert_allclose(moved["block/0"][0, 2], first["block/0"][0, 2], rtol=1e-5, atol=1e-6)
    assert np.abs(moved["block/0"][0, -1] - first["block/0"][0, -1]).max() > 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local:0", "numbers at least 1"),
        ("local", "local:RADIUS"),
        ("axal", "axial"),
        ("blocks:5", "the window doesn't fit 4x4 patches"),
        ("fixed:17", "there are only 16 patches"),
    ],
)
def test_what_fits_nothing_is_refused(text, message):
    with pytest.raises(InputError, match=message) as error:
        create_model("Ti/4", image_size=16, attention_pattern=text)
    assert "attention_pattern" in str(error.value)


@pytest.mark.parametrize("text", ["axial", "local:1"])
def test_losses_are_equal_on_eight_devices(text):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, attention_pattern=text, position="relative"))
    alone, _ = run_steps(config, make_mesh(MeshShape(), jax.devices()[:1]), 3)
    np.testing.assert_allclose(run_steps(config, make_mesh(MeshShape(2, 2, 2)), 3)[0], alone, rtol=1e-5)


def test_weights_of_full_attention_load_into_a_pattern_and_not_unnoticed_back(tmp_path):
    full = drawn_model()
    vit_jax.save(full, tmp_path / "full.safetensors")
    model = vit_jax.load(tmp_path / "full.safetensors", attention_pattern="axial")
    assert model.config.attention_pattern == "axial"
    for name, array in params_of(full).items():
        np.testing.assert_array_equal(params_of(model)[name], array)
    with pytest.raises(InputError, match="can't hold attention to some of the patches .*attention_pattern='full'"):
        vit_jax.save(model, tmp_path / "axial.safetensors")
