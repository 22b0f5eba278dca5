"""Users of rollouts: steady requests of several kinds, of which each answer is kept, and what answers them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

__all__ = ["PORT", "Answer", "Users", "container", "versions"]

Object = dict[str, Any]
PORT: Final = 8080
_MOST: Final = 100_000
_SECONDS: Final = 60.0

SERVER = """
import collections, http.server, json, os, signal, socketserver, threading

version, pod = os.environ["VERSION"], os.environ["POD_NAME"]
state, count, seen = {"bad": int(os.environ.get("BAD", "0"))}, 0, collections.Counter()
draining = threading.Event()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one: else an answer waits for the acknowledgement of its head

    def do_GET(self):
        global count
        code, text = 200, f"{version} {pod} {self.path}"
        if self.path.startswith("/turn/"):
            state["bad"] = int(self.path.rpartition("/")[2])
        elif self.path == "/seen":
            text = json.dumps(seen)
        elif self.path != "/ready":
            count += 1
            seen[self.path.split("/")[1]] += 1
            code = 500 if state["bad"] and count % state["bad"] == 0 else 200
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if draining.is_set():
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

def drain(*_):
    draining.set()  # whoever asks on an old connection is told to make a new one
    threading.Timer(1.0, os._exit, (0,)).start()

signal.signal(signal.SIGTERM, drain)
Server((os.environ["POD_IP"], 8080), Handler).serve_forever()
"""
"""Answers with its version, its pod and the path that was asked for. `/turn/N` makes each N-th answer a 500, 0 none;
`/seen` says how many requests there were by the first word of their paths."""


def container(version: str, bad: int = 0) -> Object:
    """Return a container of a version. bad: which n-th answer is an error, 0 is none."""
    fields = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name"}
    env: list[Object] = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": at}}} for name, at in fields.items()]
    env += [{"name": "VERSION", "value": version}, {"name": "BAD", "value": str(bad)}]
    return {
        "name": "web",
        "image": "host",
        "command": ["python3", "-c", SERVER],
        "env": env,
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": PORT}, "periodSeconds": 1},
    }


class Answer(NamedTuple):
    """What a user saw. status: 0 where there was no answer, and `version` says why; began: a monotonic time."""

    kind: str
    began: float
    status: int
    version: str
    pod: str = ""


def versions(answers: Iterable[Answer]) -> Counter[str]:
    """Return how many answers there were of each version; errors count as theirs, and no answer as none."""
    return Counter(each.version for each in answers if each.status)


class Users:
    """Users of several kinds, each with headers of its own, that ask steadily, one on a kept connection and one on new.

    kinds: headers by kind. pause: seconds from request to request of each of both.
    """

    def __init__(self, host: str, port: int, kinds: Mapping[str, Mapping[str, str]], *, pause: float = 0.02) -> None:
        self.answers: list[Answer] = []
        self._address = host, port
        self._kinds = kinds
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="users")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(_SECONDS)

    # What was seen

    def of(self, kind: str = "", since: float = 0.0) -> list[Answer]:
        """Return answers of a kind, or of all, to what was asked since a moment."""
        return [each for each in self.answers[:] if each.began >= since and kind in {"", each.kind}]

    def next(self, kind: str, count: int = 40) -> list[Answer]:
        """Wait for answers of a kind to what is asked from now on."""
        first, since = len(self.answers), time.monotonic()

        def found() -> list[Answer]:
            return [each for each in self.answers[first:] if each.kind == kind and each.began >= since]

        while len(found()) < count:
            assert time.monotonic() < since + _SECONDS, f"{len(found())} answers for {kind} in {_SECONDS:.0f} s"
            time.sleep(0.02)
        return found()[:count]

    def sees(self, kind: str, count: int = 40) -> set[str]:
        """Return which versions answer users of a kind from now on."""
        return set(versions(self.next(kind, count)))

    def failures(self, kind: str = "") -> list[Answer]:
        """Return what was no answer, or an error."""
        return [each for each in self.of(kind) if each.status != 200 or not each.version]

    # How it is asked

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, headers in self._kinds.items():
                for kept in (True, False):
                    group.create_task(self._user(kind, headers, kept=kept))

    async def _user(self, kind: str, headers: Mapping[str, str], *, kept: bool) -> None:
        while not self._stopped.is_set() and len(self.answers) < _MOST:
            began = time.monotonic()
            try:
                await self._connection(kind, headers, kept=kept)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.answers.append(Answer(kind, began, 0, f"{type(error).__name__} {error}"))
            await asyncio.sleep(self._pause)

    async def _connection(self, kind: str, headers: Mapping[str, str], *, kept: bool) -> None:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(*self._address)
        try:
            while not self._stopped.is_set() and len(self.answers) < _MOST:
                if not await self._ask(kind, headers, reader, writer, kept=kept):
                    return
                await asyncio.sleep(self._pause)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(
        self,
        kind: str,
        headers: Mapping[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        kept: bool,
    ) -> bool:
        """Ask once; return whether the connection may be used again."""
        began, path = time.monotonic(), f"/{kind}/{len(self.answers)}"
        sent = {**headers, "Connection": "keep-alive" if kept else "close"}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        async with asyncio.timeout(10):
            writer.write("\r\n".join(lines).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            text = (await reader.readexactly(length)).decode()
        words = text.split(" ")
        if len(words) != 3 or words[2] != path:  # the gateway's own answer, or that of another request
            words = ["", f"{path}: {text}"]
        self.answers.append(Answer(kind, began, int(head.split()[1]), words[0], words[1]))
        return kept and "connection: close" not in head
