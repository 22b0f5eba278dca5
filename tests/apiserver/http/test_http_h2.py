from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import ngh2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.http import HttpLimits, HttpServer
from pilothouse.apiserver.model import (
    Answer,
    Handler,
    Piece,
    Request,
    Response,
    Sink,
    StreamingResponse,
    UpgradeResponse,
)
from pilothouse.foundation.clock import Clock, FakeClock
from pilothouse.foundation.tls import client_context
from support.httpkit import Authority, Recorder, Wire, serving

pytestmark = pytest.mark.timeout(20)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


class Peer(asyncio.Protocol):
    """A client on ngh2 that can be told not to read."""

    def __init__(self, *, window: int = 1 << 20) -> None:
        self.engine = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=False))
        self.engine.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: window})
        self.transport: Any = None
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaways: list[int] = []
        self.lost = asyncio.Event()
        self.news = asyncio.Event()
        self.reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self.news.set()

    def flush(self) -> None:
        while data := self.engine.data_to_send():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.engine.receive_data(data)
        for event in self.engine.events():
            match event:
                case ngh2.ResponseReceived():
                    self.heads[event.stream_id] = {name.decode(): value.decode() for name, value in event.headers}
                    if event.end_stream:
                        self.ended.add(event.stream_id)
                case ngh2.DataReceived():
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    if event.end_stream:
                        self.ended.add(event.stream_id)
                    if self.reading and event.data:
                        with contextlib.suppress(ngh2.NGH2Error):
                            self.engine.acknowledge_received_data(len(event.data), event.stream_id)
                case ngh2.StreamReset():
                    self.resets[event.stream_id] = event.error_code
                case ngh2.GoAwayReceived():
                    self.goaways.append(event.error_code)
                case _:
                    pass
        self.news.set()
        self.flush()

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        fields = [(b":method", method.encode()), (b":scheme", b"https"), (b":path", path.encode())]
        fields += [(b":authority", b"x"), *((name.encode(), value.encode()) for name, value in headers.items())]
        stream_id = self.engine.send_request(fields, end_stream=body is None)
        if body is not None:
            self.engine.send_data(stream_id, body, end_stream=True)
        self.flush()
        return stream_id

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def answer(self, stream_id: int) -> tuple[int, bytes]:
        await self.until(lambda: stream_id in self.ended)
        return int(self.heads[stream_id][":status"]), self.bodies.get(stream_id, b"")


@contextlib.asynccontextmanager
async def talking(
    authority: Authority,
    handler: Handler,
    *,
    clock: Clock | None = None,
    window: int = 1 << 20,
    certificate: bool = False,
    **limits: Any,
) -> AsyncIterator[tuple[HttpServer, Peer]]:
    bounds = HttpLimits(http2=True, **limits)
    async with serving(handler, tls=authority.context(), limits=bounds, clock=clock) as (server, port):
        pair = authority.client if certificate else (None, None)
        context = client_context(ca=authority.ca_path, certificate=pair[0], key=pair[1], alpn=["h2", "http/1.1"])
        _, peer = await asyncio.get_running_loop().create_connection(
            lambda: Peer(window=window), "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        yield server, peer
        peer.transport.abort()
        await asyncio.wait_for(peer.lost.wait(), 5)


async def test_requests_and_answers(authority: Authority) -> None:
    handler = Recorder()
    async with talking(authority, handler, clock=FakeClock(), certificate=True) as (server, peer):
        first = peer.send("GET", "/a%20b?c=d", None, **{"x-a": "é"})
        second = peer.send("POST", "/b", b"x" * 500_000)
        third = peer.send("HEAD", "/c")
        assert await peer.answer(first) == (200, b"GET /a b 0")
        assert await peer.answer(second) == (200, b"POST /b 500000")
        assert await peer.answer(third) == (200, b"")
        assert peer.heads[first] == {
            ":status": "200",
            "content-type": "text/plain",
            "date": "Wed, 01 Jan 2025 00:00:00 GMT",
            "content-length": "10",
        }
        request = handler.requests[0]
        assert (request.target, request.param("c"), request.headers) == ("/a%20b?c=d", "d", {"host": "x", "x-a": "é"})
        assert request.peer is not None
        assert request.peer.certificate is not None
        assert server.connection_count == 1


async def test_answers_come_as_they_are_ready(authority: Authority) -> None:
    going = asyncio.Event()

    async def late(_: Request) -> Answer:
        await going.wait()
        return Response(200, [b"la", b"te"])

    def handler(request: Request) -> Answer | Awaitable[Answer]:
        return late(request) if request.path == "/late" else Response(200, b"")

    async with talking(authority, handler) as (_, peer):
        slow, quick = peer.send("GET", "/late"), peer.send("GET", "/")
        assert await peer.answer(quick) == (200, b"")
        going.set()
        assert await peer.answer(slow) == (200, b"late")


async def test_failures_refusals_and_upgrades(authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    async def failing(_: Request) -> Answer:
        raise ValueError("broken")

    def handler(request: Request) -> Any:
        match request.path:
            case "/late":
                return failing(request)
            case "/upgrade":
                return UpgradeResponse(None)  # type: ignore[arg-type]
            case "/unsendable":
                return Response(200, b"", [("X-A", None)])  # type: ignore[list-item]
            case "/forged":
                return Response(200, b"a", [("X-A", "a\r\nb: c"), ("Connection", "close")])
        raise ValueError("broken")

    async with talking(authority, handler, max_body_bytes=10) as (_, peer):
        for path, wanted in (("/?token=hidden", 500), ("/late", 500), ("/upgrade", 400), ("/%zz", 400)):
            status, body = await peer.answer(peer.send("GET", path))
            assert (status, json.loads(body)["code"]) == (wanted, wanted)
        assert (await peer.answer(peer.send("GET", "/" + "a" * 40_000)))[0] == 414
        for headers in ({}, {"content-length": "20"}):
            stream = peer.send("POST", "/", bytes(20), **headers)
            assert (await peer.answer(stream))[0] == 413
        forged = peer.send("GET", "/forged")
        assert (await peer.answer(forged))[1] == b"a"
        assert peer.heads[forged]["x-a"] == "a  b: c"
        assert "connection" not in peer.heads[forged]
        stream = peer.send("GET", "/unsendable")
        await peer.until(lambda: stream in peer.resets)
    assert "hidden" not in "".join(capsys.readouterr())


async def test_streams_and_backpressure(authority: Authority) -> None:
    states: list[int] = []
    ended = asyncio.Event()

    async def run(sink: Sink) -> None:
        try:
            for _ in range(600):
                sink.write_piece(Piece(bytes(10_000)))
                states.append(sink.buffered)
                await sink.drain()
        finally:
            ended.set()

    async with talking(authority, lambda _: StreamingResponse(run), window=100_000) as (_, peer):
        stream = peer.send("GET", "/")
        status, body = await peer.answer(stream)
        assert (status, len(body)) == (200, 6_000_000)
        assert max(states) < 4 << 20
        peer.reading = False
        ended.clear()
        states.clear()
        stream = peer.send("GET", "/")
        await peer.until(lambda: len(peer.bodies.get(stream, b"")) >= 60_000)
        await asyncio.sleep(0.05)
        assert not ended.is_set(), "it went on though nobody reads"
        assert max(states) < 4 << 20
        peer.engine.reset_stream(stream, ngh2.ErrorCode.CANCEL)
        peer.flush()
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_stream_that_fails_is_reset(authority: Authority) -> None:
    async def run(sink: Sink) -> None:
        sink.write(b"abc")
        await asyncio.sleep(0)
        raise ValueError("broken")

    async with talking(authority, lambda _: StreamingResponse(run)) as (_, peer):
        stream = peer.send("GET", "/")
        await peer.until(lambda: stream in peer.resets)
        assert peer.resets[stream] == ngh2.ErrorCode.INTERNAL_ERROR
        assert stream not in peer.ended


async def test_a_big_answer_is_written_as_it_is_taken(authority: Authority) -> None:
    async with talking(authority, lambda _: Response(200, [bytes(10_000_000), b"end"])) as (server, peer):
        peer.reading = False
        held = peer.send("GET", "/")
        await peer.until(lambda: held in peer.bodies)
        await asyncio.sleep(0.05)
        assert server._shared is not None
        (connection,) = server._shared.connections
        assert connection.engine.queued_body_size() < 4 << 20
        peer.engine.reset_stream(held, ngh2.ErrorCode.CANCEL)
        peer.reading = True
        # What was withheld of the connection's window.
        peer.engine.set_local_window_size(16 << 20)
        peer.flush()
        status, body = await peer.answer(peer.send("GET", "/"))
        assert (status, len(body), body[-3:]) == (200, 10_000_003, b"end")


async def test_a_handler_is_cancelled_when_its_stream_or_peer_goes(authority: Authority) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with talking(authority, handler) as (_, peer):
        for how in ("reset", "abort"):
            begun.clear()
            cancelled.clear()
            stream = peer.send("GET", "/")
            await begun.wait()
            if how == "reset":
                peer.engine.reset_stream(stream, ngh2.ErrorCode.CANCEL)
                peer.flush()
            else:
                peer.transport.abort()
            await asyncio.wait_for(cancelled.wait(), 5)


async def test_rapid_resets_end_the_connection(authority: Authority) -> None:
    async with talking(authority, Recorder(), clock=FakeClock()) as (server, peer):
        with contextlib.suppress(ngh2.NGH2Error):  # it is told to go
            for _ in range(400):
                stream = peer.send("GET", "/")
                peer.engine.reset_stream(stream, ngh2.ErrorCode.CANCEL)
                peer.flush()
                await asyncio.sleep(0)
        await asyncio.wait_for(peer.lost.wait(), 5)
        assert peer.goaways == [ngh2.ErrorCode.ENHANCE_YOUR_CALM]
        assert server.connection_count == 0


async def test_streams_and_headers_are_limited(authority: Authority) -> None:
    handler = Recorder()
    async with talking(authority, handler, max_head_bytes=10_000) as (_, peer):
        assert (await peer.answer(peer.send("GET", "/")))[0] == 200
        assert peer.engine.remote_settings[ngh2.Setting.MAX_CONCURRENT_STREAMS] == 250
        stream = peer.send("GET", "/", None, **{f"x-{number}": "a" * 1000 for number in range(20)})
        await peer.until(lambda: stream in peer.heads or stream in peer.resets or peer.lost.is_set())
        assert len(handler.requests) == 1
        assert peer.heads.get(stream, {}).get(":status", "431") == "431"


async def test_a_flood_of_continuations_ends_the_connection(authority: Authority) -> None:
    async with talking(authority, Recorder()) as (server, peer):
        await asyncio.sleep(0.02)
        headers = b"\x82\x87\x84\x41\x01x"  # GET, https, /, :authority x
        peer.transport.write(len(headers).to_bytes(3, "big") + b"\x01\x01" + (1).to_bytes(4, "big") + headers)
        field = b"\x00\x03x-a\x7f\x81\x07" + b"a" * 256
        for _ in range(2000):
            if peer.lost.is_set():
                break
            peer.transport.write(len(field).to_bytes(3, "big") + b"\x09\x00" + (1).to_bytes(4, "big") + field)
            await asyncio.sleep(0)
        await asyncio.wait_for(peer.lost.wait(), 5)
        assert server.connection_count == 0


async def test_garbage_ends_the_connection(authority: Authority) -> None:
    async with talking(authority, Recorder()) as (server, peer):
        assert (await peer.answer(peer.send("GET", "/")))[0] == 200
        peer.transport.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
        await asyncio.wait_for(peer.lost.wait(), 5)
        assert server.connection_count == 0


async def test_slow_bodies_and_idle_connections_are_ended(authority: Authority) -> None:
    clock = FakeClock()
    async with talking(authority, Recorder(), clock=clock) as (server, peer):
        stream = peer.engine.send_request(
            [(b":method", b"PUT"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"x")]
        )
        peer.flush()
        await asyncio.sleep(0.02)
        clock.advance(61)
        await peer.until(lambda: stream in peer.resets)
        await asyncio.sleep(0.02)
        clock.advance(88)
        assert (await peer.answer(peer.send("GET", "/")))[0] == 200
        clock.advance(92)
        await asyncio.wait_for(peer.lost.wait(), 5)
        assert peer.goaways == [ngh2.ErrorCode.NO_ERROR]
        assert server.connection_count == 0


async def test_bodies_of_a_connection_are_bounded_together(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilothouse.apiserver.http import h2

    monkeypatch.setattr(h2, "_MAX_BODIES_BYTES", 100_000)
    async with talking(authority, Recorder()) as (_, peer):
        streams = []
        for _ in range(3):
            stream = peer.engine.send_request(
                [(b":method", b"PUT"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"x")]
            )
            peer.engine.send_data(stream, bytes(40_000))
            peer.flush()
            streams.append(stream)
        await peer.until(lambda: peer.resets)
        assert peer.resets == {streams[2]: ngh2.ErrorCode.ENHANCE_YOUR_CALM}
        peer.engine.end_stream(streams[0])
        peer.flush()
        assert await peer.answer(streams[0]) == (200, b"PUT / 40000")


async def test_graceful_close(authority: Authority) -> None:
    going, begun = asyncio.Event(), asyncio.Event()

    async def run(sink: Sink) -> None:
        sink.write(b"abc")
        begun.set()
        await asyncio.Event().wait()

    async def late() -> Answer:
        await going.wait()
        return Response(200, b"late")

    def handler(request: Request) -> Answer | Awaitable[Answer]:
        return late() if request.path == "/late" else StreamingResponse(run)

    async with talking(authority, handler) as (server, peer):
        stream, slow = peer.send("GET", "/"), peer.send("GET", "/late")
        await begun.wait()
        closing = asyncio.ensure_future(server.close(5))
        assert await peer.answer(stream) == (200, b"abc")
        assert not closing.done()
        going.set()
        assert await peer.answer(slow) == (200, b"late")
        await asyncio.wait_for(closing, 3)
        await asyncio.wait_for(peer.lost.wait(), 5)
        assert set(peer.goaways) == {ngh2.ErrorCode.NO_ERROR}


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
REQUEST = b"\x82\x87\x84\x41\x01x"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


FRAMES = st.one_of(
    st.builds(frame, st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=20)),
    st.builds(frame, st.just(1), st.sampled_from([4, 5]), st.sampled_from([1, 3, 5, 7]), st.just(REQUEST)),
    st.builds(frame, st.just(0), st.sampled_from([0, 1]), st.sampled_from([1, 3, 5, 7]), st.binary(max_size=20)),
    st.builds(frame, st.just(3), st.just(0), st.sampled_from([1, 3, 5, 7]), st.just(bytes(4))),
    st.binary(max_size=30),
)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(0, 1000), max_size=8))
def test_hostile_frames_are_answered_or_end_the_connection(frames: list[bytes], cuts: list[int]) -> None:
    from pilothouse.apiserver.http.answering import Shared
    from pilothouse.apiserver.http.h2 import Http2Connection

    problems: list[dict[str, Any]] = []

    async def run(sink: Sink) -> None:
        sink.write(b"abc")
        await sink.drain()
        await asyncio.sleep(0)
        sink.write(b"abc")

    async def late() -> Answer:
        await asyncio.sleep(0)
        return Response(200, b"late")

    count = 0

    def handler(_: Request) -> Answer | Awaitable[Answer]:
        nonlocal count
        count += 1
        return late() if count % 3 == 0 else (Response(200, b"abc"), StreamingResponse(run))[count % 3 - 1]

    async def feed() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        shared = Shared(handler, HttpLimits(max_body_bytes=30), FakeClock(), loop)
        connection, wire = Http2Connection(shared), Wire()
        connection.begin(wire, None)  # type: ignore[arg-type]
        data = PREFACE + b"".join(frames)
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        for start, end in itertools.pairwise(places):
            if not wire.closed and end > start:
                connection.data_received(data[start:end])
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not shared.connections
        assert connection._bodies == 0

    asyncio.run(feed())
    assert not problems
