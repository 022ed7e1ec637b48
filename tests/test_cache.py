"""What is cached between runs, and where."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from tests.runs import Run
from vit_jax.cache import _locked

PROGRAM = "import jax; from vit_jax.runtime import set_up; set_up(); print(jax.config.jax_compilation_cache_dir)"


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({}, "HOME/.cache/vit_jax/compiled"),
        ({"VIT_JAX_CACHE": "/large"}, "/large/compiled"),
        ({"JAX_COMPILATION_CACHE_DIR": "/chosen"}, "/chosen"),
        ({"JAX_COMPILATION_CACHE_DIR": ""}, ""),
    ],
)
def test_compiled_programs_are_kept(tmp_path, changes, folder):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"HOME": str(tmp_path), "VIT_JAX_CACHE": ""} | changes
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == folder.replace("HOME", str(tmp_path))


def test_the_first_of_equal_runs_compiles_the_step_and_the_other_waits_for_it(tmp_path, monkeypatch):
    """Two runs, started at once on an empty cache, that differ in numbers which are inputs of the step."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    # Nothing takes so long that JAX would cache it of its own accord.
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1000")
    monkeypatch.setenv("JAX_DEBUG_LOG_MODULES", "jax._src.compiler")
    runs = []
    for seed in range(2):
        (folder := tmp_path / str(seed)).mkdir()
        numbers = (f"--config.seed={seed}", f"--config.optim.lr={1 + seed}e-3")
        runs.append(Run(folder, folder / "run", "--config.total=2st", "--config.evaluators={}", *numbers))
    for run in runs:
        run.finish()
    texts = [run.text() for run in runs]
    assert sum("CACHE MISS for 'jit_train_step'" in text for text in texts) == 1
    assert sum("cache hit for 'jit_train_step'" in text for text in texts) == 1
    assert [path.name.partition("-")[0] for path in (tmp_path / "cache").glob("*-cache")] == ["jit_train_step"]


HOLDER = """
import pathlib, sys, time
from vit_jax.cache import _locked
with _locked(pathlib.Path(sys.argv[1]), sys.exit):
    print("held", flush=True)
    time.sleep(600)
"""


def test_whoever_waits_goes_on_when_the_holder_is_killed(tmp_path):
    path = tmp_path / "new" / "step.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with _locked(path, holder.kill):
            assert holder.wait(60) == -signal.SIGKILL


def test_without_a_lock_nothing_is_waited_for(tmp_path, monkeypatch):
    """A folder that can't be written, and a file system that has no locks."""
    (tmp_path / "file").touch()
    with _locked(tmp_path / "file" / "step.lock", pytest.fail):
        pass

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with _locked(tmp_path / "step.lock", pytest.fail):
        pass
