"""A worker of the data plane in a thread, and backends that answer as a test has it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from pilothouse.traffic.config import (
    Backend,
    Configuration,
    Endpoint,
    HttpRoute,
    HttpRule,
    Limits,
    Listener,
    Weighted,
)
from pilothouse.traffic.plane.reactor import IN
from pilothouse.traffic.plane.worker import Worker

__all__ = ["Origin", "Plane", "Raw", "configuration", "free_port", "head_of", "plane", "until"]

PATIENCE = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def until(true: Callable[[], object], what: str = "it") -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about")
        time.sleep(0.005)


def configuration(*ports: int, port: int = 0, generation: int = 1, **changes: Any) -> Configuration:
    """Return a listener at `port` with one route to a backend "b" of endpoints at `ports`."""
    rule = changes.pop("rule", HttpRule(backends=(Weighted(backend="b", version="stable"),)))
    backend = changes.pop("backend", {})
    listener = changes.pop("listener", {})
    every: dict[str, Any] = {
        "generation": generation,
        "listeners": (
            Listener(**{"name": "web", "port": port, "protocol": "HTTP", "address": "127.0.0.1"} | listener),
        ),
        "routes": (HttpRoute(name="default/r", listeners=("web",), rules=(rule,)),),
        "backends": {
            "b": Backend(endpoints=tuple(Endpoint(address="127.0.0.1", port=each) for each in ports), **backend)
        },
        "limits": Limits(head_seconds=5.0),
    }
    return Configuration(**every | changes)


class Plane:
    """One worker in a thread of its own; `do` runs something there."""

    def __init__(self, config: Configuration) -> None:
        self.noted: list[tuple[str, dict[str, str]]] = []
        self.worker = Worker(seed=1, told=lambda event, facts: self.noted.append((event, facts)))
        self._asked: list[Callable[[], object]] = []
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK)
        self.worker.reactor.register(self._reading, self, IN)
        self._thread = threading.Thread(target=self.worker.reactor.run, daemon=True)
        self.listen(config)
        self.worker.take(config)
        self._thread.start()

    @property
    def port(self) -> int:
        return self.worker.plan.configuration.listeners[0].port

    def listen(self, config: Configuration) -> None:
        for listener in config.listeners:
            if (listener.address, listener.port) not in self.worker._sockets:
                sock = socket.create_server((listener.address, listener.port), backlog=512)
                self.worker.listen(sock, listener.address, listener.port)

    def on_event(self, events: int) -> None:
        os.read(self._reading, 64)
        for work in [*self._asked]:
            self._asked.remove(work)
            work()

    def on_crash(self) -> None:
        raise AssertionError

    def do(self, work: Callable[[], Any]) -> Any:
        """Run it between two events; return what it returned."""
        done = threading.Event()
        found: list[Any] = []

        def run() -> None:
            try:
                found.append(work())
            except Exception as error:  # noqa: BLE001  # the test gets it
                found.append(error)
            done.set()

        self._asked.append(run)
        os.write(self._writing, b"x")
        assert done.wait(PATIENCE), "the worker does not react"
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    def take(self, config: Configuration) -> None:
        def take() -> None:
            self.listen(config)
            self.worker.take(config)

        self.do(take)

    def refused(self, kind: str) -> int:
        return int(self.do(lambda: self.worker.tally._refused.get(kind, 0)))

    def close(self) -> None:
        self.do(self.worker.reactor.stop)
        self._thread.join(PATIENCE)
        self.worker.close()
        os.close(self._reading)
        os.close(self._writing)


@contextlib.contextmanager
def plane(config: Configuration) -> Iterator[Plane]:
    served = Plane(config)
    try:
        yield served
    finally:
        served.close()


def head_of(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read a head; return it, and what came behind."""
    data = b""
    while b"\r\n\r\n" not in data:
        came = sock.recv(65536)
        if not came:
            raise ConnectionError(f"closed after {data!r}")
        data += came
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


class Origin:
    """A server of which each connection is served by a function in a thread: (socket, number of the connection)."""

    def __init__(self, serve: Callable[[socket.socket, int], object], context: Any = None) -> None:
        self._serve = serve
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.heads: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._one, args=(sock, self.connections), daemon=True).start()

    def _one(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ConnectionError):
            sock.settimeout(PATIENCE)
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._serve(sock, number)
        sock.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def answering(cls, *answers: bytes, context: Any = None) -> Origin:
        """Answer requests without or with sized bodies, each by the next of these, the last one for ever."""
        origin: Origin

        def serve(sock: socket.socket, number: int) -> None:
            del number
            rest = b""
            while True:
                data = rest
                while b"\r\n\r\n" not in data:
                    came = sock.recv(65536)
                    if not came:
                        return
                    data += came
                head, _, rest = data.partition(b"\r\n\r\n")
                size = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        size = int(line.partition(b":")[2])
                while len(rest) < size:
                    rest += sock.recv(65536)
                body, rest = rest[:size], rest[size:]
                origin.heads.append(head + b"\r\n\r\n" + body)
                answer = answers[min(len(origin.heads), len(answers)) - 1]
                if not answer:
                    return
                sock.sendall(answer)

        origin = cls(serve, context)
        return origin


class Raw:
    """A client that says exactly what it is told to."""

    def __init__(self, port: int, sock: socket.socket | None = None) -> None:
        self.sock = sock or socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.rest = b""

    def send(self, data: bytes) -> Raw:
        self.sock.sendall(data)
        return self

    def head(self) -> bytes:
        data = self.rest
        while b"\r\n\r\n" not in data:
            came = self.sock.recv(65536)
            if not came:
                raise ConnectionError(f"closed after {data!r}")
            data += came
        head, _, self.rest = data.partition(b"\r\n\r\n")
        return head

    def status(self) -> int:
        return int(self.head().split(b" ")[1])

    def response(self) -> tuple[int, bytes, bytes]:
        """Read a response with a length; return status, head and body."""
        head = self.head()
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line.partition(b":")[2])
        while len(self.rest) < size:
            came = self.sock.recv(65536)
            assert came, "closed in the middle of a body"
            self.rest += came
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(head.split(b" ")[1]), head, body

    def everything(self) -> bytes:
        """Read until the end."""
        data, self.rest = [self.rest], b""
        with contextlib.suppress(ConnectionResetError):
            while came := self.sock.recv(1 << 18):
                data.append(came)
        return b"".join(data)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
