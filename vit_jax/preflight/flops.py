"""Floating-point operations of a traced program: its matrix products and convolutions, 2 for each multiply-add."""

import math
from collections.abc import Iterator
from typing import Any

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
    params, kernel = equation.params, equation.invars[1].aval
    features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    each = kernel.size // features  # Per output: the spatial window times the channels of its group.
    # The zeros between the pixels of a dilated input, as in the gradient of a strided convolution, cost nothing.
    return 2 * equation.outvars[0].aval.size * each // math.prod(params["lhs_dilation"])


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr | ClosedJaxpr]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (Jaxpr, ClosedJaxpr)):
                yield item
