"""Requests over HTTP/1.1 through a worker, with real sockets on both sides."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator

import pytest

from pilothouse.traffic.config import (
    CircuitBreaker,
    Cors,
    HeaderChange,
    HttpRule,
    Limits,
    Match,
    OutlierEjection,
    PathMatch,
    RateLimit,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Retry,
    Rewrite,
    Stickiness,
    Timeouts,
    Weighted,
)
from support.planekit import Origin, Plane, Raw, configuration, free_port, head_of, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-from: origin\r\n\r\nhello"
GET = b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\n\r\n"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin.answering(OK) as made:
        yield made


@pytest.fixture
def served(origin: Origin) -> Iterator[Plane]:
    with plane(configuration(origin.port, port=free_port())) as made:
        yield made


class TestOneRequest:
    def test_is_forwarded_and_answered(self, served: Plane, origin: Origin) -> None:
        with Raw(served.port) as client:
            status, head, body = client.send(GET).response()
        assert (status, body) == (200, b"hello")
        assert b"x-from: origin" in head
        asked = origin.heads[0]
        assert asked.startswith(b"GET /a?b=c HTTP/1.1\r\nhost: example.com\r\n")
        assert b"x-forwarded-for: 127.0.0.1" in asked
        assert b"x-forwarded-proto: http" in asked
        assert b"via: 1.1 pilothouse" in asked
        assert b"traceparent: 00-" in asked

    def test_connections_are_kept_on_both_sides(self, served: Plane, origin: Origin) -> None:
        with Raw(served.port) as client:
            for _ in range(5):
                assert client.send(GET).response()[0] == 200
        assert origin.connections == 1

    def test_pipelined_requests_are_answered_in_order(self, served: Plane, origin: Origin) -> None:
        with Raw(served.port) as client:
            client.send(GET.replace(b"/a", b"/1") + GET.replace(b"/a", b"/2") + GET.replace(b"/a", b"/3"))
            assert [client.response()[0] for _ in range(3)] == [200, 200, 200]
        assert [head.split(b"?")[0] for head in origin.heads] == [b"GET /1", b"GET /2", b"GET /3"]

    def test_counts_by_route_and_version(self, served: Plane) -> None:
        with Raw(served.port) as client:
            client.send(GET).response()
        until(lambda: served.do(lambda: served.worker.tally._lines))
        numbers = served.do(lambda: served.worker.tally.take(1))[0]
        counted = numbers.counted[0]
        assert (counted.route, counted.rule, counted.backend, counted.version) == ("default/r", "0", "b", "stable")
        assert counted.codes == {200: 1}
        assert counted.bytes_out == 5
        assert numbers.moved.buffers_reused >= 2

    def test_hop_by_hop_fields_go_no_further(self, served: Plane, origin: Origin) -> None:
        with Raw(served.port) as client:
            client.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nKeep-Alive: 3\r\nTE: gzip\r\n"
                b"Proxy-Connection: x\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n"
            )
            assert b"connection: close" in client.head()
        asked = origin.heads[0].lower()
        for gone in (b"x-mine", b"keep-alive", b"\r\nte:", b"proxy-connection", b"6.6.6.6", b"forwarded: for"):
            assert gone not in asked

    def test_a_trace_that_came_is_continued(self, served: Plane, origin: Origin) -> None:
        trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with Raw(served.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: " + trace + b"\r\n\r\n").response()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-xx\r\ntracestate: a=b\r\n\r\n").response()
        assert b"traceparent: " + trace in origin.heads[0]
        assert b"00-xx" not in origin.heads[1]
        assert b"tracestate" not in origin.heads[1]

    @pytest.mark.parametrize("minor", [0, 1])
    def test_connection_of_old_clients_is_closed(self, served: Plane, minor: int) -> None:
        with Raw(served.port) as client:
            client.send(b"GET / HTTP/1.%d\r\nHost: a\r\nConnection: close\r\n\r\n" % minor)
            assert client.everything().endswith(b"hello")

    def test_http10_may_be_kept_alive(self, served: Plane) -> None:
        with Raw(served.port) as client:
            for _ in range(2):
                head = client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n").response()[1]
                assert b"connection: keep-alive" in head

    def test_half_closed_clients_get_their_answer(self, served: Plane) -> None:
        with Raw(served.port) as client:
            client.send(GET)
            client.sock.shutdown(socket.SHUT_WR)
            assert client.everything().endswith(b"hello")


class TestBodies:
    @pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 3_000_000])
    def test_of_a_length_both_ways(self, size: int) -> None:
        body = hashlib.sha256(b"%d" % size).digest() * (size // 32 + 1)
        body = body[:size]
        with (
            Origin.answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + body) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            for _ in range(2):
                threading.Thread(
                    target=client.send,
                    args=(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + body,),
                ).start()
                assert client.response()[2] == body
            assert origin.connections == 1
            assert [each.partition(b"\r\n\r\n")[2] for each in origin.heads] == [body, body]
            if size > 1_000_000:
                assert served.worker.counters.bytes_spliced > 2 * size
            else:
                assert served.worker.counters.bytes_spliced == 0

    def test_chunked_are_passed_on_with_trailers(self) -> None:
        chunked = b"5;x=y\r\nhello\r\n" + b"%x\r\n" % 300_000 + b"z" * 300_000 + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
        received = bytearray()

        def serve(sock: socket.socket, number: int) -> None:
            _, rest = head_of(sock)
            received.extend(rest)
            while not received.endswith(b"X-Sum: 1\r\n\r\n"):
                received.extend(sock.recv(65536))
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
            assert head_of(sock)
            sock.sendall(OK)

        with Origin(serve) as origin, plane(configuration(origin.port, port=free_port())) as served:
            with Raw(served.port) as client:
                client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
                assert b"transfer-encoding: chunked" in client.head()
                while not client.rest.endswith(b"X-Sum: 1\r\n\r\n"):
                    client.rest += client.sock.recv(65536)
                assert client.rest == chunked
                client.rest = b""
                assert bytes(received) == chunked
                assert client.send(GET).response()[0] == 200
            assert origin.connections == 1
            assert served.worker.counters.bytes_spliced > 0

    def test_chunked_answers_to_old_clients_come_without_framing(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        with (
            Origin.answering(answer) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            everything = client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").everything()
        head, _, body = everything.partition(b"\r\n\r\n")
        assert body == b"abcde"
        assert b"transfer-encoding" not in head

    @pytest.mark.parametrize("size", [10, 2_000_000])
    def test_that_end_with_the_connection(self, size: int) -> None:
        def serve(sock: socket.socket, number: int) -> None:
            head_of(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * size)

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            everything = client.send(GET).everything()
        assert everything.partition(b"\r\n\r\n")[2] == b"y" * size

    def test_cut_short_ends_the_clients_connection(self) -> None:
        def serve(sock: socket.socket, number: int) -> None:
            head_of(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nonly this")

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            everything = client.send(GET).everything()
        assert len(everything.partition(b"\r\n\r\n")[2]) < 500

    @pytest.mark.parametrize("status", [204, 304])
    def test_none_where_the_status_has_none(self, status: int) -> None:
        answer = b"HTTP/1.1 %d X\r\netag: a\r\n\r\n" % status
        with Origin.answering(answer, OK) as origin, plane(configuration(origin.port, port=free_port())) as served:
            with Raw(served.port) as client:
                assert client.send(GET).status() == status
                assert client.send(GET).response()[2] == b"hello"
            assert origin.connections == 1

    def test_of_head_is_its_length_alone(self) -> None:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"
        with (
            Origin.answering(answer, OK) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            assert b"content-length: 500" in client.send(GET.replace(b"GET", b"HEAD")).head()
            assert client.send(GET).response()[2] == b"hello"

    def test_clients_that_expect_to_be_told_are_told(self) -> None:
        def serve(sock: socket.socket, number: int) -> None:
            head, _ = head_of(sock)
            assert b"expect: 100-continue" in head.lower()
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert sock.recv(100) == b"body"
            sock.sendall(OK)

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            assert client.status() == 100
            assert client.send(b"body").response()[0] == 200

    def test_answer_before_the_body_is_there(self) -> None:
        def serve(sock: socket.socket, number: int) -> None:
            head_of(sock)
            sock.sendall(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
            sock.recv(1 << 20)

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\nabc")
            head = client.head()
            assert head.startswith(b"HTTP/1.1 403")
            assert b"connection: close" in head

    def test_over_the_limit(self, origin: Origin) -> None:
        config = configuration(origin.port, port=free_port(), limits=Limits(body_bytes=1000))
        with plane(config) as served:
            with Raw(served.port) as client:
                client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
                assert client.status() == 413
            with Raw(served.port) as client:
                client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"a" * 2000)
                assert client.status() == 413

    def test_slow_readers_push_back(self) -> None:
        size = 64 << 20
        sent = 0

        def serve(sock: socket.socket, number: int) -> None:
            nonlocal sent
            head_of(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            block = b"x" * (1 << 20)
            for _ in range(size >> 20):
                sock.sendall(block)
                sent += len(block)

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            client.send(GET)
            client.head()
            until(lambda: sent > 0)
            before = -1
            while before != sent:
                before = sent
                threading.Event().wait(0.1)
            assert sent < size
            total = len(client.rest)
            while total < size:
                total += len(client.sock.recv(1 << 20))


class TestFilters:
    def ask(self, rule: HttpRule, request: bytes = GET) -> tuple[tuple[int, bytes, bytes], bytes]:
        with Origin.answering(OK) as origin, plane(configuration(origin.port, port=free_port(), rule=rule)) as served:
            with Raw(served.port) as client:
                response = client.send(request).response()
            return response, origin.heads[0] if origin.heads else b""

    def test_headers_of_both(self) -> None:
        change = HeaderChange(set=(("X-Set", "1"),), add=(("X-From", "gateway"),), remove=("User-Agent",))
        rule = HttpRule(
            filters=(RequestHeaders(change=change), ResponseHeaders(change=change)), backends=(Weighted(backend="b"),)
        )
        request = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nX-Set: 0\r\n\r\n"
        (_, head, _), asked = self.ask(rule, request)
        assert b"x-set: 1" in asked
        assert b"x-set: 0" not in asked
        assert b"user-agent" not in asked
        assert b"x-set: 1" in head
        assert b"x-from: origin" in head
        assert b"x-from: gateway" in head

    @pytest.mark.parametrize(
        ("rewrite", "target"),
        [
            (Rewrite(prefix="/new"), b"/new/c?d=e"),
            (Rewrite(prefix="/"), b"/c?d=e"),
            (Rewrite(path="/whole"), b"/whole?d=e"),
        ],
    )
    def test_rewritten_paths(self, rewrite: Rewrite, target: bytes) -> None:
        match = Match(path=PathMatch(value="/a/b"))
        rule = HttpRule(matches=(match,), filters=(rewrite,), backends=(Weighted(backend="b"),))
        _, asked = self.ask(rule, b"GET /a/b/c?d=e HTTP/1.1\r\nHost: a\r\n\r\n")
        assert asked.split(b" ")[1] == target

    def test_rewritten_host(self) -> None:
        rule = HttpRule(filters=(Rewrite(hostname="other.example"),), backends=(Weighted(backend="b"),))
        _, asked = self.ask(rule)
        assert b"\r\nhost: other.example\r\n" in asked
        assert b"x-forwarded-host: example.com" in asked

    def test_redirects(self) -> None:
        rule = HttpRule(filters=(Redirect(status=301, scheme="https", hostname="new.example"),))
        (status, head, _), asked = self.ask(rule)
        assert status == 301
        assert b"location: https://new.example/a?b=c\r\n" in head + b"\r\n"
        assert not asked

    def test_cors(self) -> None:
        cors = Cors(origins=("https://*.example",), methods=("GET",), headers=("x-a",), max_age=9)
        rule = HttpRule(filters=(cors,), backends=(Weighted(backend="b"),))
        preflight = (
            b"OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://w.example\r\nAccess-Control-Request-Method: GET\r\n\r\n"
        )
        (status, head, _), asked = self.ask(rule, preflight)
        assert (status, asked) == (204, b"")
        assert b"access-control-allow-origin: https://w.example" in head
        assert b"access-control-max-age: 9" in head
        (_, head, _), _ = self.ask(rule, b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://w.example\r\n\r\n")
        assert b"access-control-allow-origin: https://w.example" in head
        (_, head, _), _ = self.ask(rule, b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.test\r\n\r\n")
        assert b"access-control" not in head

    def test_sticky_by_cookie(self) -> None:
        with Origin.answering(OK) as one, Origin.answering(OK) as other:
            config = configuration(one.port, port=free_port())
            more = configuration(other.port).backends["b"]
            rule = HttpRule(
                backends=(Weighted(backend="b"), Weighted(backend="c")), stickiness=Stickiness(name="where")
            )
            config = configuration(one.port, port=free_port(), rule=rule)
            config.backends["c"] = more
            with plane(config) as served, Raw(served.port) as client:
                _, head, _ = client.send(GET).response()
                cookie = next(line for line in head.split(b"\r\n") if line.startswith(b"set-cookie: "))[12:]
                before = len(one.heads)
                for _ in range(6):
                    asked = GET.replace(b"\r\n\r\n", b"\r\ncookie: " + cookie.split(b";")[0] + b"\r\n\r\n")
                    assert b"set-cookie" not in client.send(asked).response()[1]
                assert len(one.heads) - before in {0, 6}


class TestFailures:
    def status(self, config: object, request: bytes = GET) -> int:
        with plane(config) as served, Raw(served.port) as client:  # type: ignore[arg-type]
            return client.send(request).status()

    def test_no_route(self, origin: Origin) -> None:
        assert self.status(configuration(origin.port, port=free_port(), routes=())) == 404

    def test_no_backend(self, origin: Origin) -> None:
        rule = HttpRule(backends=(Weighted(backend=""),))
        assert self.status(configuration(origin.port, port=free_port(), rule=rule)) == 500
        assert self.status(configuration(origin.port, port=free_port(), rule=HttpRule())) == 500

    def test_no_endpoints(self) -> None:
        assert self.status(configuration(port=free_port())) == 503

    def test_nobody_listens(self) -> None:
        assert self.status(configuration(free_port(), port=free_port())) == 503

    def test_malformed_answer(self) -> None:
        for answer in (b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"):
            with Origin.answering(answer) as origin:
                assert self.status(configuration(origin.port, port=free_port())) == 502

    def test_closed_without_an_answer(self) -> None:
        with Origin.answering(b"") as origin:
            assert self.status(configuration(origin.port, port=free_port())) == 502

    def test_too_late(self) -> None:
        with Origin(lambda sock, _: sock.recv(1 << 16) and threading.Event().wait(20)) as origin:
            for timeouts in (Timeouts(request=0.1), Timeouts(backend=0.1)):
                rule = HttpRule(backends=(Weighted(backend="b"),), timeouts=timeouts)
                assert self.status(configuration(origin.port, port=free_port(), rule=rule)) == 504

    def test_connections_that_went_stale_are_replaced(self) -> None:
        def serve(sock: socket.socket, number: int) -> None:
            head_of(sock)
            sock.sendall(OK)
            head_of(sock)  # and no answer to the second

        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            assert client.send(GET).response()[0] == 200
            assert client.send(GET).response()[0] == 200
            assert client.send(GET.replace(b"GET", b"POST")).response()[0] == 502
        assert origin.connections == 2

    def test_idempotent_requests_are_tried_again(self) -> None:
        bad = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
        rule = HttpRule(backends=(Weighted(backend="b"),), retry=Retry(attempts=2, codes=(503,), backoff=0.001))
        with Origin.answering(bad, bad, OK) as origin:
            assert self.status(configuration(origin.port, port=free_port(), rule=rule)) == 200
        with Origin.answering(bad, bad, OK) as origin:
            assert (
                self.status(configuration(origin.port, port=free_port(), rule=rule), GET.replace(b"GET", b"POST"))
                == 503
            )
        none = HttpRule(backends=(Weighted(backend="b"),), retry=Retry(attempts=2, codes=(503,), budget=0, least=0))
        with Origin.answering(bad, bad, OK) as origin:
            assert self.status(configuration(origin.port, port=free_port(), rule=none)) == 503

    def test_an_endpoint_that_is_away_is_passed_by(self, origin: Origin) -> None:
        outliers = OutlierEjection(failures=2, seconds=60)
        config = configuration(origin.port, free_port(), port=free_port(), backend={"outliers": outliers})
        with plane(config) as served, Raw(served.port) as client:
            assert [client.send(GET).response()[0] for _ in range(20)] == [200] * 20
            states = served.do(lambda: [each.ejections for each in served.worker.pools["b"].balancer.states])
            assert states == [0, 1]

    def test_circuit(self, origin: Origin) -> None:
        config = configuration(origin.port, port=free_port(), backend={"circuit": CircuitBreaker(requests=0)})
        assert self.status(config) == 503

    def test_requests_wait_for_a_connection(self) -> None:
        config_of = {"circuit": CircuitBreaker(connections=1, waiting=1)}
        go = threading.Event()

        def serve(sock: socket.socket, number: int) -> None:
            while True:
                head_of(sock)
                go.wait(20)
                sock.sendall(OK)

        with Origin(serve) as origin, plane(configuration(origin.port, port=free_port(), backend=config_of)) as served:
            with Raw(served.port) as first, Raw(served.port) as second, Raw(served.port) as third:
                asking = [each.send(GET) for each in (first, second, third)]
                until(lambda: served.refused("circuit"))
                go.set()
                assert sorted(each.response()[0] for each in asking) == [200, 200, 503]
            assert origin.connections == 1

    def test_rate(self, origin: Origin) -> None:
        rule = HttpRule(backends=(Weighted(backend="b"),), rate=RateLimit(rate=0.001, burst=2))
        with plane(configuration(origin.port, port=free_port(), rule=rule)) as served, Raw(served.port) as client:
            assert [client.send(GET).response()[0] for _ in range(3)] == [200, 200, 429]
