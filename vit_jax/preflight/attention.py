"""What an attention pattern costs beside full attention, here and at the length at hand."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vit_jax.config import Config
from vit_jax.models.attention import IMPLEMENTATIONS, choose
from vit_jax.models.layers import compute_dtype
from vit_jax.models.patterns import parse_pattern
from vit_jax.models.position import num_prefix
from vit_jax.models.tiles import by_pattern
from vit_jax.models.variants import resolve
from vit_jax.preflight.flops import count_flops

# Full attention whose scores would be larger is not tried.
MOST_SCORES = 2 << 30  # bytes
REPEATS = 3


def compare_with_full(config: Config, pictures: int, *, measure: bool) -> str:
    """Return a line on the attention of a block under `config.model.attention_pattern`, and on full attention.

    Args:
        pictures: of each device in a step.
        measure: whether to time both, forward and backward, here.
    """
    model, dtype = resolve(config.model), compute_dtype(config.model)
    grid, prefix = tuple(side // model.patch for side in config.height_width()), num_prefix(model)
    shape = (pictures, prefix + grid[0] * grid[1], model.num_heads, model.width // model.num_heads)
    pattern = parse_pattern(model.attention_pattern)
    ours = functools.partial(by_pattern, table=None, pattern=pattern, grid=grid, prefix=prefix, block=0)
    inputs = [jax.ShapeDtypeStruct(shape, dtype)] * 3
    flops = [count_flops(jax.make_jaxpr(attend)(*inputs)) / pictures for attend in (ours, IMPLEMENTATIONS["xla"])]
    mine, other = (f"{x / 1e6:,.3g}" for x in flops)
    line = f"{model.attention_pattern}: {mine} MFLOPs a picture in each block, full {other}"
    if not measure:
        return line
    scores = 4 * pictures * model.num_heads * shape[1] ** 2
    if scores > MOST_SCORES:
        return f"{line}, and its scores {scores / 2**30:,.1f} GiB"
    name, masked = choose(model.attention, *shape[1:], str(dtype), biased=False)
    full = functools.partial(IMPLEMENTATIONS[name], length=shape[1] if masked else None)
    longer = (pictures, shape[1] + masked, *shape[2:])
    mine, other = _seconds(ours, shape, dtype), _seconds(full, longer, dtype)
    verdict = "full attention is faster at this length" if other < mine else f"{other / mine:.1f} times as fast"
    return f"{line}; measured {1e3 * mine:,.3g} ms and {1e3 * other:,.3g}: {verdict}"


def _seconds(attend: Callable[..., jax.Array], shape: tuple[int, ...], dtype: jnp.dtype) -> float:
    inputs = [jax.random.normal(jax.random.key(i), shape, dtype) for i in range(3)]
    gradients = jax.jit(jax.grad(lambda *inputs: attend(*inputs).astype(jnp.float32).sum(), (0, 1, 2)))
    jax.block_until_ready(gradients(*inputs))
    start = time.perf_counter()
    for _ in range(REPEATS):
        found = gradients(*inputs)
    jax.block_until_ready(found)
    return (time.perf_counter() - start) / REPEATS
