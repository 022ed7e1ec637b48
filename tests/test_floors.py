"""The layers of the package: imports only go down, files stay small, nothing heavy is imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vit_jax"

# From bottom to top; the parts on one line do not import each other.
FLOORS = [
    ("errors",),
    ("config", "labels", "losses", "tree"),
    ("cache", "packing", "pixels"),
    ("cluster", "data", "models", "optim", "runtime"),
    ("tasks",),
    ("inside", "step"),
    ("evaluators", "experiment"),
    ("runs",),
    ("weights",),
    ("export", "preflight", "prediction"),
    ("card",),
    ("sweeps",),
    ("train", "evaluate", "predict"),
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}


def imported(path: Path) -> set[str]:
    """Return the parts of the package that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "vit_jax":
            parts |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vit_jax."):
            parts.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vit_jax.")}
    return parts


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    for other in imported(path) - {part}:
        assert LEVEL[other] < LEVEL[part], f"{path.name} imports {other}, which is not below it"


def test_configs_import_nothing_else_and_nothing_imports_them():
    for path in ROOT.glob("configs/*.py"):
        assert imported(path) <= {"config"}
    for path in PACKAGE.rglob("*.py"):
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not {module for module in modules if module and module.split(".")[0] in ("configs", "scripts")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


def test_loop_file_is_short():
    assert len((PACKAGE / "train.py").read_text().splitlines()) <= 250


def test_nothing_heavy_is_imported():
    code = (
        "import sys, vit_jax; light = set(sys.modules);"
        "import vit_jax.train, vit_jax.evaluate, vit_jax.predict;"
        "print([m for m in ('tensorflow', 'torch') if m in sys.modules],"
        "      [m for m in ('orbax', 'grain', 'sklearn', 'matplotlib') if m in light])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
