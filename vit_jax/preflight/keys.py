"""Checks that the keys of a config are compatible, before any data is opened."""

from jax.sharding import Mesh

from vit_jax.cluster.sharding import batch_rows
from vit_jax.config import Config
from vit_jax.evaluators import check_evaluators
from vit_jax.experiment import build_experiment


def check_keys(config: Config, mesh: Mesh) -> None:
    """Build the experiment for a made-up data set; allocates nothing.

    With `init`, the model depends on the weights and is checked once they are read.

    Raises:
        InputError: a key is incompatible with another, or with the devices.
    """
    batch_rows(config.batch, mesh)
    check_evaluators(config)
    if config.init is None:
        build_experiment(config, mesh, num_classes=2, examples=config.batch)
