"""A sweep on a real SLURM on this machine: an array of 12 jobs, of which one is preempted, two fail and none repeats.

See tests/slurm.py for what must be installed; as root: python -m tests.slurm_sweeps
"""

import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.killed_sweeps import BAD, Sweep, kill_run, times_trained
from tests.runs import assert_equal_runs, records
from tests.slurm import Slurm, wait_until
from vit_jax.errors import RUNS_FAILED, STOPPED
from vit_jax.sweeps.attempt import attempts

STEPS = 400


def preempt_one(slurm: Slurm, sweep: Sweep, killed: str) -> str:
    """Run a job of higher priority while both nodes train, and return the run that gave way."""

    def training() -> list[str]:
        found = {name: ([{"step": 0}, *records(path)][-1])["step"] for name, path in sweep.runs().items()}
        return [name for name, step in found.items() if 0 < step < STEPS // 2 and name != killed]

    wait_until(lambda: len(training()) == 2)
    slurm.ask("sbatch", "--parsable", "--partition=high", "--ntasks=1", "-o/dev/null", "--wrap=sleep 5")

    def stopped() -> list[str]:
        events = {name: attempts(path) for name, path in sweep.runs().items()}
        return [name for name, each in events.items() if any(event.get("exit") == STOPPED for event in each)]

    wait_until(stopped)
    (name,) = stopped()
    return name


def main() -> None:
    """Start SLURM, run a sweep on it, and compare it with one on this machine."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The daemons end with this process.
    with tempfile.TemporaryDirectory(prefix="vit_jax_slurm_") as scratch, Slurm(Path(scratch)) as slurm:
        steps = f"--config.total={STEPS}st"
        cluster = ("--cluster=slurm", "--partition=low", "--time=60", steps, "--config.save_every=50st")
        sweep = Sweep(Path(scratch), "cluster", 12, *cluster, environment=slurm.environment)
        sweep.start()
        killed = kill_run(sweep, 1)
        preempted = preempt_one(slurm, sweep, killed)
        print(f"killed {killed}, preempted {preempted}", flush=True)
        # The command is killed too; the jobs go on, and it finds them again.
        sweep.kill()
        time.sleep(5)
        sweep.start()
        assert sweep.finish() in (0, RUNS_FAILED), sweep.output.read_text()
        codes = sweep.codes()
        print(f"exit codes {sorted(codes.values())}", flush=True)
        assert codes.pop(killed) == -signal.SIGKILL
        assert codes.pop(next(name for name in codes if BAD in name)) == 2
        assert set(codes.values()) == {0}
        whole = Sweep(Path(scratch), "whole", 12, "--processes=1", steps, "--config.save_every=50st")
        whole.finish()
        for name in codes:
            assert times_trained(sweep.folder / name) == 1 + (name == preempted), name
            assert_equal_runs(sweep.folder / name, whole.folder / name)
        print("equal to a sweep on this machine, to the bit; only the preempted run was started twice, and continued")


if __name__ == "__main__":
    main()
