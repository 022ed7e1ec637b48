"""Runs on a SLURM cluster, through submitit: one array of jobs, each continued after preemption or its time limit."""

import functools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vit_jax.errors import STOPPED, InputError
from vit_jax.sweeps.attempt import POLL, Attempt, Slot, attempts, exit_code, now, record

ASK_EVERY = 10.0  # seconds
FOREVER = 1_000_000  # time limits that a job may reach


class Task:
    """What a job does: an attempt at a run. If it is stopped and its run saved, SLURM starts it again."""

    def __init__(self, attempt: Attempt):
        self._attempt = attempt

    def __call__(self) -> list[int | None]:
        codes = self._attempt(Slot())
        # SLURM may signal the run itself before submitit hears of it.
        if STOPPED in codes and _runs_in_slurm():
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            time.sleep(ASK_EVERY * 6)
        return codes

    def checkpoint(self, *_: Any) -> Any:
        """Save the run, and let submitit start the job again."""
        import submitit

        self._attempt.stop()
        while self._attempt.running():
            time.sleep(POLL)
        for folder in self._attempt.folders:
            record(folder, {"event": "end", "time": now(), "seconds": None, "exit": STOPPED})
        return submitit.helpers.DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"_attempt": self._attempt.fresh()}


def _runs_in_slurm() -> bool:
    # A job that was cancelled, or that SLURM requeues itself, is no longer RUNNING and is left alone.
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    asked = ["squeue", "--noheader", f"--job={job}", "--format=%T"]
    return subprocess.run(asked, stdout=subprocess.PIPE, text=True).stdout.strip() == "RUNNING"


class Handle:
    """A job of the cluster, which outlives the command that submitted it.

    Args:
        folders: of its runs, whose records say how they ended.
        gone: whether the cluster no longer has the job.
    """

    def __init__(self, folders: list[Path], gone: Callable[[], bool]):
        self._folders, self._gone = folders, gone
        self._before = [len(attempts(folder)) for folder in folders]

    def done(self) -> bool:
        new = [len(attempts(folder)) > before for folder, before in zip(self._folders, self._before, strict=True)]
        return (all(new) and None not in self.result()) or self._gone()

    def result(self) -> list[int | None]:
        return [exit_code(folder) for folder in self._folders]


class Cluster:
    """Submits attempts as an array of jobs."""

    waits = False

    def __init__(
        self,
        folder: Path,
        kind: str,
        *,
        room: int | None,
        devices: int,
        partition: str | None,
        minutes: int,
        options: dict[str, Any],
    ):
        """Prepare to submit to "slurm", or to processes of this machine as "local" has it.

        Args:
            room: number of jobs at once; None: as many as the cluster has room for.
            devices: GPUs of each run; 0: none.
            minutes: time limit of a job, after which it is continued.
            options: more parameters of submitit, such as {"slurm_account": "vision", "cpus_per_task": 16}.

        Raises:
            InputError: submitit or SLURM is not installed, or there is no such parameter.
        """
        try:
            import submitit
        except ImportError as error:
            raise InputError("a cluster needs submitit: pip install 'vit_jax[sweeps]'") from error
        if kind == "slurm" and shutil.which("sbatch") is None:
            raise InputError("--cluster=slurm: SLURM is not installed here: there is no sbatch; log in where there is")
        self.room = room or FOREVER
        self._folder, self._kind = folder, kind
        parameters = {"timeout_min": minutes, "gpus_per_node": devices or None, "name": folder.absolute().name}
        if kind == "slurm":
            parameters |= {"slurm_partition": partition, "slurm_additional_parameters": {"requeue": True}}
        parameters = {key: value for key, value in (parameters | options).items() if value is not None}
        try:
            self._executor = submitit.AutoExecutor(
                folder / "jobs", cluster=kind, **({"slurm_max_num_timeout": FOREVER} if kind == "slurm" else {})
            )
            self._executor.update_parameters(**parameters)
        except (NameError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"--cluster={kind}: {' '.join(str(error).split())[:300]}") from error
        self._queued = Queued()

    def start(self, them: list[Attempt]) -> list[Handle]:
        """Submit attempts, except for those whose jobs are still queued or running."""
        if not them:
            return []
        known = read_jobs(self._folder) if self._kind == "slurm" else {}
        old = {name: known[name] for name in (each.folders[0].name for each in them) if name in known}
        old = {name: job for name, job in old.items() if not self._queued.gone(job)}
        new = [each for each in them if each.folders[0].name not in old]
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Task(attempt)) for attempt in new]
        except Exception as error:  # It raises what the cluster's commands and their output lead to.
            why = " ".join(str(error).split())[-300:]
            raise InputError(f"--cluster={self._kind}: the jobs could not be submitted: {why}") from error
        if self._kind == "local":
            return [Handle(attempt.folders, job.done) for attempt, job in zip(them, jobs, strict=True)]
        with (self._folder / "jobs.jsonl").open("a") as lines:
            for attempt, job in zip(new, jobs, strict=True):
                lines.write(json.dumps({"run": attempt.folders[0].name, "job": job.job_id}) + "\n")
        self._queued.forget()
        ids = old | {attempt.folders[0].name: job.job_id for attempt, job in zip(new, jobs, strict=True)}
        return [Handle(each.folders, functools.partial(self._queued.gone, ids[each.folders[0].name])) for each in them]


class Queued:
    """The jobs that SLURM still has, asked every few seconds."""

    def __init__(self):
        self._jobs, self._asked = set(), -ASK_EVERY

    def forget(self) -> None:
        """Ask again, as there are new jobs."""
        self._asked = -ASK_EVERY

    def gone(self, job: str) -> bool:
        """Return whether a job is neither queued nor running."""
        if time.monotonic() - self._asked >= ASK_EVERY:
            asked = ["squeue", "--noheader", "--array", "--format=%i"]
            done = subprocess.run(asked, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                return False  # It does not answer now; that says nothing of the jobs.
            self._jobs, self._asked = set(done.stdout.split()), time.monotonic()
        return job not in self._jobs


def read_jobs(folder: Path) -> dict[str, str]:
    """Return the newest job of each run that was submitted."""
    path = folder / "jobs.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["run"]: record["job"] for record in map(json.loads, lines)}


def cancel(folder: Path) -> int:
    """Cancel the jobs of a sweep that are queued or running, whose runs save their states; return how many."""
    queued = Queued()
    jobs = [job for job in read_jobs(folder).values() if not queued.gone(job)]
    if jobs:
        subprocess.run(["scancel", *jobs], check=True)
    return len(jobs)
