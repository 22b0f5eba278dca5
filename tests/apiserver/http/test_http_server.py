from __future__ import annotations

import asyncio
import http.client
import itertools
import json
from collections.abc import Awaitable
from typing import Any

import aiohttp
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.http import HttpLimits
from pilothouse.apiserver.model import Answer, Request, Response, refusal
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import not_found
from support.httpkit import Client, Recorder, Wire, serving

pytestmark = pytest.mark.timeout(20)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_request_and_its_answer() -> None:
    handler = Recorder()
    async with serving(handler, clock=FakeClock()) as (server, port):
        client = await Client.connect(port)
        await client.send(b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc")
        status, headers, body = await client.answer()
        assert (status, body) == (200, b"POST /a b 3")
        assert headers == {
            "content-type": "text/plain",
            "content-length": "11",
            "date": "Wed, 01 Jan 2025 00:00:00 GMT",
        }
        assert server.connection_count == 1
        (request,) = handler.requests
        assert (request.target, request.path, request.param("c"), request.body) == ("/a%20b?c=d", "/a b", "d", b"abc")
        assert request.headers["x-a"] == "1"
        assert request.all_headers("x-a") == ["1", "2"]
        assert request.peer is not None
        assert (request.peer.address, request.peer.certificate, request.peer.secure) == ("127.0.0.1", None, False)
        assert request.user is None
        await client.close()


async def test_headers_given_to_one_request_are_not_seen_changed_by_the_next() -> None:
    def handler(request: Request) -> Answer:
        request.headers["x-forged"] = "yes"
        return Response(200, str(sorted(request.header_list)).encode())

    async with serving(handler) as (_, port):
        client = await Client.connect(port)
        assert await client.get() == await client.get()
        await client.close()


async def test_the_date_is_made_anew_each_second() -> None:
    clock = FakeClock()
    async with serving(Recorder(), clock=clock) as (_, port):
        client = await Client.connect(port)
        dates = []
        for _ in range(3):
            dates.append((await client.get())[1]["date"][-12:-4])
            clock.advance(0.6)
        assert dates == ["00:00:00", "00:00:00", "00:00:01"]
        await client.close()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def later(request: Request) -> Answer:
        for _ in range(int(request.param("turns"))):
            await asyncio.sleep(0)
        return Response(200, request.path.encode())

    def handler(request: Request) -> Answer | Awaitable[Answer]:
        return later(request) if request.query_text else Response(200, request.path.encode())

    async with serving(handler) as (_, port):
        client = await Client.connect(port)
        for number in range(40):
            query = b"?turns=%d" % (number % 5) if number % 3 else b""
            await client.send(b"GET /%d%b HTTP/1.1\r\nHost: x\r\n\r\n" % (number, query))
        assert [(await client.answer())[2] for _ in range(40)] == [b"/%d" % number for number in range(40)]
        await client.close()


async def test_a_peer_that_pipelines_too_much_is_not_read_from() -> None:
    blocked = asyncio.Event()

    async def handler(request: Request) -> Answer:
        await blocked.wait()
        return Response(200, request.path.encode())

    async with serving(handler, limits=HttpLimits(max_pipelined_bytes=1000)) as (server, port):
        client = await Client.connect(port)
        sending = asyncio.ensure_future(client.send(GET * 200_000))
        await turns()
        assert server._shared is not None
        (connection,) = server._shared.connections
        assert 1000 < len(connection._buffer) < 1 << 20
        sending.cancel()
        blocked.set()
        assert (await client.answer())[0] == 200
        client.writer.transport.abort()


@pytest.mark.parametrize("size", [100, 200_000])
async def test_answers_that_are_not_read_hold_up_the_requests_after_them(size: int) -> None:
    handled = 0

    def handler(_: Request) -> Answer:
        nonlocal handled
        handled += 1
        return Response(200, bytes(size))

    async with serving(handler, limits=HttpLimits(write_high_bytes=1000)) as (_, port):
        client = await Client.connect(port, limit=1000)
        count = 1000 if size > 1000 else 500_000
        sending = asyncio.ensure_future(client.send(GET * count))
        await asyncio.wait([sending], timeout=0.2)
        assert 0 < handled < count / 2
        before = handled
        for _ in range(before):
            assert len((await client.answer())[2]) == size
        await client.answer()
        assert handled > before
        sending.cancel()
        client.writer.transport.abort()


async def test_head_and_bodiless_answers() -> None:
    answers = {"/204": Response(204), "/304": Response(304), "/200": Response(200, b"abc")}
    async with serving(lambda request: answers[request.path]) as (_, port):
        client = await Client.connect(port)
        await client.send(b"HEAD /200 HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, body = await client.answer("HEAD")
        assert (status, headers["content-length"], body) == (200, "3", b"")
        status, headers, _ = await client.get("/204")
        assert (status, "content-length" in headers) == (204, False)
        assert (await client.get("/304"))[0] == 304
        assert (await client.get("/200"))[2] == b"abc"
        await client.close()


async def test_expect_continue() -> None:
    async with serving(Recorder(), limits=HttpLimits(max_body_bytes=10)) as (_, port):
        client = await Client.connect(port)
        start = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        await client.send(start + b"Content-Length: 3\r\n\r\n")
        assert await client.head() == (100, {})
        await client.send(b"abc")
        assert (await client.answer())[2] == b"POST / 3"
        await client.send(start + b"Content-Length: 3\r\n\r\nabc")
        assert (await client.answer())[2] == b"POST / 3", "what is here already is not asked for"
        await client.send(start + b"Content-Length: 11\r\n\r\n")
        assert (await client.answer())[0] == 413
        await client.close()


async def test_bodies_over_the_limit_are_refused_before_they_are_read() -> None:
    handler = Recorder()
    async with serving(handler, limits=HttpLimits(max_body_bytes=10)) as (_, port):
        for request in (
            b"Content-Length: 11\r\n\r\n",
            b"Content-Length: 1000000\r\n\r\n" + bytes(1_000_000),
            b"Transfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n6\r\n",
        ):
            client = await Client.connect(port)
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + request)
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (413, "close")
            assert json.loads(body) == {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": "Request entity too large: limit is 10",
                "reason": "RequestEntityTooLarge",
                "code": 413,
            }
            assert await client.rest() == b""
            await client.close()
        client = await Client.connect(port)
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789")
        assert (await client.answer())[0] == 200
        await client.close()
    assert len(handler.requests) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\n", 400),
        (b"\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
        (b"a" * 70_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),
    ],
)
async def test_what_is_malformed_is_refused_and_the_connection_closed(data: bytes, status: int) -> None:
    handler = Recorder()
    async with serving(handler) as (_, port):
        client = await Client.connect(port)
        await client.send(data + GET)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1
        await client.close()
    assert handler.requests == []


VALID = [
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nGET /a?b HTTP/1.1\r\nHost: x\r\nA: \xc3\xa9\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\r\n\r\n1",
    b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\r\n\r\r\n2;a\r\nbc\r\n0\r\nT: u\r\n\r\n",
    b"HEAD /d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
]


def fed(pieces: list[bytes]) -> tuple[list[tuple[str, str, bytes]], bytes, bool]:
    """Feed a connection; return the requests it made, what it wrote, and whether it closed."""
    from pilothouse.apiserver.http.answering import Shared
    from pilothouse.apiserver.http.connection import HttpConnection

    handler, clock = Recorder(), FakeClock()
    loop = asyncio.new_event_loop()
    try:
        connection = HttpConnection(Shared(handler, HttpLimits(), clock, loop))
        wire = Wire()
        connection.connection_made(wire)
        for piece in pieces:
            if piece:
                connection.data_received(piece)
        clock.advance(20)
        if connection.deadline <= clock.monotonic():
            connection.expire(clock.monotonic())
        return [(r.method, r.target, r.body) for r in handler.requests], bytes(wire.written), wire.closed
    finally:
        loop.close()


@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=5), st.lists(st.integers(0, 1000), max_size=20))
def test_requests_are_the_same_however_they_are_cut(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    whole = fed([data])
    assert len(whole[0]) == len(requests)
    assert fed([data[start:end] for start, end in itertools.pairwise(places)]) == whole
    assert fed([bytes([byte]) for byte in data]) == whole


@given(
    st.sampled_from([b"", *VALID]), st.lists(st.one_of(st.binary(max_size=30), st.sampled_from(VALID)), max_size=6),
    st.integers(0, 100),
)  # fmt: skip
def test_garbage_is_answered_or_waited_for_but_never_breaks_the_server(
    start: bytes, pieces: list[bytes], cut: int
) -> None:
    _, written, closed = fed([start[:cut], *pieces])
    assert written == b"" or written.startswith(b"HTTP/1.1 ")
    if b"HTTP/1.1 400" in written:
        assert closed


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=1, max_size=100))
def test_refusals_end_the_connection_whatever_follows(data: bytes) -> None:
    requests, written, closed = fed([b"GET / HTTP/1.1\r\n\r\n", data, VALID[0]])
    assert requests == []
    assert written.count(b"HTTP/1.1 ") == 1
    assert closed


async def test_http_1_0() -> None:
    async with serving(Recorder()) as (_, port):
        client = await Client.connect(port)
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.rest()).endswith(b"Connection: close\r\n\r\nGET / 0")
        await client.close()
        client = await Client.connect(port)
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await client.answer())[1]["connection"] == "keep-alive"
        await client.close()


async def test_connection_close_is_heeded() -> None:
    async with serving(Recorder()) as (_, port):
        client = await Client.connect(port)
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET)
        answer = await client.rest()
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"Connection: close\r\n" in answer
        await client.close()


@pytest.mark.parametrize("late", [False, True])
async def test_an_exception_of_the_handler_is_answered_and_logged_without_the_query(
    late: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing(_: Request) -> Answer:
        raise ValueError("broken")

    def handler(request: Request) -> Answer | Awaitable[Answer]:
        if request.path == "/good":
            return Response(200, b"good")
        if request.path == "/missing":
            raise not_found("", "pods", "a")
        if late:
            return failing(request)
        raise ValueError("broken")

    async with serving(handler) as (_, port):
        client = await Client.connect(port)
        status, _, body = await client.get("/bad?token=hidden")
        assert status == 500
        assert json.loads(body)["reason"] == "InternalError"
        assert b"broken" not in body
        assert await client.get("/missing") != (200, {}, b"")
        assert (await client.get("/good"))[2] == b"good", "the connection goes on"
        await client.close()
    logged = "".join(capsys.readouterr())
    assert "/bad" in logged
    assert "ValueError" in logged
    assert "hidden" not in logged


@pytest.mark.parametrize("late", [False, True])
async def test_an_answer_that_cannot_be_sent_ends_the_connection(
    late: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bad: Any = Response(200, b"", [("X-A", None)])  # type: ignore[list-item]

    async def failing(_: Request) -> Answer:
        return bad  # type: ignore[no-any-return]

    async with serving(failing if late else lambda _: bad) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        assert await client.rest() == b""
        assert server.connection_count == 0
        await client.close()
    assert "cannot be sent" in "".join(capsys.readouterr())


async def test_no_answer_at_all_is_a_failure() -> None:
    nothing: Any = lambda _: None  # noqa: E731
    async with serving(nothing) as (_, port):
        client = await Client.connect(port)
        assert (await client.get())[0] == 500
        await client.close()


async def test_heads_longer_than_what_may_be_pipelined() -> None:
    async with serving(Recorder(), limits=HttpLimits(max_pipelined_bytes=100)) as (_, port):
        client = await Client.connect(port)
        head = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 5000
        await client.send(GET * 100 + head)
        for _ in range(100):
            await client.answer()
        await client.send(b"\r\n\r\n" + GET)
        for _ in range(2):
            assert (await client.answer())[0] == 200
        await client.close()


async def test_a_peer_that_pipelines_leaves_others_their_turn() -> None:
    order: list[str] = []

    def handler(request: Request) -> Answer:
        order.append(request.path)
        return Response(200, b"")

    async with serving(handler) as (_, port):
        first, second = await Client.connect(port), await Client.connect(port)
        await first.send(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        await second.get("/second")
        assert order.index("/second") < 900
        for _ in range(1000):
            await first.answer()
        await first.close()
        await second.close()


async def test_statuses_that_are_raised_are_answered() -> None:
    def handler(_: Request) -> Answer:
        raise not_found("", "pods", "a")

    async with serving(handler) as (_, port):
        client = await Client.connect(port)
        status, _, body = await client.get()
        assert (status, body) == (404, refusal(not_found("", "pods", "a")).body)
        await client.close()


async def test_values_of_headers_cannot_become_headers() -> None:
    answer = Response(200, b"", [("Warning", "a\r\nX-Evil: b\r\n\r\nc"), ("X-B", "é")])
    async with serving(lambda _: answer) as (_, port):
        client = await Client.connect(port)
        _, headers, _ = await client.get()
        assert headers["warning"] == "a  X-Evil: b    c"
        assert headers["x-b"] == "é"
        assert "x-evil" not in headers
        await client.close()


MANY = tuple(bytes([n % 251]) * 7000 for n in range(900))


@pytest.mark.parametrize("pieces", [(), (b"a",), (b"a" * 10, b"b" * 20), MANY, (b"a", bytes(1_000_000), b"b")])
async def test_bodies_in_pieces(pieces: tuple[bytes, ...]) -> None:
    async with serving(lambda _: Response(200, pieces)) as (_, port):
        client = await Client.connect(port)
        for _ in range(2):
            status, headers, body = await client.get()
            assert (status, headers["content-length"]) == (200, str(len(body)))
            assert body == b"".join(pieces)
        await client.close()


async def test_a_big_answer_goes_out_as_fast_as_it_is_taken() -> None:
    body = bytes(20 << 20)
    async with serving(lambda _: Response(200, body)) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        await client.head()
        assert server._shared is not None
        (connection,) = server._shared.connections
        assert connection._transport.get_write_buffer_size() < 1 << 20
        assert len(await client.reader.readexactly(len(body))) == len(body)
        await client.close()


async def test_a_handler_is_cancelled_when_its_peer_goes() -> None:
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with serving(handler) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        await begun.wait()
        client.writer.transport.abort()
        await asyncio.wait_for(cancelled.wait(), 5)
        assert server.connection_count == 0


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (b"", 10),
        (b"GET / HT", 10),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", 60),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 60),
        (GET, 90),
    ],
)
async def test_slow_peers_are_dropped(data: bytes, seconds: float) -> None:
    clock = FakeClock()
    async with serving(Recorder(), clock=clock) as (server, port):
        client = await Client.connect(port)
        await client.send(data)
        await turns()
        clock.advance(seconds - 1)
        await turns()
        assert server.connection_count == 1
        clock.advance(2)
        await client.rest()
        assert server.connection_count == 0
        await client.close()


async def test_a_peer_that_drips_its_headers_gains_no_time() -> None:
    clock = FakeClock()
    async with serving(Recorder(), clock=clock) as (server, port):
        client = await Client.connect(port)
        await client.get()
        clock.advance(60)
        for byte in GET[:11]:
            await client.send(bytes([byte]))
            await turns(5)
            clock.advance(1)
        await client.rest()
        assert server.connection_count == 0
        await client.close()


async def test_a_peer_that_does_not_take_its_answer_is_dropped() -> None:
    clock = FakeClock()
    async with serving(lambda _: Response(200, bytes(50 << 20)), clock=clock) as (server, port):
        client = await Client.connect(port, limit=1000)
        await client.send(GET)
        await client.head()
        await turns()
        clock.advance(92)
        await turns()
        assert server.connection_count == 0
        await client.close()


async def test_connections_over_the_limit_are_closed() -> None:
    async with serving(Recorder(), limits=HttpLimits(max_connections=2)) as (server, port):
        clients = [await Client.connect(port) for _ in range(2)]
        for client in clients:
            await client.get()
        extra = await Client.connect(port)
        assert await extra.rest() == b""
        await extra.close()
        assert server.connection_count == 2
        await clients[0].close()
        await turns(10)
        client = await Client.connect(port)
        assert (await client.get())[0] == 200
        await client.close()
        await clients[1].close()


async def test_closing_lets_requests_in_flight_be_answered() -> None:
    going, begun = asyncio.Event(), asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        await going.wait()
        return Response(200, b"done")

    async with serving(handler) as (server, port):
        idle, busy = await Client.connect(port), await Client.connect(port)
        await busy.send(GET + GET)
        await begun.wait()
        await turns(5)
        closing = asyncio.ensure_future(server.close(10))
        assert await idle.rest() == b""
        with pytest.raises(OSError, match=r"refused|failed"):
            await Client.connect(port)
        going.set()
        status, headers, body = await busy.answer()
        assert (status, headers["connection"], body) == (200, "close", b"done")
        assert await busy.rest() == b""
        await asyncio.wait_for(closing, 5)
        assert server.connection_count == 0
        await idle.close()
        await busy.close()


async def test_closing_lets_a_big_answer_be_taken() -> None:
    body = bytes(20 << 20)
    async with serving(lambda _: Response(200, body)) as (server, port):
        client = await Client.connect(port)
        await client.send(GET * 2)
        await client.head()
        closing = asyncio.ensure_future(server.close(10))
        await turns(5)
        assert not closing.done()
        assert len(await client.rest()) == len(body)
        await asyncio.wait_for(closing, 5)
        await client.close()


async def test_closing_aborts_after_its_grace() -> None:
    clock, begun = FakeClock(), asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handler, clock=clock) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        await begun.wait()
        closing = asyncio.ensure_future(server.close(5))
        await turns(5)
        assert not closing.done()
        clock.advance(5)
        await asyncio.wait_for(closing, 5)
        assert await client.rest() == b""
        await client.close()


async def test_several_listeners_and_counts() -> None:
    clock = FakeClock()
    async with serving(Recorder(), clock=clock) as (server, port):
        counts: list[int] = []
        server.on_count = counts.append
        _, other = await server.start("127.0.0.1", 0)
        clients = [await Client.connect(number) for number in (port, other)]
        assert [(await client.get())[0] for client in clients] == [200, 200]
        clock.advance(1)
        assert counts == [2]
        for client in clients:
            await client.close()


async def test_clients_of_the_standard_library_and_aiohttp() -> None:
    async with serving(Recorder()) as (_, port):

        def ask() -> list[bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            answers = []
            for body in (b"abc", [b"ab", b"cde"]):
                connection.request("PUT", "/a", body=body, encode_chunked=True)
                answers.append(connection.getresponse().read())
            connection.close()
            return answers

        assert await asyncio.to_thread(ask) == [b"PUT /a 3", b"PUT /a 5"]
        async with aiohttp.ClientSession() as session:
            for body in (b"", bytes(1 << 20)):
                async with session.post(f"http://127.0.0.1:{port}/x", data=body, expect100=bool(body)) as answer:
                    assert await answer.read() == b"POST /x %d" % len(body)


def test_on_uvloop() -> None:
    async def talk() -> list[bytes]:
        async with serving(lambda request: Response(200, bytes(int(request.path[1:])))) as (_, port):
            client = await Client.connect(port)
            bodies = [(await client.get(f"/{size}"))[2] for size in (0, 10, 5_000_000)]
            await client.send(b"bad\r\n\r\n")
            bodies.append((await client.rest())[:12])
            await client.close()
            return bodies

    assert uvloop.run(talk()) == [b"", bytes(10), bytes(5_000_000), b"HTTP/1.1 400"]
