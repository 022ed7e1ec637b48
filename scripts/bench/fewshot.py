"""Seconds and memory of the heads of few-shot evaluation, beside scikit-learn's classifiers on the same features.

python scripts/benchmark.py fewshot [--classes=1000 --shots=10 --test=50000 --dim=768] [--sweep]

Each contender standardises the features, fits and predicts in a process of its own, alone. Compilation is part of the
seconds. "objective" is what a logistic regression minimises, at what it found; with --sweep, ours also tries all 45
values of C, which scikit-learn does not take part in.
"""

import functools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench.report import describe_machine, write_report

from vit_jax.errors import Parser

Arrays = dict[str, np.ndarray]
L2 = 1024.0


def write_features(folder: str, classes: int, shots: int, test: int, dim: int) -> None:
    """Write correlated features around a centre of each class, to fit and to test."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((dim, dim), np.float32) * (np.arange(1, dim + 1, dtype=np.float32) ** -0.5)[:, None]
    centres = rng.standard_normal((classes, dim), np.float32)
    labels = {"labels": np.repeat(np.arange(classes), shots), "test_labels": np.arange(test) % classes}

    def features(labels: np.ndarray) -> np.ndarray:
        return (centres[labels] + 3 * rng.standard_normal((len(labels), dim), np.float32)) @ mix

    arrays = labels | {"features": features(labels["labels"]), "test": features(labels["test_labels"])}
    for name, array in arrays.items():
        np.save(f"{folder}/{name}.npy", array)


def least_squares(arrays: Arrays, c: float) -> dict[str, Any]:
    """Ours, in closed form."""
    from vit_jax.evaluators.least_squares import fit_least_squares

    head = fit_least_squares(arrays["features"], arrays["labels"], _classes(arrays), l2=(L2,)).head
    return {"accuracy": head.accuracy(arrays["test"], arrays["test_labels"])}


def ridge(arrays: Arrays, c: float) -> dict[str, Any]:
    """The same problem by scikit-learn."""
    from sklearn.linear_model import Ridge

    inputs, test = (np.pad(x, ((0, 0), (0, 1)), constant_values=100.0) for x in _standardised(arrays))
    targets = np.where(arrays["labels"][:, None] == np.arange(_classes(arrays)), 1.0, -1.0)
    head = Ridge(L2, fit_intercept=False).fit(inputs, targets)
    return {"accuracy": float((head.predict(test).argmax(axis=1) == arrays["test_labels"]).mean())}


def logistic(arrays: Arrays, c: float) -> dict[str, Any]:
    """Ours at one C."""
    return _logistic(arrays, (c,))


def sweep(arrays: Arrays, c: float) -> dict[str, Any]:
    """Ours over the whole grid."""
    from vit_jax.evaluators.logistic import GRID

    return _logistic(arrays, GRID)


def _logistic(arrays: Arrays, grid: tuple[float, ...]) -> dict[str, Any]:
    from vit_jax.evaluators.logistic import fit_logistic

    fitted = fit_logistic(arrays["features"], arrays["labels"], _classes(arrays), grid)
    accuracy = fitted.head.accuracy(arrays["test"], arrays["test_labels"])
    return {"accuracy": accuracy, "C": fitted.facts["C"], "head": (fitted.head.weights, fitted.head.intercept)}


def logistic_regression(arrays: Arrays, c: float, tol: float = 1e-4) -> dict[str, Any]:
    """The same problem by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    inputs, test = _standardised(arrays)
    head = LogisticRegression(C=c, tol=tol, max_iter=1000).fit(inputs, arrays["labels"])
    accuracy = float((head.predict(test) == arrays["test_labels"]).mean())
    return {"accuracy": accuracy, "C": c, "head": (head.coef_.T, head.intercept_)}


CONTENDERS: dict[str, Callable[[Arrays, float], dict[str, Any]]] = {
    "least_squares": least_squares,
    "scikit-learn Ridge": ridge,
    "logistic": logistic,
    "scikit-learn LogisticRegression": logistic_regression,
    "scikit-learn LogisticRegression, tol=1e-6": functools.partial(logistic_regression, tol=1e-6),
}


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser(__doc__)
    for name, default in (("classes", 1000), ("shots", 10), ("test", 50_000), ("dim", 768)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default:,})")
    parser.add_argument("--C", type=float, default=1.0, help="of the logistic regressions (default: 1)")
    parser.add_argument("--sweep", action="store_true", help="also choose C from 45 values")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    contenders = CONTENDERS | ({"logistic, 45 values of C": sweep} if args.sweep else {})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        # Not in this process, whose children would start with its peak.
        _alone(write_features, folder, args.classes, args.shots, args.test, args.dim)
        for name, run in contenders.items():
            rows.append({"by": name} | _alone(_measure, run, folder, args.C))
            print(f"{name}: {rows[-1]['seconds']:.3g} s", file=sys.stderr, flush=True)
    print(describe_machine())
    write_report(rows, args.json, args.markdown)


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _measure(run: Callable[[Arrays, float], dict[str, Any]], folder: str, c: float) -> dict[str, Any]:
    arrays = {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}
    small = {name: array[:64, ...] for name, array in arrays.items()}
    small["labels"] = small["test_labels"] = np.arange(64) % 4
    # Imports are no part of the figures.
    run(small, c)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    found = run(arrays, c)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    head = found.get("head")
    return {
        "seconds": seconds,
        "CPU seconds": cpu,
        "peak MiB": peak / 1024,
        "of it for this MiB": (peak - before) / 1024,
        "C": found.get("C"),
        "accuracy": found["accuracy"],
        "objective": None if head is None else _objective(arrays, found["C"], *head),
    }


def _objective(arrays: Arrays, c: float, weights: np.ndarray, intercept: np.ndarray) -> str:
    from scipy.special import logsumexp

    logits = _standardised(arrays)[0] @ weights + intercept
    losses = logsumexp(logits, axis=1) - logits[np.arange(len(logits)), arrays["labels"]]
    return f"{c * losses.sum() + np.square(weights).sum() / 2:.6g}"


def _standardised(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = arrays["features"].mean(0, dtype=np.float64), arrays["features"].std(0, dtype=np.float64) + 1e-5
    return (arrays["features"] - mean) / deviation, (arrays["test"] - mean) / deviation


def _classes(arrays: Arrays) -> int:
    return int(arrays["labels"].max()) + 1
