"""Train a Vision Transformer.

python -m vit_jax.train --config=configs/digits.py --workdir=runs/digits [--config.optim.lr=3e-4 ...]

The same command continues a run that was stopped. On multiple hosts, start it on each (docs/survival.md). With
--check, it does everything short of training (docs/scaling.md).
"""

from vit_jax.cluster.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import functools
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from vit_jax import tree
from vit_jax.cache import compile_once
from vit_jax.card import write_card
from vit_jax.cluster.preemption import Preemption
from vit_jax.cluster.processes import joined, topology
from vit_jax.cluster.sharding import place_batch
from vit_jax.config import Config
from vit_jax.config.files import load_config, parse_overrides
from vit_jax.data.pipeline import ahead
from vit_jax.errors import NOT_FINITE, InputError, Parser, Stop, run_command
from vit_jax.preflight.check import check
from vit_jax.preflight.inputs import open_inputs
from vit_jax.runs.directory import open_workdir, reporting_full_disk
from vit_jax.runs.metrics import Clock
from vit_jax.runs.outputs import Outputs
from vit_jax.runtime import set_up


def train(config: Config, workdir: Path, preemption: Preemption) -> None:
    """Run the experiment in `workdir`, or continue it.

    Raises:
        InputError: the config can't be run here; the contents of the run directory are unchanged.
        Stop: a signal ended the run, with its state saved, or too many updates were not finite.
    """
    say = functools.partial(print, flush=True) if jax.process_index() == 0 else lambda *_: None

    # Data. All errors in the input are found before the run directory is touched.
    inputs, weights = open_inputs(config, workdir, say)
    config, mesh, experiment = inputs.config, inputs.mesh, inputs.experiment
    plan = experiment.plan
    place = functools.partial(place_batch, rows=inputs.rows, batch=config.batch, mesh=mesh)
    multihost_utils.sync_global_devices("the input is right for all processes")
    open_workdir(workdir, inputs.facts, inputs.size)

    # State.
    outputs = Outputs(config, workdir, plan, inputs.evaluate, inputs.report)
    if outputs.checkpoints.latest() is not None:
        state = outputs.checkpoints.restore(experiment.shapes)
    elif weights is not None:
        state = experiment.start(weights.params)
        say(weights.report)
    else:
        state = experiment.init(jax.random.key(config.seed))
    first = step = int(state.step)
    say(f"{config.model.name}: {tree.count(state.params):,} parameters on {topology(mesh)}")
    say(f"steps {first} to {plan.total}, {config.batch} pictures each, in {workdir}")
    outputs.open(state)

    # The loop. At step k, k updates are done; everything due at a step is done before the next one.
    clock = Clock(config.batch, outputs.spent)
    train_step = compile_once(inputs.traced.lower(), say) if first < plan.total else None
    numbers = jax.device_put(experiment.numbers, state.step.sharding)
    batches = clock.waiting(inputs.batches(config, first))
    stop = not_finite = 0
    for step, batch in enumerate(ahead(map(place, batches)), start=first + 1):
        outputs.replaced.append(batch.pop("replaced"))
        state, metrics = train_step(state, batch, numbers)
        if step == first + 1:
            jax.block_until_ready(state)
            clock.start(step)  # Throughput excludes compilation.
            preemption.ready(mesh)
        stop = preemption.agreed() if step < plan.total else 0
        due = plan.due(step, plan.log_every, plan.save_every) or plan.evaluates(step)
        if not_finite := outputs.skipped.exceeded(step, metrics["skipped"], now=due or stop):
            break
        entry = outputs.entry(step)
        if plan.due(step, plan.log_every):
            entry.log(metrics, clock.read(step))
        if plan.evaluates(step):
            with clock.pause(state):
                stop = entry.evaluate(state.weights, preemption.watching) or stop
        entry.write(clock.cost())
        if plan.due(step, plan.save_every) or stop:
            with clock.pause(state):
                entry.save(state)
        if stop:
            break
    stopped, lines = outputs.close(state, done=not (stop or not_finite), watch=preemption.watching)
    for line in lines:
        say(line)
    stop = stop or stopped
    if not_finite:
        raise Stop(NOT_FINITE, outputs.why_skipped(not_finite))
    if stop:
        raise Stop(stop, f"stopped at step {step} of {plan.total}, saved; run the same command again to continue")
    if jax.process_index() == 0:
        try:
            write_card(workdir)
        except Exception as error:  # Training is done, and the card can be made again.
            say(f"warning: no model card was written: {' '.join(str(error).split())}")
    say(f"done: {plan.total} steps; python -m vit_jax.evaluate --workdir={workdir}")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="see configs/README.md")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="the run directory")
    parser.add_argument("--check", action="store_true", help="do everything short of training; write nothing")
    parser.add_argument(
        "--devices", metavar="N", help="with --check: devices that are not present, see docs/scaling.md"
    )
    args, rest = parser.parse_known_args(argv)
    set_up()
    load = functools.partial(load_config, args.config, parse_overrides(rest))
    if args.devices is not None:
        if not args.check:
            raise InputError(f"--devices={args.devices}: devices that are not present can only be checked; add --check")
        check(load(), args.workdir, args.devices)
        return
    preemption = Preemption()
    with preemption.listening(), joined() as preemption.heartbeat, reporting_full_disk(args.workdir):
        if args.check:
            check(load(), args.workdir)
        else:
            train(load(), args.workdir, preemption)


if __name__ == "__main__":
    run_command(main)
