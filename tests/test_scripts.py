"""The scripts other than training."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import FILE
from vit_jax import train

ROOT = Path(__file__).parent.parent


def test_quickstart_figure_and_summary(tmp_path):
    (tmp_path / "tiny.py").write_text(FILE)
    train.main([f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run", "--config.total=2st"])
    command = [sys.executable, "scripts/figures.py", "quickstart", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert "of 360 pictures" in done.stdout
    assert (tmp_path / "run" / "quickstart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", ["figures.py", "convert.py"])
def test_mistakes_end_in_one_line(tmp_path, script):
    arguments = ["quickstart", str(tmp_path / "none")] if script == "figures.py" else ["none.npz", "out.npz"]
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_shell_scripts_parse():
    for script in ("environment", "quickstart", "test"):
        subprocess.run(["bash", "-n", str(ROOT / "scripts" / script)], check=True)
