"""Train many runs of a config: python scripts/sweep.py CONFIG[:ARG] --workdir=DIR [--config.KEY=VALUE ...]

What to run, one of (the plan is printed first):
  nothing more                          what the config's sweep() yields
  --grid optim.lr=1e-3,3e-4 seed=0:3    all combinations
  --random 20 'optim.lr=log(1e-5,1e-2)' draws; with --grid too, each with all of its combinations
  --search=tpe --trials=40 --space 'optim.lr=log(1e-5,1e-2)' 'model.depth=int(4,12)'

The same command continues a sweep that was stopped; a larger grid adds runs to it. See docs/sweeps.md.
"""

import contextlib
from pathlib import Path

from vit_jax.config.files import load_sweep, parse_overrides
from vit_jax.errors import InputError, Parser, run_command
from vit_jax.sweeps.engine import Listed, drive, left
from vit_jax.sweeps.folder import check_folder, stop, working_on
from vit_jax.sweeps.local import Local, find_slots
from vit_jax.sweeps.plan import Base, Run, as_texts, only, plan_runs
from vit_jax.sweeps.report import write_report
from vit_jax.sweeps.show import show_plan
from vit_jax.sweeps.space import drawn, grid, parse_grid, parse_space
from vit_jax.sweeps.view import View
from vit_jax.tasks import best_metric


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    parser.add_argument("config", metavar="CONFIG", help="FILE.py[:ARG], as for training")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="the sweep's folder")
    parser.add_argument("--grid", nargs="+", metavar="KEY=VALUES")
    parser.add_argument("--random", nargs="+", metavar=("N", "KEY=RANGE"))
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY=VALUES", help="of the runs, those with these values"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the plan, and stop there")
    parser.add_argument("--retry", action="store_true", help="try runs that failed again")
    parser.add_argument("--stop", action="store_true", help="stop the sweep that runs in DIR")
    parser.add_argument("--processes", type=int, metavar="N", help="on the CPU: runs at once, each with its own cores")
    parser.add_argument("--devices_per_run", type=int, default=1, metavar="N", help="accelerators of each run (1)")
    return parser


def read_runs(args, base: Base) -> list[Run]:
    """Return the runs that the command line asks for."""
    each = [{}]
    if args.random is not None:
        number, *space = args.random
        if not number.isdecimal() or not int(number) or not space:
            raise InputError(f"--random {' '.join(args.random)}: write a number of draws and what to draw, KEY=RANGE")
        each = list(drawn(parse_space("--random", space), int(number)))
    if args.grid is not None:
        points = list(grid(parse_grid(args.grid)))
        each = [some | point for some in each for point in points]
    if args.grid is None and args.random is None:
        each = [as_texts(values) for values in load_sweep(base.spec)]
    runs = plan_runs(base, each)
    return only(runs, parse_grid(args.only)) if args.only else runs


def main(argv: list[str] | None = None) -> None:
    """Read the command line, show the plan, and run it."""
    args, rest = make_parser().parse_known_args(argv)
    base = Base(args.config, parse_overrides(rest))
    if args.stop:
        number = stop(args.workdir)
        print(f"stopped {number} processes" if number else f"nothing runs in {str(args.workdir)!r}")
        return
    runs = read_runs(args, base)
    check_folder(args.workdir, base)
    show_plan(runs, args.workdir)
    if args.dry_run:
        return
    executor = Local(find_slots(args.devices_per_run, args.processes))
    with working_on(args.workdir, base):
        todo = left(args.workdir, runs, args.retry)
        view = View(args.workdir, len(todo), best_metric(runs[0].config))
        try:
            with contextlib.closing(view):
                drive(args.workdir, base, Listed(todo), executor, view, retry=args.retry)
        finally:
            print(write_report(args.workdir))


if __name__ == "__main__":
    run_command(main)
