from __future__ import annotations

import asyncio
import gc
import json

import pytest

from pilothouse.apiserver.http import HttpLimits, InProcessTransport
from pilothouse.apiserver.model import (
    Answer,
    Duplex,
    Piece,
    Request,
    Response,
    Sink,
    StreamingResponse,
    UpgradeResponse,
    User,
)

pytestmark = pytest.mark.timeout(20)

ANN = User("ann")


async def test_a_request_and_its_answer() -> None:
    seen: list[Request] = []

    async def later(request: Request) -> Answer:
        await asyncio.sleep(0)
        return Response(201, [b"a", b"b"], [("X-A", "1")])

    def handler(request: Request) -> object:
        seen.append(request)
        return later(request) if request.path == "/later" else Response(200, request.body, content_type="text/plain")

    transport = InProcessTransport(handler)  # type: ignore[arg-type]
    answer = await transport.request("POST", "/a%20b?c=d", [("X-A", "1"), ("x-a", "2")], b"body", ANN)
    assert (answer.status, answer.body, answer.headers) == (200, b"body", [("content-type", "text/plain")])
    assert await answer.read() == b"body"
    (request,) = seen
    assert (request.method, request.path, request.param("c"), request.user) == ("POST", "/a b", "d", ANN)
    assert (request.headers, request.all_headers("x-a")) == ({"x-a": "1"}, ["1", "2"])
    assert request.peer is not None
    assert request.peer.secure
    answer = await transport.request("GET", "/later")
    assert (answer.status, answer.body, answer.header("x-a"), answer.header("none", "-")) == (201, b"ab", "1", "-")
    assert seen[1].user is None
    assert (await transport.request("HEAD", "/later")).body == b""


async def test_refusals_and_failures_are_answers() -> None:
    def handler(_: Request) -> Answer:
        raise ValueError("broken")

    transport = InProcessTransport(handler, limits=HttpLimits(max_body_bytes=3))
    for target, body, status in (("/", b"", 500), ("/%zz", b"", 400), ("/%00", b"", 400), ("/", b"1234", 413)):
        answer = await transport.request("GET", target, body=body)
        assert answer.status == status
        assert json.loads(answer.body)["kind"] == "Status"


async def test_cancelling_a_request_cancels_its_handler() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(_: Request) -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    asking = asyncio.ensure_future(InProcessTransport(handler).request("GET", "/"))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert cancelled.is_set()


async def test_a_stream_gives_its_pieces_as_written() -> None:
    async def run(sink: Sink) -> None:
        sink.write(b"a")
        sink.write(b"")
        sink.write_piece(Piece(b"bc"))
        assert sink.buffered == 3
        await asyncio.sleep(0)
        sink.write(b"d")

    transport = InProcessTransport(lambda _: StreamingResponse(run, headers=[("X-A", "1")]))
    answer = await transport.request("GET", "/")
    assert (answer.status, answer.header("x-a")) == (200, "1")
    assert answer.stream is not None
    assert [piece async for piece in answer.stream] == [b"a", b"bc", b"d"]
    assert await (await transport.request("GET", "/")).read() == b"abcd"
    assert (await transport.request("HEAD", "/")).stream is None


async def test_a_stream_waits_for_its_reader() -> None:
    written = 0

    async def run(sink: Sink) -> None:
        nonlocal written
        for _ in range(100):
            sink.write(bytes(10))
            written += 10
            await sink.drain()

    transport = InProcessTransport(lambda _: StreamingResponse(run), limits=HttpLimits(write_high_bytes=100))
    answer = await transport.request("GET", "/")
    for _ in range(10):
        await asyncio.sleep(0)
    assert written == 100
    assert len(await answer.read()) == 1000


async def test_a_stream_that_fails_breaks_off() -> None:
    async def run(sink: Sink) -> None:
        sink.write(b"a")
        raise ValueError("broken")

    answer = await InProcessTransport(lambda _: StreamingResponse(run)).request("GET", "/")
    assert answer.stream is not None
    assert await anext(answer.stream) == b"a"
    with pytest.raises(ConnectionError, match="broke off"):
        await anext(answer.stream)
    with pytest.raises(StopAsyncIteration):
        await anext(answer.stream)


@pytest.mark.parametrize("how", ["close", "cancel", "forget"])
async def test_a_stream_ends_with_its_reader(how: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    states: list[object] = []

    async def run(sink: Sink) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            sink.write(b"late")
            states.extend([sink.closed, sink.buffered])
            ended.set()

    answer = await InProcessTransport(lambda _: StreamingResponse(run)).request("GET", "/")
    await begun.wait()
    assert answer.stream is not None
    if how == "close":
        await answer.aclose()
        assert ended.is_set()
    elif how == "cancel":
        reading = asyncio.ensure_future(anext(answer.stream))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    else:
        del answer
        gc.collect()
    await asyncio.wait_for(ended.wait(), 5)
    assert states == [True, 0]


async def test_an_upgrade() -> None:
    async def echo(duplex: Duplex) -> None:
        while data := await duplex.read():
            duplex.write(data.upper())
            await duplex.drain()
        duplex.write(b"bye")

    transport = InProcessTransport(lambda _: UpgradeResponse(echo, [("Upgrade", "echo")]))
    answer = await transport.request("GET", "/")
    assert (answer.status, answer.header("upgrade")) == (101, "echo")
    duplex = answer.duplex
    assert duplex is not None
    duplex.write(b"abc")
    await duplex.drain()
    assert await duplex.read() == b"ABC"
    await answer.aclose()
    assert await duplex.read() == b""


@pytest.mark.parametrize("how", ["returns", "raises", "aborts"])
async def test_an_upgrade_ends_when_the_other_end_does(how: str) -> None:
    async def run(duplex: Duplex) -> None:
        duplex.write(b"last")
        if how == "raises":
            raise ValueError("broken")
        if how == "aborts":
            duplex.abort()

    answer = await InProcessTransport(lambda _: UpgradeResponse(run)).request("GET", "/")
    assert answer.duplex is not None
    if how == "returns":
        assert await answer.duplex.read() == b"last"
    assert await answer.duplex.read() == b""
    answer.duplex.write(b"into nothing")
    await answer.duplex.drain()


async def test_aborting_an_upgrade_cancels_what_runs_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def run(_: Duplex) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    answer = await InProcessTransport(lambda _: UpgradeResponse(run)).request("GET", "/")
    await begun.wait()
    await answer.aclose()
    await asyncio.wait_for(ended.wait(), 5)


async def test_an_upgrade_waits_for_its_reader() -> None:
    written = 0

    async def run(duplex: Duplex) -> None:
        nonlocal written
        for _ in range(100):
            duplex.write(bytes(10))
            written += 10
            await duplex.drain()

    limits = HttpLimits(write_high_bytes=100)
    answer = await InProcessTransport(lambda _: UpgradeResponse(run), limits=limits).request("GET", "/")
    for _ in range(10):
        await asyncio.sleep(0)
    assert written == 100
    assert answer.duplex is not None
    size = 0
    while data := await answer.duplex.read():
        size += len(data)
    assert size == 1000
