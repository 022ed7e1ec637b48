"""A real SLURM on this machine stops scripts/launch_slurm.sh in every way; each run must equal an uninterrupted one.

apt-get install --no-install-recommends slurmctld slurmd slurm-client munge        # Debian; then, as root:
python -m tests.slurm               # a line for each way; a difference ends it with a traceback
python -m tests.slurm --shell       # or a shell in which sbatch, squeue, scontrol and scancel are this SLURM's

It has two nodes of one CPU on the loopback interface, so that a job of two tasks has two hosts. The daemons run as long
as the command does, and write only to a folder that is deleted at the end.
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

from tests.runs import assert_equal_runs, records, saved_steps

ROOT = Path(__file__).parent.parent

# A job in `high` preempts jobs in the others: in `low` after a grace time of a minute, in `rude` at once, which leaves
# KillWait to save. cred_expire is also how long a requeued job waits. Nodes are named by their addresses.
CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=15,socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
NodeName=127.0.0.1 NodeHostname=127.0.0.1 NodeAddr=127.0.0.1 Port=16818 CPUs=1
NodeName=127.0.0.2 NodeHostname=127.0.0.2 NodeAddr=127.0.0.2 Port=16819 CPUs=1
SlurmctldPort=16817
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=rude Nodes=ALL PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """The daemons, which run during a `with` block."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=os.uname().nodename.partition(".")[0]))
        (folder / "munge.key").write_bytes(random.randbytes(1024))
        (folder / "munge.key").chmod(0o400)
        (folder / "state").mkdir()
        # Later starts reuse the programs that earlier ones compiled.
        self.environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
        self.environment |= {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        self.daemons = []

    def __enter__(self) -> "Slurm":
        self.folder.chmod(0o755)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        files["seed-file"] = "munge.seed"
        self.start("munged", "-F", *(f"--{name}={self.folder / file}" for name, file in files.items()))
        self.start("slurmctld", "-D")
        for node in ("127.0.0.1", "127.0.0.2"):
            self.start("slurmd", "-D", "-N", node)
        wait_until(
            lambda: self.ask("sinfo", "--noheader", "--partition=low", "--format=%T %D", check=False) == "idle 2"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("scancel", "--user=root", check=False)
        wait_until(lambda: not self.ask("squeue", "--noheader", check=False))
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()

    def start(self, *command: str) -> None:
        """Start a daemon in the foreground, as a child of this process."""
        with (self.folder / f"{command[0]}.out").open("a") as stream:
            self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=stream, stderr=stream))
        time.sleep(1)

    def ask(self, *command: str, check: bool = True) -> str:
        """Return what a command prints."""
        done = subprocess.run(command, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=check)
        return done.stdout.strip()

    def field(self, job: str, name: str) -> str:
        """Return a field of a job in SLURM: JobState, Restarts, ExitCode."""
        words = self.ask("scontrol", "show", "job", "--oneliner", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def end(self, job: str) -> str:
        """Wait until a job has finally ended, and return its state."""
        wait_until(lambda: self.field(job, "JobState") not in ("PENDING", "RUNNING", "COMPLETING"))
        return self.field(job, "JobState")


class Job:
    """A job of two tasks that trains, as a user submits it."""

    def __init__(self, slurm: Slurm, name: str, epochs: int, *options: str):
        self.slurm, self.name = slurm, name
        self.workdir, self.output = slurm.folder / name, slurm.folder / f"{name}.out"
        command = ["sbatch", "--parsable", "--ntasks=2", f"--output={self.output}", *options, "scripts/launch_slurm.sh"]
        command += [f"--config=configs/digits.py:epochs={epochs}", f"--workdir={self.workdir}"]
        self.command = [*command, "--config.log_every=5st"]
        self.submit()

    def submit(self) -> None:
        """Submit the job, or resubmit it."""
        self.id = self.slurm.ask(*self.command)

    def await_step(self, step: int) -> None:
        """Wait until the metrics of a step are written."""

        def reached() -> bool:
            assert self.slurm.field(self.id, "JobState") in ("PENDING", "RUNNING"), self.output.read_text()
            return self.lines() > 0 and records(self.workdir)[-1]["step"] >= step

        wait_until(reached)

    def restarts(self) -> int:
        """Return the number of times it was requeued."""
        return int(self.slurm.field(self.id, "Restarts"))

    def await_requeue(self, times: int) -> None:
        """Wait until it was requeued this many times, and its tasks have ended."""

        def requeued() -> bool:
            state = self.slurm.field(self.id, "JobState")
            assert state != "COMPLETED", f"{self.name}: complete before it was stopped; try more --epochs"
            return self.restarts() >= times and state != "COMPLETING"

        wait_until(requeued)

    def lines(self) -> int:
        """Return the number of complete lines of the metrics."""
        path = self.workdir / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0


def wait_until(true: Callable[[], bool], seconds: float = 1800) -> None:
    """Wait for something, but not forever."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing came in half an hour"
        time.sleep(0.5)


def preempt(job: Job) -> None:
    """Submit a job that needs the same nodes, and wait until it has run."""
    job.slurm.end(
        job.slurm.ask("sbatch", "--parsable", "--partition=high", "--ntasks=2", "-o/dev/null", "--wrap=sleep 2")
    )


def signalled(name: str) -> Callable[[Job], None]:
    """Return a function that stops a job by a signal to its tasks."""
    return lambda job: job.slurm.ask("scancel", f"--signal={name}", job.id)


def limit(job: Job) -> None:
    """Shorten the time limit so that its signal is due soon, and wait until the job is requeued."""
    hours, minutes, _ = job.slurm.field(job.id, "RunTime").split(":")
    job.slurm.ask("scontrol", "update", f"JobId={job.id}", f"TimeLimit={60 * int(hours) + int(minutes) + 2}")
    job.await_requeue(1)
    job.slurm.ask("scontrol", "update", f"JobId={job.id}", "TimeLimit=UNLIMITED")


def cancel(job: Job) -> None:
    """Cancel the job, check that it stays cancelled, and submit it again."""
    job.slurm.ask("scancel", job.id)
    assert job.slurm.end(job.id) == "CANCELLED", job.output.read_text()
    assert job.slurm.field(job.id, "ExitCode") == "75:0", job.output.read_text()
    job.submit()


# Ways to stop a job: options of sbatch, what to do, and how many times.
WAYS = {
    "preempted": ((), preempt, 2),
    "preempted-without-grace": (("--partition=rude",), preempt, 1),
    "requeued": ((), lambda job: job.slurm.ask("scontrol", "requeue", job.id), 1),
    "usr1": ((), signalled("USR1"), 1),
    "term": ((), signalled("TERM"), 1),
    "cancelled": ((), cancel, 1),
    "time-limit": ((), limit, 1),
}


def stop(slurm: Slurm, whole: Job, name: str, epochs: int, rng: random.Random) -> None:
    """Stop a run in one way, let it finish, and compare it."""
    options, act, times = WAYS[name]
    job = Job(slurm, name, epochs, *options)
    last = records(whole.workdir)[-1]["step"]
    steps = sorted(rng.sample(range(last // 10, last * 2 // 3), times))
    stopped = []
    for step in steps:
        job.await_step(max(step, stopped[-1] + 1) if stopped else step)
        act(job)
        if act is not cancel:
            job.await_requeue(len(stopped) + 1)
        stopped.append(saved_steps(job.workdir)[-1])
    assert slurm.end(job.id) == "COMPLETED", job.output.read_text()
    assert_equal_runs(whole.workdir, job.workdir)
    print(f"{name}: stopped and saved at {stopped}, requeued {job.restarts()} times, equal to the bit", flush=True)


def main() -> None:
    """Read the command line, start SLURM, and try every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS), metavar="WAY")
    parser.add_argument("--shell", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The daemons end with this process.
    with tempfile.TemporaryDirectory(prefix="vit_jax_slurm_") as scratch, Slurm(Path(scratch)) as slurm:
        if args.shell:
            subprocess.run([os.environ.get("SHELL", "bash")], env=slurm.environment, cwd=ROOT)
            return
        whole = Job(slurm, "whole", args.epochs)
        assert slurm.end(whole.id) == "COMPLETED", whole.output.read_text()
        print(f"whole: {records(whole.workdir)[-1]['step']} steps, {whole.lines()} lines of metrics", flush=True)
        for name in args.ways:
            stop(slurm, whole, name, args.epochs, random.Random(args.seed))


if __name__ == "__main__":
    main()
