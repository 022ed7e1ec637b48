"""Kill or stop a run at random moments, start it again each time, and compare it with an uninterrupted one.

python -m tests.kills --kills=30 --processes=2          # kill -9: of one process or of all
python -m tests.kills --signals=10 --processes=2        # SIGTERM or SIGUSR1, to one process or to all

Prints a line for each interruption and a summary; a difference ends it with a traceback.
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import tempfile
import time
from pathlib import Path

from tests.runs import Run, assert_equal_runs, saved_steps
from vit_jax.errors import PEER_DIED, STOPPED

# Every step is logged, most of the time is evaluation, and something is nearly always being saved.
TOTAL = 60
OVERRIDES = (f"--config.total={TOTAL}st", "--config.eval_every=3st", "--config.save_every=4st")


class Interrupted:
    """A run that is interrupted repeatedly; whenever it completes, it is compared and started over."""

    def __init__(self, folder: Path, processes: int, devices: int, rng: random.Random):
        self.folder, self.rng = folder, rng
        self.shape = {"processes": processes, "devices": devices}
        self.runs = 0
        self.startup = self.length = 0.0
        self.workdir = folder / "whole"
        began = time.monotonic()
        run = self.start()
        self.await_step(run, 1)
        self.startup = time.monotonic() - began
        run.finish()
        self.length = time.monotonic() - began - self.startup
        self.whole, self.workdir = self.workdir, folder / "run-0"

    def start(self) -> Run:
        """Start the command."""
        return Run(self.folder, self.workdir, *OVERRIDES, **self.shape)

    def await_step(self, run: Run, step: int) -> None:
        """Wait until a step's metrics are written, or the run ends."""
        while run.running() and self.last() < step:
            time.sleep(0.02)

    def last(self) -> int:
        """Return the last step whose metrics are written whole."""
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0

    def moment(self, run: Run) -> str:
        """Wait for a random moment: one in five during start-up, the others at any step, save or evaluation."""
        if self.rng.random() < 0.2:
            end = time.monotonic() + self.rng.random() * self.startup
            while run.running() and time.monotonic() < end:
                time.sleep(0.01)
            return "start-up"
        self.await_step(run, self.last() + 1)
        end = time.monotonic() + self.rng.random() * self.length / 4
        while run.running() and time.monotonic() < end:
            time.sleep(0.002)
        return "run"

    def victims(self, run: Run) -> list[int]:
        """Return one of the processes, or all."""
        every = list(range(len(run.processes)))
        return every if self.rng.random() < 0.5 else [self.rng.choice(every)]

    def complete(self) -> None:
        """Let the run finish, compare it, and start another."""
        self.start().finish()
        assert_equal_runs(self.whole, self.workdir)
        self.runs += 1
        self.workdir = self.folder / f"run-{self.runs}"

    def interrupt(self, number: signal.Signals | None = None) -> dict | None:
        """Interrupt it once; return what was seen, or None if it had already completed."""
        run = self.start()
        phase = self.moment(run)
        hit = self.victims(run)
        number = number or self.rng.choice([signal.SIGTERM, signal.SIGUSR1])
        unfinished = any(not path.name.isdecimal() for path in (self.workdir / "checkpoints").glob("*"))
        for i in hit:
            if run.processes[i].poll() is None:
                os.kill(run.processes[i].pid, number)
        began = time.monotonic()
        codes = run.wait(timeout=90)
        if not any(codes):
            self.complete()
            return None
        seen = {
            "signal": number.name,
            "phase": "save" if unfinished and phase == "run" else phase,
            "hit": hit,
            "codes": codes,
            "seconds": round(time.monotonic() - began, 1),
            # As printed by this start: before its first step, the metrics may hold steps of an earlier, killed start.
            "last": max(map(int, re.findall(r"^step (\d+)/", run.text(), re.MULTILINE)), default=0),
            "saved": max(saved_steps(self.workdir), default=0),
        }
        if number == signal.SIGKILL:
            # The others don't notice a kill after the work is done, while Python shuts down.
            others = {PEER_DIED, 0} if seen["saved"] == TOTAL else {PEER_DIED}
            allowed = [{-number} if i in hit else others for i in range(len(codes))]
        else:
            allowed = [{STOPPED}] * len(codes)
        assert all(code in right for code, right in zip(codes, allowed, strict=True)), (seen, run.text())
        if number != signal.SIGKILL:
            assert seen["saved"] >= seen["last"] - 1, (seen, run.text())
        return seen


def repeat(folder: Path, kills: int, signals: int, processes: int, devices: int = 1, seed: int = 0) -> list[dict]:
    """Interrupt a run this many times, compare every completed run, and return what was seen."""
    interrupted = Interrupted(folder, processes, devices, random.Random(seed))
    seen = []
    for number, wanted in ((signal.SIGKILL, kills), (None, signals)):
        found = []
        while len(found) < wanted:
            if one := interrupted.interrupt(number):
                found.append(one)
                print(f"{len(found)}/{wanted}", *(f"{key} {value}" for key, value in one.items()), flush=True)
        seen += found
    interrupted.complete()
    phases = dict(collections.Counter(one["phase"] for one in seen))
    slowest = max((one["seconds"] for one in seen), default=0)
    print(f"{len(seen)} interruptions of {processes} process(es), {phases}; the slowest end took {slowest} s")
    print(f"{interrupted.runs} complete runs equal the uninterrupted one to the bit, every line of their metrics too")
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("kills", 0), ("signals", 0), ("processes", 1), ("devices", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    with tempfile.TemporaryDirectory(prefix="vit_jax_kills_") as scratch:
        # Each start compiles what is not in the cache yet; kills while the cache is written are part of the test.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{scratch}/compiled")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        # How long the others wait for a process that is killed before it has joined.
        os.environ.setdefault("VIT_JAX_START_TIMEOUT", "30")
        repeat(Path(scratch), **vars(parser.parse_args()))
