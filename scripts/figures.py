"""Figures of a run, and of the studies from their sweeps' results.

    python scripts/figures.py quickstart RUN                  writes RUN/quickstart.png and prints a short summary
    python scripts/figures.py data_scale RESULTS.csv --out=PNG [--pictures=45_000]
    python scripts/figures.py compute_scale RESULTS.csv --out=PNG
    python scripts/figures.py positions RESULTS.csv --out=PNG
    python scripts/figures.py resolution RESULTS.csv --out=PNG [--trained=32]
    python scripts/figures.py labels RESULTS.csv --out=PNG
    python scripts/figures.py roads RESULTS.csv --out=PNG
    python scripts/figures.py search RESULTS.csv --out=PNG              of several searches: docs/studies/search.md
    python scripts/figures.py attention FIGURES.json --out=PNG          of benchmark.py attention --pattern=...

A study also prints the figures behind the figure: means over seeds, and fitted laws.
"""

import argparse
import importlib.util
from pathlib import Path

from vit_jax.config.coerce import literal
from vit_jax.errors import InputError, Parser, run_command

# What each figure takes beside the run or results.
OPTIONS = {
    "quickstart": (),
    "data_scale": ("out", "pictures"),
    "compute_scale": ("out",),
    "positions": ("out",),
    "resolution": ("out", "trained"),
    "labels": ("out",),
    "roads": ("out",),
    "search": ("out",),
    "attention": ("out",),
}


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    parser.add_argument("figure", choices=OPTIONS, metavar="FIGURE", help=", ".join(OPTIONS))
    parser.add_argument("path", type=Path, metavar="PATH", help="a run directory; results of a study or benchmark")
    parser.add_argument("--out", type=Path, metavar="PNG", help="of a study")
    parser.add_argument("--pictures", type=_count, metavar="N", help="of data_scale: in the whole training set")
    parser.add_argument("--trained", type=_count, metavar="PIXELS", help="of resolution: what models were trained at")
    return parser


def _count(text: str) -> int:
    value = literal(text)
    if type(value) is not int or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number above 0")
    return value


def main(argv: list[str] | None = None) -> None:
    """Read the command line and draw.

    Raises:
        InputError: there is nothing to draw there, or matplotlib is missing.
    """
    options = vars(make_parser().parse_args(argv))
    name, path = options.pop("figure"), options.pop("path")
    for option, value in options.items():
        if value is not None and option not in OPTIONS[name]:
            raise InputError(f"--{option}: means nothing for {name}; leave it out")
    if "out" in OPTIONS[name] and options["out"] is None:
        raise InputError(f"{name}: say where the figure goes, --out=PNG")
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("figures need matplotlib: pip install 'vit_jax[figures]'")
    import matplotlib

    matplotlib.use("Agg")
    from plots import attention, compute_scale, data_scale, labels, positions, quickstart, resolution, roads, search

    figures = (attention, compute_scale, data_scale, labels, positions, quickstart, resolution, roads, search)
    drawing = {module.__name__.removeprefix("plots."): module.draw for module in figures}
    drawing[name](path, **{option: options[option] for option in OPTIONS[name]})


if __name__ == "__main__":
    run_command(main)
