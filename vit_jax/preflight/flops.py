"""Floating-point operations of a traced program: its matrix products and convolutions, 2 for each multiply-add."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def count_flops(program: Jaxpr | ClosedJaxpr) -> int:
    """Return the operations of one run; a scan counts as often as it runs, a conditional as its most expensive branch.

    A loop whose length is only known at run time counts once.
    """
    total = 0
    for equation in getattr(program, "jaxpr", program).eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += 2 * equation.outvars[0].aval.size * _contracted(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(count_flops(branch) for branch in params["branches"])
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(count_flops(inner) for inner in _inner(params))
    return total


def _contracted(equation: JaxprEqn) -> int:
    (axes, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.invars[0].aval.shape[axis] for axis in axes)


def _convolution(equation: JaxprEqn) -> int:
    params = equation.params
    picture, kernel, output = (x.aval.shape for x in (*equation.invars, *equation.outvars))
    axes = params["dimension_numbers"]
    # What meets the padding, or the zeros between the pixels of a dilated input, costs nothing: so the gradients of a
    # convolution cost as much as itself.
    pairs = math.prod(
        _pairs(picture[axis], kernel[window], output[out], *facts)
        for axis, window, out, *facts in zip(
            *(axes.lhs_spec[2:], axes.rhs_spec[2:], axes.out_spec[2:]),
            *(params[name] for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")),
            strict=True,
        )
    )
    batch, features = (output[axis] for axis in axes.out_spec[:2])
    return 2 * batch * features * kernel[axes.rhs_spec[1]] * pairs


def _pairs(
    pixels: int, window: int, outputs: int, stride: int, padding: tuple[int, int], between: int, spread: int
) -> int:
    """Return how many pairs of an output and an entry of the kernel meet a pixel, along one axis."""
    first = np.arange(outputs)[:, None] * stride - padding[0]
    place = first + np.arange(window) * spread
    return int(((place >= 0) & (place <= (pixels - 1) * between) & (place % between == 0)).sum())


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr | ClosedJaxpr]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (Jaxpr, ClosedJaxpr)):
                yield item
