"""The durations of a config, converted to steps."""

import math
from dataclasses import dataclass

from vit_jax.config.experiment import Config
from vit_jax.config.ranges import parse_duration


@dataclass(frozen=True)
class Plan:
    """The length of a run and the intervals of its events, in steps.

    Attributes:
        batch, examples: number of pictures per step, and per epoch.
        evaluations: steps between evaluations, by name.
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
        """Return whether `step` is the last step, or a multiple of any of the intervals."""
        return any(step % number == 0 for number in every) or step == self.total

    def evaluates(self, step: int, name: str | None = None) -> bool:
        """Return whether the named evaluation is due at `step`; without a name, whether any is."""
        return self.due(step, *(self.evaluations.values() if name is None else (self.evaluations[name],)))


def make_plan(config: Config, examples: int) -> Plan:
    """Return the plan for a training split of `examples` pictures; warm-up and cooldown never exceed the run."""

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
