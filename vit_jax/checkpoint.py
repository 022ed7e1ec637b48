"""Run directories: what a run is (`run.json`) and where it stands (`checkpoints/`, by Orbax)."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh

from vit_jax.config import Config, MeshShape, differences, from_dict
from vit_jax.errors import InputError
from vit_jax.models import init_params, model_graph
from vit_jax.sharding import make_mesh, tree_shardings, with_shardings
from vit_jax.step import State


class Facts(NamedTuple):
    """What a reader of a run must know beside its parameters."""

    config: Config
    label_names: tuple[str, ...]


def read_facts(workdir: Path) -> Facts:
    """Return the facts of a run directory.

    Raises:
        InputError: it is none, or `run.json` can't be read.
    """
    path = workdir / "run.json"
    try:
        values = json.loads(path.read_text())
        return Facts(from_dict(values["config"]), tuple(values["label_names"]))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{str(workdir)!r} is not a run directory: it has no run.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} can't be read: {error}") from error


def open_workdir(workdir: Path, facts: Facts) -> None:
    """Create a run directory, or check that the one there is of the same experiment.

    Raises:
        InputError: it can't be written, or belongs to another config.
    """
    path = workdir / "run.json"
    if path.exists():
        old = read_facts(workdir)
        changes = differences(old.config, facts.config)
        if old.label_names != facts.label_names:
            changes.append(f"label names: {len(old.label_names)} classes -> {len(facts.label_names)}, or other names")
        if changes:
            raise InputError(
                f"workdir {str(workdir)!r} holds a run of another config ({'; '.join(changes)}); choose another workdir"
            )
        return
    values = {
        "config": dataclasses.asdict(facts.config),
        "label_names": facts.label_names,
        "preprocessing": {
            "resize": f"shorter side to size / {facts.config.data.crop_fraction}, bilinear, centre cut out; "
            "pictures of the model's size as they are",
            "values": "pixel * 2 / 255 - 1",
        },
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(values, indent=1) + "\n")
            os.replace(partial, path)
    except OSError as error:
        raise InputError(f"workdir {str(workdir)!r} can't be written: {error.strerror}") from error


class Checkpoints:
    """The checkpoints of a run: saved in the background, the newest `keep` kept, an unfinished one never seen.

    Without `keep` they are only read.
    """

    def __init__(self, workdir: Path, keep: int | None = None):
        writing = keep is not None
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=writing, create=writing)
        self._manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)

    def latest(self) -> int | None:
        """Return the step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def save(self, state: State) -> None:
        """Copy the state to the host and write it while training goes on."""
        items = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
        self._manager.save(int(state.step), args=ocp.args.Composite(**items))

    def restore(self, shapes: State) -> State:
        """Return the newest state; `shapes` has the shape, dtype and sharding of every array."""
        items = {name: ocp.args.StandardRestore(item) for name, item in _items(shapes).items()}
        restored = self._manager.restore(self.latest(), args=ocp.args.Composite(**items))
        return State(params=restored["params"], ema=restored.get("ema"), **restored["training"])

    def restore_item(self, name: str, shapes: Any) -> Any:
        """Return the newest of an item of a checkpoint alone: "params" or "ema"."""
        args = ocp.args.Composite(**{name: ocp.args.StandardRestore(shapes)})
        return self._manager.restore(self.latest(), args=args)[name]

    def close(self) -> None:
        """Wait until what is being saved is whole."""
        self._manager.wait_until_finished()
        self._manager.close()


def _items(state: State) -> dict[str, Any]:
    # What is read by itself is an item of its own.
    rest = {name: part for name, part in state._asdict().items() if name not in ("params", "ema")}
    average = {} if state.ema is None else {"ema": state.ema}
    return {"params": state.params, "training": rest, **average}


def load_params(workdir: Path, model_facts: dict[str, Any], mesh: Mesh) -> Any:
    """Return a run's newest parameters, their moving average where it keeps one, placed by the partition rules.

    Raises:
        InputError: the run has no checkpoint yet.
    """
    checkpoints = Checkpoints(workdir) if (workdir / "checkpoints").is_dir() else None
    if checkpoints is None or checkpoints.latest() is None:
        raise InputError(f"run {str(workdir)!r} has no checkpoint yet")
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), **model_facts))
    item = "params" if read_facts(workdir).config.ema is None else "ema"
    params = checkpoints.restore_item(item, with_shardings(shapes, tree_shardings(shapes, mesh)))
    checkpoints.close()
    return params


def load_model(workdir: Path) -> tuple[nnx.Module, Facts]:
    """Return a run's newest model, on one device, and the facts of the run."""
    facts = read_facts(workdir)
    model_facts = facts.config.model_facts(len(facts.label_names))
    mesh = make_mesh(MeshShape(), jax.local_devices()[:1])
    return nnx.merge(model_graph(**model_facts), load_params(workdir, model_facts, mesh)), facts
