"""PyTorch's attention in its own process, under any Python that has PyTorch.

It prints what it can run: {"name": ["forward", "both"]}. For each line ["name", "forward"] of its input it then prints
the seconds of a call; it ends with its input.
"""

import argparse
import functools
import json
import math
import sys
import time

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

parser = argparse.ArgumentParser()
for name in ("tokens", "batch", "heads", "head_dim"):
    parser.add_argument(name, type=int)
parser.add_argument("--dtype")
parser.add_argument("--seconds", type=float)
parser.add_argument("--pattern", action="append", default=[])
args = parser.parse_args()
side = math.isqrt(args.tokens)
device = "cuda" if torch.cuda.is_available() else "cpu"


def mask_of(text):
    """Return the mask of a pattern in an even block, as flex_attention takes it, on a square of patches."""
    kind, _, number = text.partition(":")
    number = int(number) if number.isdecimal() else 0

    def both(axis):
        return lambda _, h, i, j: axis(i) == axis(j)

    def row(i):
        return i // side

    def column(i):
        return i % side

    return {
        "axial": (lambda b, h, i, j: (row(i) == row(j)) | (column(i) == column(j))) if "both" in text else both(row),
        "local": lambda b, h, i, j: ((row(i) - row(j)).abs() <= number) & ((column(i) - column(j)).abs() <= number),
        "blocks": lambda b, h, i, j: (
            (row(i) // number == row(j) // number) & (column(i) // number == column(j) // number)
        ),
        "strided": lambda b, h, i, j: ((i - j).abs() < number) | (i % number == j % number),
        "fixed": lambda b, h, i, j: (i // number == j // number) | (j % number == number - 1),
    }[kind]


def contenders():
    """Yield (name, function of query, key and value)."""
    yield "torch full", torch.nn.functional.scaled_dot_product_attention
    compiled = torch.compile(flex_attention, dynamic=False)
    for text in args.pattern:
        blocks = create_block_mask(mask_of(text), None, None, args.tokens, args.tokens, device=device)
        yield f"torch flex {text}", functools.partial(compiled, block_mask=blocks)


shape = (args.batch, args.heads, args.tokens, args.head_dim)
inputs = [torch.randn(shape, device=device, dtype=getattr(torch, args.dtype), requires_grad=True) for _ in range(3)]


def calls(attend):
    """Return what runs the function forward, and forward and backward."""

    def forward():
        return attend(*(x.detach() for x in inputs))

    def both():
        return torch.autograd.grad(attend(*inputs).float().sum(), inputs)[0]

    return {"forward": forward, "both": both}


def run(call, number):
    """Return the seconds of a call."""
    start = time.perf_counter()
    for _ in range(number):
        result = call()
    result.float().sum().item()  # Waits for the device.
    return (time.perf_counter() - start) / number


found = {}
for name, attend in contenders():
    for what, call in calls(attend).items():
        try:
            run(call, 1)
            found[name, what] = call, max(1, round(args.seconds / run(call, 1)))
        except Exception as error:  # Such as: flex_attention has no gradient on a CPU.
            print(f"{name}, {what}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
print(json.dumps({name: [what for other, what in found if other == name] for name, _ in found}), flush=True)
for line in sys.stdin:
    print(run(*found[tuple(json.loads(line))]), flush=True)
