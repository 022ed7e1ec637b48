"""Evaluate a run: `python -m vit_jax.evaluate --workdir=DIR`. All else is read from the run directory.

Where the data has moved, say so: `--config.data.path=DIR`. On a pod, start it on every host.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path

import jax

from vit_jax import data
from vit_jax.cache import keep_compiled
from vit_jax.cluster.processes import joined
from vit_jax.cluster.sharding import BATCH, batch_rows, make_mesh, place_batch
from vit_jax.config import Config, MeshShape, differences
from vit_jax.config.files import override, parse_overrides
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.evaluators import build_evaluators
from vit_jax.models import model_graph
from vit_jax.runs.checkpoint import load_params
from vit_jax.runs.directory import read_facts
from vit_jax.step import make_eval_step


def evaluate(workdir: Path, overrides: dict[str, str] | None = None, checkpoint: str = "newest") -> dict[str, float]:
    """Return the metrics of a run over its validation split, every picture counted once.

    Args:
        checkpoint: "newest" that is whole, "best", or a step.

    Raises:
        InputError: the run has no checkpoint, or its data can't be read or has other classes.
    """
    recorded, label_names = read_facts(workdir)
    mesh = make_mesh(MeshShape())
    config = override(recorded, overrides or {})
    if changes := differences(recorded, config):
        raise InputError(f"evaluation can't change what the run is: {'; '.join(changes)}")
    config = _divisible(config, math.prod(mesh.shape[axis] for axis in BATCH))
    rows = batch_rows(config.batch, mesh)
    source = data.open_sources(config)["val"]
    if source.label_names != label_names:
        raise InputError(f"the data of config.data.path={config.data.path!r} has other classes than the run")
    facts = config.model_facts(len(label_names))
    params = load_params(workdir, facts, mesh, checkpoint)
    run = build_evaluators(config, make_eval_step(model_graph(**facts)))
    place = functools.partial(place_batch, rows=rows, batch=config.batch, mesh=mesh)
    return run(params, lambda: map(place, data.eval_batches(source, config, rows)))


def _divisible(config: Config, devices: int) -> Config:
    # Rows that only fill up a batch count nothing, so any batch will do.
    return dataclasses.replace(config, batch=math.ceil(config.batch / devices) * devices)


def main(argv: list[str] | None = None) -> None:
    """Read the command line, evaluate and print one JSON object."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="a run directory")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help="newest, best or a step")
    args, rest = parser.parse_known_args(argv)
    keep_compiled()
    with joined():
        results = evaluate(args.workdir, parse_overrides(rest), args.checkpoint)
        if jax.process_index() == 0:
            print(json.dumps(results))


if __name__ == "__main__":
    run_command(main)
