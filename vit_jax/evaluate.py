"""Evaluate a run: `python -m vit_jax.evaluate --workdir=DIR`. Everything else is read from the run directory.

If the data has moved, set `--config.data.path=DIR`. On a pod, start it on every host.
"""

import json
from pathlib import Path

import jax

from vit_jax.cache import keep_compiled
from vit_jax.cluster.processes import joined
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape, differences
from vit_jax.config.files import override, parse_overrides
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.evaluators import Evaluators, Subject
from vit_jax.models import model_graph
from vit_jax.runs.checkpoint import load_params
from vit_jax.runs.directory import read_facts
from vit_jax.tasks import build_task


def evaluate(workdir: Path, overrides: dict[str, str] | None = None, checkpoint: str = "newest") -> dict[str, float]:
    """Return the metrics of a run over its validation split, with every picture counted once.

    Args:
        checkpoint: "newest" (that is intact), "best", or a step.

    Raises:
        InputError: the run has no such checkpoint, or its data can't be read or has different classes.
    """
    recorded, label_names = read_facts(workdir)
    mesh = make_mesh(MeshShape())
    config = override(recorded, overrides or {})
    if changes := differences(recorded, config):
        raise InputError(f"evaluation can't change these keys of a run: {'; '.join(changes)}")
    task = build_task(config, len(label_names))
    facts = config.model_facts(task.num_outputs)
    evaluators = Evaluators(Subject(model_graph(**facts), task, config, label_names, mesh))
    return evaluators(load_params(workdir, facts, mesh, checkpoint)).scalars


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
