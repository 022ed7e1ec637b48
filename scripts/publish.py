"""Publish a model on the Hugging Face Hub: `python scripts/publish.py RUN_OR_WEIGHTS org/name`.

Shows what would be uploaded; --push does it: the weights in a form that others load, the card, the label names, and of
a run its config and curve. Without --format, the first of Transformers, timm and .npz that can hold the model.

    python scripts/publish.py runs/pets me/pets --license=apache-2.0
    python scripts/publish.py runs/pets me/pets --license=apache-2.0 --push --create
    python scripts/publish.py runs/pets --card                # writes runs/pets/README.md again
"""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

from vit_jax import save
from vit_jax.card import is_ours, render, write_card
from vit_jax.config import Config
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.weights.opened import Opened, open_model

# What is tried in turn, and the files that hold the weights; the first two are folders of several.
FORMATS = {"huggingface": "", "timm": "", "google": "model.npz", "bit": "model.npz", "big_vision": "model.npz"}


def assemble(
    where: str,
    folder: Path,
    repository: str,
    *,
    format: str | None = None,
    license: str | None = None,
    checkpoint: str = "newest",
    labels: Path | None = None,
) -> list[str]:
    """Write all that is uploaded into a folder, and return what was decided, in lines for people.

    Raises:
        InputError: the model can't be read, or no format holds it.
    """
    opened = open_model(where, checkpoint=checkpoint, labels=labels)
    opened.model.label_names = opened.label_names
    format, lines = _save(opened, folder, format)
    if opened.label_names is not None:
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in opened.label_names), encoding="utf-8")
    facts = {"where": f"hf://{repository}", "license": license, "repository": repository, "format": format}
    own = Path(where, "README.md")
    if opened.is_run:
        content = json.dumps(dataclasses.asdict(_without_paths(opened.config)), indent=1)
        # Not run.json: a folder with one is taken for a run, whose checkpoints aren't here.
        (folder / "training.json").write_text(content + "\n")
    if opened.is_run and not is_ours(own):
        lines.append(f"card: {own}, which has words of your own")
        for path in (own, own.with_name("curve.png")):
            if path.exists():
                shutil.copy(path, folder)
    elif opened.is_run:
        write_card(Path(where), folder, **facts)
    else:
        config, number = opened.config, opened.model.num_classes
        text = render(config, opened.label_names, number, title=repository.partition("/")[2], **facts)
        (folder / "README.md").write_text(text, encoding="utf-8")
    if license is None and is_ours(own):
        lines.append("license: not stated; give it with --license=apache-2.0, say")
    return [opened.description(), *lines]


def _save(opened: Opened, folder: Path, format: str | None) -> tuple[str, list[str]]:
    lines = []
    for name in FORMATS if format is None else (format,):
        try:
            save(opened.model, folder / FORMATS[name] if FORMATS[name] else folder, name)
            return name, [*lines, f"format: {name}"]
        except InputError as error:
            if format is not None:
                raise
            lines.append(f"not {name}: {error}")
    raise InputError("; ".join(lines))


def _without_paths(config: Config) -> Config:
    """Return a config that names no path of this machine."""
    kind, _, argument = config.data.name.partition(":")
    name = config.data.name if kind in ("tfds", "hf") or not argument else f"{kind}:{Path(argument).name}"
    init = config.init if config.init is None or "://" in config.init else Path(config.init).name
    return dataclasses.replace(config, init=init, data=dataclasses.replace(config.data, name=name, path=None))


def push(folder: Path, repository: str, *, create: bool, private: bool) -> str:
    """Upload a folder in one commit and return its address.

    Raises:
        InputError: not logged in, there is no such repository, it may not be written, or the Hub can't be reached.
    """
    import huggingface_hub
    from huggingface_hub import errors

    if huggingface_hub.get_token() is None:
        raise InputError(f"{repository}: not logged in; run `hf auth login`, or set HF_TOKEN to a token that may write")
    try:
        if create:
            huggingface_hub.create_repo(repository, private=private, exist_ok=True)
        commit = huggingface_hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Publish with vit_jax"
        )
        return commit.commit_url
    except Exception as error:  # Whatever its HTTP library raises comes through.
        if isinstance(error, errors.RepositoryNotFoundError):
            reason = "there is no such repository, or it isn't yours to see; --create makes it"
        elif isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
            reason = f"the token may not write there ({error.response.status_code}); see `hf auth whoami`"
        elif isinstance(error, errors.HfHubHTTPError):
            reason = " ".join(str(error).split())
        else:
            reason = (
                f"the Hub can't be reached ({' '.join(str(error).split()) or type(error).__name__}); run again later"
            )
        raise InputError(f"{repository}: not uploaded: {reason}") from error


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("model", metavar="RUN_OR_WEIGHTS")
    parser.add_argument("repository", metavar="org/name", nargs="?")
    parser.add_argument("--push", action="store_true", help="upload")
    parser.add_argument("--create", action="store_true", help="make the repository if there is none")
    parser.add_argument("--private", action="store_true", help="make it one that only you see")
    parser.add_argument("--format", choices=FORMATS, help="of the weights")
    parser.add_argument("--license", help="by the Hub's name, such as apache-2.0")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="names of the classes, in order")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help="of a run: newest, best or a step")
    parser.add_argument("--card", action="store_true", help="only write README.md into the run directory")
    args = parser.parse_args(argv)
    if args.card:
        print(write_card(Path(args.model), license=args.license))
        return
    if args.repository is None or args.repository.count("/") != 1 or not all(args.repository.split("/")):
        raise InputError(f"{args.repository or 'the repository'}: must be org/name")
    options = {key: getattr(args, key) for key in ("format", "license", "checkpoint", "labels")}
    with tempfile.TemporaryDirectory(prefix="vit_jax_") as folder:
        for line in assemble(args.model, Path(folder), args.repository, **options):
            print(line)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        for path in files:
            print(f"{path.stat().st_size:>13,}  {path.relative_to(folder)}")
        if args.push:
            print(push(Path(folder), args.repository, create=args.create, private=args.private))
        else:
            print(f"{len(files)} files for {args.repository}, nothing uploaded; add --push")


if __name__ == "__main__":
    run_command(main)
