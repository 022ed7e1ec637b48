"""One of several processes that load onto a mesh of all devices: python -m tests.hosts_weights WHERE ...

Prints, for each, the largest fraction of a stacked kernel that it holds.
"""

import sys

import jax
import numpy as np

import vit_jax
from tests.drawn import params_of
from vit_jax.cluster.processes import joined
from vit_jax.cluster.sharding import make_mesh
from vit_jax.config import MeshShape


def held(where: str) -> float:
    """Compare what this process's devices hold with the whole, and return the largest fraction held."""
    options = {"num_classes": 5, "image_size": (96, 64)}
    whole = params_of(vit_jax.load(where, **options, host=True))
    split = params_of(vit_jax.load(where, **options, mesh=make_mesh(MeshShape(data=1, fsdp=-1))))
    assert whole.keys() == split.keys()
    fractions = [0.0]
    for name, array in split.items():
        assert len(array.sharding.device_set) == jax.device_count()
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[name][shard.index], err_msg=name)
        if name.startswith("blocks/") and name.endswith("kernel"):
            fractions.append(sum(shard.data.size for shard in array.addressable_shards) / array.size)
    return max(fractions)


if __name__ == "__main__":
    with joined():
        print(*(held(where) for where in sys.argv[1:]))
