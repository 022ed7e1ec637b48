"""Checkpoints of a run: saved in the background by Orbax, verified by digests."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from vit_jax import tree
from vit_jax.cluster.sharding import make_mesh, tree_shardings, with_shardings
from vit_jax.config import MeshShape
from vit_jax.errors import InputError
from vit_jax.models import init_params, model_graph
from vit_jax.runs.digest import digests
from vit_jax.runs.directory import Facts, finished_steps, read_facts
from vit_jax.runs.orbax import set_up_orbax
from vit_jax.step import State
from vit_jax.tasks import best_metric, is_lower_better

# Items of their own, so that the model can be read without the other fields of the state, which form "training".
ALONE = ("params", "ema")
UNFINISHED = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The checkpoints of a run; keeps the newest `keep`, and the best by the metric `select`.

    Unfinished checkpoints are ignored. Damaged ones are reported and skipped; training moves them to `damaged-STEP`.
    Without `keep`, checkpoints are only read. All processes must call each method; they reach the same decisions.
    """

    def __init__(self, workdir: Path, keep: int | None = None, select: str | None = None):
        self._workdir, self._keep, self._select = workdir, keep, select
        self._directory = (workdir / "checkpoints").absolute()
        self._last = None
        set_up_orbax()
        if keep is not None:
            self._directory.mkdir(exist_ok=True)
            self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
            for path in self._directory.glob(f"*{UNFINISHED}*") if jax.process_index() == 0 else ():
                shutil.rmtree(path)

    def latest(self) -> int | None:
        """Return the step of the newest finished checkpoint."""
        return self._before(None)

    def best(self) -> int | None:
        """Return the step of the best finished checkpoint among those saved at a step that was evaluated."""
        scores = {}
        for step in finished_steps(self._workdir):
            try:
                score = self.contents(step)["metrics"].get(self._select)
            except (OSError, ValueError):
                continue
            if score is not None and score == score:
                scores[step] = -score if is_lower_better(self._select) else score
        return max(scores, key=lambda step: (scores[step], step), default=None)

    def selected(self) -> int | None:
        """Return the best step as process 0 sees it; every process must call this."""
        best = self.best() if jax.process_index() == 0 else None
        found = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if best is None else best)))
        return None if found == -1 else found

    def weights(self, step: int, state: State) -> Any:
        """Return the parameters to evaluate of a checkpoint, placed like those of `state`.

        Raises:
            InputError: it does not exist, or is damaged.
        """
        item = "params" if state.ema is None else "ema"
        shapes = with_shardings(state.weights, jax.tree.map(lambda x: x.sharding, state.weights))
        return self.exactly(step, {item: shapes})[item]

    def save(self, state: State, metrics: dict[str, float | int] | None = None) -> None:
        """Copy the state to the host and write it in the background; `metrics` are those of its step.

        An error in the previous write is raised here, or by `close`.
        """
        step = int(state.step)
        if step == self._last:
            return
        items = _items(state)
        contents = {"step": step, "metrics": metrics or {}, "arrays": _description(items)}
        contents["digests"] = digests(items)
        text = json.dumps(contents)
        contents = {"contents": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        self._finish()
        arguments = ocp.args.Composite(**arguments, contents=ocp.args.JsonSave(contents))
        self._writer.save(self._directory / str(step), args=arguments)
        self._last = step

    def restore(self, shapes: State, step: int | None = None) -> State:
        """Return the newest intact state, or that of a step; `shapes` has the shape, dtype and sharding of every array.

        Raises:
            InputError: no checkpoint is intact, or its arrays don't match `shapes`.
        """
        items = self.newest(_items(shapes)) if step is None else self.exactly(step, _items(shapes))
        return shapes._replace(**items.pop("training"), **items)

    def go_back(self, step: int) -> None:
        """Delete the checkpoints of later steps, which are to be made again."""
        for later in finished_steps(self._workdir):
            if later > step:
                self._delete(later)

    def newest(self, items: dict[str, Any]) -> dict[str, Any]:
        """Return the given items, as {item: shapes}, from the newest checkpoint in which they are intact."""
        damaged, step = [], self._before(None)
        while step is not None:
            found, why = self._read(step, items)
            if found is not None:
                break
            damaged.append(step)
            step = self._before(step)
            if jax.process_index() == 0 or not why.startswith("another"):
                going = "there is none before it" if step is None else f"going back to checkpoint {step}"
                print(f"warning: checkpoint {damaged[-1]} is damaged ({why}); {going}", file=sys.stderr, flush=True)
        if step is None:
            raise InputError(
                f"run {str(self._workdir)!r} has no intact checkpoint (damaged: {', '.join(map(str, damaged))}); "
                "put a copy of one there, or start again in another workdir"
            )
        if self._keep is not None and jax.process_index() == 0:
            for number in damaged:
                self._set_aside(number)
        self._last = step
        return found

    def exactly(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        """Return the given items, as {item: shapes}, from one checkpoint.

        Raises:
            InputError: it does not exist, or is damaged.
        """
        if step not in finished_steps(self._workdir):
            there = ", ".join(map(str, finished_steps(self._workdir)))
            raise InputError(f"run {str(self._workdir)!r} has no checkpoint {step}; there are {there}")
        found, why = self._read(step, items)
        if found is None:
            raise InputError(f"checkpoint {step} of run {str(self._workdir)!r} is damaged ({why})")
        return found

    def contents(self, step: int) -> dict[str, Any]:
        """Return a checkpoint's table of contents: step, metrics, arrays, digests.

        Raises:
            ValueError: it is damaged.
            OSError: it can't be read.
        """
        saved = json.loads((self._directory / str(step) / "contents" / "metadata").read_bytes())
        if hashlib.sha256(saved["contents"].encode()).hexdigest() != saved["sha256"]:
            raise ValueError("the checksum of its table of contents doesn't match")
        contents = json.loads(saved["contents"])
        if contents["step"] != step:
            raise ValueError(f"it was saved as checkpoint {contents['step']}")
        return contents

    def close(self) -> None:
        """Wait until the last save is complete."""
        if self._keep is not None:
            self._finish()
            self._writer.close()

    def _finish(self) -> None:
        self._writer.wait_until_finished()
        if jax.process_index() != 0:
            return
        for step in set(finished_steps(self._workdir)[: -self._keep]) - {self.best()}:
            self._delete(step)

    def _delete(self, step: int) -> None:
        # Renamed first, so that a kill during deletion leaves no partial checkpoint under this number.
        old = self._directory / f"{step}{UNFINISHED}-old"
        os.replace(self._directory / str(step), old)
        shutil.rmtree(old)

    def _before(self, step: int | None) -> int | None:
        # As process 0 sees it: on a network file system, another process may not see all of them yet.
        steps = [other for other in finished_steps(self._workdir) if step is None or other < step]
        found = int(multihost_utils.broadcast_one_to_all(np.int32(max(steps, default=-1))))
        return None if found == -1 else found

    def _read(self, step: int, items: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        found, why = None, ""
        try:
            contents = self.contents(step)
            _check(contents["arrays"], _description(items), f"checkpoint {step} of run {str(self._workdir)!r}")
            # Not through a checkpointer: its barrier would wait for a process that can't read.
            handler, path = ocp.StandardCheckpointHandler(), self._directory / str(step)
            found = {name: handler.restore(path / name, args=ocp.args.StandardRestore(items[name])) for name in items}
        except InputError:
            raise
        except Exception as error:  # Damaged files can make the readers of many formats raise anything.
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if not np.all(multihost_utils.process_allgather(np.bool_(found is not None))):
            return None, why or "another process can't read it"
        wrong = [name for name, digest in digests(found).items() if digest != contents["digests"][name]]
        return (None, f"{_some(wrong)}: wrong digest") if wrong else (found, "")

    def _set_aside(self, step: int) -> None:
        aside = self._directory / f"damaged-{step}"
        while aside.exists():
            aside = aside.with_name(f"{aside.name}-again")
        os.replace(self._directory / str(step), aside)


def _items(state: State) -> dict[str, Any]:
    fields = {name: value for name, value in state._asdict().items() if value is not None}
    alone = {name: fields.pop(name) for name in ALONE if name in fields}
    return {**alone, "training": fields}


def _description(items: dict[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in tree.flatten(items).items()}


def _check(saved: dict[str, str], wanted: dict[str, str], where: str) -> None:
    items = {name.split("/")[0] for name in wanted}
    saved = {name: array for name, array in saved.items() if name.split("/")[0] in items}
    differing = [
        f"{name}: {saved.get(name, 'missing')}, but {wanted.get(name, 'missing')} in the model"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(f"{where} does not fit the model: {_some(differing)}")


def _some(texts: list[str]) -> str:
    return texts[0] + (f" and {len(texts) - 1} more" if len(texts) > 1 else "")


def load_params(workdir: Path, model_facts: dict[str, Any], mesh: Mesh, checkpoint: str = "newest") -> Any:
    """Return a run's parameters, or their moving average if it keeps one, sharded by the partition rules.

    Args:
        checkpoint: "newest" (that is intact), "best" by the run's `select`, or a step.

    Raises:
        InputError: the run has no such checkpoint, or no intact one.
    """
    config = read_facts(workdir).config
    checkpoints = Checkpoints(workdir, select=best_metric(config))
    if checkpoints.latest() is None:
        raise InputError(f"run {str(workdir)!r} has no checkpoint yet")
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), **model_facts))
    item = "params" if config.ema is None else "ema"
    items = {item: with_shardings(shapes, tree_shardings(shapes, mesh))}
    if checkpoint == "newest":
        return checkpoints.newest(items)[item]
    if checkpoint != "best" and not checkpoint.isdecimal():
        raise InputError(f"--checkpoint={checkpoint}: must be newest, best or a step")
    step = checkpoints.best() if checkpoint == "best" else int(checkpoint)
    if step is None:
        raise InputError(f"run {str(workdir)!r} has no best checkpoint: none was saved at a step that was evaluated")
    return checkpoints.exactly(step, items)[item]


def load_model(workdir: Path, checkpoint: str = "newest") -> tuple[nnx.Module, Facts]:
    """Return a run's model, on one device, and the run's facts; for `checkpoint`, see `load_params`."""
    facts = read_facts(workdir)
    model_facts = facts.config.model_facts(len(facts.label_names))
    mesh = make_mesh(MeshShape(), jax.local_devices()[:1])
    return nnx.merge(model_graph(**model_facts), load_params(workdir, model_facts, mesh, checkpoint)), facts
