"""WebSockets between clients and backends of either version of HTTP: Upgrade, and extended CONNECT (RFC 8441)."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from ngh2 import Setting
from wsproto import ConnectionType
from wsproto.connection import Connection as Frames
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from pilothouse.traffic.config import (
    HeaderChange,
    HttpRule,
    Limits,
    Match,
    ResponseHeaders,
    Timeouts,
    ValueMatch,
    Weighted,
)
from pilothouse.traffic.plane.http import Refused
from pilothouse.traffic.plane.switching import accept_of, answered, asked
from support.planekit import PATIENCE, Origin, Plane, Raw, configuration, free_port, head_of, plane, until
from support.tunnelkit import Http2, TunnelServer

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASK = (
    b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n\r\n" % KEY
)
FIELDS = (("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"))
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CANCEL = 8


def accepted(head: bytes) -> bytes:
    """Return an HTTP/1.1 backend's answer."""
    fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
    assert fields[b"upgrade"].lower() == b"websocket"
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
        % (accept_of(fields[b"sec-websocket-key"]), fields[b"sec-websocket-protocol"])
    )


class Echo1:
    """An HTTP/1.1 backend that echoes, and says bye when its client's half ends."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.origin = Origin(self._serve)

    def _serve(self, sock: socket.socket, number: int) -> None:
        del number
        head, _ = head_of(sock)
        self.heads.append(head)
        if b"upgrade: " not in head:
            sock.sendall(OK)
            return
        sock.sendall(accepted(head))
        while data := sock.recv(1 << 18):
            sock.sendall(data)
        sock.sendall(b"bye")


@pytest.fixture(params=["http/1.1", "h2"])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    made = Echo1() if request.param == "http/1.1" else TunnelServer()
    with made.origin:
        yield request.param, made.origin.port


@pytest.fixture
def served(backend: tuple[str, int]) -> Iterator[Plane]:
    with plane(configuration(backend[1], port=free_port(), backend={"protocol": backend[0]})) as made:
        yield made


def settled(served: Plane) -> None:
    """See that nothing is left of what went on."""
    until(lambda: served.do(lambda: len(served.worker.tunnels)) == 0, "the end of tunnels")
    assert served.do(lambda: served.worker.pools["b"].active) == 0
    assert served.do(lambda: [each.active for each in served.worker.pools["b"].balancer.states]) == [0]


class TestClientsOfHttp2:
    def test_messages(self, served: Plane) -> None:
        frames = Frames(ConnectionType.CLIENT)
        with Http2.to(served.port) as client:
            stream = client.ask("/chat", *FIELDS, method="websocket")
            assert client.status(stream) == 200
            assert client.engine.remote_settings[8] == 1
            assert client.heads[stream][b"sec-websocket-protocol"] == b"chat"
            assert not {b"sec-websocket-accept", b"upgrade", b"connection"} & set(client.heads[stream])
            for data in (b"x", hashlib.sha256().digest() * 20_000):
                message = frames.send(BytesMessage(data))
                client.send(stream, message)
                assert client.body(stream, len(message)) == message
            # other requests of the connection go on meanwhile
            other = client.ask("/")
            assert client.status(other) == 200
            client.send(stream, frames.send(TextMessage("again")))
            assert len(client.body(stream, 11)) == 11
            client.send(stream, frames.send(CloseConnection(1000)), end=True)
            client.until(lambda: stream in client.closed)
            assert client.closed[stream] == 0
            assert client.bodies[stream].endswith(b"bye")
            settled(served)

    def test_bytes_that_come_before_the_answer(self, served: Plane) -> None:
        with Http2.to(served.port) as client:
            stream = client.ask("/chat", *FIELDS, method="websocket")
            client.send(stream, b"early" * 1000)
            assert client.body(stream, 5000) == b"early" * 1000
            assert client.status(stream) == 200

    def test_halves_close_for_themselves(self, served: Plane) -> None:
        with Http2.to(served.port) as client:
            stream = client.ask("/chat", *FIELDS, method="websocket")
            client.send(stream, b"a" * 300_000, end=True)
            client.until(lambda: stream in client.closed)
            assert bytes(client.bodies[stream]) == b"a" * 300_000 + b"bye"
            assert (client.closed[stream], client.resets) == (0, {})
            settled(served)

    def test_resets(self, backend: tuple[str, int], served: Plane) -> None:
        with Http2.to(served.port) as client:
            for _ in range(5):
                stream = client.ask("/chat", *FIELDS, method="websocket")
                client.send(stream, b"a")
                assert client.body(stream, 1) == b"a"
                client.reset(stream)
            settled(served)
            if backend[0] == "h2":
                assert served.do(lambda: served.worker.pools["b"].connections) == 1

    def test_connections_that_go(self, served: Plane) -> None:
        for _ in range(3):
            with Http2.to(served.port) as client:
                streams = [client.ask("/chat", *FIELDS, method="websocket") for _ in range(5)]
                for stream in streams:
                    assert client.status(stream) == 200
        settled(served)

    def test_who_takes_nothing_is_sent_nothing(self, served: Plane) -> None:
        """The echo stops reading once its answers find no room, and so the client's window stays shut."""
        with Http2.to(served.port, takes=False, settings={Setting.INITIAL_WINDOW_SIZE: 1000}) as client:
            stream = client.ask("/chat", *FIELDS, method="websocket")
            assert client.status(stream) == 200
            size = 24 << 20
            client.engine.send_data(stream, b"z" * size)
            client.flush()
            client.until(lambda: len(client.bodies[stream]) == 1000)
            client.until_silent()
            left = client.engine.queued_body_size(stream)
            assert left > size // 4
            assert len(client.bodies[stream]) == 1000
            client.takes = True
            client.take(stream)
            client.until(lambda: len(client.bodies[stream]) == size)
            client.reset(stream)
        settled(served)


class TestClientsOfHttp1:
    def test_messages(self, served: Plane) -> None:
        with Raw(served.port) as client:
            head = client.send(ASK).head()
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"\r\nsec-websocket-accept: " + ACCEPT in head
            assert b"\r\nsec-websocket-protocol: chat" in head
            assert b"upgrade: websocket" in head.lower()
            data = hashlib.sha256().digest() * 20_000
            threading.Thread(target=client.send, args=(data,)).start()
            while len(client.rest) < len(data):
                client.rest += client.sock.recv(1 << 18)
            assert client.rest == data
            client.rest = b""
            client.sock.shutdown(socket.SHUT_WR)
            assert client.everything() == b"bye"
            settled(served)

    def test_resets(self, served: Plane) -> None:
        with Raw(served.port) as client:
            assert client.send(ASK).status() == 101
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        settled(served)


class TestBackendsOfHttp2:
    @pytest.fixture
    def server(self) -> Iterator[TunnelServer]:
        made = TunnelServer()
        with made.origin:
            yield made

    @pytest.fixture
    def served(self, server: TunnelServer) -> Iterator[Plane]:
        with plane(configuration(server.origin.port, port=free_port(), backend={"protocol": "h2"})) as made:
            yield made

    def test_what_they_are_asked(self, served: Plane, server: TunnelServer) -> None:
        with Http2.to(served.port) as client, Raw(served.port) as other:
            stream = client.ask("/chat?q", *FIELDS, ("x-mine", "1"), method="websocket")
            assert client.status(stream) == 200
            assert other.send(ASK).status() == 101
            for head, path in zip(server.heads, (b"/chat?q", b"/chat"), strict=True):
                assert (head[b":method"], head[b":protocol"], head[b":path"]) == (b"CONNECT", b"websocket", path)
                assert (head[b":authority"], head[b"sec-websocket-version"]) == (b"a.example", b"13")
                assert b"sec-websocket-key" not in head
            assert server.heads[0][b"x-mine"] == b"1"
            assert server.origin.connections == 1

    def test_refused(self, served: Plane) -> None:
        with Http2.to(served.port) as client, Raw(served.port) as other:
            stream = client.ask("/403", *FIELDS, method="websocket")
            client.until(lambda: stream in client.closed)
            assert (client.status(stream), bytes(client.bodies[stream])) == (403, b"no")
            assert other.send(ASK.replace(b"/chat", b"/403")).response()[::2] == (403, b"no")
            assert other.send(ASK.replace(KEY, b"short")).response()[0] == 400
        settled(served)

    def test_ends(self, served: Plane) -> None:
        with Http2.to(served.port) as client:
            stream = client.ask("/reset", *FIELDS, method="websocket")
            client.send(stream, b"a")
            client.until(lambda: stream in client.closed)
            assert client.resets == {stream: CANCEL}
            stream = client.ask("/bye", *FIELDS, method="websocket")
            client.send(stream, b"a")
            client.until(lambda: stream in client.ended)
            assert bytes(client.bodies[stream]) == b"bye"
            assert stream not in client.closed
            client.send(stream, b"more", end=True)
            client.until(lambda: stream in client.closed)
            assert client.closed[stream] == 0
        for path in (b"/reset", b"/bye"):
            with Raw(served.port) as other:
                assert other.send(ASK.replace(b"/chat", path)).status() == 101
                assert other.send(b"a").everything() == (b"bye" if path == b"/bye" else b"")
        settled(served)

    def test_connections_that_go(self, served: Plane, server: TunnelServer) -> None:
        with Http2.to(served.port) as client, Raw(served.port) as other:
            stream = client.ask("/chat", *FIELDS, method="websocket")
            assert client.status(stream) == 200
            assert other.send(ASK).status() == 101
            for sock in server.origin._open:
                sock.shutdown(socket.SHUT_RDWR)
            client.until(lambda: stream in client.closed)
            assert client.resets == {stream: CANCEL}
            assert other.everything() == b""
            settled(served)

    def test_settings_that_come_late(self) -> None:
        late = threading.Event()
        server = TunnelServer(late=late)
        config = configuration(server.origin.port, port=free_port(), backend={"protocol": "h2"})
        with server.origin, plane(config) as served, Http2.to(served.port) as client, Raw(served.port) as other:
            streams = [client.ask("/chat", *FIELDS, method="websocket") for _ in range(3)]
            client.reset(streams[2])
            other.send(ASK)
            until(lambda: served.do(lambda: served.worker.pools["b"].active) == 3)
            late.set()
            assert [client.status(stream) for stream in streams[:2]] == [200, 200]
            assert other.status() == 101
            assert served.do(lambda: next(iter(served.worker.pools["b"].balancer.states)).active) == 0

    def test_settings_that_do_not_come(self) -> None:
        late = threading.Event()
        server = TunnelServer(late=late)
        backend = {"protocol": "h2", "connect_timeout": 0.3}
        with (
            server.origin,
            plane(configuration(server.origin.port, port=free_port(), backend=backend)) as served,
            Http2.to(served.port) as client,
        ):
            assert client.status(client.ask("/chat", *FIELDS, method="websocket")) == 502
            late.set()
            settled(served)

    def test_backends_that_do_not_offer_it(self) -> None:
        server = TunnelServer(offers=False)
        config = configuration(server.origin.port, port=free_port(), backend={"protocol": "h2"})
        with server.origin, plane(config) as served, Http2.to(served.port) as client, Raw(served.port) as other:
            for _ in range(10):
                assert client.status(client.ask("/chat", *FIELDS, method="websocket")) == 501
            assert other.send(ASK).response()[0] == 501
            assert client.status(client.ask()) == 200  # nobody was ejected for it
            settled(served)


class TestBackendsOfHttp1:
    def test_what_they_are_asked(self) -> None:
        echo = Echo1()
        with (
            echo.origin,
            plane(configuration(echo.origin.port, port=free_port())) as served,
            Http2.to(served.port) as client,
        ):
            for _ in range(2):
                fields = (*FIELDS, ("sec-websocket-key", "mine"), ("origin", "https://a.example"))
                assert client.status(client.ask("/chat?q", *fields, method="websocket")) == 200
        keys = set()
        for head in echo.heads:
            lines = head.split(b"\r\n")
            assert lines[:2] == [b"GET /chat?q HTTP/1.1", b"host: a.example"]
            assert {b"connection: upgrade", b"upgrade: websocket", b"origin: https://a.example"} < set(lines)
            [key] = [line[19:] for line in lines if line.startswith(b"sec-websocket-key: ")]
            assert len(base64.b64decode(key)) == 16
            keys.add(key)
        assert len(keys) == 2

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            (b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno", 403),
            (b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", 302),
            (OK, 502),  # a status of 200 would say that it is accepted
            (b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n", 502),
            (b"HTTP/1.1 101 Go\r\n\r\n", 502),
        ],
    )
    def test_refused(self, answer: bytes, status: int) -> None:
        with (
            Origin.answering(answer) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Http2.to(served.port) as client,
        ):
            stream = client.ask("/chat", *FIELDS, method="websocket")
            client.send(stream, b"early")
            client.until(lambda: stream in client.closed)
            assert client.status(stream) == status
            settled(served)

    def test_resets_go_both_ways(self) -> None:
        seen: list[bytes | None] = []

        def serve(sock: socket.socket, number: int) -> None:
            head, _ = head_of(sock)
            sock.sendall(accepted(head))
            try:
                seen.append(sock.recv(10))
                seen.append(sock.recv(10))
            except ConnectionResetError:
                seen.append(None)
            if number == 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Http2.to(served.port) as client,
        ):
            stream = client.ask("/chat", *FIELDS, method="websocket")
            client.send(stream, b"a")
            assert client.status(stream) == 200
            until(lambda: seen == [b"a"])
            client.reset(stream)
            until(lambda: seen == [b"a", None])
            stream = client.ask("/chat", *FIELDS, method="websocket")
            client.send(stream, b"a")
            until(lambda: len(seen) == 3)
            client.send(stream, b"b")
            client.until(lambda: stream in client.closed)
            assert client.resets[stream] == CANCEL
            settled(served)

    def test_slow_backends_push_back(self) -> None:
        go = threading.Event()
        received = bytearray()

        def serve(sock: socket.socket, number: int) -> None:
            del number
            head, _ = head_of(sock)
            sock.sendall(accepted(head))
            assert go.wait(PATIENCE)
            while data := sock.recv(1 << 18):
                received.extend(data)

        size = 24 << 20
        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Http2.to(served.port) as client,
        ):
            stream = client.ask("/chat", *FIELDS, method="websocket")
            assert client.status(stream) == 200
            client.engine.send_data(stream, b"z" * size, end_stream=True)
            client.until_silent()
            assert client.engine.queued_body_size(stream) > size // 4
            go.set()
            client.until(lambda: stream in client.closed)
            until(lambda: len(received) == size)
            settled(served)


class TestRules:
    """What a route says holds for them as for HTTP/1.1's."""

    def test_matches_and_filters(self) -> None:
        match = Match(method="GET", headers=(ValueMatch(name="x-mine", value="1"),))
        filters = (ResponseHeaders(change=HeaderChange(set=(("x-said", "yes"),))),)
        rule = HttpRule(matches=(match,), filters=filters, backends=(Weighted(backend="b"),))
        echo = Echo1()
        with (
            echo.origin,
            plane(configuration(echo.origin.port, port=free_port(), rule=rule)) as served,
            Http2.to(served.port) as client,
            Raw(served.port) as other,
        ):
            assert client.status(client.ask("/chat", *FIELDS, method="websocket")) == 404
            stream = client.ask("/chat", *FIELDS, ("x-mine", "1"), method="websocket")
            assert client.status(stream) == 200
            assert client.heads[stream][b"x-said"] == b"yes"
            head = other.send(ASK.replace(b"\r\n\r\n", b"\r\nX-Mine: 1\r\n\r\n")).head()
            assert b"\r\nx-said: yes" in head

    def test_timeouts_end_with_the_answer(self) -> None:
        rule = HttpRule(backends=(Weighted(backend="b"),), timeouts=Timeouts(request=0.3, backend=0.3))
        is_slow = True

        def serve(sock: socket.socket, number: int) -> None:
            del number
            head, _ = head_of(sock)
            if is_slow:
                sock.recv(1)
                return
            sock.sendall(accepted(head))
            while data := sock.recv(1 << 18):
                sock.sendall(data)

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port(), rule=rule)) as served,
            Http2.to(served.port) as client,
        ):
            assert client.status(client.ask("/chat", *FIELDS, method="websocket")) == 504
            is_slow = False
            stream = client.ask("/chat", *FIELDS, method="websocket")
            assert client.status(stream) == 200
            began = served.worker.clock()
            until(lambda: served.worker.clock() - began > 0.6)
            client.send(stream, b"still")
            assert client.body(stream, 5) == b"still"

    def test_what_is_not_spoken(self) -> None:
        with (
            Origin.answering(OK) as origin,
            plane(configuration(origin.port, port=free_port(), limits=Limits())) as served,
            Http2.to(served.port) as client,
        ):
            assert client.status(client.ask("/", method="connect-udp")) == 501
            engine = client.engine
            stream = engine.send_request([(b":method", b"CONNECT"), (b":authority", b"a.example")])
            client.flush()
            assert client.status(stream) == 405
            assert not origin.heads

    def test_drain_waits_for_them(self) -> None:
        echo = Echo1()
        done = threading.Event()
        with (
            echo.origin,
            plane(configuration(echo.origin.port, port=free_port())) as served,
            Http2.to(served.port) as client,
        ):
            stream = client.ask("/chat", *FIELDS, method="websocket")
            assert client.status(stream) == 200
            served.do(lambda: served.worker.drain(PATIENCE, done.set))
            client.send(stream, b"still")
            assert client.body(stream, 5) == b"still"
            assert not done.is_set()
            client.end(stream)
            client.until(lambda: stream in client.closed)
            assert done.wait(PATIENCE)


class TestHandshakes:
    """The pure part."""

    def test_keys(self) -> None:
        assert accept_of(KEY) == ACCEPT  # RFC 6455, 1.3
        nonce = b"the sample nonce"
        key = (b"sec-websocket-key", KEY)
        assert asked([], nonce, by_frames=True, to_frames=False) == [key]
        assert asked([key], b"", by_frames=False, to_frames=False) == [key]
        assert asked([key], b"", by_frames=False, to_frames=True) == []
        assert asked([key], b"", by_frames=True, to_frames=True) == []
        for bad in ([], [(b"sec-websocket-key", b"*")], [(b"sec-websocket-key", b"YQ==")]):
            with pytest.raises(Refused, match="Sec-WebSocket-Key"):
                asked(bad, b"", by_frames=False, to_frames=True)

    def test_answers(self) -> None:
        key, accept = (b"sec-websocket-key", KEY), (b"sec-websocket-accept", ACCEPT)
        assert answered([accept], [key], [], by_frames=True, to_frames=False) == []
        assert answered([], [], [key], by_frames=False, to_frames=True) == [accept]
        assert answered([accept], [key], [key], by_frames=False, to_frames=False) == [accept]
        assert answered([accept], [], [], by_frames=True, to_frames=True) == []
        with pytest.raises(Refused, match="Accept"):
            answered([], [key], [], by_frames=True, to_frames=False)
