from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from pilothouse.apiserver.http import HttpLimits
from pilothouse.apiserver.model import (
    Answer,
    Duplex,
    Piece,
    Request,
    Response,
    Sink,
    StreamingResponse,
    UpgradeResponse,
)
from support.httpkit import Client, serving

pytestmark = pytest.mark.timeout(20)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

Run = Callable[[Sink], Coroutine[Any, Any, None]]


def streaming(run: Run) -> Callable[[Request], Answer]:
    def handler(request: Request) -> Answer:
        return Response(200, b"plain") if request.path == "/plain" else StreamingResponse(run, headers=[("X-A", "b")])

    return handler


async def letters(sink: Sink) -> None:
    sink.write(b"abc")
    sink.write(b"")
    sink.write_piece(Piece(b""))
    sink.write_piece(Piece(b"de"))
    await asyncio.sleep(0)
    sink.write(b"x" * 20_000)
    assert not sink.closed


async def test_a_stream_is_chunked_and_the_connection_goes_on() -> None:
    async with serving(streaming(letters)) as (_, port):
        client = await Client.connect(port)
        await client.send(GET + b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"], headers["x-a"]) == (200, "chunked", "b")
        assert "content-length" not in headers
        assert [await client.chunk() for _ in range(4)] == [b"abc", b"de", b"x" * 20_000, b""]
        assert (await client.answer())[2] == b"plain"
        await client.close()


async def test_http_1_0_streams_end_with_the_connection() -> None:
    async with serving(streaming(letters)) as (_, port):
        client = await Client.connect(port)
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head
        assert b"Connection: close" in head
        assert body == b"abcde" + b"x" * 20_000
        await client.close()


async def test_head_of_a_stream_does_not_run_it() -> None:
    async def never(_: Sink) -> None:
        raise AssertionError

    async with serving(streaming(never)) as (_, port):
        client = await Client.connect(port)
        await client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer("HEAD"))[0] == 200
        assert (await client.get("/plain"))[2] == b"plain"
        await client.close()


async def test_the_head_of_a_stream_comes_before_anything_is_written() -> None:
    async def silent(_: Sink) -> None:
        await asyncio.Event().wait()

    async with serving(streaming(silent)) as (_, port):
        client = await Client.connect(port)
        await client.send(GET)
        assert (await client.head())[0] == 200
        await client.close()


async def test_what_one_turn_writes_goes_out_in_one_write() -> None:
    writes: list[bytes] = []
    going = asyncio.Event()

    async def run(sink: Sink) -> None:
        await going.wait()
        for _ in range(10):
            sink.write(b"abc")
        assert sink.buffered == 10 * len(b"3\r\nabc\r\n")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sink.buffered == 0

    async with serving(streaming(run)) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        await client.head()
        assert server._shared is not None
        (connection,) = server._shared.connections
        transport = connection._transport
        write = transport.write

        def noting(data: Any) -> None:
            writes.append(bytes(data))
            write(data)

        transport.write = noting
        going.set()
        assert (await asyncio.wait_for(client.chunk(), 5)) == b"abc"
        while await client.chunk():
            pass
        assert writes == [b"3\r\nabc\r\n" * 10, b"0\r\n\r\n"]
        await client.close()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_stream_that_fails_breaks_off(version: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(sink: Sink) -> None:
        sink.write(b"abc")
        await sink.drain()
        raise ValueError("broken")

    async with serving(streaming(run)) as (_, port):
        client = await Client.connect(port)
        await client.send(b"GET /?token=hidden HTTP/%b\r\nHost: x\r\n\r\n" % version)
        if version == b"1.0":
            with pytest.raises(ConnectionError):
                await client.reader.read()
        else:
            assert (await client.rest()).endswith(b"3\r\nabc\r\n")
        await client.close()
    logged = "".join(capsys.readouterr())
    assert "broken" in logged
    assert "hidden" not in logged


async def test_a_stream_is_cancelled_when_its_peer_goes_and_writing_then_does_nothing() -> None:
    seen: list[Any] = []
    done = asyncio.Event()

    async def run(sink: Sink) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            sink.write(b"abc")
            sink.write_piece(Piece(b"abc"))
            await sink.drain()
            seen.extend([sink.closed, sink.buffered])
            done.set()

    async with serving(streaming(run)) as (_, port):
        client = await Client.connect(port)
        await client.send(GET)
        await client.head()
        await client.close()
        await asyncio.wait_for(done.wait(), 5)
        assert seen == [True, 0]


async def test_backpressure() -> None:
    high, written, states = 100_000, 0, []
    stuck = asyncio.Event()

    async def run(sink: Sink) -> None:
        nonlocal written
        piece = Piece(bytes(10_000))
        for _ in range(3000):
            sink.write_piece(piece)
            written += 10_000
            if sink.buffered > high:
                stuck.set()
            await sink.drain()
            states.append(sink.buffered)

    async with serving(streaming(run), limits=HttpLimits(write_high_bytes=high)) as (_, port):
        client = await Client.connect(port, limit=1000)
        await client.send(GET)
        await asyncio.wait_for(stuck.wait(), 5)
        before = written
        assert before < 29_000_000
        for _ in range(20):
            await asyncio.sleep(0)
        assert written == before, "it went on though nobody reads"
        await client.head()
        assert max(states) < high + 20_000
        size = 0
        while chunk := await client.chunk():
            size += len(chunk)
        assert size == 30_000_000
        await client.close()


async def test_closing_ends_streams_properly() -> None:
    async def run(sink: Sink) -> None:
        sink.write(b"abc")
        await asyncio.Event().wait()

    async with serving(streaming(run)) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        await client.head()
        assert await client.chunk() == b"abc"
        await asyncio.wait_for(server.close(5), 5)
        assert await client.rest() == b"0\r\n\r\n"
        await client.close()


async def test_a_stream_that_begins_while_closing_ends_at_once() -> None:
    going = asyncio.Event()

    async def run(sink: Sink) -> None:
        await asyncio.Event().wait()

    async def handler(_: Request) -> Answer:
        await going.wait()
        return StreamingResponse(run)

    async with serving(handler) as (server, port):
        client = await Client.connect(port)
        await client.send(GET)
        await asyncio.sleep(0.02)
        closing = asyncio.ensure_future(server.close(5))
        await asyncio.sleep(0.01)
        going.set()
        await asyncio.wait_for(closing, 3)
        assert (await client.rest()).endswith(b"\r\n\r\n0\r\n\r\n")
        await client.close()


async def echo(duplex: Duplex) -> None:
    while data := await duplex.read():
        duplex.write(data.upper())
        await duplex.drain()


def upgrading(run: Callable[[Duplex], Coroutine[Any, Any, None]]) -> Callable[[Request], Answer]:
    return lambda _: UpgradeResponse(run, [("Connection", "Upgrade"), ("Upgrade", "echo")])


async def test_an_upgrade_gets_what_came_after_the_headers() -> None:
    async with serving(upgrading(echo)) as (_, port):
        client = await Client.connect(port)
        await client.send(UPGRADE + b"early")
        status, headers = await client.head()
        assert (status, headers["upgrade"], headers["connection"]) == (101, "echo", "Upgrade")
        assert await client.reader.readexactly(5) == b"EARLY"
        await client.send(b"late")
        assert await client.reader.readexactly(4) == b"LATE"
        client.writer.write_eof()
        assert await client.rest() == b""
        await client.close()


async def test_an_upgrade_decided_later_gets_all_bytes_in_order() -> None:
    going = asyncio.Event()

    async def handler(_: Request) -> Answer:
        await going.wait()
        return UpgradeResponse(echo)

    async with serving(handler, limits=HttpLimits(max_pipelined_bytes=1000)) as (_, port):
        client = await Client.connect(port)
        data = b"abcdefghij" * 100_000
        await client.send(UPGRADE)
        sending = asyncio.ensure_future(client.send(data))
        await asyncio.sleep(0.02)
        going.set()
        assert (await client.head())[0] == 101
        assert await client.reader.readexactly(len(data)) == data.upper()
        await sending
        await client.close()


async def test_an_unread_peer_is_held_up_and_then_read_whole() -> None:
    going = asyncio.Event()
    total = 0

    async def run(duplex: Duplex) -> None:
        nonlocal total
        await going.wait()
        while data := await duplex.read():
            total += len(data)
        duplex.write(b"%d" % total)

    async with serving(upgrading(run)) as (server, port):
        client = await Client.connect(port)
        await client.send(UPGRADE)
        await client.head()
        sending = asyncio.ensure_future(client.send(bytes(20_000_000)))
        await asyncio.wait([sending], timeout=0.1)
        assert server._shared is not None
        (connection,) = server._shared.connections
        assert connection._duplex._unread_bytes < 1 << 20
        going.set()
        await sending
        client.writer.write_eof()
        assert await client.rest() == b"20000000"
        await client.close()


async def test_an_upgrade_ends_when_its_run_does_and_when_the_peer_goes() -> None:
    ended = asyncio.Event()

    async def run(duplex: Duplex) -> None:
        duplex.write(b"bye" * 100_000)
        if await duplex.read() == b"wait":
            try:
                await duplex.read()
            finally:
                ended.set()

    async with serving(upgrading(run)) as (_, port):
        client = await Client.connect(port)
        await client.send(UPGRADE + b"go")
        await client.head()
        assert await client.rest() == b"bye" * 100_000
        await client.close()
        client = await Client.connect(port)
        await client.send(UPGRADE + b"wait")
        await client.head()
        client.writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("aborting", [False, True])
async def test_an_upgrade_that_fails_is_cut_off(aborting: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async def run(duplex: Duplex) -> None:
        await duplex.read()
        if aborting:
            duplex.abort()
            duplex.write(b"nothing")
            await duplex.drain()
        else:
            raise ValueError("broken")

    async with serving(upgrading(run)) as (server, port):
        client = await Client.connect(port)
        await client.send(UPGRADE)
        await client.head()
        await client.send(b"x")
        assert await client.rest() == b""
        assert server.connection_count == 0
        await client.close()
    assert ("broken" in "".join(capsys.readouterr())) is not aborting


async def test_upgrades_have_the_grace_to_end() -> None:
    async with serving(upgrading(echo)) as (server, port):
        client = await Client.connect(port)
        await client.send(UPGRADE)
        await client.head()
        closing = asyncio.ensure_future(server.close(5))
        await asyncio.sleep(0.01)
        await client.send(b"still")
        assert await client.reader.readexactly(5) == b"STILL"
        client.writer.write_eof()
        await asyncio.wait_for(closing, 3)
        await client.close()


async def test_http_1_0_is_not_upgraded() -> None:
    async with serving(upgrading(echo)) as (_, port):
        client = await Client.connect(port)
        await client.send(b"GET / HTTP/1.0\r\nConnection: upgrade\r\n\r\n")
        status, _, body = await client.answer()
        assert status == 400
        assert json.loads(body)["reason"] == "BadRequest"
        await client.close()


def test_on_uvloop() -> None:
    async def talk() -> None:
        await test_backpressure()
        await test_an_unread_peer_is_held_up_and_then_read_whole()
        await test_an_upgrade_decided_later_gets_all_bytes_in_order()
        await test_closing_ends_streams_properly()

    uvloop.run(talk())
