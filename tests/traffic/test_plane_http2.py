"""HTTP/2 clients of a worker: by libnghttp2 as a client, by curl, and by frames made by hand."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngh2 import (
    Connection,
    DataReceived,
    GoAwayReceived,
    InformationalResponseReceived,
    ResponseReceived,
    Role,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from pilothouse.foundation.tls import issue, make_ca
from pilothouse.traffic.config import Certificate, HttpRule, Limits, ListenerTls, Timeouts, Weighted
from pilothouse.traffic.plane.http import Body, Refused
from pilothouse.traffic.plane.requests2 import read_request
from support.planekit import Origin, Plane, configuration, free_port, head_of, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-from: origin\r\n\r\nhello"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Client:
    """A connection, and what came of each stream."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.engine = Connection(Role.CLIENT)
        self.engine.initiate_connection()
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.trailers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.interim: list[int] = []
        self.closed: dict[int, int] = {}
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None

    @classmethod
    def to(cls, port: int) -> Client:
        return cls(socket.create_connection(("127.0.0.1", port), timeout=20))

    def flush(self) -> None:
        while data := self.engine.data_to_send():
            self.sock.sendall(data)

    def ask(self, path: str = "/", body: bytes | None = None, method: str = "GET", **more: str) -> int:
        headers = [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)]
        fields = [(name.replace("_", "-"), value) for name, value in more.items()]
        encoded = [(name.encode(), value.encode()) for name, value in (*headers, *fields)]
        stream = self.engine.send_request(encoded, end_stream=body is None)
        if body is not None:
            self.engine.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def turn(self) -> bool:
        data = self.sock.recv(65536)
        if data:
            self.engine.receive_data(data)
        for event in self.engine.events():
            if isinstance(event, ResponseReceived):
                self.heads[event.stream_id] = {bytes(name): bytes(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
            elif isinstance(event, TrailersReceived):
                self.trailers[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, InformationalResponseReceived):
                self.interim.append(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, StreamClosed):
                self.closed[event.stream_id] = event.error_code
            elif isinstance(event, GoAwayReceived):
                self.goaway = event.error_code
        self.flush()
        return bool(data)

    def answer(self, stream: int) -> tuple[int, bytes]:
        while stream not in self.closed:
            assert self.turn(), "the connection ended"
        return int(self.heads[stream][b":status"]), bytes(self.bodies.get(stream, b""))

    def until_closed(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self.turn():
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin.answering(OK) as made:
        yield made


@pytest.fixture
def served(origin: Origin) -> Iterator[Plane]:
    limits = Limits(head_seconds=1, idle_seconds=5, body_idle_seconds=0.5, streams=50, headers=20)
    with plane(configuration(origin.port, port=free_port(), limits=limits)) as made:
        yield made


def test_requests_of_one_connection(served: Plane, origin: Origin) -> None:
    with Client.to(served.port) as client:
        streams = [client.ask(f"/{number}?q", cookie="a=b", x_mine="1") for number in range(30)]
        assert [client.answer(stream) for stream in streams] == [(200, b"hello")] * 30
        assert client.heads[streams[0]][b"x-from"] == b"origin"
        assert client.heads[streams[0]][b"content-length"] == b"5"
    asked = min(origin.heads)
    assert asked.startswith(b"GET /0?q HTTP/1.1\r\nhost: a.example\r\n")
    assert b"x-mine: 1" in asked
    assert b"x-forwarded-for: 127.0.0.1" in asked


@pytest.mark.parametrize("last", [0, 2**31 - 1])
def test_a_client_that_says_farewell_is_not_refused(served: Plane, last: int) -> None:
    with Client.to(served.port) as client:
        assert client.answer(client.ask()) == (200, b"hello")
        client.sock.sendall(frame(7, 0, 0, struct.pack("!II", last, 0)))
        client.until_closed()
    until(lambda: served.do(lambda: len(served.worker.clients)) == 0)
    assert served.refused("http2") == 0


@pytest.mark.parametrize("size", [0, 10, 100_000, 3_000_000])
def test_bodies_both_ways(size: int) -> None:
    body = (hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1))[:size]
    received: list[bytes] = []

    def serve(sock: socket.socket, number: int) -> None:
        del number
        head, data = head_of(sock)
        if b"chunked" in head:
            while not data.endswith(b"0\r\n\r\n"):
                data += sock.recv(1 << 18)
            whole, rest = b"", data
            while rest != b"0\r\n\r\n":
                line, _, rest = rest.partition(b"\r\n")
                whole, rest = whole + rest[: int(line, 16)], rest[int(line, 16) + 2 :]
        else:
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            while len(data) < length:
                data += sock.recv(1 << 18)
            whole = data
        received.append(whole)
        sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size + body)

    with (
        Origin(serve) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Client.to(served.port) as client,
    ):
        assert client.answer(client.ask("/", body, "POST")) == (200, body)
        assert client.answer(client.ask("/", body, "POST", content_length=str(size))) == (200, body)
    assert received == [body, body]


def test_trailers_both_ways() -> None:
    def serve(sock: socket.socket, number: int) -> None:
        del number
        _, data = head_of(sock)
        while not data.endswith(b"x-sum: 1\r\n\r\n"):
            data += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nGrpc-Status: 0\r\n\r\n")

    with (
        Origin(serve) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Client.to(served.port) as client,
    ):
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/"),
            (b"te", b"trailers"),
        ]
        stream = client.engine.send_request(headers)
        client.engine.send_data(stream, b"hello")
        client.engine.send_trailers(stream, [(b"x-sum", b"1")])
        client.flush()
        assert client.answer(stream) == (200, b"abc")
        assert client.trailers[stream] == [(b"grpc-status", b"0")]


def test_interim_answers() -> None:
    def serve(sock: socket.socket, number: int) -> None:
        del number
        head_of(sock)
        sock.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK)

    with (
        Origin(serve) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Client.to(served.port) as client,
    ):
        stream = client.ask()
        assert client.answer(stream) == (200, b"hello")
        assert client.interim == [stream]


def test_slow_readers_push_back() -> None:
    size, sent = 64 << 20, 0

    def serve(sock: socket.socket, number: int) -> None:
        nonlocal sent
        del number
        head_of(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            sock.sendall(b"x" * (1 << 20))
            sent += 1 << 20

    with (
        Origin(serve) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Client.to(served.port) as client,
    ):
        client.ask()
        until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            threading.Event().wait(0.1)
        assert sent < 20 << 20


def test_cut_short_resets_the_stream() -> None:
    def serve(sock: socket.socket, number: int) -> None:
        del number
        head_of(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nonly this")

    with (
        Origin(serve) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Client.to(served.port) as client,
    ):
        stream = client.ask()
        while stream not in client.closed:
            assert client.turn()
        assert client.resets[stream] == 2


def test_statuses(served: Plane) -> None:
    with Client.to(served.port) as client:
        many = {f"x-{number}": "1" for number in range(25)}
        assert client.answer(client.ask("/", None, "GET", **many))[0] == 431
        assert client.answer(client.ask(host="other.example"))[0] == 400
        assert client.answer(client.ask("/a#b"))[0] == 400
        assert client.answer(client.ask("/", b"x", "POST", expect="magic"))[0] == 417
        assert client.answer(client.ask())[0] == 200


def test_too_late() -> None:
    rule = HttpRule(backends=(Weighted(backend="b"),), timeouts=Timeouts(request=0.2))
    with (
        Origin(lambda sock, _: sock.recv(1 << 16) and threading.Event().wait(20)) as origin,
        plane(configuration(origin.port, port=free_port(), rule=rule)) as served,
        Client.to(served.port) as client,
    ):
        streams = [client.ask() for _ in range(3)]
        assert [client.answer(stream)[0] for stream in streams] == [504] * 3


def test_bodies_that_do_not_come(served: Plane) -> None:
    with Client.to(served.port) as client:
        headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
        stream = client.engine.send_request([*headers, (b"content-length", b"100")])
        client.engine.send_data(stream, b"a")
        client.flush()
        assert client.answer(stream)[0] == 408


def test_streams_that_clients_take_back(served: Plane) -> None:
    with Client.to(served.port) as client:
        for _ in range(10):
            stream = client.ask()
            client.engine.reset_stream(stream, 8)
            client.flush()
        assert client.answer(client.ask())[0] == 200
    until(lambda: served.do(lambda: served.worker.pools["b"].active) == 0)
    until(lambda: served.do(lambda: [each.active for each in served.worker.pools["b"].balancer.states]) == [0])


def test_drain_ends_streams_first() -> None:
    go = threading.Event()

    def serve(sock: socket.socket, number: int) -> None:
        del number
        head_of(sock)
        go.wait(20)
        sock.sendall(OK)

    with (
        Origin(serve) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Client.to(served.port) as client,
    ):
        stream = client.ask()
        until(lambda: served.do(lambda: served.worker.pools["b"].active) == 1)
        served.do(lambda: served.worker.drain(10, lambda: None))
        while client.goaway is None:
            assert client.turn()
        go.set()
        assert client.answer(stream) == (200, b"hello")
        client.until_closed()


class TestByHand:
    """Frames that no library sends."""

    def open(self, port: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        sock.sendall(PREFACE + frame(4, 0, 0))
        return sock

    def flood(self, served: Plane, piece: bytes, times: int) -> bytes:
        data = b""
        with self.open(served.port) as sock, contextlib.suppress(ConnectionError):
            for _ in range(times):
                sock.sendall(piece)
            while came := sock.recv(65536):
                data += came
        return data

    def test_rapid_resets(self, served: Plane, origin: Origin) -> None:
        block = b"\x82\x86\x84\x41\x01a"
        pieces = [
            frame(1, 5, 2 * number + 1, block) + frame(3, 0, 2 * number + 1, b"\0\0\0\x08") for number in range(3000)
        ]
        self.flood(served, b"".join(pieces), 1)
        assert served.refused("http2 flood") + served.refused("http2") >= 1
        assert len(origin.heads) < 1000
        until(lambda: served.do(lambda: served.worker.pools["b"].active) == 0)

    def test_pings(self, served: Plane) -> None:
        self.flood(served, frame(6, 0, 0, b"12345678") * 100, 20)
        assert served.refused("http2 flood") == 1

    def test_settings(self, served: Plane) -> None:
        self.flood(served, frame(4, 0, 0, struct.pack("!HI", 4, 70_000)) * 100, 2)
        assert served.refused("http2 flood") == 1

    def test_continuations(self, served: Plane) -> None:
        self.flood(served, frame(1, 0, 1, b"\x82\x86\x84\x41\x01a") + frame(9, 0, 1, b"\x40\x01x\x01y") * 100, 1)
        assert served.refused("http2") == 1

    def test_resets_made_by_the_server(self, served: Plane) -> None:
        # a window update of 0 is a stream error each
        block = b"\x82\x86\x84\x41\x01a"
        pieces = [frame(1, 4, 2 * n + 1, block) + frame(8, 0, 2 * n + 1, b"\0\0\0\0") for n in range(2000)]
        self.flood(served, b"".join(pieces), 1)
        assert served.refused("http2 flood") + served.refused("http2") >= 1

    @pytest.mark.parametrize(
        "data",
        [
            b"\xff\xff\xff\0\0\0\0\0\1",
            b"\0\0\4\3\0\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0\0\0\0\0",
            b"\0\0\5\1\4\0\0\0\1\xff\xff\xff\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
        ],
    )
    def test_broken_frames_end_the_connection(self, served: Plane, data: bytes) -> None:
        assert isinstance(self.flood(served, data, 1), bytes)
        until(lambda: served.do(lambda: len(served.worker.clients)) == 0)

    def test_silence_ends_the_connection(self, served: Plane) -> None:
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
            sock.sendall(PREFACE)
            while sock.recv(65536):
                pass

    @pytest.mark.parametrize(
        "extra", [b"\0\x01a\x03b\r\n", b"\0\x01a\x03b\0c", b"\0\x0aconnection\x01x", b"\0\x01A\x01b"]
    )
    def test_header_injection(self, served: Plane, origin: Origin, extra: bytes) -> None:
        with self.open(served.port) as sock:
            sock.sendall(frame(1, 5, 1, b"\x82\x86\x84\x41\x01a" + extra) + frame(6, 0, 0, b"12345678"))
            data = b""
            while b"12345678" not in data:
                data += sock.recv(65536)
            threading.Event().wait(0.05)
        assert not origin.heads


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


@given(st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=20)), max_size=6), st.booleans())
def test_any_fields_are_a_request_or_refused(fields: list[tuple[bytes, bytes]], is_whole: bool) -> None:
    pseudo = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")]
    try:
        request = read_request([*pseudo, *fields], is_whole=is_whole, most=100)
    except Refused as error:
        assert error.status in {400, 405, 417, 431, 501}  # noqa: PT017
        return
    assert not any(b"\r" in value or b"\n" in value or b"\0" in value for _, value in request.fields)
    assert (request.body is Body.NONE) >= is_whole


class TestTls:
    @pytest.mark.skipif(shutil.which("curl") is None, reason="wants Debian's curl")
    def test_alpn(self, origin: Origin, tmp_path: Path) -> None:
        ca = make_ca("test")
        made = issue(ca, "a.example", hosts=["a.example"], server=True)
        (tmp_path / "ca.pem").write_bytes(ca.certificate)
        tls = ListenerTls(certificates=("c",))
        config = configuration(origin.port, port=free_port(), listener={"protocol": "HTTPS", "tls": tls})
        config.certificates["c"] = Certificate(chain=made.certificate, key=made.key)
        with plane(config) as served:
            for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
                command = ["curl", "-sS", option, "--cacert", str(tmp_path / "ca.pem"), "-w", "%{http_version}"]
                command += ["--resolve", f"a.example:{served.port}:127.0.0.1", f"https://a.example:{served.port}/"]
                done = subprocess.run(command, capture_output=True, timeout=20, check=False)
                assert done.stdout == b"hello" + version.encode(), done.stderr
            context = ssl.create_default_context(cadata=ca.certificate.decode())
            context.set_alpn_protocols(["h2"])
            sock = socket.create_connection(("127.0.0.1", served.port), timeout=20)
            with Client(context.wrap_socket(sock, server_hostname="a.example")) as client:
                streams = [client.ask() for _ in range(20)]
                assert [client.answer(stream) for stream in streams] == [(200, b"hello")] * 20
