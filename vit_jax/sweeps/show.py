"""The plan of a sweep, for people: its runs, what they need, and what is done already."""

from pathlib import Path

from vit_jax.sweeps.attempt import attempts, exit_code
from vit_jax.sweeps.plan import Run
from vit_jax.sweeps.size import Size, measure
from vit_jax.sweeps.view import last_record


def show_plan(runs: list[Run], folder: Path) -> None:
    """Print a line for each run and one for all, with the time that is left if finished runs tell how fast they are."""
    sizes = measure(runs, folder)
    codes = [exit_code(folder / run.name) for run in runs]
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    print(
        f"{runs[0].spec.partition(':')[0]}: {len(runs):,} runs, which set {', '.join(keys) or 'nothing of their own'}"
    )
    width = max(len(run.name) for run in runs)
    print(f"{'run':{width}}  {'steps':>9}  {'parameters':>13}  {'FLOPs':>9}  {'state GiB':>9}  so far")
    for run, size, code in zip(runs, sizes, codes, strict=True):
        print(f"{run.name:{width}}  {_numbers(size)}  {_state(folder / run.name, code, size)}")
    if any(size.step_flops is None and not size.error for size in sizes):
        print("the empty columns are of models that were not counted: there are too many different ones")
    done = [i for i, code in enumerate(codes) if code == 0]
    todo = [i for i, code in enumerate(codes) if code is None]
    failed = len(runs) - len(done) - len(todo)
    again = f", {failed:,} failed (--retry)" if failed else ""
    print(f"{len(todo):,} to run, {len(done):,} done{again}{_rest(sizes, todo)}")
    print(_time(runs, sizes, folder, done, todo), flush=True)


def _numbers(size: Size) -> str:
    texts = (
        "" if size.steps is None else f"{size.steps:,}",
        "" if size.parameters is None else f"{size.parameters:,}",
        "" if size.flops() is None else f"{size.flops():.3g}",
        "" if size.state is None else f"{size.state / 2**30:,.3f}",
    )
    return "  ".join(f"{text:>{width}}" for text, width in zip(texts, (9, 13, 9, 9), strict=True))


def _state(folder: Path, code: int | None, size: Size) -> str:
    if code is not None:
        return "done" if code == 0 else f"failed ({code})"
    if size.error:
        return f"can't run: {size.error}"
    step = last_record(folder).get("step")
    return "" if step is None else f"at step {step:,}"


def _rest(sizes: list[Size], todo: list[int]) -> str:
    flops = [sizes[i].flops() for i in todo]
    return f"; {sum(flops):.3g} FLOPs to go" if flops and None not in flops else ""


def _time(runs: list[Run], sizes: list[Size], folder: Path, done: list[int], todo: list[int]) -> str:
    known = [i for i in done if sizes[i].flops() is not None]
    seconds = sum(event.get("seconds") or 0 for i in known for event in attempts(folder / runs[i].name))
    flops = [sizes[i].flops() for i in todo]
    if not seconds or None in flops:
        return "time: not known before a run is done; --check of vit_jax.train measures a step"
    hours = sum(flops) / sum(sizes[i].flops() for i in known) * seconds / 3600
    return f"time: about {hours:,.2f} hours of runs, as fast as those that are done"
