"""Classify pictures: `python -m vit_jax.predict --model=DIR picture.jpg ...`."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vit_jax.cache import keep_compiled
from vit_jax.data import crop
from vit_jax.data.decode import decode
from vit_jax.errors import Parser, run_command
from vit_jax.runs.checkpoint import load_model
from vit_jax.tasks import build_task


def predict(
    workdir: Path, pictures: list[Path], top: int = 5, checkpoint: str = "newest"
) -> list[list[tuple[str, float]]]:
    """Return, for each picture, its `top` most probable classes as (label name, probability), most probable first.

    Raises:
        InputError: there is no such run, or a picture can't be read.
    """
    model, (config, label_names) = load_model(workdir, checkpoint)
    choose = crop.central(config.height_width(), config.data.crop_fraction)
    images = [decode(picture, config.height_width(), config.channels, choose) for picture in pictures]
    logits = model(jnp.array(np.stack(images)))
    probabilities = np.asarray(build_task(config, len(label_names)).probabilities(logits))
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    return [[(label_names[i], float(row[i])) for i in order] for order, row in zip(best, probabilities, strict=True)]


def main(argv: list[str] | None = None) -> None:
    """Read the command line, and print one line per picture."""
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="a run directory")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help="newest, best or a step")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    args = parser.parse_args(argv)
    keep_compiled()
    named = predict(args.model, args.pictures, checkpoint=args.checkpoint)
    for picture, classes in zip(args.pictures, named, strict=True):
        print(f"{picture}: " + ", ".join(f"{name} {probability:.3f}" for name, probability in classes))


if __name__ == "__main__":
    run_command(main)
