"""Pictures per second of predict, compared with the bare forward pass and with timm's loop over a DataLoader."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bench.peer import Peer, check_python
from bench.report import describe_machine, take_turns, write_report
from flax import nnx

import vit_jax
from vit_jax.data.rows import decode_as
from vit_jax.errors import InputError, Parser
from vit_jax.prediction.forward import Wanted, make_forward, run_forward
from vit_jax.prediction.listing import list_pictures
from vit_jax.prediction.tables import writing_table
from vit_jax.weights.opened import Opened, open_model

TIMM_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge"}


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser("Pictures per second of predict, from files to a CSV table, in one process.")
    parser.add_argument("--pictures", required=True, metavar="DIR")
    parser.add_argument("--model", default="S/16", metavar="NAME", help="random weights (default: S/16)")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--batch", type=int, default=64, help="pictures at a time on each device (default: 64)")
    parser.add_argument("--threads", type=int, default=8, help="that decode (default: 8)")
    parser.add_argument("--peer", metavar="PYTHON", help="compare with timm under this Python")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="of timm's loader (default: one a core)")
    parser.add_argument("--rounds", type=int, default=5, help="turns; figures are medians (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    if args.peer:
        check_python(args.peer)
    paths = [each.path for each in list_pictures([args.pictures])]
    with tempfile.TemporaryDirectory() as folder:
        contenders = _ours(paths, args, Path(folder))
        if args.peer:
            peer = _timm(paths, args, Path(folder))
            print(json.dumps(peer.facts), flush=True)
            contenders["timm, DataLoader"] = lambda: peer.ask() / len(paths)
        seconds = take_turns(contenders, args.rounds)
    print(describe_machine())
    bare = seconds["bare forward pass"]
    facts = {"model": args.model, "image": args.image_size, "batch": args.batch, "pictures": len(paths)}
    rows = [
        facts | {"by": by, "images/s": 1 / each, "of the bare forward pass": bare / each}
        for by, each in seconds.items()
    ]
    write_report(rows, args.json, args.markdown)


def _ours(paths: list[str], args: Any, folder: Path) -> dict[str, Callable[[], float]]:
    """Return functions that measure seconds per picture: of the forward pass alone, and from files to a table."""
    opened = _opened(args, folder)
    forward = make_forward(opened, Wanted())
    size = args.batch * jax.local_device_count()
    images = np.stack([decode_as(opened.config, Path(paths[i % len(paths)])) for i in range(size)])
    jax.block_until_ready(forward(images, None))

    def bare() -> float:
        start, number = time.perf_counter(), max(1, len(paths) // size)
        for _ in range(number):
            outputs = forward(images, None)
        jax.block_until_ready(outputs)
        return (time.perf_counter() - start) / (number * size)

    def predict() -> float:
        start = time.perf_counter()
        with writing_table(folder / "ours.csv") as write:
            for found in run_forward(forward, opened, list_pictures([args.pictures]), args.batch, args.threads):
                write(found)
        return (time.perf_counter() - start) / len(paths)

    predict()
    return {"bare forward pass": bare, "predict": predict}


def _opened(args: Any, folder: Path) -> Opened:
    model = vit_jax.create_model(args.model, num_classes=1000, image_size=args.image_size)
    model.head.kernel = nnx.Param(0.02 * jax.random.normal(jax.random.key(0), model.head.kernel.shape))
    vit_jax.save(model, folder / "model.npz")
    return open_model(folder / "model.npz")


def _timm(paths: list[str], args: Any, folder: Path) -> Peer:
    """Return timm's loop, which predicts all pictures and tells the seconds whenever it is asked."""
    size, _, patch = args.model.partition("/")
    if size not in TIMM_SIZES:
        raise InputError(f"--peer: timm has no {args.model!r}; choose a size of {', '.join(TIMM_SIZES)}")
    (folder / "list.txt").write_text("\n".join(paths) + "\n")
    options = [f"vit_{TIMM_SIZES[size]}_patch{patch}_224", str(folder / "list.txt"), str(folder / "timm.csv")]
    options += [f"--batch={args.batch}", f"--image_size={args.image_size}", f"--workers={args.workers}"]
    return Peer(args.peer, "predict_peer.py", *options, needs="PyTorch and timm")
