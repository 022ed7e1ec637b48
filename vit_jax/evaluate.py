"""Evaluate a run or weights.

python -m vit_jax.evaluate --workdir=RUN            # as the run says: its data, split and evaluators
python -m vit_jax.evaluate --model=WEIGHTS --data=folder:DIR [--split=test] [--config.KEY=VALUE ...]

WEIGHTS is anything that vit_jax.load takes; classes are matched by name. Prints one JSON object; --out=DIR also keeps
tables and figures. If a run's data has moved, set --config.data.path=DIR. On a pod, start it on every host.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax

from vit_jax.cluster.processes import joined
from vit_jax.config import PRETRAINING, Config, differences
from vit_jax.config.coerce import literal
from vit_jax.config.files import override, parse_overrides
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.evaluators import Results, evaluate_config
from vit_jax.runs.checkpoint import load_model
from vit_jax.runs.directory import read_facts
from vit_jax.runs.results import write_results
from vit_jax.runtime import set_up
from vit_jax.weights.fetch import fetch
from vit_jax.weights.opened import Opened, open_model
from vit_jax.weights.zeroshot import open_head

ON_FEATURES = ("fewshot", "knn", "linear_probe", "zeroshot")  # evaluators that need no head


def evaluate(
    where: str | os.PathLike,
    overrides: dict[str, str] | None = None,
    *,
    checkpoint: str = "newest",
    data: str | None = None,
    split: str | None = None,
    labels: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Results:
    """Return the results of a run's or of weights' evaluations, with every picture counted once.

    Args:
        where: a run directory, or anything else that `vit_jax.load` takes.
        overrides: config keys, such as {"data.path": "pictures"}; of a run only those that don't change what it is.
        checkpoint: of a run: "newest" (that is intact), "best", or a step.
        data: a source, as in `config.data.name`; None: the run's own.
        split: None: that of the config.
        labels: names of the model's classes in order, as for `vit_jax.weights.opened.open_model`.
        image_size: another size than that of the weights; positions are resampled.

    Raises:
        InputError: there is no such model or data, or the data has classes that the model lacks, or it has no head.
    """
    path = fetch(where)
    if (path / "run.json").is_file():
        recorded = read_facts(path).config
        if changes := differences(recorded, override(recorded, overrides or {})):
            raise InputError(f"evaluation can't change these keys of a run: {'; '.join(changes)}")
    ours = {key.removeprefix("model."): literal(value) for key, value in (overrides or {}).items() if _is_model(key)}
    rest = {key: value for key, value in (overrides or {}).items() if not _is_model(key)}
    opened = open_model(where, checkpoint=checkpoint, labels=labels, image_size=image_size, host=True, **ours)
    if jax.process_index() == 0:
        print(opened.description(), file=sys.stderr)
    config, model = _configured(opened, rest, data, split), opened.model
    if opened.is_run and config.task in PRETRAINING:
        # With what its task put on the encoder.
        model, _ = load_model(path, checkpoint)
    needs_head = config.task not in PRETRAINING and any(
        each.evaluator not in ON_FEATURES for _, each in config.evaluations()
    )
    if needs_head and not model.num_classes:
        some = " or ".join(ON_FEATURES)
        raise InputError(f"{where}: has no head; evaluate its features, --config.evaluators.NAME.evaluator={some}")
    # Without names, classes are called by their numbers.
    names = opened.label_names or tuple(map(str, range(model.num_classes)))
    # A CLIP or SigLIP reads labels itself, unless the evaluation says what does.
    own = None if opened.is_run else where
    return evaluate_config(model, names, config, lambda text, *texts: open_head(text or own, *texts))


def _configured(opened: Opened, overrides: dict[str, str], data: str | None, split: str | None) -> Config:
    config = override(opened.config, overrides)
    if not opened.is_run and data is None and not any(key in overrides for key in ("data.name", "data.path")):
        raise InputError("weights don't say what to evaluate them on; give --data=folder:DIR or another source")
    changes: dict[str, Any] = {}
    if data is not None:
        changes |= {"name": data, "path": config.data.path if "data.path" in overrides else None}
    if split is not None:
        changes["val"] = split
    if changes and not any(key.startswith("evaluators") for key in overrides):
        # A run's own evaluations may name splits of its own data.
        config = dataclasses.replace(config, evaluators=None)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def _is_model(key: str) -> bool:
    return key.startswith("model.")


def _write(folder: Path, results: Results) -> None:
    try:
        write_results(folder, None, results)
    except OSError as error:
        raise InputError(f"--out={folder}: can't be written ({error.strerror})") from error


def main(argv: list[str] | None = None) -> None:
    """Read the command line, evaluate and print one JSON object."""
    parser = Parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", dest="where", metavar="RUN", help="a run directory")
    which.add_argument("--model", dest="where", metavar="WHERE", help="a run directory, or weights")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help="of a run: newest, best or a step")
    parser.add_argument("--data", metavar="SOURCE", help="such as folder:DIR, csv:DIR, tfds:NAME; of a run: its own")
    parser.add_argument("--split", help="such as test or train[:10%%]")
    parser.add_argument("--labels", metavar="FILE or A,B,...", help="names of the model's classes, in a file or here")
    parser.add_argument("--image_size", type=literal, metavar="PIXELS", help="another size: pixels, or height,width")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables and figures there")
    args, rest = parser.parse_known_args(argv)
    if args.out is not None and not os.access(args.out.parent, os.W_OK):
        raise InputError(f"--out={args.out}: can't be written: there is no folder {str(args.out.parent)!r} to write in")
    set_up()
    with joined():
        results = evaluate(
            args.where,
            parse_overrides(rest),
            checkpoint=args.checkpoint,
            data=args.data,
            split=args.split,
            labels=args.labels,
            image_size=args.image_size,
        )
        if jax.process_index() == 0:
            print(json.dumps(results.scalars))
            if args.out is not None:
                _write(args.out, results)


if __name__ == "__main__":
    run_command(main)
