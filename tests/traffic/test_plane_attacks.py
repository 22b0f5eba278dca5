"""What clients and backends should not do, over real sockets: refused, counted, and no second request smuggled in."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from pilothouse.traffic.config import Limits
from support.planekit import Origin, Plane, Raw, configuration, free_port, head_of, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SECRET = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin.answering(OK) as made:
        yield made


@pytest.fixture
def served(origin: Origin) -> Iterator[Plane]:
    limits = Limits(head_bytes=4096, headers=20, head_seconds=0.3, body_idle_seconds=0.3, idle_seconds=0.6)
    with plane(configuration(origin.port, port=free_port(), limits=limits)) as made:
        yield made


SMUGGLED = {
    "TE and CL": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two CL": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "TE by tab": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\x0b\r\n\r\n",
    "TE by space": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n",
    "TE in 1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"POST / HTTP/1.1\nHost: a\nContent-Length: 44\n\n",
    "LF in a field": b"POST / HTTP/1.1\r\nHost: a\r\nX: a\nContent-Length: 44\r\n\r\n",
    "folded": b"POST / HTTP/1.1\r\nHost: a\r\nX: a\r\n Content-Length: 44\r\n\r\n",
    "chunk size": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "chunk by LF": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\n",
    "chunk too long": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "trailer": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 4\r\n\r\n",
    "absolute": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 60,
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_nothing_is_smuggled(name: str, served: Plane, origin: Origin) -> None:
    with Raw(served.port) as client:
        client.send(SMUGGLED[name] + SECRET)
        everything = client.everything()
    assert everything.count(b"HTTP/1.1 ") == 1
    assert everything.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
    assert not any(b"secret" in head for head in origin.heads)


def test_bodies_hide_no_requests(served: Plane, origin: Origin) -> None:
    with Raw(served.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SECRET) + SECRET)
        assert client.response()[0] == 200
        assert client.send(GET).response()[0] == 200
    assert [head.split(b" ")[1] for head in origin.heads] == [b"/", b"/"]


def test_answers_beyond_an_answer_are_nobodys() -> None:
    poison = OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
    with Origin.answering(poison) as origin, plane(configuration(origin.port, port=free_port())) as served:
        for _ in range(4):
            with Raw(served.port) as client:
                assert client.send(GET).response()[2] == b"hello"


def test_long_heads(served: Plane) -> None:
    with Raw(served.port) as client:
        assert client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000).status() == 431
    with Raw(served.port) as client:
        assert client.send(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n").status() == 431
    with Raw(served.port) as client:
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(40))
        assert client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + many + b"\r\n").status() == 431
    assert served.refused("head") == 2
    assert served.refused("fields") == 1


def test_slow_heads(served: Plane) -> None:
    with Raw(served.port) as client:
        begun = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\n")
        head = b""
        while not head:
            client.sock.settimeout(0.05)
            try:
                client.sock.sendall(b"X: y\r\n")
                head = client.sock.recv(100)
            except TimeoutError:
                assert time.monotonic() - begun < 20
    assert head.startswith(b"HTTP/1.1 408")
    assert served.refused("slow client") == 1


def test_connections_that_say_nothing(served: Plane) -> None:
    with Raw(served.port) as silent, Raw(served.port) as idle:
        idle.send(GET).response()
        assert silent.everything() == b""
        assert idle.everything() == b""


def test_slow_bodies(served: Plane) -> None:
    with Raw(served.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"a" * 10)
        assert client.status() == 408
    assert served.refused("slow client") == 1


def test_many_slow_clients_leave_the_others_alone(served: Plane) -> None:
    slow = [Raw(served.port).send(b"GET / HTTP/1.1\r\nHos") for _ in range(200)]
    with Raw(served.port) as client:
        for _ in range(20):
            assert client.send(GET).response()[0] == 200
    until(lambda: served.refused("slow client") == 200)
    for each in slow:
        each.close()


def test_as_many_connections_as_may_be(origin: Origin) -> None:
    with plane(configuration(origin.port, port=free_port(), limits=Limits(connections=3))) as served:
        open_ = [Raw(served.port) for _ in range(3)]
        for each in open_:
            assert each.send(GET).response()[0] == 200
        with Raw(served.port) as more:
            assert more.everything() == b""
        assert served.refused("connections") == 1
        open_[0].close()
        until(lambda: served.do(lambda: len(served.worker.clients)) == 2)
        with Raw(served.port) as more:
            assert more.send(GET).response()[0] == 200
        for each in open_:
            each.close()


def test_who_takes_no_answers_gets_to_ask_nothing_more() -> None:
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n" + b"x" * 60_000
    with (
        Origin.answering(big) as origin,
        plane(configuration(origin.port, port=free_port())) as served,
        Raw(served.port) as client,
    ):
        client.sock.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += client.sock.send(GET * 100) // len(GET)
        asked = len(origin.heads)
        assert asked < sent
        client.sock.settimeout(20)
        for _ in range(asked + 100):
            assert client.response()[0] == 200


def test_greetings_cut_short_cost_nothing(origin: Origin) -> None:
    config = configuration(origin.port, port=free_port(), listener={"has_proxy_protocol": True})
    with plane(config) as served, Raw(served.port) as client:
        client.send(b"PROXY TCP4 1.2")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.everything() == b""
        assert served.refused("begin") == 1


def test_clients_that_reset(served: Plane, origin: Origin) -> None:
    for _ in range(20):
        with Raw(served.port) as client:
            client.send(GET)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    with Raw(served.port) as client:
        assert client.send(GET).response()[0] == 200
    until(lambda: served.do(lambda: len(served.worker.clients)) == 0)
    assert served.do(lambda: served.worker.pools["b"].active) == 0
    assert served.do(lambda: [each.active for each in served.worker.pools["b"].balancer.states]) == [0]


def test_clients_that_go_in_the_middle_of_a_body() -> None:
    def serve(sock: socket.socket, number: int) -> None:
        head_of(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65536)

    with Origin(serve) as origin, plane(configuration(origin.port, port=free_port())) as served:
        for _ in range(5):
            with Raw(served.port) as client:
                client.send(GET).head()
                client.sock.recv(100_000)
        until(lambda: served.do(lambda: len(served.worker.clients) + served.worker.pools["b"].connections) == 0)
        assert served.do(lambda: served.worker.pools["b"].active) == 0


def test_garbage_leaves_nothing_behind(served: Plane) -> None:
    for data in (b"\0" * 100, b"\r\n\r\n\r\n", b"GET", b"{}" * 50, b"\x80\xff\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with Raw(served.port) as client:
            client.send(data)
            client.sock.shutdown(socket.SHUT_WR)
            client.everything()
    until(lambda: served.do(lambda: len(served.worker.clients)) == 0)
