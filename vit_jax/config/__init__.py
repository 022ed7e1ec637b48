"""The config of an experiment: typed, frozen dataclasses. No code outside this package uses `ml_collections`."""

from vit_jax.config.data import Augment, Data
from vit_jax.config.experiment import (
    Config,
    Evaluation,
    MeshShape,
    differences,
    flatten,
    from_dict,
    parse_arg,
)
from vit_jax.config.model import Model, height_width
from vit_jax.config.optim import Optim
from vit_jax.config.plan import Plan, make_plan, with_length
from vit_jax.config.preprocessing import Preprocessing
from vit_jax.config.pretrain import PRETRAINING, Pretrain

__all__ = [
    "Augment",
    "Config",
    "Data",
    "Evaluation",
    "MeshShape",
    "Model",
    "Optim",
    "PRETRAINING",
    "Plan",
    "Preprocessing",
    "Pretrain",
    "differences",
    "flatten",
    "from_dict",
    "height_width",
    "make_plan",
    "parse_arg",
    "with_length",
]
