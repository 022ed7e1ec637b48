"""The durations of a config in steps."""

import math
from dataclasses import dataclass

from vit_jax.config.experiment import Config
from vit_jax.config.ranges import parse_duration


@dataclass(frozen=True)
class Plan:
    """How long a run is, in steps, and when what is due.

    Attributes:
        batch, examples: pictures in a step, and in an epoch.
        evaluations: steps between two evaluations, by name.
    """

    batch: int
    examples: int
    total: int
    warmup: int
    cooldown: int
    timescale: int
    log_every: int
    save_every: int
    evaluations: dict[str, int]

    def due(self, step: int, *every: int) -> bool:
        """Return whether anything done every so many steps, and at the end, is due at `step`."""
        return any(step % number == 0 for number in every) or step == self.total

    def evaluates(self, step: int, name: str | None = None) -> bool:
        """Return whether an evaluation, by name, or any of them is due at `step`."""
        return self.due(step, *(self.evaluations.values() if name is None else (self.evaluations[name],)))


def make_plan(config: Config, examples: int) -> Plan:
    """Return the plan for a training split of `examples` pictures; what is longer than the run is as long as it."""

    def steps(text: str, total: int, least: int) -> int:
        value, unit = parse_duration(text)
        per_unit = {"st": 1, "ex": 1 / config.batch, "ep": examples / config.batch, "%": total / 100}[unit]
        return max(math.ceil(round(value * per_unit, 6)), least)

    total = steps(config.total, 0, 1)
    warmup, cooldown = (min(steps(text, total, 0), total) for text in (config.warmup, config.cooldown))
    return Plan(
        batch=config.batch,
        examples=examples,
        total=total,
        warmup=warmup,
        cooldown=cooldown,
        timescale=steps(config.optim.timescale, total, 1),
        log_every=steps(config.log_every, total, 1),
        save_every=steps(config.save_every, total, 1),
        evaluations={name: steps(each.every or config.eval_every, total, 1) for name, each in config.evaluations()},
    )
