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
import numpy as np
from jax.experimental import multihost_utils

from vit_jax import data, tree
from vit_jax.cache import compile_once, keep_compiled
from vit_jax.card import write_card
from vit_jax.cluster.preemption import Preemption
from vit_jax.cluster.processes import joined, topology
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch, place_params
from vit_jax.config import Config
from vit_jax.config.files import load_config, parse_overrides
from vit_jax.data.bad import BadPictures
from vit_jax.data.pipeline import ahead
from vit_jax.errors import NOT_FINITE, InputError, Parser, Stop, run_command
from vit_jax.evaluators import Evaluators, Subject
from vit_jax.experiment import batch_shapes, build_experiment
from vit_jax.preflight.check import check
from vit_jax.preflight.flops import count_flops
from vit_jax.preflight.keys import check_keys
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.runs.directory import Facts, open_workdir, reporting_full_disk
from vit_jax.runs.final import FinalReport
from vit_jax.runs.metrics import Clock, Progress, Writer
from vit_jax.runs.skipped import SkippedUpdates
from vit_jax.tasks import best_metric
from vit_jax.weights.initialise import start_from


def train(config: Config, workdir: Path, preemption: Preemption) -> None:
    """Run the experiment in `workdir`, or continue it.

    Raises:
        InputError: the config can't be run here; the contents of the run directory are unchanged.
        Stop: a signal ended the run, with its state saved, or too many updates were not finite.
    """
    say = functools.partial(print, flush=True) if jax.process_index() == 0 else lambda *_: None

    # Data. All errors in the input are found before the run directory is touched.
    mesh = make_mesh(config.mesh)
    check_keys(config, mesh)
    config, settled = data.settle(config)
    for line in settled:
        say(line)
    rows = batch_rows(config.batch, mesh)
    place = functools.partial(place_batch, rows=rows, batch=config.batch, mesh=mesh)
    source = data.open_train(config)
    label_names = source.label_names
    config, weights = start_from(config, label_names, workdir)
    experiment = build_experiment(config, mesh, len(label_names), len(source))
    task, plan = experiment.task, experiment.plan
    traced = experiment.train_step.trace(experiment.shapes, batch_shapes(config, mesh, task), experiment.numbers)
    say(f"reading {len(source):,} train pictures")
    bad = BadPictures(len(source), config.data.max_bad)
    source = data.prepare(source, config, bad, train=True, columns=task.columns)
    subject = functools.partial(Subject, experiment.graph, task, label_names=label_names, mesh=mesh)
    evaluate, report = Evaluators(subject(config)), FinalReport(config, subject, workdir)
    for name, number in evaluate.pictures.items():
        say(f"evaluating {name!r}, {number:,} pictures, every {plan.evaluations[name]:,} steps")
    if report.pictures:
        say(f"evaluating 'test', {report.pictures:,} pictures, once, at the end")
    multihost_utils.sync_global_devices("the input is right for all processes")
    size = {"parameters": tree.count(experiment.shapes.params), "step_flops": count_flops(traced.jaxpr)}
    open_workdir(workdir, Facts(config, label_names), size | {"steps": experiment.plan.total, "devices": mesh.size})

    # State.
    checkpoints = Checkpoints(workdir, config.keep, best_metric(config))
    saved = {}
    if checkpoints.latest() is not None:
        state = checkpoints.restore(experiment.shapes)
        saved = checkpoints.contents(int(state.step))["metrics"]
    elif weights is not None:
        state = experiment.start(place_params(weights.params, experiment.shapes.params))
        say(weights.report)
    else:
        state = experiment.init(jax.random.key(config.seed))
    del weights  # A copy of the parameters in host memory.
    first = step = int(state.step)
    say(f"{config.model.name}: {tree.count(state.params):,} parameters on {topology(mesh)}")
    say(f"steps {first} to {plan.total}, {config.batch} pictures each, in {workdir}")

    # A checkpoint saved during an evaluation lacks its results, and metrics.jsonl has no line for its step yet.
    logged = plan.due(first, plan.log_every)
    evaluated = any(not name.startswith(("train/", "data/")) for name in saved)
    unfinished = bool(saved) and plan.evaluates(first) and not evaluated
    writer = Writer(workdir, first - unfinished) if jax.process_index() == 0 else None
    progress = Progress(first, plan.total) if jax.process_index() == 0 else None
    if unfinished:
        results = evaluate.attempt(first, state.weights, due=functools.partial(plan.evaluates, first))
        if writer is not None:
            writer.write(first, (saved if logged else {}) | results.scalars, results)

    # The loop. At step k, k updates are done; everything due at a step is done before the next one.
    clock = Clock(config.batch, 0.0 if writer is None else writer.spent)
    skipped = SkippedUpdates(config.max_skipped, int(state.skipped))
    train_step = compile_once(traced.lower(), say) if first < plan.total else None
    numbers = jax.device_put(experiment.numbers, state.step.sharding)
    batches = data.train_batches(source, config, rows, first, plan.total, bad, task.columns)
    batches = clock.waiting(batches)
    replaced = [] if logged else [np.array(saved["data/bad"])]
    stop = not_finite = 0
    for step, batch in enumerate(ahead(map(place, batches)), start=first + 1):
        replaced.append(batch.pop("replaced"))
        state, step_metrics = train_step(state, batch, numbers)
        if step == first + 1:
            jax.block_until_ready(state)
            clock.start(step)  # Throughput excludes compilation.
            preemption.ready(mesh)
        stop = preemption.agreed() if step < plan.total else 0
        due = plan.due(step, plan.log_every, plan.save_every) or plan.evaluates(step)
        if not_finite := skipped.exceeded(step, step_metrics["skipped"], now=due or stop):
            break
        record, results, whole = {}, None, True
        if plan.due(step, plan.log_every):
            record |= {f"train/{name}": float(value) for name, value in jax.device_get(step_metrics).items()}
            record |= {f"train/{name}": value for name, value in clock.read(step).items()}
            record |= {"data/bad": count(replaced)}
            replaced.clear()
        if plan.evaluates(step):
            try:
                with clock.pause(state):
                    wanted = functools.partial(plan.evaluates, step)
                    results = evaluate.attempt(step, state.weights, preemption.watching, wanted)
                record |= results.scalars
            except Stop as asked:
                stop, whole = asked.code, False
        if writer is not None and whole:
            progress.update(step, record)
            if record:
                writer.write(step, record | clock.cost(), results)
        if plan.due(step, plan.save_every) or stop:
            with clock.pause(state):
                checkpoints.save(state, {"data/bad": count(replaced), **record})
        if stop:
            break
    checkpoints.close()
    try:
        if not (stop or not_finite):
            for line in report(checkpoints, state, writer, preemption.watching):
                say(line)
    except Stop as asked:
        stop = asked.code
    finally:
        if writer is not None:
            writer.close()
            progress.close()
    if not_finite:
        raise Stop(NOT_FINITE, skipped.why(not_finite, checkpoints.latest(), workdir))
    if stop:
        raise Stop(stop, f"stopped at step {step} of {plan.total}, saved; run the same command again to continue")
    if jax.process_index() == 0:
        try:
            write_card(workdir)
        except Exception as error:  # Training is done, and the card can be made again.
            say(f"warning: no model card was written: {' '.join(str(error).split())}")
    say(f"done: {plan.total} steps; python -m vit_jax.evaluate --workdir={workdir}")


def count(replaced: list[jax.Array | np.ndarray]) -> int:
    """Return the number of pictures in some batches that could not be read."""
    return sum(int(part.sum()) for part in replaced)


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
    keep_compiled()
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
