"""The documentation: programs run as printed, and every config key and public name is described."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from vit_jax.config import Config, flatten
from vit_jax.tasks import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PROGRAMS = re.findall(r"```python\n(.*?)```", (DOCS / "own_loop.md").read_text(), re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "configs/README.md", *DOCS.rglob("*.md")]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("program", PROGRAMS, ids=["nnx.jit", "jax.jit"])
def test_own_loop_runs_as_printed(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "own_loop.md", "exec"), {"__name__": "__main__"})
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert losses[-1] < 0.8 * losses[0]


def test_own_loop_has_two_programs():
    assert ["nnx.jit" in program for program in PROGRAMS] == [True, False]


def test_config_reference_has_every_key(hooks):
    page = hooks.reference()
    for key in flatten(dataclasses.asdict(Config())):
        assert f"[`{key}`](#{key})" in page


def test_config_reference_has_types_ranges_and_defaults(hooks):
    keys = {key.name: key for _, _, keys in hooks.sections() for key in keys}
    assert keys["optim.b1"].kind == "float in [0, 1)"
    assert keys["optim.b1"].default == "0.9"
    assert keys["optim.b1"].description == keys["optim.eps"].description
    assert keys["evaluators.NAME.split"].default == "none"
    assert all(repr(task) in keys["task"].kind for task in TASKS)


def test_public_names_have_docstrings(hooks):
    assert hooks.undocumented() == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(
        r"\]\((?!https?:|#)([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    ):
        assert (page.parent / target).exists(), target


def test_paths_in_the_docs_exist():
    for page in PAGES:
        for path in re.findall(r"`((?:vit_jax|tests|scripts|configs|docs)/[\w/.]*\w)`", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
