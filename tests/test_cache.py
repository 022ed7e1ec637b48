"""What is cached between runs, and where."""

import os
import subprocess
import sys

import pytest

PROGRAM = (
    "import jax; from vit_jax.cache import keep_compiled; keep_compiled(); print(jax.config.jax_compilation_cache_dir)"
)


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
