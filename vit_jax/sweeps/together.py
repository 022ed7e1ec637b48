"""Train runs that differ only in seed, rate, decay and smoothing, all of them in one program.

python -m vit_jax.sweeps.together RUN_FOLDER...

Each folder has the `command.json` of a sweep, and becomes the run directory that the run alone would have. The same
command continues runs that were stopped.
"""

from vit_jax.cluster.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import collections
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.cache import compile_once
from vit_jax.card import write_card
from vit_jax.cluster.preemption import Preemption
from vit_jax.cluster.processes import joined, topology
from vit_jax.config import Config
from vit_jax.config.files import load_config
from vit_jax.data.pipeline import ahead
from vit_jax.errors import NOT_FINITE, InputError, Parser, Stop, run_command
from vit_jax.preflight.inputs import open_inputs
from vit_jax.runs.directory import Facts, finished_steps, open_workdir, reporting_full_disk
from vit_jax.runs.metrics import Clock
from vit_jax.runs.outputs import Outputs
from vit_jax.runs.skipped import LAG
from vit_jax.runtime import set_up
from vit_jax.sweeps.mapped import Mapped, check_numbers, with_numbers
from vit_jax.tasks import build_task


def train_together(configs: list[Config], workdirs: list[Path], preemption: Preemption) -> None:
    """Train the run of each config in its `workdir`, or continue them from the newest step that all of them have.

    Evaluations and checkpoints are made for one run after the other. A run with too many updates that are not finite
    has no more metrics, and the others go on. Runs that are complete are left as they are.

    Raises:
        InputError: the runs can't be trained here, or not together; nothing is changed.
        Stop: a signal ended the runs, with their states saved, or some had too many updates that were not finite.
    """
    say = functools.partial(print, flush=True)

    # Data. All errors in the input are found before a run directory is touched.
    check_numbers(configs, workdirs)
    if jax.process_count() > 1:
        raise InputError(f"{jax.process_count()} processes: runs are trained together by one; train them one by one")
    # A run that has a checkpoint would not open the weights to start from.
    fresh = next((folder for folder in workdirs if not finished_steps(folder)), workdirs[0])
    inputs, weights = open_inputs(configs[0], fresh, say)
    mesh, experiment, plan = inputs.mesh, inputs.experiment, inputs.experiment.plan
    for config in configs:
        build_task(config, len(inputs.label_names))
    configs = [with_numbers(inputs.config, config) for config in configs]
    size = inputs.size | {"together": len(configs)}
    if unfinished := [i for i, folder in enumerate(workdirs) if plan.total not in finished_steps(folder)]:
        configs, workdirs = [configs[i] for i in unfinished], [workdirs[i] for i in unfinished]
    first = step = _newest_of_all(workdirs)
    for config, folder in zip(configs, workdirs, strict=True):
        open_workdir(folder, Facts(config, inputs.label_names), size)

    # States.
    names = [folder.name for folder in workdirs]
    runs = [
        Outputs(config, folder, plan, inputs.evaluate, inputs.report.of(config, folder), folder.name)
        for config, folder in zip(configs, workdirs, strict=True)
    ]
    if first:
        states = [run.checkpoints.restore(experiment.shapes, first) for run in runs]
    elif weights is not None:
        states = [experiment.start(jax.tree.map(jnp.copy, weights.params)) for _ in runs]
        say(weights.report)
    else:
        states = [experiment.init(jax.random.key(config.seed)) for config in configs]
    del weights
    say(f"{len(runs)} runs of {configs[0].model.name} together on {topology(mesh)}")
    say(f"steps {first} to {plan.total}, {configs[0].batch} pictures each, in {', '.join(map(str, workdirs))}")
    ended = {}
    for i, (run, state) in enumerate(zip(runs, states, strict=True)):
        run.checkpoints.go_back(first)
        if int(state.skipped) > configs[i].max_skipped:
            ended[i] = first
        else:
            run.open(state)
    mapped = Mapped(inputs, configs)
    state = mapped.stack(states)
    del states

    # The loop of `vit_jax.train`, where what is due is done for every run.
    clock = Clock(configs[0].batch, max(run.spent for run in runs))
    train_step = compile_once(mapped.trace().lower(), say) if first < plan.total else None
    waiting = collections.deque()
    stop = 0
    for step, (batch, replaced) in enumerate(ahead(mapped.batches(first, clock)), start=first + 1):
        state, metrics = train_step(state, batch, mapped.numbers)
        if step == first + 1:
            jax.block_until_ready(state)
            clock.start(step)  # Throughput excludes compilation.
            preemption.ready(mesh)
        stop = preemption.agreed() if step < plan.total else 0
        due = plan.due(step, plan.log_every, plan.save_every) or plan.evaluates(step)
        waiting.append((step, metrics["skipped"]))
        while len(waiting) > (0 if due or stop else LAG):
            then, skipped = waiting.popleft()
            for i, number in enumerate(np.asarray(skipped)):
                if i not in ended and runs[i].skipped.exceeded(then, number, now=True):
                    ended[i] = then
                    print(f"{names[i]}: {runs[i].why_skipped(then)}", file=sys.stderr, flush=True)
        if len(ended) == len(runs):
            break
        going = {i: run.entry(step) for i, run in enumerate(runs) if i not in ended}
        for i in going:
            runs[i].replaced.append(replaced[i])
        if plan.due(step, plan.log_every):
            values, pace = jax.device_get(metrics), clock.read(step)
            for i, entry in going.items():
                entry.log({name: value[i] for name, value in values.items()}, pace)
        if plan.evaluates(step):
            with clock.pause(state):
                for i, entry in going.items():
                    stop = entry.evaluate(mapped.take(state, i).weights, preemption.watching) or stop
        for entry in going.values():
            entry.write(clock.cost())
        if plan.due(step, plan.save_every) or stop:
            with clock.pause(state):
                for i, run in enumerate(runs):
                    # Of those that ended, too: all continue from one step, and the state says that they have.
                    going.get(i, run.entry(step)).save(mapped.take(state, i))
        if stop:
            break
    failed = None
    for i, run in enumerate(runs):
        try:
            done = not stop and i not in ended
            stopped, lines = run.close(mapped.take(state, i), done=done, watch=preemption.watching)
            stop = stop or stopped
            for line in lines:
                say(f"{names[i]}: {line}")
        except InputError as error:  # Of its report: the others have theirs first.
            failed = failed or error
    if failed is not None:
        raise failed
    if stop:
        raise Stop(stop, f"stopped at step {step} of {plan.total}, saved; run the same command again to continue")
    for i, folder in enumerate(workdirs):
        try:
            if i not in ended:
                write_card(folder)
        except Exception as error:  # Training is done, and the card can be made again.
            say(f"warning: no model card was written: {' '.join(str(error).split())}")
    if ended:
        which = ", ".join(names[i] for i in sorted(ended))
        raise Stop(NOT_FINITE, f"error: {len(ended)} of {len(runs)} runs had a loss or gradient not finite: {which}")
    say(f"done: {plan.total} steps of {len(runs)} runs")


def _newest_of_all(workdirs: list[Path]) -> int:
    steps = [set(finished_steps(folder)) for folder in workdirs]
    common = set.intersection(*steps)
    if not common and all(steps):
        newest = ", ".join(f"{folder.name} {max(own)}" for folder, own in zip(workdirs, steps, strict=True))
        raise InputError(f"the runs have no checkpoint of one step in common (newest: {newest}); continue them alone")
    return max(common, default=0)


def read_command(folder: Path) -> Config:
    """Return the config of a run by its `command.json`.

    Raises:
        InputError: it can't be read, or the config is wrong.
    """
    path = folder / "command.json"
    try:
        command = json.loads(path.read_text())
        spec, overrides = command["config"], command["fixed"] | command["overrides"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} can't be read ({error}); give the folders of a sweep's runs") from error
    return load_config(spec, overrides)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = Parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER", help="with the command.json of a sweep")
    folders = parser.parse_args(argv).folders
    set_up()
    preemption = Preemption()
    with preemption.listening(), joined() as preemption.heartbeat, reporting_full_disk(folders[0]):
        train_together([read_command(folder) for folder in folders], folders, preemption)


if __name__ == "__main__":
    run_command(main)
