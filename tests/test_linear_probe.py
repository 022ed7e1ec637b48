"""Logistic regression: the optimum of scikit-learn's objective, a sweep, and a probe of a model."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from tests.test_fewshot import clusters, evaluate
from vit_jax.config import Evaluation
from vit_jax.evaluators import logistic
from vit_jax.evaluators.linear import hold_out
from vit_jax.evaluators.logistic import GRID, TOLERANCE, fit_logistic


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut pictures into several blocks, the last one not full."""
    monkeypatch.setattr(logistic, "NUMBERS", 30 * 60)


def standardised(features):
    wide = features.astype(np.float64)
    return (wide - wide.mean(0)) / (wide.std(0) + 1e-5)


def objective(inputs, labels, weights, intercept, c):
    logits = inputs @ weights + intercept
    losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return c * losses.sum() + np.square(weights).sum() / 2


@pytest.mark.usefixtures("small_blocks")
# More pictures than features and fewer; separable or not; from all penalty to hardly any.
@pytest.mark.parametrize("c", [1e-6, 1e-3, 1.0, 1e5])
@pytest.mark.parametrize(("per_class", "dim", "spread"), [(40, 12, 3.0), (5, 60, 1.0)])
def test_the_objective_is_scikit_learns(per_class, dim, spread, c):
    features, labels = clusters(per_class, 7, dim, spread)
    labels[: per_class // 2] = 1
    fitted = fit_logistic(features, labels, 7, grid=(c,))
    inputs = standardised(features)
    peer = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(inputs, labels)
    expected = objective(inputs, labels, peer.coef_.T, peer.intercept_, c)
    found = objective(inputs, labels, fitted.head.weights, fitted.head.intercept, c)
    assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(fitted.head.predict(features), peer.predict(inputs))


def test_two_classes_are_scikit_learns_with_twice_the_c():
    features, labels = clusters(40, 2, 12, 4.0)
    fitted = fit_logistic(features, labels, 2, grid=(0.01,))
    peer = LogisticRegression(C=0.02, tol=1e-10).fit(standardised(features), labels)
    vector = fitted.head.weights[:, 1] - fitted.head.weights[:, 0]
    assert np.linalg.norm(vector - peer.coef_[0]) <= np.sqrt(2) * TOLERANCE * np.linalg.norm(fitted.head.weights)


@pytest.mark.usefixtures("small_blocks")
def test_float32_where_float64_would_be_too_large(monkeypatch):
    features, labels = clusters(40, 7, 12, 3.0)
    wide = fit_logistic(features, labels, 7, grid=(1.0,)).head
    monkeypatch.setattr(logistic, "FLOAT64_BYTES", 0)
    narrow = fit_logistic(features, labels, 7, grid=(1.0,)).head
    inputs = standardised(features)
    values = [objective(inputs, labels, head.weights, head.intercept, 1.0) for head in (wide, narrow)]
    assert values[0] != values[1]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert not jax.config.jax_enable_x64


@pytest.mark.usefixtures("small_blocks")
def test_the_held_out_tenth_chooses_c():
    assert len(GRID) == 45
    assert (GRID[0], GRID[-1]) == (pytest.approx(1e-6), pytest.approx(1e5))
    features, labels = clusters(30, 7, 60, 3.0)
    watched = []

    def watch(grid):
        for c in grid:
            watched.append(c)
            yield c

    fitted = fit_logistic(features, labels, 7, grid=GRID[::8], seed=4, watch=watch)
    assert watched == [row["C"] for row in fitted.sweep] == list(GRID[::8])
    held_out, inputs = hold_out(labels, 4), standardised(features)
    for row in fitted.sweep:
        peer = LogisticRegression(C=row["C"], tol=1e-10, max_iter=100_000).fit(inputs[~held_out], labels[~held_out])
        losses = -peer.predict_log_proba(inputs[held_out])[np.arange(held_out.sum()), labels[held_out]]
        assert row["loss"] == pytest.approx(losses.mean(), rel=0.05)
    best = max(fitted.sweep, key=lambda row: (row["accuracy"], -row["loss"]))
    assert fitted.facts["C"] == best["C"] not in (GRID[0], GRID[-1])
    again = fit_logistic(features, labels, 7, grid=(best["C"],)).head
    assert np.linalg.norm(fitted.head.weights - again.weights) <= 2 * TOLERANCE * np.linalg.norm(again.weights)


def test_digits_by_a_probe():
    found = evaluate(Evaluation("linear_probe", features="tokens:gap"))
    assert set(found.scalars) == {"few/accuracy", "few/C", "few/count"}
    assert found.scalars["few/accuracy"] > 0.85
    assert found.scalars["few/C"] in GRID == tuple(row["C"] for row in found.tables["few/sweep"])
