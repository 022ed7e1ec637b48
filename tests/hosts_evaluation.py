"""One of two processes that evaluate while pictures vanish: python -m tests.hosts_evaluation FOLDER OUT.

Evaluates before, while and after the pictures that only process 1 reads are missing, and writes OUT/PROCESS.json.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from tests.drawn import drawn_model
from vit_jax import data
from vit_jax.cluster.processes import joined
from vit_jax.cluster.sharding import batch_rows, make_mesh, place_params, tree_shardings, with_shardings
from vit_jax.config import Config, Data, MeshShape
from vit_jax.errors import InputError
from vit_jax.evaluators import Evaluators, Subject
from vit_jax.tasks import build_task

BATCH, CLASSES = 8, ("cat", "dog")


def drawn():
    """Return the same small model in every process."""
    return drawn_model(num_classes=2, image_size=16)


def main(folder: str, out: str) -> None:
    """Evaluate three times, and once as the command that evaluates."""
    graph, state = nnx.split(model := drawn())
    config = Config(batch=BATCH, image_size=16, model=model.config, data=Data(path=folder, cache_mb=0, threads=2))
    mesh = make_mesh(MeshShape())
    evaluate = Evaluators(Subject(graph, build_task(config, 2), config, CLASSES, mesh))
    params = nnx.to_pure_dict(state)
    params = place_params(params, with_shardings(params, tree_shardings(params, mesh)))
    source, rows = data.open_split(config, "test"), batch_rows(BATCH, mesh)
    own = [source[i].picture for i in range(len(source)) if np.isin(i % BATCH, rows)]
    found = {"attempts": [evaluate.attempt(1, params).scalars]}
    if jax.process_index() == 1:
        for path in own:
            path.rename(path.with_suffix(".away"))
    multihost_utils.sync_global_devices("away")
    found["attempts"].append(evaluate.attempt(2, params).scalars)
    try:
        evaluate(params)
    except InputError as error:
        found["refused"] = str(error).removeprefix("process 1: ")
    multihost_utils.sync_global_devices("tried")
    if jax.process_index() == 1:
        for path in own:
            path.with_suffix(".away").rename(path)
    multihost_utils.sync_global_devices("back")
    found["attempts"].append(evaluate.attempt(3, params).scalars)
    Path(out, f"{jax.process_index()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with joined():
        main(*sys.argv[1:])
