"""AutoAugment: the table, and what the policies do to pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import autoaugment as aa
from vit_jax.data.randaugment import OPERATIONS, apply
from vit_jax.pixels import normalise

PICTURE = normalise(jnp.arange(12 * 10 * 3, dtype=jnp.uint8).reshape(12, 10, 3)[None] % 200)[0]


def test_the_table_is_the_papers():
    table = np.array(aa.TABLE)
    assert table.shape == (25, 2, 3)
    names = [{OPERATIONS[int(operation)] for operation, *_ in policy} for policy in table]
    # The policies of the paper's table 7 have no shear along x; inverting is the solarizing of level 1.
    assert set.union(*names) == set(OPERATIONS) - {"identity", "shear_x"}
    assert (table[..., 1] * 10).sum() == pytest.approx(265)
    assert table[..., 2].max() == 1.5
    assert (table[..., 2] == 1.5).sum() == 5


@pytest.mark.parametrize("number", [0, 1, 20])
def test_each_policy_gives_its_four_outcomes_as_often_as_it_says(monkeypatch, number):
    (first, p, a), (second, q, b) = aa.TABLE[number]
    monkeypatch.setattr(aa, "TABLE", (aa.TABLE[number],))
    copies = 400
    augmented = np.asarray(aa.autoaugment(jax.random.key(number), jnp.stack([PICTURE] * copies)))
    counts = np.zeros(4)
    for i, (does_first, does_second) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        expected = []
        for sign in (-1, 1):
            for other in (-1, 1):
                image = apply(PICTURE, jnp.array(int(first)), jnp.array(sign * a)) if does_first else PICTURE
                expected.append(apply(image, jnp.array(int(second)), jnp.array(other * b)) if does_second else image)
        near = [np.abs(augmented - np.asarray(e)).max(axis=(1, 2, 3)) < 1e-4 for e in expected]
        counts[i] = np.any(near, axis=0).mean()
    assert np.any(counts > 0)
    # Where an operation changes nothing here, outcomes coincide.
    chances = np.array([(1 - p) * (1 - q), p * (1 - q), (1 - p) * q, p * q])
    assert (counts > chances - 0.1).all()
    assert counts.sum() > 0.999


def test_pictures_of_a_batch_get_different_policies_and_the_same_key_the_same():
    images = jnp.stack([PICTURE] * 64)
    augmented, again = (aa.autoaugment(jax.random.key(0), images) for _ in range(2))
    assert len(np.unique(np.asarray(augmented).round(4), axis=0)) > 20
    np.testing.assert_array_equal(augmented, again)
    assert float(jnp.abs(augmented).max()) <= 1
