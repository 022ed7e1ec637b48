"""Position embeddings: each kind in each place and at other sizes, and the meaning of its table."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.drawn import drawn_model, encode

POSITIONS = ["learned", "learned2d", "relative", "sincos2d", "none"]


@pytest.mark.parametrize("position_at", ["stem", "blocks", "blocks_shared"])
@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_runs_at_every_place_and_size(position, position_at):
    model = drawn_model(position=position, position_at=position_at, registers=2, dtype="bfloat16")
    tokens = encode(model, 64, 96)
    assert tokens.shape == (2, 3 + 4 * 6, 32)
    assert np.isfinite(tokens.astype(np.float32)).all()
    resized = drawn_model(position=position, position_at=position_at, registers=2, dtype="bfloat16")
    resized.resize((64, 96))
    assert resized.image_size == (64, 96)
    if position != "none":
        np.testing.assert_allclose(resized.position((4, 6)), model.position((4, 6)), atol=1e-6)


def test_learned_2d_positions_are_halves_of_row_and_column():
    position = drawn_model(position="learned2d", image_size=(32, 48)).position
    table = np.asarray(position((2, 3)))[1:].reshape(2, 3, 32)
    for row in range(2):
        for column in range(3):
            wanted = np.concatenate([position.rows[row], position.columns[column]])
            assert np.array_equal(table[row, column], wanted)


def test_relative_bias_is_by_offset_and_spares_prefix_tokens():
    position = drawn_model(position="relative", image_size=(32, 48), registers=1).position
    bias, table = np.asarray(position((2, 3))), np.asarray(position.bias)
    assert bias.shape == (2, 8, 8)
    assert not bias[:, :2].any()
    assert not bias[:, :, :2].any()
    for query in range(6):
        for key in range(6):
            row, column = query // 3 - key // 3, query % 3 - key % 3
            assert np.array_equal(bias[:, 2 + query, 2 + key], table[row + 1, column + 2])


def test_positions_at_blocks_and_shared_agree_where_their_tables_do():
    own, shared, stem = (drawn_model(position_at=at) for at in ("blocks", "blocks_shared", "stem"))
    for name in ("grid", "prefix"):
        table = getattr(own.position, name)[...][0]
        setattr(own.position, name, nnx.Param(jnp.stack([table, table])))
        for other in (shared, stem):
            setattr(other.position, name, nnx.Param(table))
    for other in (shared, stem):
        nnx.update(other.blocks, nnx.state(own.blocks))
        for part in ("embedding", "norm"):
            nnx.update(getattr(other, part), nnx.state(getattr(own, part)))
        other.cls = own.cls
    np.testing.assert_allclose(encode(own), encode(shared), atol=1e-6)
    assert np.abs(encode(own) - encode(stem)).max() > 1e-2
