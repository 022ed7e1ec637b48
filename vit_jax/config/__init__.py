"""The keys of an experiment: typed, frozen dataclasses. What `ml_collections` holds ends here."""

from vit_jax.config.experiment import (
    Augment,
    Config,
    Data,
    MeshShape,
    Plan,
    differences,
    flatten,
    from_dict,
    make_plan,
    parse_arg,
    parse_duration,
)
from vit_jax.config.model import Model, height_width
from vit_jax.config.optim import Optim

__all__ = [
    "Augment",
    "Config",
    "Data",
    "MeshShape",
    "Model",
    "Optim",
    "Plan",
    "differences",
    "flatten",
    "from_dict",
    "height_width",
    "make_plan",
    "parse_arg",
    "parse_duration",
]
