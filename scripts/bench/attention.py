"""Times attention, forward and backward, at the sequence lengths of ViTs: every implementation, and patterns."""

import functools
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from bench.peer import Peer, check_python
from bench.report import describe_machine, seconds_of, take_turns, write_report

from vit_jax.config import Model
from vit_jax.errors import InputError, Parser
from vit_jax.models.attention import IMPLEMENTATIONS, choose, trouble_with
from vit_jax.models.patterns import parse_pattern
from vit_jax.models.tiles import by_pattern

# Of the host's memory, or the device's.
MOST_MEMORY = 0.8


class Pass(NamedTuple):
    """One contender, forward alone or with its gradients.

    Attributes:
        bytes: what it needs in all, by XLA's plan.
        measure: returns the seconds of a call; None if it does not fit.
    """

    bytes: int | None
    measure: Callable[[], float] | None


def main(argv: list[str]) -> None:
    """Read the command line and measure."""
    parser = Parser("Milliseconds and memory of attention by implementation, pattern and length.")
    how = "beside full attention, on a square of patches: a model.attention_pattern, or strided or fixed alone, by rows"
    parser.add_argument("--pattern", action="append", default=[], metavar="NAME", help=how + "; may be repeated")
    parser.add_argument("--tokens", default="50,196,197,201,577", metavar="N,N,...")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--head_dim", type=int, default=64)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vs", choices=["torch"], help="also PyTorch's full attention, and its flex_attention")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="one that has PyTorch")
    parser.add_argument("--rounds", type=int, default=7, help="turns; figures are medians (default: 7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="approximate length of each turn (default: 0.3)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="add the table to a page")
    args = parser.parse_args(argv)
    try:
        lengths = [int(length) for length in args.tokens.split(",")]
    except ValueError as error:
        raise InputError(f"--tokens={args.tokens!r}: must be numbers separated by commas, such as 196,197") from error
    if args.vs:
        check_python(args.peer)
    print(describe_machine(), flush=True)
    write_report([row for tokens in lengths for row in _measure(tokens, args)], args.json, args.markdown)


def _measure(tokens: int, args: Any) -> list[dict[str, Any]]:
    contenders, patterns = {}, []
    for name in IMPLEMENTATIONS:
        _, masked = choose(name, tokens, args.heads, args.head_dim, args.dtype, biased=False)
        facts = (name, tokens + masked, args.heads, args.head_dim, args.dtype, False)
        if name == "xla" or not trouble_with(*facts):
            attend = functools.partial(IMPLEMENTATIONS[name], length=tokens if masked else None)
            contenders[name] = _passes(attend, tokens + masked, args)
    for text in args.pattern:
        name, attend = _by_pattern(text, tokens)
        contenders[name] = _passes(attend, tokens, args)
        patterns.append(name)
    if args.vs:
        options = [str(x) for x in (tokens, args.batch, args.heads, args.head_dim)]
        options += [f"--dtype={args.dtype}", f"--seconds={args.seconds}", *(f"--pattern={each}" for each in patterns)]
        peer = Peer(args.peer, "torch_peer.py", *options, needs="PyTorch")
        for name, what in peer.facts.items():
            contenders[name] = tuple(
                Pass(None, functools.partial(peer.ask, [name, each]) if each in what else None)
                for each in ("forward", "both")
            )
    seconds = [
        take_turns({name: passes[i].measure for name, passes in contenders.items() if passes[i].measure}, args.rounds)
        for i in (0, 1)
    ]
    return [
        {
            "tokens": tokens,
            "dtype": args.dtype,
            "by": name,
            "forward ms": _times(seconds[0].get(name), 1e3),
            "forward MiB": _times(forward.bytes, 2**-20),
            "forward and backward ms": _times(seconds[1].get(name), 1e3),
            "forward and backward MiB": _times(both.bytes, 2**-20),
        }
        for name, (forward, both) in contenders.items()
    ]


def _by_pattern(text: str, tokens: int) -> tuple[str, Callable[..., jax.Array]]:
    side = math.isqrt(tokens)
    if side**2 != tokens:
        raise InputError(f"--pattern={text}: {tokens} tokens are no square of patches")
    text = Model(attention_pattern=f"{text}:{side}" if text in ("strided", "fixed") else text).attention_pattern
    pattern = parse_pattern(text)
    pattern.check((side, side))
    return text, functools.partial(by_pattern, table=None, pattern=pattern, grid=(side, side), prefix=0, block=0)


def _passes(attend: Callable[..., jax.Array], tokens: int, args: Any) -> tuple[Pass, Pass]:
    shape = (args.batch, tokens, args.heads, args.head_dim)
    inputs = [jax.random.normal(jax.random.key(i), shape, args.dtype) for i in range(3)]
    gradients = jax.grad(lambda *inputs: attend(*inputs).astype(jnp.float32).sum(), (0, 1, 2))
    return tuple(_compiled(function, inputs, args.seconds) for function in (attend, gradients))


def _compiled(function: Callable[..., Any], inputs: list[jax.Array], seconds: float) -> Pass:
    compiled = jax.jit(function).lower(*inputs).compile()
    plan = compiled.memory_analysis()
    needed = plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
    fits = needed < MOST_MEMORY * _memory()
    return Pass(needed, seconds_of(functools.partial(compiled, *inputs), seconds) if fits else None)


def _memory() -> int:
    found = jax.local_devices()[0].memory_stats()
    return found["bytes_limit"] if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
