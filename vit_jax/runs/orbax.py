"""Orbax as checkpoints use it: small arrays written whole, failures settled and told once."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Coroutine
from typing import Any

import jax
import orbax.checkpoint as ocp

# Replicas write an array together if the part of each has at least so many bytes. Below that, cutting it costs more
# time than writing it, and each new shape compiles a program.
PART = 2**20


@functools.cache
def set_up_orbax() -> None:
    """Write small arrays whole, let all reads and writes end before the error of one is raised, and drop its echoes."""
    with contextlib.suppress(ImportError):  # An internal module, which a later Orbax may move, and needs no help.
        from orbax.checkpoint._src import asyncio_utils

        asyncio_utils.run_sync = functools.partial(_run_to_the_end, asyncio_utils.run_sync)
    # Orbax also raises what it logs with a traceback, and we report it in one line.
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(lambda record: "never retrieved" not in record.getMessage())
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=PART)
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


def _run_to_the_end(run: Any, main: Coroutine) -> Any:
    # Not the result of the task: Python 3.11 formats that as it ends (`signal.getsignal` of a handler that is bound to
    # it), for which JAX gathers every restored array in the host's memory, and keeps it there.
    result = []

    async def whole() -> None:
        try:
            result.append(await main)
        finally:
            # If one fails, the event loop cancels the others, and TensorStore 0.1.86 deadlocks if it cancels one that
            # is just ending: it waits for its callback, which waits for the interpreter's lock. Orbax cancels nothing
            # from 0.12.6 on, which jax2onnx doesn't allow yet, but closes the loop before they have ended.
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    run(whole())
    return result.pop()
