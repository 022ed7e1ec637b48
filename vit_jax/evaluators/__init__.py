"""Evaluators: each is made from an eval step, and turns parameters and a split's batches into metrics."""

from vit_jax.evaluators.classification import make_classification

# To add an evaluator: a file beside this one, and a line here.
EVALUATORS = {"classification": make_classification}
