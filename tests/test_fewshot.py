"""Classifiers on a few pictures of each class: by definition, and on pictures through a model."""

import numpy as np
import pytest

from tests.drawn import TINY, drawn_model
from tests.test_data import write_folder
from vit_jax.config import Data, Evaluation
from vit_jax.errors import InputError
from vit_jax.evaluators import evaluate_model
from vit_jax.evaluators.fewshot import draw
from vit_jax.evaluators.least_squares import fit_least_squares
from vit_jax.evaluators.linear import hold_out

DIGITS = Data(name="digits")
NAMES = [str(digit) for digit in range(10)]


def clusters(per_class, num_classes, dim, spread=2.0):
    """Return features around a centre of each class, of unequal scales, one of them constant."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), per_class)
    features = rng.standard_normal((num_classes, dim))[labels] + spread * rng.standard_normal((len(labels), dim))
    features = features * np.geomspace(0.01, 10, dim) + np.linspace(-5, 5, dim)
    features[:, 0] = 3.0
    return features.astype(np.float32), labels


def evaluate(evaluation, *, data=DIGITS, names=NAMES):
    model = drawn_model(num_classes=len(names), image_size=8, channels=1, **TINY | {"name": "custom/8"})
    return evaluate_model(model, names, data, evaluators={"few": evaluation})


# More pictures than features, fewer, and as many.
@pytest.mark.parametrize(("per_class", "dim"), [(20, 12), (3, 64), (4, 19)])
def test_least_squares_is_the_float64_solution_of_the_standardised_problem(per_class, dim):
    features, labels = clusters(per_class, 5, dim)
    found = fit_least_squares(features, labels, 5, l2=(1024.0,)).head
    wide = features.astype(np.float64)
    inputs = (wide - wide.mean(0)) / (wide.std(0) + 1e-5)
    inputs = np.concatenate([inputs, np.full((len(inputs), 1), 100.0)], axis=1)
    targets = 2 * np.eye(5)[labels] - 1
    # The normal equations as one problem of least squares, by another algorithm.
    stacked = np.concatenate([inputs, np.sqrt(1024.0) * np.eye(dim + 1)])
    expected = np.linalg.lstsq(stacked, np.concatenate([targets, np.zeros((dim + 1, 5))]), rcond=None)[0]
    np.testing.assert_allclose(found.weights, expected[:-1], rtol=1e-5, atol=1e-5 * abs(expected).max())
    np.testing.assert_allclose(found.intercept, 100 * expected[-1], rtol=1e-5)
    np.testing.assert_array_equal(found.predict(features), (inputs @ expected).argmax(axis=1))


def test_a_held_out_part_chooses_the_penalty():
    features, labels = clusters(30, 4, 50, spread=4.0)
    grid = (1e-3, 1e3, 1e9)
    fitted = fit_least_squares(features, labels, 4, l2=grid, seed=3)
    held_out = hold_out(labels, 3)
    assert held_out.sum() == 12
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64) + 1e-5
    inputs = np.pad((features - mean) / deviation, ((0, 0), (0, 1)), constant_values=100.0)
    kept, targets = inputs[~held_out], (2 * np.eye(4)[labels] - 1)[~held_out]
    for row, l2 in zip(fitted.sweep, grid, strict=True):
        weights = np.linalg.solve(kept.T @ kept + l2 * np.eye(51), kept.T @ targets)
        right = (inputs[held_out] @ weights).argmax(axis=1) == labels[held_out]
        assert (row["l2"], row["accuracy"]) == (l2, pytest.approx(right.mean()))
    best = max(row["accuracy"] for row in fitted.sweep)
    assert min(row["accuracy"] for row in fitted.sweep) < best
    assert fitted.facts["l2"] in [row["l2"] for row in fitted.sweep if row["accuracy"] == best]
    again = fit_least_squares(features, labels, 4, l2=(fitted.facts["l2"],))
    np.testing.assert_allclose(fitted.head.weights, again.head.weights)


def test_every_class_keeps_a_picture():
    labels = np.array([0] * 50 + [1, 2, 2])
    for seed in range(20):
        held_out = hold_out(labels, seed)
        assert held_out.sum() == 5
        assert set(labels[~held_out]) == {0, 1, 2}
    assert not hold_out(np.arange(40), 0).any()


def test_shots_are_drawn_class_by_class():
    labels = np.array([0, 1, 2] * 7)
    rng = np.random.default_rng(5)
    expected = [rng.permutation(np.flatnonzero(labels == label))[:4] for label in range(3)]
    np.testing.assert_array_equal(draw(labels, 3, 4, 5), expected)
    assert (draw(labels, 3, 4, 5) != draw(labels, 3, 4, 6)).any()


@pytest.mark.parametrize("head", ["least_squares", "logistic"])
def test_digits_are_told_from_a_few(head):
    found = evaluate(Evaluation("fewshot", head=head, shots=(1, 10), seeds=(0, 1), features="block/0:gap"))
    table = found.tables["few/fits"]
    assert [(row["shots"], row["seed"]) for row in table] == [(1, 0), (1, 1), (10, 0), (10, 1)]
    for k in (1, 10):
        accuracies = [row["accuracy"] for row in table if row["shots"] == k]
        assert found.scalars[f"few/accuracy_{k}shot"] == pytest.approx(np.mean(accuracies))
        assert found.scalars[f"few/std_{k}shot"] == pytest.approx(np.std(accuracies))
    # Of a random projection; by chance it would be 0.1.
    assert 0.3 < found.scalars["few/accuracy_1shot"] < found.scalars["few/accuracy_10shot"]
    assert found.scalars["few/count"] == 360
    # With one picture of each class, nothing can be held out to choose C.
    alone = [row["l2" if head == "least_squares" else "C"] for row in table if row["shots"] == 1]
    assert alone == ([1024.0] * 2 if head == "least_squares" else [1.0] * 2)


def test_classes_need_not_be_the_models_and_bad_pictures_are_left_out(tmp_path):
    folder = write_folder(tmp_path / "pets", per_class=12)
    (folder / "train" / "cat" / "0.PNG").write_bytes(b"nothing")
    data = Data(name="folder", path=str(folder), max_bad=0.2)
    evaluation = Evaluation("fewshot", shots=(1, 12), seeds=(0,))
    found = evaluate(evaluation, data=data, names=["a", "b", "c"])
    assert set(found.scalars) == {f"few/{name}_{k}shot" for name in ("accuracy", "std") for k in (1, 12)} | {
        "few/count"
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(shots=(1, 200)), r"split 'train' has fewer than 200 pictures of 10 of 10 classes, such as 142 of '0'"),
        (dict(shots=(1, 200)), r"set shots=\(1,\)$"),
        (dict(shots=()), r"shots=\(\): name at least one"),
        (dict(train="trian"), r"source 'digits' has no split 'trian'"),
    ],
)
def test_what_can_not_start_says_so(keys, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluate(Evaluation("fewshot", **keys))
    assert "\n" not in str(caught.value)
