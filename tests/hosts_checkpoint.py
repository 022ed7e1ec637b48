"""One of two processes that save, lose a part and restore: python -m tests.hosts_checkpoint ADDRESS PROCESS WORKDIR.

Prints the restored steps as JSON.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.cluster.sharding import make_mesh, tree_shardings, with_shardings
from vit_jax.config import MeshShape
from vit_jax.runs.checkpoint import Checkpoints
from vit_jax.step import State


def make_state(step: int) -> State:
    """Return a state sharded over the processes, with values that depend on the step."""
    random = np.random.default_rng(step)
    params = {"head": {"kernel": random.normal(size=(256, 96)).astype(np.float32), "bias": np.ones(96, np.float32)}}
    mesh = make_mesh(MeshShape(1, -1, 1))
    state = State(np.int32(step), params, {"mu": params}, ema=None, skipped=np.int32(0))
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]),
        state,
        tree_shardings(state, mesh),
    )


def restored(workdir: Path) -> int:
    """Restore on this mesh, check that every value is as it was saved, and return the step."""
    shapes = make_state(0)
    checkpoints = Checkpoints(workdir, 2)
    state = checkpoints.restore(with_shardings(shapes, jax.tree.map(lambda x: x.sharding, shapes)))
    checkpoints.close()
    step = int(state.step)
    for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(make_state(step)), strict=True):
        for one, other in zip(found.addressable_shards, expected.addressable_shards, strict=True):
            np.testing.assert_array_equal(one.data, other.data)
    return step


def main(workdir: Path) -> list[int]:
    """Return the steps restored: intact, with one process's part of 2 lost, and after 2 was saved again."""
    checkpoints = Checkpoints(workdir, 2)
    for step in (1, 2):
        checkpoints.save(make_state(step))
    checkpoints.close()
    steps = [restored(workdir)]
    if jax.process_index() == 0:
        for path in (workdir / "checkpoints" / "2" / "params" / "ocdbt.process_1" / "d").iterdir():
            path.unlink()
    multihost_utils.sync_global_devices("lost")
    steps.append(restored(workdir))
    checkpoints = Checkpoints(workdir, 2)
    checkpoints.save(make_state(2))
    checkpoints.close()
    return [*steps, restored(workdir)]


if __name__ == "__main__":
    address, process, folder = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, int(process))
    print(json.dumps(main(Path(folder))))
    jax.distributed.shutdown()
