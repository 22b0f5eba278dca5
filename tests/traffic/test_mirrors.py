"""Mirrors: exact to the request, bodies whole, and never in the way of the request itself."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngh2 import Configuration as Engine
from ngh2 import Connection, DataReceived, RequestReceived, ResponseReceived, Role, TrailersReceived

from pilothouse.traffic.config import Backend, Endpoint, HttpRule, Mirror, Weighted
from pilothouse.traffic.plane.mirrors import HELD_BYTES
from pilothouse.traffic.plane.sharing import FileCounters
from pilothouse.traffic.routing import LocalCounters, Portion, Router, Slots
from support.planekit import Origin, Plane, Raw, configuration, free_port, head_of, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 3000))
def test_any_run_has_its_portion(numerator: int, of: int, begin: int) -> None:
    portion, counters = Portion("k", numerator, of), LocalCounters()
    for _ in range(begin % (2 * of)):
        portion.takes(counters)
    assert sum(portion.takes(counters) for _ in range(of)) == min(numerator, of)


@pytest.mark.parametrize(("numerator", "of"), [(20, 100), (1, 1000), (333, 1000), (1, 8), (999, 1000)])
def test_any_thousand_in_a_row_have_exactly_their_portion(numerator: int, of: int) -> None:
    portion, counters = Portion("k", numerator, of), LocalCounters()
    turns = [portion.takes(counters) for _ in range(2500)]
    for begin in range(0, 1500, 7):
        assert sum(turns[begin : begin + 1000]) == numerator * 1000 // of


def test_small_fractions_are_not_rounded_up() -> None:
    portion, counters = Portion("k", 1, 100_000), LocalCounters()
    assert sum(portion.takes(counters) for _ in range(200_000)) == 2


def test_mirrors_of_a_rule_are_counted_by_all_workers_together() -> None:
    mirrors = (Mirror(backend="m", numerator=50), Mirror(backend="n", numerator=10), Mirror(backend="n"))
    config = configuration(1, port=1, rule=HttpRule(filters=mirrors, backends=(Weighted(backend="b"),)))
    router, rule = Router(config), config.routes[0].rules[0]
    assert router.keys == ["default/r/0~0", "default/r/0~1", "default/r/0"]
    shared = FileCounters(slots=8)
    slots = Slots(shared).take(router.keys)
    shared.assign(slots)
    other = FileCounters(shared.fd)
    other.assign(slots)
    for number in range(100):
        counters = shared if number % 3 else other
        for place, mirror in enumerate(mirrors):
            assert router.is_mirrored(rule, mirror, counters) == (
                place == 2 or (place == 0 and number % 2 == 1) or (place == 1 and number % 10 == 9)
            )


@dataclass
class Message:
    head: bytes
    body: bytes
    trailers: bytes = b""


class Taker:
    """A backend that reads whole requests of either version, and answers after their last byte."""

    def __init__(self, is_h2: bool = False) -> None:
        self.messages: list[Message] = []
        self.cut = 0
        self.origin = Origin(self._serve2 if is_h2 else self._serve1)
        self.port = self.origin.port

    def _serve1(self, sock: socket.socket, number: int) -> None:
        del number
        rest = b""
        while True:
            head = rest
            while b"\r\n\r\n" not in head:
                came = sock.recv(65536)
                if not came:
                    return
                head += came
            head, _, rest = head.partition(b"\r\n\r\n")
            try:
                message, rest = self._body1(sock, head, rest)
            except ConnectionError:
                self.cut += 1
                return
            self.messages.append(message)
            sock.sendall(OK)

    def _body1(self, sock: socket.socket, head: bytes, rest: bytes) -> tuple[Message, bytes]:
        def more() -> bytes:
            came = sock.recv(1 << 18)
            if not came:
                raise ConnectionError
            return came

        if b"transfer-encoding: chunked" in head:
            body = bytearray()
            while True:
                while b"\r\n" not in rest:
                    rest += more()
                line, _, rest = rest.partition(b"\r\n")
                size = int(line, 16)
                if not size:
                    break
                while len(rest) < size + 2:
                    rest += more()
                body += rest[:size]
                rest = rest[size + 2 :]
            rest = b"\r\n" + rest
            while b"\r\n\r\n" not in rest:
                rest += more()
            trailers, _, rest = rest.partition(b"\r\n\r\n")
            return Message(head, bytes(body), trailers.strip()), rest
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        whole = bytearray(rest)
        while len(whole) < size:
            whole += more()
        return Message(head, bytes(whole[:size])), bytes(whole[size:])

    def _serve2(self, sock: socket.socket, number: int) -> None:
        del number
        engine = Connection(Role.SERVER, Engine())
        engine.initiate_connection()
        heads: dict[int, bytes] = {}
        bodies: dict[int, bytearray] = {}
        while True:
            while data := engine.data_to_send():
                sock.sendall(data)
            data = sock.recv(65536)
            if not data:
                return
            engine.receive_data(data)
            for event in engine.events():
                if isinstance(event, RequestReceived):
                    heads[event.stream_id] = b"\r\n".join(b"%b: %b" % (bytes(n), bytes(v)) for n, v in event.headers)
                    bodies[event.stream_id] = bytearray()
                    is_over, trailers = event.end_stream, b""
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                    is_over, trailers = event.end_stream, b""
                elif isinstance(event, TrailersReceived):
                    is_over = True
                    trailers = b"\r\n".join(b"%b: %b" % (bytes(n), bytes(v)) for n, v in event.headers)
                else:
                    continue
                if is_over:
                    stream = event.stream_id
                    self.messages.append(Message(heads[stream], bytes(bodies[stream]), trailers))
                    engine.send_response(stream, [(b":status", b"200"), (b"content-length", b"2")])
                    engine.send_data(stream, b"ok", end_stream=True)


@contextlib.contextmanager
def mirrored(
    main: int, *mirrors: tuple[int, str], portion: tuple[int, int] = (100, 100), protocol: str = "http/1.1"
) -> Iterator[Plane]:
    """Serve by one backend, and copy to others."""
    names = [f"m{place}" for place in range(len(mirrors))]
    filters = tuple(Mirror(backend=name, numerator=portion[0], of=portion[1]) for name in names)
    rule = HttpRule(filters=filters, backends=(Weighted(backend="b"),))
    config = configuration(main, port=free_port(), rule=rule, backend={"protocol": protocol})
    for name, (port, speaks) in zip(names, mirrors, strict=True):
        config.backends[name] = Backend(
            endpoints=(Endpoint(address="127.0.0.1", port=port),),
            protocol=speaks,  # type: ignore[arg-type]
        )
    with plane(config) as served:
        yield served


def happened(served: Plane) -> dict[str, int]:
    return dict(served.do(lambda: served.worker.tally._happened))


def is_calm(served: Plane) -> bool:
    room = served.worker.mirrors
    return bool(served.do(lambda: (len(room.open), room.bytes) == (0, 0)))


def send(port: int, *parts: bytes) -> tuple[int, bytes]:
    """Send a request in parts while its answer is waited for."""
    with Raw(port) as client:
        thread = threading.Thread(target=client.sock.sendall, args=(b"".join(parts),))
        thread.start()
        status, _, body = client.response()
        thread.join()
        return status, body


def data_of(size: int) -> bytes:
    return (hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1))[:size]


def test_a_portion_of_requests_is_copied() -> None:
    main, other = Taker(), Taker()
    with main.origin, other.origin, mirrored(main.port, (other.port, "http/1.1"), portion=(3, 10)) as served:
        with Raw(served.port) as client:
            for number in range(200):
                head = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % number
                assert client.send(head).response()[0] == 200
        until(lambda: len(other.messages) == 60, "all copies")
        until(lambda: is_calm(served))
        assert happened(served) == {}
        assert {message.body for message in other.messages} == {b"abc"}
        trace = [line for line in other.messages[0].head.split(b"\r\n") if line.startswith(b"traceparent")]
        path = other.messages[0].head.split(b" ")[1]
        (original,) = [each for each in main.messages if each.head.startswith(b"POST %b " % path)]
        assert trace[0] in original.head


@pytest.mark.parametrize("protocols", [("http/1.1", "http/1.1"), ("http/1.1", "h2"), ("h2", "http/1.1")])
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_large_bodies_are_copied_whole(protocols: tuple[str, str], is_chunked: bool, size: int) -> None:
    main, other = Taker(protocols[0] == "h2"), Taker(protocols[1] == "h2")
    body = data_of(size)
    head = b"PUT / HTTP/1.1\r\nHost: a\r\n"
    if is_chunked:
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:70_000], body[70_000:])]
        parts = [head + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\nx-sum: 7\r\n\r\n"]
    else:
        parts = [head + b"Content-Length: %d\r\n\r\n" % size, body]
    with (
        main.origin,
        other.origin,
        mirrored(main.port, (other.port, protocols[1]), protocol=protocols[0]) as served,
    ):
        assert send(served.port, *parts) == (200, b"ok")
        until(lambda: len(other.messages) == 1 or happened(served), "the copy")
        assert happened(served) == {}, served.noted
        for message in (*main.messages, *other.messages):
            assert message.body == body
            assert message.trailers == (b"x-sum: 7" if is_chunked else b"")
        until(lambda: is_calm(served))


@pytest.mark.parametrize("protocols", [("http/1.1", "http/1.1"), ("h2", "h2")])
@pytest.mark.parametrize("has_length", [False, True])
def test_bodies_of_http2_clients_are_copied_whole(protocols: tuple[str, str], has_length: bool) -> None:
    main, other = Taker(protocols[0] == "h2"), Taker(protocols[1] == "h2")
    body = data_of(2_500_000)
    with (
        main.origin,
        other.origin,
        mirrored(main.port, (other.port, protocols[1]), protocol=protocols[0]) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock,
    ):
        engine = Connection(Role.CLIENT)
        engine.initiate_connection()
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
        fields += [(b"content-length", b"%d" % len(body))] if has_length else []
        stream = engine.send_request(fields)
        engine.send_data(stream, body, end_stream=True)
        statuses: list[bytes] = []
        while not statuses:
            while data := engine.data_to_send():
                sock.sendall(data)
            engine.receive_data(sock.recv(65536))
            for event in engine.events():
                if isinstance(event, ResponseReceived):
                    statuses += [bytes(value) for name, value in event.headers if bytes(name) == b":status"]
        assert statuses == [b"200"]
        until(lambda: len(other.messages) == 1 or happened(served), "the copy")
        assert happened(served) == {}, served.noted
        assert main.messages[0].body == other.messages[0].body == body
        until(lambda: is_calm(served))


def test_several_mirrors_have_each_the_whole_body() -> None:
    main, one, other = Taker(), Taker(), Taker(is_h2=True)
    body = data_of(2_000_000)
    with (
        main.origin,
        one.origin,
        other.origin,
        mirrored(main.port, (one.port, "http/1.1"), (other.port, "h2")) as served,
    ):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        with Raw(served.port) as client:
            client.send(head)
            threading.Thread(target=client.sock.sendall, args=(body,)).start()
            assert client.response()[0] in {100, 200}
            until(lambda: len(one.messages) == len(other.messages) == len(main.messages) == 1, "all of them")
        until(lambda: is_calm(served))
        assert one.messages[0].body == other.messages[0].body == body
        assert b"expect" not in one.messages[0].head


def test_a_mirror_that_does_not_keep_up_is_cut_and_the_request_goes_on() -> None:
    def deaf(sock: socket.socket, number: int) -> None:
        del number
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head_of(sock)
        gate.wait(20)

    gate, main, body = threading.Event(), Taker(), data_of(24 << 20)
    with main.origin, Origin(deaf) as slow, mirrored(main.port, (slow.port, "http/1.1")) as served:
        assert len(body) > 4 * HELD_BYTES
        assert send(served.port, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body), body)[0] == 200
        assert main.messages[0].body == body
        assert happened(served) == {"mirror cut": 1}
        assert [facts for event, facts in served.noted if event == "a mirror was cut"] == [
            {"backend": "m0", "reason": "it does not take the body as fast as it comes"}
        ]
        assert is_calm(served)
        gate.set()


def test_a_mirror_that_answers_early_or_is_not_there_harms_nothing() -> None:
    def early(sock: socket.socket, number: int) -> None:
        del number
        head_of(sock)
        sock.sendall(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")

    main, body = Taker(), data_of(24 << 20)
    with main.origin, Origin(early) as hasty:
        mirrors = (hasty.port, "http/1.1"), (free_port(), "http/1.1")
        with mirrored(main.port, *mirrors) as served:
            parts = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body), body
            assert send(served.port, *parts) == (200, b"ok")
            until(lambda: happened(served) == {"mirror cut": 2}, "both are cut")
            assert is_calm(served)
    assert main.messages[0].body == body


def test_a_request_that_is_cut_cuts_its_copies() -> None:
    main, other = Taker(), Taker()
    with main.origin, other.origin, mirrored(main.port, (other.port, "http/1.1")) as served:
        with Raw(served.port) as client:
            client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" + bytes(500_000))
            until(lambda: served.do(lambda: len(served.worker.mirrors.open)) == 1)
        until(lambda: other.cut == 1 and main.cut == 1, "both hear of it")
        assert (main.messages, other.messages) == ([], [])
        assert happened(served) == {"mirror cut": 1}
        assert is_calm(served)


def test_a_backend_that_cannot_be_reached_cuts_the_copies() -> None:
    other = Taker()
    with other.origin, mirrored(free_port(), (other.port, "http/1.1")) as served:
        assert send(served.port, b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")[0] == 503
        until(lambda: is_calm(served))
        assert other.messages == []
        assert happened(served) == {"mirror cut": 1}
