"""The durations of a config, converted to steps."""

import math
from dataclasses import dataclass, replace

from vit_jax.config.experiment import Config
from vit_jax.config.ranges import parse_duration

# Below so many pictures: steps of 512 pictures, and the percentage of them that is warm-up.
HYPERRULE = ((20_000, 500, "20%"), (500_000, 10_000, "5%"), (math.inf, 20_000, "2.5%"))
# No picture of a tiny data set is seen more often, unless that would leave too few updates.
MOST_EPOCHS, LEAST_STEPS = 1000, 100


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


def with_length(config: Config, examples: int) -> Config:
    """Return the config with a duration for each of `total` and `warmup` that is "auto".

    By the BiT-HyperRule (Kolesnikov et al., 2020) for fine-tuning: 500 steps below 20,000 training pictures, 10,000
    below 500,000, else 20,000, with the warm-up of the authors' code, 100, 500 and 500 steps. The rule is for 512
    pictures per step: with fewer, there are more steps, so that as many pictures are seen, as in the authors' notebook.
    At most 1,000 epochs, for data sets smaller than the rule was made for, but at least 100 steps.
    """
    steps, warmup = next((steps, warmup) for below, steps, warmup in HYPERRULE if examples < below)
    pictures = min(steps * 512, MOST_EPOCHS * examples)
    total = f"{max(math.ceil(pictures / config.batch), LEAST_STEPS)}st"
    return replace(
        config,
        total=total if config.total == "auto" else config.total,
        warmup=warmup if config.warmup == "auto" else config.warmup,
    )


def make_plan(config: Config, examples: int) -> Plan:
    """Return the plan for a training split of `examples` pictures; warm-up and cooldown never exceed the run."""
    config = with_length(config, examples)

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
