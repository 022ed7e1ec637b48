"""Kills a sweep at random: it must end as one that was never disturbed, and repeat nothing.

python -m tests.killed_sweeps                             # 12 runs, two of which fail; the sweep is killed three times
python -m tests.killed_sweeps --cluster=local --kills=1   # through submitit, in processes of this machine

One run can't start (its patches don't fit the pictures), and another is killed from outside. It prints what came out; a
difference ends it with a traceback.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.quick import FLAGS
from tests.runs import assert_equal_runs, records
from tests.tiny import FILE
from vit_jax.errors import RUNS_FAILED
from vit_jax.sweeps.attempt import attempts

ROOT = Path(__file__).parent.parent
BAD = "model.name=Ti_3"  # In the name of the run whose patches don't fit.

SWEEP = """
def sweep():
    yield {{"model.name": "Ti/3"}}
    for seed in range({number} - 1):
        yield {{"seed": seed, "optim.lr": 1e-3 * (1 + seed % 3)}}
"""


class Sweep:
    """The command, with the small experiment of the tests, so many times."""

    def __init__(self, folder: Path, name: str, number: int, *options: str, environment: dict[str, str] | None = None):
        (folder / "tiny.py").write_text(FILE + SWEEP.format(number=number))
        self.folder, self.output = folder / name, folder / f"{name}.txt"
        self.command = [sys.executable, "scripts/sweep.py", str(folder / "tiny.py"), f"--workdir={self.folder}"]
        self.command += options
        self.process = None
        # Without the tests' simulated devices: one device for each run.
        self.environment = dict(environment or os.environ) | {"XLA_FLAGS": FLAGS}

    def start(self) -> None:
        """Start the command, or start it again."""
        with self.output.open("a") as stream:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=stream, stderr=stream, env=self.environment)

    def finish(self) -> int:
        """Wait for the end, after a start if there was none, and return the exit code."""
        if self.process is None:
            self.start()
        return self.process.wait(1200)

    def kill(self) -> None:
        """Kill the command itself, not its runs."""
        self.process.kill()
        self.process.wait()

    def runs(self) -> dict[str, Path]:
        """Return the directories of the runs by name."""
        return {path.parent.name: path.parent for path in sorted(self.folder.glob("*/command.json"))}

    def codes(self) -> dict[str, int | None]:
        """Return how each run ended."""
        return {name: ([{}, *attempts(path)][-1]).get("exit") for name, path in self.runs().items()}


def wait_until(true: Callable[[], object], seconds: float = 600) -> None:
    """Wait for something, but not forever."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.1)


def kill_run(sweep: Sweep, step: int) -> str:
    """Kill the first run that has reached a step, in mid-training, and return its name once that is recorded."""

    def reached() -> list[tuple[str, Path]]:
        found = [(name, path) for name, path in sweep.runs().items() if BAD not in name]
        # Not one that is nearly done.
        return [(name, path) for name, path in found if step <= ([{"step": 0}, *records(path)][-1])["step"] <= step + 5]

    wait_until(reached)
    name, path = reached()[0]
    os.kill(attempts(path)[-1]["pid"], signal.SIGKILL)
    wait_until(lambda: attempts(path)[-1].get("exit"))
    return name


def times_trained(path: Path) -> int:
    """Return how often a run began to train, as its output says."""
    return sum(line.startswith("steps ") for line in (path / "log.txt").read_text().splitlines())


def check(sweep: Sweep, killed: str) -> list[str]:
    """Check that all but the killed run and the bad one are done, each in one go, and return their names."""
    codes = sweep.codes()
    (bad,) = (name for name in codes if BAD in name)
    assert codes[killed] == -signal.SIGKILL, codes
    assert codes[bad] == 2, codes
    done = [name for name, code in codes.items() if code == 0]
    assert len(done) == len(codes) - 2, codes
    for name, path in sweep.runs().items():
        assert sum(event["event"] == "start" for event in attempts(path)) == 1, name
        assert times_trained(path) == (name != bad), name
    return done


def disturb(sweep: Sweep, kills: int, pause: tuple[float, float], rng: random.Random) -> str:
    """Run a sweep to its end, killing a run and then the command so many times; return the name of that run.

    Args:
        pause: the least and the most seconds before the command is killed.
    """
    sweep.start()
    killed = kill_run(sweep, 1)
    for _ in range(kills):
        time.sleep(rng.uniform(*pause))
        assert sweep.process.poll() is None, "the sweep was over too soon"
        sweep.kill()
        time.sleep(rng.uniform(0, 5))
        sweep.start()
    assert sweep.finish() in (0, RUNS_FAILED), sweep.output.read_text()
    return killed


def main() -> None:
    """Read the command line, and compare a disturbed sweep with another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", choices=["local"])
    args = parser.parse_args()
    # There, all runs train at once, and the sweep is soon over.
    pause = (0.5, 1.5) if args.cluster else (5, 15)
    options = [f"--cluster={args.cluster}", "--config.total=60st"] if args.cluster else ["--processes=2"]
    with tempfile.TemporaryDirectory(prefix="vit_jax_sweeps_") as scratch:
        whole, sweep = (Sweep(Path(scratch), name, args.runs, *options) for name in ("whole", "disturbed"))
        whole.finish()
        killed = disturb(sweep, args.kills, pause, random.Random(args.seed))
        codes = sorted(sweep.codes().values())
        print(f"{args.runs} runs, the sweep killed {args.kills} times: exit codes {codes}", flush=True)
        for name in check(sweep, killed):
            assert_equal_runs(sweep.folder / name, whole.folder / name)
        print("each run was trained once; those that are done equal the ones that were never disturbed, to the bit")


if __name__ == "__main__":
    main()
