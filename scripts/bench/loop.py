"""The training loop - data, metrics, progress, checkpoints, but not evaluation - compared with its bare step."""

import dataclasses
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
from bench.report import describe_machine, take_turns, write_report

import vit_jax.runs.outputs
import vit_jax.train
from vit_jax import data
from vit_jax.cluster.preemption import Preemption
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import make_plan
from vit_jax.config.files import load_config, parse_overrides
from vit_jax.errors import InputError, Parser
from vit_jax.experiment import build_experiment
from vit_jax.runs.metrics import Progress


class Timed(Progress):
    """Progress that records when each step was reported; `reports` belongs to the newest run."""

    def __init__(self, step: int, total: int, name: str = ""):
        super().__init__(step, total, name)
        Timed.reports = []

    def update(self, step: int, metrics: dict[str, float | int]) -> None:
        """Report, and record the time."""
        super().update(step, metrics)
        if metrics:  # Reading them waited for the device.
            self.reports.append((step, time.perf_counter()))


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser("Pictures per second of `train`, compared with the bare step on one batch.")
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]")
    parser.add_argument("--steps", type=int, default=400, help="in each turn (default: 400)")
    parser.add_argument("--rounds", type=int, default=7, help="turns; figures are medians (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args, rest = parser.parse_known_args(argv)
    config = load_config(args.config, parse_overrides(rest))
    source = data.open_sources(config)["train"]
    plan = make_plan(config, len(source))
    if args.steps < 3 * plan.log_every:
        raise InputError(f"--steps={args.steps}: must be at least {3 * plan.log_every}, three reports of this config")
    # Reports and checkpoints as often as in a full run; evaluation only at the end.
    due = {name: f"{getattr(plan, name)}st" for name in ("log_every", "save_every")}
    config = dataclasses.replace(config, total=f"{args.steps}st", eval_every="100%", **due)

    mesh = make_mesh(config.mesh)
    rows = batch_rows(config.batch, mesh)
    experiment = build_experiment(config, mesh, len(source.label_names), len(source))
    prepared = data.prepare(source, config, train=True)
    batch = next(data.train_batches(prepared, config, rows, 0, 1))
    batch.pop("replaced")
    batch = place_batch(batch, rows, config.batch, mesh)
    state = experiment.init(jax.random.key(0))

    def bare() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(args.steps):
            state, metrics = experiment.train_step(state, batch, experiment.numbers)
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / args.steps

    def loop() -> float:
        with tempfile.TemporaryDirectory() as workdir, mock.patch.object(vit_jax.runs.outputs, "Progress", Timed):
            vit_jax.train.train(config, Path(workdir), Preemption())
        # From the first report to the last one before the evaluation at the end.
        (first, begin), *_, (last, end), _ = Timed.reports
        return (end - begin) / (last - first)

    bare()
    seconds = take_turns({"bare step": bare, "loop": loop}, args.rounds)
    print(describe_machine())
    write_report(
        [
            {"config": args.config, "what": what, "ms": 1e3 * each, "images/s": config.batch / each}
            | {"of the bare step": seconds["bare step"] / each}
            for what, each in seconds.items()
        ],
        args.json,
        args.markdown,
    )
