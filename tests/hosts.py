"""One of several processes that read the same batches, and train: python -m tests.hosts FOLDER OUT [train].

Writes OUT-PROCESS.npz, with its rows of every global batch as placed on the devices, before and after augmentation,
and their labels; and, with `train`, OUT-PROCESS.json, with the losses of 10 steps on digits, on all devices.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np

from tests import tiny
from vit_jax import data
from vit_jax.cluster.processes import joined
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_batch
from vit_jax.config import Augment, Config, Data, MeshShape
from vit_jax.data.augment import augment
from vit_jax.losses import make_targets
from vit_jax.pixels import normalise

STEPS = 30
CONFIG = Config(
    seed=7,
    batch=8,
    image_size=8,
    data=Data(name="folder", crop="random_resized", max_bad=0.5, threads=4),
    augment=Augment(flip=True, mixup=0.4),
)


def read(folder: str, first: int = 0, threads: int = 4) -> dict[str, np.ndarray]:
    """Return, for each step, this process's rows of the global batch: rows, image, label, mixed."""
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, path=folder, threads=threads))
    source = data.open_sources(config)["train"]
    # Four devices in all: with another number of them, a mix may differ in the last bit.
    share, number = 4 // jax.process_count(), jax.local_device_count()
    mesh = make_mesh(MeshShape(), [device for i, device in enumerate(jax.devices()) if i % number < share])
    rows = batch_rows(config.batch, mesh)

    @jax.jit
    def mix(step, images, labels):
        key = jax.random.fold_in(jax.random.key(config.seed), step)
        return augment(key, normalise(images), make_targets(labels, 2, 0.0), config.augment)[0]

    steps = []
    for step, batch in enumerate(data.train_batches(source, config, rows, first, STEPS), start=first):
        batch = place_batch(batch, rows, config.batch, mesh)
        arrays = {"image": batch["image"], "label": batch["label"], "replaced": batch["replaced"]}
        arrays["mixed"] = mix(step, batch["image"], batch["label"])
        steps.append({name: local(array) for name, array in arrays.items()})
    return {"rows": rows} | {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def local(array: jax.Array) -> np.ndarray:
    """Return the rows that this process's devices hold, in order."""
    shards = {shard.index[0].indices(array.shape[0])[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def losses(devices: int | None = None) -> list[float]:
    """Return the losses of 10 float32 steps, on the first or on all devices."""
    return tiny.run_steps(tiny.CONFIG, make_mesh(MeshShape(), jax.devices()[:devices]), 10)[0]


if __name__ == "__main__":
    folder, out, *more = sys.argv[1:]
    with joined():
        np.savez(f"{out}-{jax.process_index()}.npz", **read(folder))
        if more == ["train"]:
            Path(f"{out}-{jax.process_index()}.json").write_text(json.dumps(losses()))
