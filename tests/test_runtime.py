"""What a command sets up before JAX looks for devices."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from vit_jax.runtime import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
x = jnp.ones((4096, 64))
run = jax.jit(lambda x: jnp.tanh(x @ x.T) @ x)  # It needs 64 MiB of temporary arrays: 16,384 pages.
for _ in range(3):
    run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    run(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_memory_of_one_step_is_kept_for_the_next():
    def faults(how):
        command = [sys.executable, "-c", FAULTS, how]
        # Huge pages, which scripts/test asks for, would have 500 times fewer faults.
        environment = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "XLA_FLAGS")}
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    given_back, kept = faults("given back"), faults("kept")
    assert given_back > 16_000
    assert kept < given_back / 4, (given_back, kept)  # Other threads still give back what little they need.
