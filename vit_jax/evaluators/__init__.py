"""Evaluators: each is made from an eval step and a config, and turns parameters and a split's batches into metrics."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from vit_jax.config import Config
from vit_jax.errors import InputError, nearest
from vit_jax.evaluators.classification import make_classification

Batches = Iterable[dict[str, jax.Array]]

# To add an evaluator: a file beside this one, and a line here.
EVALUATORS = {"classification": make_classification}


def build_evaluators(
    config: Config, eval_step: Callable[[Any, dict[str, jax.Array]], jax.Array]
) -> Callable[[Any, Callable[[], Batches]], dict[str, float]]:
    """Return a function from parameters and a maker of batches to the metrics "val/..." of a config's evaluators.

    Raises:
        InputError: a name is unknown.
    """
    for name in config.evaluators:
        if name not in EVALUATORS:
            raise InputError(f"config.evaluators: {name!r}: {nearest(name, EVALUATORS)}")
    evaluators = [EVALUATORS[name](eval_step, config) for name in config.evaluators]

    def evaluate(params: Any, make_batches: Callable[[], Batches]) -> dict[str, float]:
        results = {}
        for evaluator in evaluators:
            results |= {f"val/{key}": value for key, value in evaluator(params, make_batches()).items()}
        return results

    return evaluate
