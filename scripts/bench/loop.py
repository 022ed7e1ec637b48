"""The training loop - data, metrics, progress, evaluation left out, checkpoints - beside its bare step."""

import dataclasses
import tempfile
import time
from pathlib import Path

import jax
from bench.report import describe_machine, take_turns, tell

from vit_jax import config_file, data
from vit_jax.errors import Parser
from vit_jax.experiment import build_experiment
from vit_jax.sharding import batch_rows, make_mesh, place_batch
from vit_jax.stopping import Stopping
from vit_jax.train import train


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser("Pictures a second of `train` as it is, beside those of the bare step on one batch.")
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]")
    parser.add_argument("--steps", type=int, default=200, help="of each turn (default: 200)")
    parser.add_argument("--rounds", type=int, default=7, help="turns; figures are medians (default: 7)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args, rest = parser.parse_known_args(argv)
    config = config_file.load(args.config, config_file.parse_overrides(rest))
    # One checkpoint, at the end; what is measured is a run less one of half its steps, so that neither starting nor the
    # last evaluation counts.
    config = dataclasses.replace(config, eval_every="100%", save_every="100%")

    mesh = make_mesh(config.mesh)
    rows = batch_rows(config.batch, mesh)
    source = data.open_sources(config)["train"]
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
            state, metrics = experiment.train_step(state, batch)
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / args.steps

    def loop() -> float:
        seconds = []
        for steps in (args.steps, 2 * args.steps):
            with tempfile.TemporaryDirectory() as workdir:
                start = time.perf_counter()
                train(dataclasses.replace(config, total=f"{steps}st"), Path(workdir), Stopping())
                seconds.append(time.perf_counter() - start)
        return (seconds[1] - seconds[0]) / args.steps

    bare()
    seconds = take_turns({"bare step": bare, "loop": loop}, args.rounds)
    print(describe_machine())
    tell(
        [
            {"config": args.config, "what": what, "ms": 1e3 * each, "images/s": config.batch / each}
            | {"of the bare step": seconds["bare step"] / each}
            for what, each in seconds.items()
        ],
        args.json,
        args.markdown,
    )
