"""Damage each file of a checkpoint and continue the run: python -m tests.damage FOLDER [--command] [KIND ...]

Prints one line per file. All runs are in this process, for speed; with `--command`, each is the training command, as a
user starts it.
"""

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from tests.tiny import FILE
from vit_jax import tree


def _flip(data: bytes) -> bytes:
    middle = slice(len(data) // 2 - 8, len(data) // 2 + 8) if len(data) > 16 else slice(None)
    return data[: middle.start] + bytes(255 - byte for byte in data[middle]) + data[middle.stop or len(data) :]


def _flip_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "flipped": _flip,
    "one bit": _flip_bit,
    "deleted": lambda data: None,
}


def damage(path: Path, kind: str) -> bool:
    """Damage a file, and return whether it changed."""
    before = path.read_bytes()
    after = DAMAGES[kind](before)
    if after is None:
        path.unlink()
    else:
        path.write_bytes(after)
    return after != before


def files(checkpoint: Path) -> list[Path]:
    """Return the files of a checkpoint, relative to it."""
    return sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())


def arrays(checkpoint: Path) -> dict[str, np.ndarray]:
    """Return every array of a checkpoint by name, read without the code under test."""
    items = [path for path in checkpoint.iterdir() if (path / "_METADATA").exists()]
    return tree.flatten({path.name: ocp.StandardCheckpointer().restore(path) for path in items})


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    """Return whether two states are bit-identical."""
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def _in_process(arguments: list[str]) -> tuple[int, str]:
    from vit_jax import train
    from vit_jax.errors import run_command

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            run_command(lambda: train.main(arguments))
            code = 0
        except SystemExit as end:
            code = end.code
    return code, error.getvalue()


def _as_command(arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "vit_jax.train", *arguments], capture_output=True, text=True)
    return done.returncode, done.stderr


def main(folder: Path, run: Callable[[list[str]], tuple[int, str]], kinds: list[str]) -> None:
    """Make the run, damage and continue copies of it, and print what became of each."""
    folder.mkdir(parents=True)
    (folder / "tiny.py").write_text(FILE)
    arguments = [f"--config={folder / 'tiny.py'}", "--config.keep=3", "--config.mesh.data=1"]
    whole = folder / "whole"
    assert run([*arguments, f"--workdir={whole}"]) == (0, "")
    true = arrays(whole / "checkpoints" / "20")
    shutil.rmtree(whole / "checkpoints" / "20")
    bad = 0
    for path in files(whole / "checkpoints" / "16"):
        ends = {}
        for kind in kinds:
            workdir = folder / "damaged"
            shutil.copytree(whole, workdir)
            changed = damage(workdir / "checkpoints" / "16" / path, kind)
            code, error = run([*arguments, f"--workdir={workdir}"])
            lines = error.splitlines()
            if code == 0 and same(arrays(workdir / "checkpoints" / "20"), true):
                aside = (workdir / "checkpoints" / "damaged-16").is_dir()
                ends[kind] = {(0, False): "intact", (1, True): "fell back"}.get((len(lines), aside), "BAD")
            else:
                ends[kind] = "stopped" if code == 2 and len(lines) == 1 else "BAD"
            if ends[kind] == "BAD":
                bad += 1
                print(f"{path} {kind}: code {code}\n{error}", file=sys.stderr, flush=True)
            if not changed:
                ends[kind] = "unchanged"
            shutil.rmtree(workdir)
        print(f"{path}: {', '.join(f'{kind} {end}' for kind, end in ends.items())}", flush=True)
    sys.exit(f"{bad} bad ends" if bad else None)


if __name__ == "__main__":
    folder, *rest = sys.argv[1:]
    kinds = [kind for kind in rest if kind != "--command"] or list(DAMAGES)
    main(Path(folder), _as_command if "--command" in rest else _in_process, kinds)
