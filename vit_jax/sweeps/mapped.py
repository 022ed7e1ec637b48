"""A training step mapped over runs: their states one above the other, their batches, their numbers."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.cluster.sharding import BATCH
from vit_jax.config import Config, flatten
from vit_jax.errors import InputError
from vit_jax.experiment import batch_shapes
from vit_jax.preflight.inputs import Inputs
from vit_jax.runs.metrics import Clock
from vit_jax.step import Batch, Metrics, Numbers, State

# The keys that `vit_jax.step.Numbers` has.
KEYS = ("seed", "optim.lr", "optim.weight_decay", "label_smoothing")


class Mapped:
    """The step of an experiment, mapped over runs; runs with the same seed share the batches.

    Attributes:
        numbers: of all runs, placed.
    """

    def __init__(self, inputs: Inputs, configs: list[Config]):
        self._inputs = inputs
        shapes, mesh = inputs.experiment.shapes, inputs.mesh
        self._owns = {config.seed: config for config in configs}
        self._which = np.array([list(self._owns).index(config.seed) for config in configs])
        self._number = len(configs)
        numbers = Numbers(*map(np.stack, zip(*map(Numbers.of, configs), strict=True)))
        self.numbers = jax.device_put(numbers, NamedSharding(mesh, P()))
        alone = jax.tree.map(lambda x: x.sharding, shapes)
        self._shardings = jax.tree.map(lambda x: NamedSharding(mesh, P(None, *x.sharding.spec)), shapes)
        self._take = jax.jit(lambda state, i: jax.tree.map(lambda x: x[i], state), out_shardings=alone)

    def stack(self, states: list[State]) -> State:
        """Return the states of all runs as one, each array with a leading axis of runs."""
        stack = jax.jit(lambda *all: jax.tree.map(lambda *x: jnp.stack(x), *all), out_shardings=self._shardings)
        return stack(*states)

    def take(self, state: State, i: int) -> State:
        """Return the state of one run, as it would be alone."""
        return self._take(state, i)

    def batches(self, first: int, clock: Clock) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield for each step from `first` a batch for each seed, placed; and what "replaced" is for each run.

        Args:
            clock: times the wait for the data.
        """
        sharding = NamedSharding(self._inputs.mesh, P(None, BATCH))
        streams = [self._inputs.batches(config, first) for config in self._owns.values()]
        for each in clock.waiting(zip(*streams, strict=True)):
            batch = {name: np.stack([own[name] for own in each]) for name in each[0]}
            replaced = batch.pop("replaced")[self._which]
            yield jax.device_put(batch, sharding), replaced

    def trace(self) -> jax.stages.Traced:
        """Return the traced step, which maps all states, the batches of a step and `numbers` to states and metrics."""
        experiment, config, mesh = self._inputs.experiment, self._inputs.config, self._inputs.mesh
        shared = len(self._owns) == 1
        step = jax.vmap(experiment.train_step, in_axes=(0, None if shared else 0, 0))

        def train_step(state: State, batches: Batch, numbers: Numbers) -> tuple[State, Metrics]:
            batch = jax.tree.map(lambda x: x[0] if shared else x[self._which], batches)
            return step(state, batch, numbers)

        def above(number: int, x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            sharding = NamedSharding(mesh, P(None, *x.sharding.spec))
            return jax.ShapeDtypeStruct((number, *x.shape), x.dtype, sharding=sharding)

        state = jax.tree.map(lambda x: above(self._number, x), experiment.shapes)
        batch = {name: above(len(self._owns), x) for name, x in batch_shapes(config, mesh, experiment.task).items()}
        jitted = jax.jit(train_step, donate_argnums=0, out_shardings=(self._shardings, NamedSharding(mesh, P())))
        return jitted.trace(state, batch, self.numbers)


def check_numbers(configs: list[Config], workdirs: list[Path]) -> None:
    """Raise an `InputError` if the runs differ in another key than those of `KEYS`, or share a directory."""
    one, *others = (flatten(dataclasses.asdict(config)) for config in configs)
    for values, folder in zip(others, workdirs[1:], strict=True):
        for key in one | values:
            if key not in KEYS and one.get(key) != values.get(key):
                raise InputError(
                    f"config.{key}={values.get(key)!r} of run {folder.name!r} is {one.get(key)!r} in "
                    f"{workdirs[0].name!r}: runs that are trained together differ in {', '.join(KEYS)} alone"
                )
    for folder in workdirs:
        if workdirs.count(folder) > 1:
            raise InputError(f"run {str(folder)!r} is given twice")


def with_numbers(config: Config, other: Config) -> Config:
    """Return a config with the numbers of another one."""
    optim = dataclasses.replace(config.optim, lr=other.optim.lr, weight_decay=other.optim.weight_decay)
    return dataclasses.replace(config, seed=other.seed, label_smoothing=other.label_smoothing, optim=optim)
