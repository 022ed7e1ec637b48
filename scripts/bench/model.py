"""Pictures per second of a training step or a forward pass on random pictures, optionally compared with timm."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bench.peer import Peer, check_python
from bench.report import (
    ISAS,
    describe_machine,
    limit_isa,
    measure_ceiling,
    reset_peak,
    seconds_of,
    take_turns,
    write_report,
)

from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import Config, Model, Optim
from vit_jax.config.files import override
from vit_jax.errors import InputError, Parser
from vit_jax.experiment import build_experiment
from vit_jax.models.layers import compute_dtype
from vit_jax.models.variants import kind_of, resolve
from vit_jax.preflight.flops import count_flops
from vit_jax.runs.metrics import peak_bytes

NUM_CLASSES = 1000


class Ours:
    """One of our steps, compiled and ready to run, and its cost."""

    def __init__(self, config: Config, train: bool, devices: list[jax.Device] | None = None):
        start = time.perf_counter()
        mesh = make_mesh(config.mesh, devices)
        experiment = build_experiment(config, mesh, NUM_CLASSES, examples=1_281_167)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (config.batch, *config.height_width(), 3), dtype=np.uint8)
        batch = {"image": images, "label": rng.integers(0, NUM_CLASSES, config.batch, dtype=np.int32)}
        batch = place_batch(batch, batch_rows(config.batch, mesh), config.batch, mesh)
        self.state = experiment.init(jax.random.key(0))
        forward = jax.jit(experiment.eval_step).trace(self.state.params, batch)
        # Model FLOPs: rematerialization doesn't count (Chowdhery et al., 2022, appendix B).
        self.flops = (3 if train else 1) * count_flops(forward.jaxpr)
        step = (
            experiment.train_step.lower(self.state, batch, experiment.numbers) if train else forward.lower()
        ).compile()
        self.compiled = step

        def run() -> Any:
            if not train:
                return step(self.state.params, batch)
            self.state, metrics = step(self.state, batch, experiment.numbers)
            return metrics

        self.run = run
        jax.block_until_ready(run())
        self.first = time.perf_counter() - start


class Timm:
    """timm's step in its own process, of a VisionTransformer of the same sizes."""

    def __init__(self, python: str, what: str, config: Config, compiled: bool):
        options = [what, json.dumps(timm_fields(config)), f"--batch={config.batch}"]
        options += ["--compile"] if compiled else []
        self._peer = Peer(python, "timm_peer.py", *options, needs="PyTorch and timm")
        self.first = self._peer.facts["first"]

    def measure(self, seconds: float) -> Callable[[], float]:
        """Return a function that measures the seconds per step for about `seconds`."""
        number = max(1, round(seconds / self._peer.ask(1)))
        return lambda: self._peer.ask(number) / number

    def close(self) -> int:
        """End the process; return its peak memory in bytes, of the GPU or resident."""
        return self._peer.close()["peak"]


def timm_fields(config: Config) -> dict[str, Any]:
    """Return the arguments of timm's VisionTransformer for a model of the same sizes.

    Raises:
        InputError: it is no such model.
    """
    model = resolve(config.model)
    default = Model()
    others = ("rope", "swiglu", "mlp_norm", "attention_norm", "embedding_norm", "key_bias", "attention_pattern", "norm")
    others += ("linear_bias", "patch_norm", "resnet", "tokenizer")
    plain = all(getattr(model, key) == getattr(default, key) for key in others)
    if kind_of(model.name) != "ViT" or not plain or model.pool in ("probe", "seq", "token_gap"):
        raise InputError(f"--vs=timm: {model.name!r} can't be compared, only plain ViTs with full attention on patches")
    return {
        "img_size": config.height_width(),
        "patch_size": model.patch,
        "embed_dim": model.width,
        "depth": model.depth,
        "num_heads": model.num_heads,
        "qkv_bias": model.qkv_bias,
        "mlp_ratio": model.mlp_dim / model.width,
        "class_token": model.class_token,
        "global_pool": {"gap": "avg"}.get(model.pool, model.pool),
    }


def read_config(name: str, args: Any, **defaults: str) -> Config:
    """Return the config of a model with AdamW, from the options --batch, --image_size and --set.

    Args:
        defaults: keys of `config.model` that --set may override.

    Raises:
        InputError: --set has an unknown key or an invalid value.
    """
    config = Config(batch=args.batch, image_size=args.image_size, optim=Optim(lr=1e-4, weight_decay=0.1, clip=None))
    keys = defaults | dict(each.partition("=")[::2] for each in args.set) | {"name": repr(name)}
    return override(config, {f"model.{key}": value for key, value in keys.items()})


def _run(what: str, argv: list[str]) -> None:
    parser = Parser(f"Pictures per second: {what}.")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated (default: S/16)")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a step, over all devices (default: 16)")
    parser.add_argument("--image_size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of config.model")
    parser.add_argument("--vs", choices=["timm"], help="compare with it, eager and compiled by torch.compile")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="one that has PyTorch and timm")
    parser.add_argument("--isa", choices=list(ISAS), help="what a CPU may use, for all contenders")
    parser.add_argument("--rounds", type=int, default=7, help="turns; figures are medians (default: 7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="approximate length of each turn (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    if args.vs:
        check_python(args.peer)
    if args.isa:
        limit_isa(args.isa)
    print(describe_machine(), flush=True)
    rows = []
    for name in args.model or ["S/16"]:
        rows += _compare(what, name, args)
    write_report(rows, args.json, args.markdown)


def _compare(what: str, name: str, args: Any) -> list[dict[str, Any]]:
    config = read_config(name, args)
    if args.vs:
        timm_fields(config)  # To refuse what can't be compared before anything is built.
    reset_peak()
    ceiling = measure_ceiling(str(compute_dtype(config.model))) * jax.device_count()
    ours = Ours(config, what == "train")
    peers = {f"timm {how}": how == "compiled" for how in ("eager", "compiled")} if args.vs else {}
    peers = {peer: Timm(args.peer, what, config, compiled) for peer, compiled in peers.items()}
    contenders = {"vit_jax": seconds_of(ours.run, args.seconds)}
    contenders |= {peer: process.measure(args.seconds) for peer, process in peers.items()}
    seconds = take_turns(contenders, args.rounds)
    plan = ours.compiled.memory_analysis()
    planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    planned -= plan.alias_size_in_bytes
    peaks = {"vit_jax": peak_bytes()} | {peer: process.close() for peer, process in peers.items()}
    firsts = {"vit_jax": ours.first} | {peer: process.first for peer, process in peers.items()}
    return [
        {
            "what": what,
            "model": name,
            "image": args.image_size,
            "batch": args.batch,
            "by": by,
            "ms": 1e3 * each,
            "images/s": args.batch / each,
            "speed over ours": seconds["vit_jax"] / each,
            "utilisation": ours.flops / each / ceiling,
            "peak GiB": peaks[by] / 2**30,
            "planned GiB": planned / 2**30 if by == "vit_jax" else None,
            "first step s": firsts[by],
        }
        for by, each in seconds.items()
    ]


def train(argv: list[str]) -> None:
    """Measure forward, backward and AdamW."""
    _run("train", argv)


def infer(argv: list[str]) -> None:
    """Measure the forward pass."""
    _run("infer", argv)
