"""What evaluators compute for every picture of a split, collected in host memory."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.data.pipeline import ahead
from vit_jax.errors import InputError
from vit_jax.step import Batch

# Batches that are computed while the host waits for an older one; no more lie in device memory.
AHEAD = 2


def make_collect(
    function: Callable[[Any, Batch], dict[str, jax.Array]], mesh: Mesh
) -> Callable[[Any, Iterable[Batch]], dict[str, np.ndarray]]:
    """Return the function that maps parameters and batches to what `function` returns for each picture, by name.

    Padding is dropped. Every process gets all rows, so that all go on with the same numbers. The function raises an
    `InputError` if there is nothing but padding.
    """

    def with_mask(params: Any, batch: Batch) -> tuple[dict[str, jax.Array], jax.Array]:
        return function(params, batch), batch["mask"]

    replicated = jax.jit(with_mask, out_shardings=NamedSharding(mesh, P()))

    def collect(params: Any, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
        parts = []
        for waiting in ahead((replicated(params, batch) for batch in batches), AHEAD):
            rows, mask = jax.device_get(waiting)
            parts.append({name: array[mask > 0] for name, array in rows.items()})
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if not all(map(len, found.values())):
            raise InputError("none of the pictures could be read")
        return found

    return collect
