"""Signals that end a run early: all processes agree on the step to stop at."""

import collections
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.cluster.heartbeat import Heartbeat, exit_now
from vit_jax.cluster.signals import SIGNALS, end
from vit_jax.errors import Stop

T = TypeVar("T")

# Steps between sending a process's exit code and reading the result, so that none waits for a step it just started.
LAG = 2


class Preemption:
    """Whether this run was asked to stop; all processes get the same answer at the same point of the program."""

    heartbeat: Heartbeat | None = None

    def __init__(self):
        self._code = 0
        self._ready = False
        self._waiting = collections.deque()
        self._say = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in a thread, because the main thread may be compiling."""
        receive, send = socket.socketpair()
        send.setblocking(False)
        signal.set_wakeup_fd(send.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        threading.Thread(target=self._handle, args=(receive,), name="signals", daemon=True).start()
        try:
            yield
        finally:
            # The command is done and its exit code known: no signal may change it while Python shuts down.
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if handler is end else handler)
            signal.set_wakeup_fd(-1)
            send.close()

    def ready(self, mesh: Mesh) -> None:
        """Declare that there is now something to save; until then, a signal ends the run at once."""
        if jax.process_count() > 1:
            sharding = NamedSharding(mesh, P(mesh.axis_names))
            shape = (mesh.size,)

            def placed(code: int) -> jax.Array:
                return jax.make_array_from_callback(shape, sharding, lambda _: np.full(1, code, np.int32))

            codes = {code: placed(code) for code in (0, *SIGNALS.values())}
            largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
            self._say = lambda code: largest(codes[code])
        self._ready = True

    def agreed(self) -> int:
        """Return the exit code that a signal requested, or 0; all processes must call this the same number of times."""
        if self._say is None:
            return self._code
        self._waiting.append(self._say(self._code))
        return int(self._waiting.popleft()) if len(self._waiting) > LAG else 0

    def watching(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of an evaluation; raise `Stop` when all processes agree to stop."""
        for batch in batches:
            if code := self.agreed():
                raise Stop(code)
            yield batch

    def _handle(self, receive: socket.socket) -> None:
        with receive:
            while data := receive.recv(1):
                if data[0] in SIGNALS:
                    self._receive(signal.Signals(data[0]))

    def _receive(self, number: signal.Signals) -> None:
        again = number == signal.SIGINT and self._code
        if not self._ready or again:
            why = f"{number.name}: stopped {'without saving' if again else 'while starting'}"
            self._end(SIGNALS[number], f"{why}; run the same command again to continue")
        if not self._code:
            extra = "; Ctrl-C again to stop without saving" if number == signal.SIGINT else ""
            print(f"{number.name}: stopping after this step, the state will be saved{extra}", file=sys.stderr)
            self._code = SIGNALS[number]

    def _end(self, code: int, why: str) -> None:
        if self.heartbeat is not None:
            self.heartbeat.end(code, why)
        print(why, file=sys.stderr)
        exit_now(code)
