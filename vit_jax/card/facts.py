"""What a card says of a model and of its run, read from the config and the files of a run directory."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax import tree
from vit_jax.config import PRETRAINING, Config
from vit_jax.models import abstract_model
from vit_jax.preflight.flops import count_flops
from vit_jax.runs.directory import finished_steps
from vit_jax.tasks import TASKS, best_metric, is_lower_better

SHOWN = 20  # names of classes


class Row(NamedTuple):
    """One result: "val/accuracy", its value, its interval or a dash, the number of pictures, and the step."""

    name: str
    value: str
    interval: str
    count: str
    step: str


def model_facts(config: Config, label_names: Sequence[str] | None, num_classes: int) -> dict[str, Any]:
    """Return what a card says of a model, its parameters and operations counted; nothing is computed or allocated."""
    model = abstract_model(**config.model_facts(num_classes))
    graph, params = nnx.split(model)
    image = jax.ShapeDtypeStruct((1, *config.height_width(), config.channels), jnp.uint8)

    def forward(params: Any, image: jax.Array) -> jax.Array:
        model = nnx.merge(graph, params)
        return model.features(image) if model.head is None else model(image)

    program = jax.make_jaxpr(forward)(params, image)
    resnet, patch = model.config.resnet is not None, model.config.patch is not None
    kind = "A Vision Transformer" if not resnet else "A hybrid of ResNet and Transformer" if patch else "A ResNet"
    return {
        "kind": f"{kind}, {config.model.name},",
        "parameters": tree.count(params),
        "gflops": f"{count_flops(program) / 1e9:,.3g}",
        "image_size": "x".join(map(str, config.height_width())),
        "channels": config.channels,
        "num_classes": num_classes,
        "limits": _limits(config, label_names),
    }


def data_lines(config: Config, label_names: Sequence[str] | None, *, is_run: bool) -> list[str]:
    """Return what a card says of the data: what the model learned, its classes, and how pictures are prepared."""
    lines = []
    if is_run:
        part = "" if config.data.fraction == 1 else f", {config.data.fraction:.3g} of each class"
        lines.append(f"trained on {data_name(config)}, split `{config.data.train}`{part}")
        if config.init is not None:
            lines.append(f"started from {public(config.init)}")
    if label_names is not None:
        more = "" if len(label_names) <= SHOWN else f" and {len(label_names) - SHOWN:,} more"
        lines.append(f"classes: {', '.join(map(_plain, label_names[:SHOWN]))}{more}")
    data, model = config.data, config.model
    how = {
        "crop": f"central crop of {data.crop_fraction:.3g} of the shorter side (all, where it has the size)",
        "pad": "the whole picture with bars beside it",
        "stretch": "the whole picture, stretched",
        "native": "the whole picture in its own aspect ratio, with as many patches",
    }[data.resize]
    lines.append(
        f"pictures: {how}, resized ({data.filter}); (pixel / 255 - {_numbers(model.mean)}) / {_numbers(model.std)}"
    )
    return lines


def recipe(config: Config, steps: int) -> dict[str, str]:
    """Return the rows that say how a model was trained, in `steps` so far."""
    optim, augment = config.optim, config.augment
    rows = {
        "length": f"{steps:,} steps of {config.batch:,} pictures",
        "loss": f"that of task {config.task}, without labels"
        if config.task in PRETRAINING
        else f"{config.loss} cross-entropy"
        + f", label smoothing {config.label_smoothing}" * bool(config.label_smoothing),
        "optimizer": f"{optim.name}, learning rate {optim.lr:.3g} ({optim.schedule}, warm-up {config.warmup}), "
        f"weight decay {optim.weight_decay:.3g}" + f", clipped at {optim.clip}" * (optim.clip is not None),
    }
    frozen = {"layer_decay": optim.layer_decay, "last_blocks": optim.last_blocks, "lr_mults": optim.lr_mults or None}
    if rates := [f"{key} {value}" for key, value in frozen.items() if value is not None]:
        rows["rates"] = ", ".join(rates)
    drawn = {key: value for key, value in vars(augment).items() if value not in (False, 0, (0, 0.0))}
    if config.data.balance != "none":
        drawn["balance"] = config.data.balance
    rows["augmentation"] = ", ".join(
        [f"{config.data.crop} crop", *(key if value is True else f"{key} {value}" for key, value in drawn.items())]
    )
    drops = {key: getattr(config.model, key) for key in ("dropout", "drop_path")} | {"ema": config.ema}
    if regular := [f"{key} {value}" for key, value in drops.items() if value]:
        rows["regularization"] = ", ".join(regular)
    return rows | {"seed": str(config.seed)}


def results(workdir: Path, config: Config, records: list[dict[str, Any]]) -> list[Row]:
    """Return the results of each evaluation, at the selected step and at the last."""
    best, selected = best_metric(config), None
    scores = {record["step"]: record[best] for record in records if record.get(best) is not None}
    if best is not None and (kept := {step: scores[step] for step in finished_steps(workdir) if step in scores}):
        sign = -1 if is_lower_better(best) else 1
        selected = max(kept, key=lambda step: (sign * kept[step], step))
    rows = []
    for name in dict.fromkeys(key.partition("/")[0] for record in records for key in record if "/" in key):
        own = {record["step"]: record for record in records if any(key.startswith(f"{name}/") for key in record)}
        if name not in ("train", "data"):
            steps = [step for step in (selected, max(own)) if step in own]
            rows += [row for step in dict.fromkeys(steps) for row in _rows(name, own[step])]
    return rows


def headline(workdir: Path, config: Config, records: list[dict[str, Any]]) -> list[tuple[str, float, str]]:
    """Return the task's main metric for the metadata, as (metric, value, split): of the test split if there is one."""
    metric = TASKS[config.task].best
    names = ["test"] * (config.data.test is not None) + [name for name, _ in config.evaluations()]
    for name in names:
        shown = [row for row in results(workdir, config, records) if row.name == f"{name}/{metric}"]
        if shown:
            split = config.data.test if name == "test" else dict(config.evaluations())[name].split or config.data.val
            return [(metric, float(shown[0].value), split)]
    return []


def data_name(config: Config) -> str:
    """Return the source of a config without the paths of this machine."""
    kind, _, argument = config.data.name.partition(":")
    if kind in ("tfds", "hf") or not (config.data.path or argument):
        return f"`{config.data.name}`"
    return f"`{kind}:{Path(config.data.path or argument).name}`"


def public(where: str) -> str:
    """Return where weights are from; of a path on this machine, its last part."""
    return f"`{where.partition('?')[0] if '://' in where else Path(where).name}`"


def _rows(name: str, record: dict[str, Any]) -> list[Row]:
    values = {key.partition("/")[2]: value for key, value in record.items() if key.startswith(f"{name}/")}
    step, count = values.get("step", record["step"]), values.get("count")
    rows = []
    for metric, value in values.items():
        if value is None or metric in ("count", "step") or re.search(r"_(low|high)$", metric):
            continue
        low, high = values.get(f"{metric}_low"), values.get(f"{metric}_high")
        interval = "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
        shown = "-" if count is None else f"{count:,.0f}"
        rows.append(Row(f"{name}/{metric}", f"{value:.4f}", interval, shown, f"{step:,.0f}"))
    return rows


def _limits(config: Config, label_names: Sequence[str] | None) -> list[str]:
    lines = [
        "It was tested on what the results name alone: pictures of another camera, place or time may fare worse.",
        "The results are those of one run; intervals are of the draw of test pictures, not of training.",
    ]
    if config.loss == "softmax" and label_names is not None:
        lines.append("A picture of none of its classes gets one of them all the same.")
    return [*lines, "Whatever is wrong or unbalanced in its data is in the model."]


def _plain(name: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", " ".join(name.split()))


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{value:g}' for value in values)})"
