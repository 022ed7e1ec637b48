"""Time to the first step of training: compiled cold, and from the compilation cache, each in its own process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import describe_machine, write_report

from vit_jax.errors import InputError, Parser

# The program of one process, from its start to a compiled step. It does not run the step, which `train` measures.
PROGRAM = """
import sys, time
start = time.perf_counter()
import jax, numpy as np
from vit_jax.config import Model
from vit_jax.config import Config
from vit_jax.experiment import build_experiment
from vit_jax.cluster.sharding import make_mesh
name, batch = sys.argv[1], int(sys.argv[2])
config = Config(batch=batch, model=Model(name=name))
experiment = build_experiment(config, make_mesh(config.mesh), 1000, 1_281_167)
images = jax.ShapeDtypeStruct((batch, 224, 224, 3), np.uint8)
batch = {"image": images, "label": jax.ShapeDtypeStruct((batch,), np.int32)}
lowered = experiment.train_step.lower(experiment.shapes, batch, experiment.numbers)
traced = time.perf_counter()
lowered.compile()
print(traced - start, time.perf_counter() - traced)
"""


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser("Seconds until the training step of a model is compiled.")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated (default: B/16 and H/14)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    rows = []
    for name in args.model or ["B/16", "H/14"]:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                traced, compiled = _compile(name, args.batch, cache)
                figures = {"import and trace s": traced, "compile s": compiled, "sum s": traced + compiled}
                rows.append({"model": name, "cache": state, **figures})
    print(describe_machine())
    write_report(rows, args.json, args.markdown)


def _compile(name: str, batch: int, cache: str) -> list[float]:
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    command = [sys.executable, "-c", PROGRAM, name, str(batch)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"--model={name}: {done.stderr.strip().splitlines()[-1]}")
    return [float(seconds) for seconds in done.stdout.split()]
