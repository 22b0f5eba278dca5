"""A server of canned pods: answers a list, and replays changes to a watch as fast as it is read, or at a constant rate.

What it sends is encoded beforehand but for each change's number, one chunk an event as kube-apiserver does, over plain
HTTP: so the reader is what is measured. Changes begin when the parent says so and a watch is there.

usage: _canned.py OBJECTS CHANGES RATE  (by `canned`; RATE 0 is as fast as it is read)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from _apiserver import Server, pod
from _followers import MARK
from _kit import run

__all__ = ["Canned", "canned"]

_AT_ONCE = 32
_START_SECONDS = 30.0
_RESOURCES = [
    {"name": name, "singularName": kind.lower(), "namespaced": spaced, "kind": kind, "verbs": ["get", "list", "watch"]}
    for name, kind, spaced in (("pods", "Pod", True), ("namespaces", "Namespace", False))
]
_FIXED = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": _RESOURCES},
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
    "/api/v1/namespaces": {
        "kind": "NamespaceList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "1"},
        "items": [{"metadata": {"name": "default", "uid": "default", "resourceVersion": "1"}}],
    },
}
_NOTHING = {"kind": "Status", "code": 404, "message": "not here"}
_BOOKMARK = {
    "type": "BOOKMARK",
    "object": {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}},
    },
}


class Canned:
    """A running server of canned pods."""

    def __init__(self, process: subprocess.Popen[str], server: Server) -> None:
        self.server = server
        self.begun = 0.0
        """When the first change was due, on the system's monotonic clock."""
        self._process = process

    def go(self) -> None:
        """Have the changes begin as soon as a watch is there; return then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.begun = float(self._process.stdout.readline() or "nan")


@contextlib.contextmanager
def canned(directory: Path, objects: int, changes: int, rate: float = 0.0) -> Iterator[Canned]:
    """Start the server in a process of its own, and end it afterwards. rate: changes a second; 0 is no limit."""
    command = [sys.executable, __file__, str(objects), str(changes), str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield Canned(process, Server((process.pid,), f"http://127.0.0.1:{port}", 0.0, directory))
        finally:
            process.kill()


class _Pods:
    """Pods as they are sent: the bytes before and behind the number that differs from change to change."""

    def __init__(self, count: int) -> None:
        self.lines = [self._stored(number, None) for number in range(count)]
        halves = [self._stored(number, "@@").split(b"@@") for number in range(count)]
        self._parts = [(b'{"type":"MODIFIED","object":' + a, b, c + b"}\n") for a, b, c in halves]

    def change(self, number: int) -> bytes:
        """Return a change as a chunk."""
        before, between, behind = self._parts[number % len(self._parts)]
        shown = b"%d" % number
        return _chunk(b"%b%b%b%d%b" % (before, shown, between, number + 2, behind))

    @staticmethod
    def _stored(number: int, mark: str | None) -> bytes:
        made = pod(f"pod-{number}")
        annotations = made["metadata"].pop("annotations")
        if mark is not None:
            annotations = {MARK: mark, **annotations}
        made["metadata"] = {
            "annotations": annotations,
            "resourceVersion": "1" if mark is None else mark,
            **made["metadata"],
            "namespace": "default",
            "uid": f"uid-{number}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        return json.dumps(made, separators=(",", ":")).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Replay:
    def __init__(self, objects: int, changes: int, rate: float) -> None:
        self._pods = _Pods(objects)
        self._changes, self._rate = changes, rate
        self._list = (
            b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[%b]}'
            % b",".join(self._pods.lines)
        )
        self._sent = 0
        self.go = asyncio.Event()
        self.begun: Callable[[float], None] = lambda _: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                parts = urlsplit(head.split(b" ", 2)[1].decode())
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                if query.get("watch", "").lower() in {"true", "1"}:
                    await self._watch(parts.path, query, writer)
                    return
                fixed = _FIXED.get(parts.path.rstrip("/"))
                body = self._list if parts.path.endswith("/pods") else json.dumps(fixed or _NOTHING).encode()
                code = b"200 OK" if fixed or parts.path.endswith("/pods") else b"404 Not Found"
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (code, len(body))
                )
                writer.write(body)
                await writer.drain()

    async def _watch(self, path: str, query: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        if not path.endswith("/pods"):
            await asyncio.Event().wait()
        if query.get("resourceVersion", "0") == "0" or "sendInitialEvents" in query:
            for line in self._pods.lines:
                writer.write(_chunk(b'{"type":"ADDED","object":' + line + b"}\n"))
            if "sendInitialEvents" in query:
                writer.write(_chunk(json.dumps(_BOOKMARK).encode() + b"\n"))
        await writer.drain()
        await self.go.wait()
        await asyncio.sleep(0.2)  # whoever reads is ready
        if not self._sent:
            self.begun(time.monotonic())
        await (self._paced if self._rate else self._unpaced)(writer)
        await asyncio.Event().wait()

    async def _unpaced(self, writer: asyncio.StreamWriter) -> None:
        while self._sent < self._changes:
            numbers = range(self._sent, min(self._sent + _AT_ONCE, self._changes))
            writer.write(b"".join(map(self._pods.change, numbers)))
            self._sent = numbers.stop
            await writer.drain()

    async def _paced(self, writer: asyncio.StreamWriter) -> None:
        """Send each change when it is due, whether or not those before have been read."""
        begun = time.monotonic()
        self._sent = 1
        writer.write(self._pods.change(0))
        while self._sent < self._changes:
            due = min(int((time.monotonic() - begun) * self._rate) + 1, self._changes)
            for number in range(self._sent, due):
                writer.write(self._pods.change(number))
            self._sent = max(self._sent, due)
            await asyncio.sleep(max(0.0, begun + self._sent / self._rate - time.monotonic()))


async def _serve(objects: int, changes: int, rate: float) -> None:
    replay = _Replay(objects, changes, rate)
    replay.begun = lambda when: print(when, flush=True)
    loop = asyncio.get_running_loop()

    def wait_for_parent() -> None:
        if sys.stdin.readline():
            loop.call_soon_threadsafe(replay.go.set)

    server = await asyncio.start_server(replay.serve, "127.0.0.1", 0, limit=1 << 20)
    threading.Thread(target=wait_for_parent, daemon=True).start()
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
