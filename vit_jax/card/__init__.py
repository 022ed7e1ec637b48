"""The model card of a run or of weights, a `README.md` with the Hugging Face Hub's metadata in its header."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_jax.card import facts
from vit_jax.card.curve import write_curve
from vit_jax.config import PRETRAINING, Config
from vit_jax.errors import InputError
from vit_jax.runs.directory import read_facts
from vit_jax.runs.records import read_records
from vit_jax.tasks import TASKS
from vit_jax.weights.files import replacing

TEMPLATE = Path(__file__).with_name("template.md")
MARK = "<!-- Made by vit_jax, which makes it again. Remove this line to keep what you change. -->"


def write_card(workdir: Path, folder: Path | None = None, **options: Any) -> Path:
    """Write the card of a run directory and return its path; what is there is replaced, unless someone wrote it.

    Everything is read from the run directory: run again after an evaluation, or when training went on.

    Args:
        folder: where it is written, `curve.png` beside it; None: the run directory.
        options: as for `render`.

    Raises:
        InputError: it is no run directory, or can't be written.
    """
    config, label_names = read_facts(workdir)
    if config.task in PRETRAINING:
        label_names = None  # They were not read.
    path = (folder or workdir) / "README.md"
    if not is_ours(path):
        raise InputError(
            f"{path}: is kept, because it has words of your own; without the line {MARK!r} it isn't made again"
        )
    records = read_records(workdir)
    metric = TASKS[config.task].best
    name = next((name for name, _ in config.evaluations()), None)
    text = render(
        config,
        label_names,
        len(label_names or ()),
        title=f"{config.model.name} on {facts.data_name(config).strip('`')}",
        where=options.pop("where", "."),
        headline=facts.headline(workdir, config, records),
        recipe=facts.recipe(config, max((record["step"] for record in records), default=0)),
        results=facts.results(workdir, config, records),
        curve=write_curve(path.parent, records, metric, name),
        **options,
    )
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def is_ours(path: Path) -> bool:
    """Return whether a card may be replaced: there is none, or it has the mark of a card made here."""
    try:
        return not path.exists() or MARK in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def render(
    config: Config,
    label_names: Sequence[str] | None,
    num_classes: int,
    *,
    title: str,
    where: str,
    headline: Sequence[tuple[str, float, str]] = (),
    license: str | None = None,
    repository: str | None = None,
    format: str | None = None,
    **sections: Any,
) -> str:
    """Return the text of a card.

    Args:
        where: what `vit_jax.load` is given in the examples.
        headline: results for the metadata, as (metric, value, split).
        license: by the Hub's name, such as "apache-2.0"; None: not stated.
        repository, format: "org/name" on the Hub, and the format of the weights in it.
        sections: "recipe", "results" and "curve", which a run has.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # Half a second, which training need not wait for.

    kind = "image-classification" if num_classes else "image-feature-extraction"
    is_run, source = "recipe" in sections, config.data.name
    name = facts.data_name(config).strip("`").rpartition(":")[2]
    found = [
        EvalResult(
            task_type=kind,
            dataset_type=name,
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_value=value,
        )
        for metric, value, split in headline
    ]
    header = ModelCardData(
        library_name="vit_jax",
        license=license,
        pipeline_tag=kind,
        tags=[kind, "vision", "jax", "resnet" if config.model.name.startswith("BiT") else "vit"],
        datasets=[source.split(":")[1]] if is_run and source.startswith("hf:") and "/" in source else None,
        base_model=config.init.removeprefix("hf://") if (config.init or "").startswith("hf://") else None,
        metrics=[metric for metric, _, _ in headline] or None,
        model_name=repository or title,
        eval_results=found or None,
    )
    lines = facts.data_lines(config, label_names, is_run=is_run)
    values = facts.model_facts(config, label_names, num_classes) | sections
    more = {"title": title, "where": where, "repository": repository, "format": format, "data": lines, "mark": MARK}
    card = ModelCard.from_template(header, template_path=str(TEMPLATE), **values, **more)
    return str(card).rstrip("\n") + "\n"
