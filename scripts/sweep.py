"""Train many runs of a config: python scripts/sweep.py CONFIG[:ARG] --workdir=DIR [--config.KEY=VALUE ...]

What to run, one of:
  nothing more                              what the config's sweep() yields
  --grid optim.lr=1e-3,3e-4 seed=0:3        all combinations
  --random 20 'optim.lr=log(1e-5,1e-2)'     draws; with --grid too, each with all of its combinations
  --search=tpe --trials=40 --space 'optim.lr=log(1e-5,1e-2)' 'model.depth=int(4,12)' model.pool=gap,token

The plan is printed first. The same command continues a sweep that was stopped; a larger grid adds runs to it.
DIR/results.csv and DIR/report.html have what was found. See docs/sweeps.md.
"""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

from vit_jax.config.coerce import literal
from vit_jax.config.files import load_sweep, parse_overrides
from vit_jax.errors import RUNS_FAILED, InputError, Parser, Stop, run_command
from vit_jax.sweeps.cluster import Cluster, cancel
from vit_jax.sweeps.engine import Executor, Listed, Queue, drive, left
from vit_jax.sweeps.folder import check_folder, stop, working_on
from vit_jax.sweeps.local import Local, find_slots
from vit_jax.sweeps.plan import Base, Run, as_texts, only, plan_runs
from vit_jax.sweeps.report import write_report
from vit_jax.sweeps.show import show_plan
from vit_jax.sweeps.size import check_metric
from vit_jax.sweeps.space import drawn, grid, parse_grid, parse_space
from vit_jax.sweeps.view import View
from vit_jax.tasks import best_metric

SHOWN = 3  # failed runs that are named at the end


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("config", metavar="CONFIG", help="FILE.py[:ARG], as for training")
    add("--workdir", required=True, type=Path, metavar="DIR", help="the sweep's folder")
    add("--grid", nargs="+", metavar="KEY=VALUES")
    add("--random", nargs="+", metavar="N KEY=RANGE")
    add("--search", choices=("tpe", "random"), help="let Optuna choose the runs")
    add("--trials", type=int, default=20, metavar="N", help="runs of a search, all in all (20)")
    add("--space", nargs="+", default=[], metavar="KEY=RANGE", help="what a search varies: log, uniform, int or values")
    add("--metric", metavar="NAME", help="what to compare runs by; else what the runs select their best checkpoint by")
    add(
        "--prune",
        choices=("median", "halving", "none"),
        help="which runs a search stops early (median; on a cluster none)",
    )
    add("--storage", metavar="URL", help="database of a search; else a journal in DIR")
    add("--seed", type=int, default=0, metavar="N", help="of the draws and of a search (0); runs have their own")
    add(
        "--together",
        type=int,
        default=1,
        metavar="N",
        help="runs in one program, if only seed, rates, decay or smoothing differ",
    )
    add("--only", nargs="+", default=[], metavar="KEY=VALUES", help="of the runs, those with these values")
    add("--dry_run", action="store_true", help="print the plan, and stop there")
    add("--retry", action="store_true", help="try runs that failed again")
    add("--stop", action="store_true", help="stop the sweep that runs in DIR")
    add("--processes", type=int, metavar="N", help="on the CPU: runs at once, each with its own cores")
    add("--devices_per_run", type=int, metavar="N", help="accelerators of each run (1)")
    add("--cluster", choices=("slurm", "local"), help="submit the runs, as one array of jobs")
    add("--parallel", type=int, metavar="N", help="jobs of the cluster at once (all; of a search 4)")
    add("--partition", metavar="NAME", help="of the cluster")
    add("--time", type=int, default=240, metavar="MINUTES", help="limit of a job, which is then continued (240)")
    add("--cluster_option", nargs="+", default=[], metavar="KEY=VALUE", help="of submitit: slurm_account=vision")
    return parser


def find_runs(args: argparse.Namespace, base: Base) -> list[Run]:
    """Return the runs that the command line asks for."""
    each = [{}]
    if args.random is not None:
        number, *space = args.random
        if not number.isdecimal() or not int(number) or not space:
            raise InputError(f"--random {' '.join(args.random)}: write a number of draws and what to draw, KEY=RANGE")
        each = list(drawn(parse_space("--random", space), int(number), args.seed))
    if args.grid is not None:
        points = list(grid(parse_grid(args.grid)))
        each = [some | point for some in each for point in points]
    if args.grid is None and args.random is None:
        each = [as_texts(values) for values in load_sweep(base.spec)]
    runs = plan_runs(base, each)
    return only(runs, parse_grid(args.only)) if args.only else runs


def build_executor(args: argparse.Namespace) -> Executor:
    """Return where the runs are to run."""
    if args.cluster is None:
        return Local(find_slots(args.devices_per_run or 1, args.processes))
    options = {}
    for item in args.cluster_option:
        key, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"--cluster_option {item!r}: write KEY=VALUE")
        options[key] = literal(text)
    return Cluster(
        args.workdir,
        args.cluster,
        room=args.parallel or (None if args.search is None else 4),
        devices=args.devices_per_run or 0,
        partition=args.partition,
        minutes=args.time,
        options=options,
    )


def plan(args: argparse.Namespace, base: Base) -> tuple[Callable[[], Queue], str | None]:
    """Print the plan, and return what makes the queue of what is left, and the metric."""
    if args.search is None:
        runs = find_runs(args, base)
        metric = args.metric or best_metric(runs[0].config)
        if args.metric is not None:
            check_metric(runs[0], metric, args.workdir)
        show_plan(runs, args.workdir)
        return lambda: Listed(left(args.workdir, runs, args.retry), args.together), metric
    space = parse_space("--space", args.space)
    if not space or args.grid or args.random or args.only or args.together > 1:
        raise InputError("--search needs --space, what it varies, and no --grid, --random, --only or --together")
    if args.cluster and args.prune not in (None, "none"):
        raise InputError(f"--prune={args.prune}: runs on a cluster are not stopped early; leave it out")
    pruner = args.prune or ("none" if args.cluster else "median")
    try:
        from vit_jax.sweeps.search import Search
    except ImportError as error:
        raise InputError("a search needs Optuna: pip install 'vit_jax[sweeps]'") from error
    first = plan_runs(base, drawn(space, 1, args.seed))[0]
    metric = args.metric or best_metric(first.config)
    check_metric(first, metric, args.workdir)
    print(f"{base.spec}: {args.trials:,} runs for the best {metric}, over {' '.join(args.space)}; one may be:")
    show_plan([first], args.workdir)
    how = dict(kind=args.search, trials=args.trials, pruner=pruner, seed=args.seed, storage=args.storage)
    return lambda: Search(args.workdir, base, space, metric=metric, **how), metric


def report(args: argparse.Namespace, view: View) -> None:
    """Write the table and the page, and raise `Stop` if runs have failed."""
    if not view.failed:
        print(write_report(args.workdir, metric=args.metric))
        return
    with contextlib.suppress(InputError):  # If all failed, there is no metric.
        print(write_report(args.workdir, metric=args.metric))
    names = ", ".join(view.failed[:SHOWN]) + (", ..." if len(view.failed) > SHOWN else "")
    raise Stop(RUNS_FAILED, f"{len(view.failed)} runs failed, see their log.txt: {names}")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, show the plan, and run it."""
    args, rest = make_parser().parse_known_args(argv)
    for name in ("trials", "together", "processes", "devices_per_run", "parallel", "time"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise InputError(f"--{name}={number}: must be at least 1")
    base = Base(args.config, parse_overrides(rest))
    check_folder(args.workdir, base)
    if args.stop:
        number = stop(args.workdir) + cancel(args.workdir)
        print(f"stopped {number} processes and jobs" if number else f"nothing runs in {str(args.workdir)!r}")
        return
    make_queue, metric = plan(args, base)
    if args.dry_run:
        return
    executor = build_executor(args)
    with working_on(args.workdir, base):
        queue = make_queue()
        view = View(args.workdir, queue.left, metric)
        try:
            with contextlib.closing(view):
                drive(args.workdir, base, queue, executor, view, retry=args.retry)
        except Stop:
            with contextlib.suppress(InputError):  # There may be nothing to report yet.
                write_report(args.workdir, metric=args.metric)
            raise
        report(args, view)


if __name__ == "__main__":
    run_command(main)
