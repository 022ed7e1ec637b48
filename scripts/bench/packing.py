"""Training on pictures of many shapes, beside padding all of them to the largest.

python scripts/benchmark.py packing --pictures=DIR [--model=S/16 --image_size=224 --batch=16 --packing=784]

The shapes are those of the first pictures in DIR, each with as many patches as --image_size allows, in its own aspect
ratio. "padded" computes a canvas of the most rows and the most columns for each. "packed" shares sequences of --packing
patches among --share pictures of random resolutions.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from bench.model import read_config
from bench.report import describe_machine, seconds_of, take_turns, write_report
from PIL import Image

from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import Config, MeshShape
from vit_jax.config.files import override
from vit_jax.data.rows import budgets, most_patches, sequence
from vit_jax.errors import InputError, Parser
from vit_jax.experiment import batch_shapes, build_experiment
from vit_jax.models.variants import with_model
from vit_jax.packing import fit_grid
from vit_jax.preflight.flops import count_flops

NUM_CLASSES = 1000


class Step:
    """A training step on random pixels, compiled, and its operations."""

    def __init__(self, config: Config, grids: list[tuple[int, int]] | None):
        mesh = make_mesh(MeshShape())
        experiment = build_experiment(config, mesh, NUM_CLASSES, examples=1_281_167)
        rng, batch = np.random.default_rng(0), {}
        for name, each in batch_shapes(config, mesh, experiment.task).items():
            batch[name] = rng.integers(0, 256 if name == "image" else NUM_CLASSES, each.shape).astype(each.dtype)
        if grids is not None:
            batch["grid"] = np.array(grids, np.int32)
        batch = place_batch(batch, batch_rows(config.batch, mesh), config.batch, mesh)
        self.state = experiment.init(jax.random.key(0))
        traced = experiment.train_step.trace(self.state, batch, experiment.numbers)
        self.flops, step = count_flops(traced.jaxpr), traced.lower().compile()

        def run() -> Any:
            self.state, metrics = step(self.state, batch, experiment.numbers)
            return metrics

        self.run = run


def main(argv: list[str]) -> None:
    """Measure FLOPs and time of a training step each way."""
    parser = Parser(__doc__)
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR", help="whose shapes are taken")
    parser.add_argument("--model", default="S/16")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a step (default: 16)")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS", help="whose patches each may have")
    parser.add_argument("--packing", type=int, default=784, metavar="PATCHES", help="in a shared sequence")
    parser.add_argument("--share", type=int, default=8, metavar="PICTURES", help="in a shared sequence")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of config.model")
    parser.add_argument("--rounds", type=int, default=7, help="turns; figures are medians (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="approximate length of each turn (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    files = sorted(path for path in args.pictures.rglob("*") if path.is_file())[: args.batch]
    if len(files) < args.batch:
        raise InputError(f"--pictures={args.pictures}: holds {len(files)} files, fewer than --batch={args.batch}")
    sizes = [_size(path) for path in files]
    native = override(read_config(args.model, args), {"data.resize": "'native'"})
    packed = override(native, {"data.packing": str(args.packing), "data.pictures": str(args.share)})
    patch, most = with_model(native).model.patch, most_patches(with_model(native))
    grids = [fit_grid(*size, most) for size in sizes]
    canvas = tuple(int(side) * patch for side in np.max(grids, axis=0))
    padded = override(read_config(args.model, args), {"image_size": str(canvas)})
    shared = with_model(packed)
    parts = np.concatenate([budgets(shared, 0, i) for i in range(0, args.batch, sequence(shared)[0])]).tolist()
    smaller = [fit_grid(*size, part) for size, part in zip(sizes, parts, strict=True)]
    contenders = {"native": (native, grids), "padded": (padded, None), "packed": (packed, smaller)}
    print(describe_machine(), flush=True)
    steps = {name: Step(*each) for name, each in contenders.items()}
    seconds = take_turns({name: seconds_of(step.run, args.seconds) for name, step in steps.items()}, args.rounds)
    tokens = {"native": most, "padded": canvas[0] * canvas[1] // patch**2, "packed": sequence(shared)[1]}
    real = {"native": np.prod(grids, axis=1), "padded": np.prod(grids, axis=1), "packed": np.prod(smaller, axis=1)}
    rows = [
        {
            "pictures": name,
            "model": args.model,
            "batch": args.batch,
            "patches computed": tokens[name],
            "patches of pictures": float(real[name].mean()),
            "GFLOPs": step.flops / args.batch / 1e9,
            "ms": 1e3 * seconds[name],
            "images/s": args.batch / seconds[name],
            "FLOPs over padded": step.flops / steps["padded"].flops,
            "time over padded": seconds[name] / seconds["padded"],
        }
        for name, step in steps.items()
    ]
    write_report(rows, args.json, args.markdown)


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size[::-1]
