"""Train a Vision Transformer.

python -m vit_jax.train --config=configs/digits.py --workdir=runs/digits [--config.optim.lr=3e-4 ...]

The same command continues a run that was stopped. With --check it does everything short of training (docs/scaling.md).
"""

import functools
from pathlib import Path

import jax

from vit_jax import config_file, data, tree
from vit_jax.check import check
from vit_jax.checkpoint import Checkpoints
from vit_jax.config import Config
from vit_jax.data.bad import BadPictures
from vit_jax.data.pipeline import ahead
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.evaluators import build_evaluators
from vit_jax.experiment import build_experiment
from vit_jax.metrics import Clock, Progress, Writer
from vit_jax.pretrained import place_params, start_from
from vit_jax.rundir import Facts, open_workdir, stopping_where_nothing_can_be_written
from vit_jax.sharding import batch_rows, make_mesh, place_batch


def train(config: Config, workdir: Path) -> None:
    """Run the experiment in `workdir`, or continue it.

    Raises:
        InputError: the config can't be run here; what the run directory held is as it was.
    """
    say = functools.partial(print, flush=True) if jax.process_index() == 0 else lambda *_: None

    # Data. All that can be wrong with the input is found before the run directory is touched.
    mesh = make_mesh(config.mesh)
    rows = batch_rows(config.batch, mesh)
    place = functools.partial(place_batch, rows=rows, batch=config.batch, mesh=mesh)
    sources = data.open_sources(config)
    label_names = sources["train"].label_names
    config, weights = start_from(config, label_names, workdir)
    experiment = build_experiment(config, mesh, len(label_names), len(sources["train"]))
    if config.model.pool == "none":
        raise InputError("config.model.pool='none' has logits for each token, not for a picture; use token, gap or map")
    evaluate = build_evaluators(config, experiment.eval_step)
    say("reading " + ", ".join(f"{len(source):,} {split} pictures" for split, source in sources.items()))
    bad = {split: BadPictures(len(source), config.data.max_bad) for split, source in sources.items()}
    sources = {
        split: data.prepare(source, config, bad[split], train=split == "train") for split, source in sources.items()
    }
    open_workdir(workdir, Facts(config, label_names))

    # State.
    plan = experiment.plan
    checkpoints = Checkpoints(workdir, config.keep, config.keep_best)
    if checkpoints.latest() is not None:
        state = checkpoints.restore(experiment.shapes)
    elif weights is not None:
        state = experiment.start(place_params(weights.params, experiment.shapes.params))
        say(weights.told)
    else:
        state = experiment.init(jax.random.key(config.seed))
    del weights  # A copy of the parameters in the host's memory.
    first = int(state.step)
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    say(f"{config.model.name}: {tree.count(state.params):,} parameters on {jax.devices()[0].platform}, {axes} devices")
    say(f"steps {first} to {plan.total}, {config.batch} pictures each, in {workdir}")

    # The loop. Step k means k updates done; what is due at a step is done before the next one.
    writer = Writer(workdir, first) if jax.process_index() == 0 else None
    progress = Progress(first, plan.total)
    clock = Clock(config.batch)
    batches = clock.waiting(data.train_batches(sources["train"], config, rows, first, plan.total, bad["train"]))
    val_batches = functools.partial(data.eval_batches, sources["val"], config, rows, bad["val"])
    replaced = []
    for step, batch in enumerate(ahead(map(place, batches)), start=first + 1):
        replaced.append(batch.pop("replaced"))
        state, step_metrics = experiment.train_step(state, batch)
        if step == first + 1:
            jax.block_until_ready(state)
            clock.start(step)  # Compilation is no part of the throughput.
        record = {}
        if plan.due(step, plan.log_every):
            record |= {f"train/{name}": float(value) for name, value in jax.device_get(step_metrics).items()}
            record |= {"train/lr": float(experiment.schedule(step - 1))}
            record |= {f"train/{name}": value for name, value in clock.read(step).items()}
            record |= {"data/bad": sum(int(part.sum()) for part in replaced)}
            replaced.clear()
        if plan.due(step, plan.eval_every):
            with clock.pause(state):
                record |= evaluate(state.weights, lambda: map(place, val_batches()))
        if writer is not None:
            progress.update(step, record)
            if record:
                writer.write(step, record)
        if plan.due(step, plan.save_every):
            with clock.pause(state):
                checkpoints.save(state, record)
    checkpoints.close()
    if writer is not None:
        writer.close()
        progress.close()
    say(f"done: {plan.total} steps; python -m vit_jax.evaluate --workdir={workdir}")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = Parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="see configs/README.md")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="the run directory")
    parser.add_argument("--check", action="store_true", help="everything short of training; writes nothing")
    parser.add_argument(
        "--devices", metavar="N", help="with --check: for devices that are not there, see docs/scaling.md"
    )
    args, rest = parser.parse_known_args(argv)
    config = config_file.load(args.config, config_file.parse_overrides(rest))
    if args.devices is not None and not args.check:
        raise InputError(f"--devices={args.devices}: devices that are not there can only be checked; add --check")
    if args.check:
        check(config, args.workdir, args.devices)
        return
    with stopping_where_nothing_can_be_written(args.workdir):
        train(config, args.workdir)


if __name__ == "__main__":
    run_command(main)
