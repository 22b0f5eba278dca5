"""Tunnels by HTTP/2's extended CONNECT, from both ends: a client that asks for them, a server that takes them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    NGH2Error,
    RequestReceived,
    ResponseReceived,
    Role,
    Setting,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from support.planekit import PATIENCE, Origin

__all__ = ["Http2", "TunnelServer"]

_QUEUED = 64 << 10


class Http2:
    """One connection of either role, and what came of its streams. takes: whether read bytes open windows at once."""

    def __init__(
        self,
        sock: socket.socket,
        role: Role = Role.CLIENT,
        *,
        takes: bool = True,
        settings: dict[int, int] | None = None,
    ) -> None:
        self.sock = sock
        self.takes = takes
        self.engine = Connection(role, Configuration(auto_window_update=False))
        self.given = settings or {}
        if role is Role.CLIENT:
            self.start()
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.owed: dict[int, int] = {}
        self.ended: set[int] = set()
        self.closed: dict[int, int] = {}
        self.resets: dict[int, int] = {}
        self.news: list[int] = []

    @classmethod
    def to(cls, port: int, *, takes: bool = True, settings: dict[int, int] | None = None) -> Self:
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        return cls(sock, takes=takes, settings=settings)

    def start(self) -> None:
        self.engine.initiate_connection(self.given)

    def flush(self) -> None:
        """Write what there is, and take note of what that ended."""
        while True:
            for event in self.engine.events():
                self._event(event)
            data = self.engine.data_to_send()
            if not data:
                return
            self.sock.sendall(data)

    def ask(self, path: str = "/", *fields: tuple[str, str], method: str = "GET", scheme: str = "http") -> int:
        """Ask for a tunnel where the method is a protocol's name, else for an answer."""
        named = [(":method", method)]
        if method.islower():
            named = [(":method", "CONNECT"), (":protocol", method)]
        named += [(":scheme", scheme), (":authority", "a.example"), (":path", path), *fields]
        encoded = [(name.encode(), value.encode()) for name, value in named]
        stream = self.engine.send_request(encoded, end_stream=not method.islower())
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.engine.send_data(stream, data, end_stream=end)
        self.flush()

    def end(self, stream: int) -> None:
        self.engine.end_stream(stream)
        self.flush()

    def reset(self, stream: int, code: int = 8) -> None:
        self.engine.reset_stream(stream, code)
        self.flush()

    def take(self, stream: int) -> None:
        """Open the windows again for all that came."""
        self.engine.acknowledge_received_data(self.owed.pop(stream, 0), stream)
        self.flush()

    def turn(self) -> bool:
        """Read once; return False at the end."""
        data = self.sock.recv(1 << 18)
        if data:
            self.engine.receive_data(data)
        self.flush()
        return bool(data)

    def _event(self, event: object) -> None:
        if isinstance(event, ResponseReceived | RequestReceived):
            self.heads[event.stream_id] = {bytes(name): bytes(value) for name, value in event.headers}
            self.bodies.setdefault(event.stream_id, bytearray())
            self.news.append(event.stream_id)
            if event.end_stream:
                self.ended.add(event.stream_id)
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] += event.data
            self.owed[event.stream_id] = self.owed.get(event.stream_id, 0) + len(event.data)
            if event.end_stream:
                self.ended.add(event.stream_id)
            if self.takes:
                with contextlib.suppress(NGH2Error):
                    self.engine.acknowledge_received_data(self.owed.pop(event.stream_id), event.stream_id)
        elif isinstance(event, TrailersReceived):
            self.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = event.error_code
        elif isinstance(event, StreamClosed):
            self.closed[event.stream_id] = event.error_code

    def until(self, true: Callable[[], object]) -> None:
        while not true():
            assert self.turn(), "the connection ended"

    def until_silent(self) -> None:
        """Send and read until nothing has moved for half a second."""
        self.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                self.flush()
                assert self.turn(), "the connection ended"
        self.sock.settimeout(PATIENCE)

    def status(self, stream: int) -> int:
        self.until(lambda: stream in self.heads)
        return int(self.heads[stream][b":status"])

    def body(self, stream: int, size: int) -> bytes:
        """Return what came once it is so long, and forget it."""
        self.until(lambda: len(self.bodies.get(stream, b"")) >= size)
        found = bytes(self.bodies[stream])
        self.bodies[stream].clear()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


class TunnelServer:
    """A backend that speaks HTTP/2 and echoes what tunnels bring. late: waited for before its settings are said.

    What it cannot send on yet keeps it from taking more. Paths: /403 refuses, /reset and /bye end after the first
    bytes, by a reset and by the end of its half.
    """

    def __init__(self, *, offers: bool = True, late: threading.Event | None = None) -> None:
        self.heads: list[dict[bytes, bytes]] = []
        self.ended: list[int] = []
        self.over: set[int] = set()
        self.resets: dict[int, int] = {}
        self._settings: dict[int, int] = {Setting.ENABLE_CONNECT_PROTOCOL: 1} if offers else {}
        self._late = late
        self.origin = Origin(self._serve)

    def _serve(self, sock: socket.socket, number: int) -> None:
        del number
        server = Http2(sock, Role.SERVER, takes=False, settings=self._settings)
        if self._late is not None:
            assert self._late.wait(PATIENCE)
        server.start()
        known = 0
        with contextlib.suppress(NGH2Error):
            while True:
                server.flush()
                if not server.turn():
                    return
                for stream in server.news[known:]:
                    self._answer(server, stream)
                known = len(server.news)
                for stream, body in server.bodies.items():
                    if body and stream not in server.closed:
                        self._came(server, stream, body)
                    if stream in server.ended and stream not in self.ended:
                        self.ended.append(stream)
                        self._end(server, stream)
                server.flush()
                for stream in [each for each in server.owed if server.engine.queued_body_size(each) < _QUEUED]:
                    server.take(stream)
                self.resets.update(server.resets)

    def _answer(self, server: Http2, stream: int) -> None:
        head = server.heads[stream]
        self.heads.append(head)
        if head[b":path"] == b"/403":
            server.engine.send_response(stream, [(b":status", b"403"), (b"content-length", b"2")])
            server.engine.send_data(stream, b"no", end_stream=True)
        elif b":protocol" in head:
            fields = [(name, head[name]) for name in (b"sec-websocket-protocol",) if name in head]
            server.engine.send_response(stream, [(b":status", b"200"), *fields])
        else:
            server.engine.send_response(stream, [(b":status", b"200")])
            server.engine.send_data(stream, b"hello", end_stream=True)

    def _came(self, server: Http2, stream: int, body: bytearray) -> None:
        path = server.heads[stream][b":path"]
        if path == b"/reset":
            server.engine.reset_stream(stream, 8)
        elif path == b"/bye":
            if stream not in self.over:
                self.over.add(stream)
                server.engine.send_data(stream, b"bye", end_stream=True)
        else:
            server.engine.send_data(stream, bytes(body))
        body.clear()

    def _end(self, server: Http2, stream: int) -> None:
        head = server.heads[stream]
        if b":protocol" in head and head[b":path"] not in {b"/bye", b"/403", b"/reset"}:
            server.engine.send_data(stream, b"bye", end_stream=True)
