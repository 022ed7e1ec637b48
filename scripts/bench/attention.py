"""Times every implementation of attention, forward and backward, at the sequence lengths of ViTs."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from bench.report import describe_machine, seconds_of, take_turns, write_report

from vit_jax.errors import InputError, Parser
from vit_jax.models.attention import IMPLEMENTATIONS, choose, trouble_with


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser("Milliseconds of attention by implementation and length.")
    parser.add_argument("--tokens", default="50,196,197,201,577", metavar="N,N,...")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--head_dim", type=int, default=64)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=7, help="turns; figures are medians (default: 7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="approximate length of each turn (default: 0.3)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    try:
        lengths = [int(length) for length in args.tokens.split(",")]
    except ValueError as error:
        raise InputError(f"--tokens={args.tokens!r}: must be numbers separated by commas, such as 196,197") from error
    print(describe_machine(), flush=True)
    write_report([row for tokens in lengths for row in _measure(tokens, args)], args.json, args.markdown)


def _measure(tokens: int, args: Any) -> list[dict[str, Any]]:
    forward, both = {}, {}
    for name in IMPLEMENTATIONS:
        _, masked = choose(name, tokens, args.heads, args.head_dim, args.dtype, biased=False)
        if trouble_with(name, tokens + masked, args.heads, args.head_dim, args.dtype, biased=False):
            continue
        shape = (args.batch, tokens + masked, args.heads, args.head_dim)
        inputs = [jax.random.normal(jax.random.key(i), shape, args.dtype) for i in range(3)]
        attend = functools.partial(IMPLEMENTATIONS[name], length=tokens if masked else None)
        gradients = jax.grad(lambda *inputs, attend=attend: attend(*inputs).astype(jnp.float32).sum(), (0, 1, 2))
        forward[name] = seconds_of(functools.partial(jax.jit(attend), *inputs), args.seconds)
        both[name] = seconds_of(functools.partial(jax.jit(gradients), *inputs), args.seconds)
    forward, both = take_turns(forward, args.rounds), take_turns(both, args.rounds)
    return [
        {
            "tokens": tokens,
            "dtype": args.dtype,
            "by": name,
            "forward ms": 1e3 * forward[name],
            "forward and backward ms": 1e3 * both[name],
        }
        for name in forward
    ]
