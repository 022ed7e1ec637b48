"""Classification equals scikit-learn's definitions, on padded batches over eight devices and in several processes."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from tests.drawn import drawn_model
from tests.hosts_evaluation import BATCH, CLASSES, drawn
from tests.runs import free_port
from tests.test_data import write_folder
from vit_jax import data
from vit_jax.config import Config, Data
from vit_jax.evaluators import evaluate_model
from vit_jax.evaluators.calibration import calibration_error, reliability
from vit_jax.evaluators.classification import place_of
from vit_jax.evaluators.confusion import worst_confusions
from vit_jax.evaluators.interval import RESAMPLES, bootstrap_interval

DIGITS = tuple("0123456789")
NAMES = [f"class {i}" for i in range(150)]


@pytest.fixture(scope="module")
def model():
    return drawn_model(
        num_classes=10, image_size=8, channels=1, name="custom/2", width=32, depth=2, num_heads=2, mlp_dim=64
    )


@pytest.fixture(scope="module")
def digits(model):
    """The pictures of digits that are evaluated, 360 of them, and what the model makes of them."""
    source = data.open_split(Config(image_size=8, channels=1, data=Data(name="digits")), "test")
    return source.labels, np.asarray(model(jnp.asarray(source.images)), np.float64)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_metrics_are_what_scikit_learn_computes(model, digits, loss):
    labels, logits = digits
    # 360 pictures are five whole batches and a sixth of one.
    results = evaluate_model(model, DIGITS, Data(name="digits"), batch=70, loss=loss)
    found = {name.removeprefix("val/"): value for name, value in results.scalars.items()}
    predicted = logits.argmax(1)
    assert found["count"] == 360
    assert found["accuracy"] == accuracy_score(labels, predicted)
    assert found["top5"] == top_k_accuracy_score(labels, logits, k=5)
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    if loss == "softmax":
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        expected = log_loss(labels, probabilities, labels=range(10))
    else:
        probabilities = 1 / (1 + np.exp(-logits))
        # The sum over the classes of the loss of each against the rest.
        expected = sum(log_loss(labels == i, probabilities[:, i], labels=[0, 1]) for i in range(10))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["ece"] == pytest.approx(plain_calibration_error(probabilities.max(1), labels == predicted), abs=1e-6)
    matrix = confusion_matrix(labels, predicted, labels=range(10))
    assert results.tables["val/confusion"] == matrix.tolist()
    for i, row in enumerate(results.tables["val/classes"]):
        assert row == {"label": DIGITS[i], "pictures": matrix[i].sum(), "accuracy": matrix[i, i] / matrix[i].sum()}
    assert sum(row["pictures"] for row in results.tables["val/reliability"]) == 360


def plain_calibration_error(confidence, right, bins=15):
    """Return Guo et al., 2017, equation 3, picture by picture."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, p in enumerate(confidence) if (m - 1) / bins < p <= m / bins or (m == 1 and p == 0)]
        if inside:
            accuracy = sum(bool(right[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    return total


def test_calibration_follows_the_written_definition_on_the_edges_of_bins():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([np.arange(16) / 15, rng.random(500)])
    right = rng.random(len(confidence)) < confidence**2
    bins = reliability(confidence, right)
    assert [row["pictures"] for row in reliability(np.arange(16) / 15, right[:16])] == [2] + [1] * 14
    assert calibration_error(bins) == pytest.approx(plain_calibration_error(confidence, right), abs=1e-12)
    # An empty bin has no accuracy.
    assert reliability(np.array([0.99]), np.array([True]))[0]["accuracy"] is None


def test_equal_outputs_rank_by_number_and_nan_is_never_right():
    outputs = jnp.array([[1.0, 1.0, 1.0, 2.0], [0.0, 3.0, 1.0, 2.0], [np.nan] * 4, [np.nan, 5.0, 0.0, 0.0]])
    assert place_of(outputs, jnp.array([1, 0, 0, 1])).tolist() == [2, 3, 4, 1]
    random = jax.random.randint(jax.random.key(0), (100, 6), 0, 4).astype(jnp.float32)
    labels = jnp.arange(100) % 6
    ranked = jax.lax.top_k(random, 6)[1]
    assert place_of(random, labels).tolist() == (ranked == labels[:, None]).argmax(1).tolist()


def test_the_interval_is_that_of_resampled_pictures():
    number, right = 400, 340
    low, high = bootstrap_interval(right, number)
    assert (low, high) == bootstrap_interval(right, number)
    for found, probability in ((low, 0.025), (high, 0.975)):
        assert abs(found - binom.ppf(probability, number, right / number) / number) <= 1 / number
    pictures = np.arange(number) < right
    rng = np.random.default_rng(1)
    means = [rng.choice(pictures, number).mean() for _ in range(RESAMPLES // 5)]
    np.testing.assert_allclose((low, high), np.quantile(means, [0.025, 0.975]), atol=2 / number)
    assert bootstrap_interval(10, 10) == (1.0, 1.0)


def test_many_classes_have_their_worst_confusions():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 150, (2, 20_000)).astype(np.int32)
    matrix = confusion_matrix(label, predicted, labels=range(150))
    np.fill_diagonal(matrix, 0)
    rows = worst_confusions(label, predicted, tuple(NAMES))
    assert [row["pictures"] for row in rows] == sorted(matrix[matrix > 0].tolist(), reverse=True)[:1000]
    for row in rows:
        assert matrix[NAMES.index(row["label"]), NAMES.index(row["predicted"])] == row["pictures"]
    assert worst_confusions(label, label, tuple(NAMES)) == []


@pytest.mark.parametrize("number", [2, 40, 150])
def test_figures_take_any_number_of_classes_and_any_label(number, tmp_path):
    labels = ["cat", "dog", *(f"a long $label_{i}$ with two\nlines 猫" for i in range(number - 2))]
    model = drawn_model(num_classes=number, image_size=16)
    results = evaluate_model(model, labels, Data(name="folder", path=str(write_folder(tmp_path))))
    assert results.figures["val/confusion"]().startswith(b"\x89PNG")
    assert ("val/confusion" in results.tables) == (number <= 100)
    assert len(results.tables["val/classes"]) == number
    assert ("val/top5" in results.scalars) == (number > 5)


def test_one_process_that_cannot_read_fails_the_evaluation_in_both_and_the_next_one_succeeds(tmp_path):
    """Process 1 loses its pictures; without an agreement, process 0 would wait for it forever."""
    write_folder(tmp_path / "pictures", per_class=10)
    environment = os.environ | {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    environment["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hosts_evaluation", str(tmp_path / "pictures"), str(tmp_path)],
            env=environment | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    warnings = [[line for line in out.splitlines() if "warning" in line] for out, _ in outputs]
    start = "warning: evaluation 'val' at step 2 failed (process 1: 4 of 20 pictures are bad"
    assert warnings[0][0].startswith(start)
    assert warnings[0][0].endswith("; training goes on")
    assert (len(warnings[0]), warnings[1]) == (1, [])
    found = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2)]
    assert found[0]["attempts"] == found[1]["attempts"]
    first, second, third = found[0]["attempts"]
    assert first == third
    assert second == {}
    assert found[0]["refused"].startswith("4 of 20 pictures are bad")
    pictures = Data(name="folder", path=str(tmp_path / "pictures"))
    alone = evaluate_model(drawn(), CLASSES, pictures, batch=BATCH).scalars
    assert first == pytest.approx(alone, rel=1e-5)
