"""Heartbeats between the processes of a run: if one fails or dies, the others exit at once, with one message.

JAX's own heartbeats take minutes and end in an abort, and a collective or barrier may wait even longer.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from vit_jax.errors import FAILED, INPUT, INTERRUPTED, PEER_DIED, InputError

BEAT = 5.0  # Seconds between heartbeats.
SILENCE = 30.0  # Seconds without one after which a process counts as dead: its machine is off or unreachable.
KEY = "vit_jax/heartbeat"


class Heartbeat:
    """Connections to the other processes of this run. All connect to process 0, which forwards why the run ends."""

    def __init__(self, process: int, number: int, store: Any, host: str, timeout: float):
        """Connect; `store` is JAX's key-value store, `host` the host name of process 0 as the others know it.

        Raises:
            InputError: process 0 can't be reached.
        """
        self.process = process
        self._sending, self._ending = threading.Lock(), threading.Lock()
        self._left: set[int] = set()
        if process == 0:
            with socket.create_server(("", 0), backlog=number) as server:
                store.key_value_set(KEY, json.dumps([host, server.getsockname()[1]]))
                server.settimeout(timeout)
                try:
                    accepted = [server.accept()[0] for _ in range(number - 1)]
                except TimeoutError as error:
                    raise InputError(f"a process did not connect to process 0 within {timeout:.0f} s") from error
            self._connections = {int(_receive_hello(connection)): connection for connection in accepted}
        else:
            address = tuple(json.loads(store.blocking_key_value_get(KEY, int(timeout * 1000))))
            try:
                self._connections = {0: socket.create_connection(address, timeout)}
            except OSError as error:
                raise InputError(
                    f"process {process} can't reach process 0 at {address[0]}:{address[1]} ({error}); "
                    "the hosts of a run must be able to connect to each other on any port"
                ) from error
            self._connections[0].sendall(f"{process}\n".encode())
        for connection in self._connections.values():
            connection.settimeout(BEAT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _hold_aborts()
        threading.Thread(target=self._listen, name="heartbeat", daemon=True).start()

    def leave(self) -> None:
        """Announce that this process ends normally; the caller must then wait until all others have done the same."""
        self._send({"bye": self.process})

    def end(self, code: int, why: str) -> NoReturn:
        """End this process and all others with this exit code; each prints `why`."""
        self._finish(code, why, f"process {self.process}: {why}")

    def fail(self, error: BaseException) -> NoReturn:
        """End this process and all others because of an exception here."""
        if isinstance(error, InputError):
            self.end(INPUT, f"error: {error}")
        if isinstance(error, KeyboardInterrupt):
            self.end(INTERRUPTED, "interrupted; run the same command again to continue")
        time.sleep(BEAT)  # If a collective failed because a process died, the listener thread finds out and exits.
        traceback.print_exception(error)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        self._finish(FAILED, None, f"process {self.process} failed: {text}", PEER_DIED)

    def _listen(self) -> None:
        selector = selectors.DefaultSelector()
        heard, parts = dict.fromkeys(self._connections, time.monotonic()), dict.fromkeys(self._connections, b"")
        for process, connection in self._connections.items():
            selector.register(connection, selectors.EVENT_READ, process)
        beat = time.monotonic()
        while True:
            for key, _ in selector.select(BEAT / 2):
                process = key.data
                try:
                    received = key.fileobj.recv(4096)
                except OSError:
                    received = b""
                *messages, parts[process] = (parts[process] + received).split(b"\n")
                heard[process] = time.monotonic()
                for message in filter(None, messages):
                    self._handle(json.loads(message))
                if not received:
                    selector.unregister(key.fileobj)
                    del heard[process]
                    if process not in self._left:
                        self._lost(process)
            now = time.monotonic()
            for process, last in heard.items():
                if now - last > SILENCE and process not in self._left:
                    self._lost(process, f" (no heartbeat for {SILENCE:.0f} s)")
            if now - beat >= BEAT:
                self._send(None)
                beat = now

    def _handle(self, message: dict[str, Any]) -> None:
        if "bye" in message:
            self._left.add(message["bye"])
        else:
            self._finish(message["code"], message["why"], message["why"])

    def _lost(self, process: int, how: str = "") -> NoReturn:
        why = f"process {process} died{how}; run the same command again, on all hosts, to continue"
        self._finish(PEER_DIED, why, why)

    def _finish(self, code: int, why: str | None, others: str, others_code: int | None = None) -> NoReturn:
        if not self._ending.acquire(blocking=False):
            time.sleep(2 * BEAT)  # Another thread is already ending this process.
        self._send({"code": others_code or code, "why": others})
        if why is not None:
            print(why, file=sys.stderr)
        # The message arrives only if this side stays open until the other has read it.
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    pass
        exit_now(code)

    def _send(self, message: dict[str, Any] | None) -> None:
        data = (json.dumps(message) if message else "").encode() + b"\n"
        with self._sending:
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.sendall(data)


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for anything; writes in progress stay unfinished, as after a kill."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _receive_hello(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise InputError("a process died while the run was starting; run the same command again, on all hosts")
        received += byte
    return received.decode()


def _hold_aborts() -> None:
    # When process 0 dies, JAX aborts the others within milliseconds, with a dump and exit code 134. With sleep() as the
    # handler, the aborting thread sleeps for SIGABRT = 6 seconds, long enough for the heartbeat to report the cause.
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
