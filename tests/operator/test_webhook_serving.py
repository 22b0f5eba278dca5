"""The small HTTP server under health and webhooks, and calls of handlers: bounds, time limits, and the stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.operator.serving import HttpRequest, HttpServer, Page, ServingLimits
from pilothouse.operator.webhook_calls import Late, Overloaded, Runner

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LIMITS = ServingLimits(body_bytes=lambda path: 100 if path == "/" else 0, idle_seconds=5.0, connections=3)


async def echo(request: HttpRequest) -> Page:
    return Page(200, request.method.encode() + b" " + request.query.encode() + b" " + request.body)


@asynccontextmanager
async def serving(
    handler: Callable[[HttpRequest], Awaitable[Page]] = echo, limits: ServingLimits = LIMITS
) -> AsyncIterator[HttpServer]:
    server = HttpServer("127.0.0.1:0", handler, what="test address", remedy="", limits=limits)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def opened(server: HttpServer) -> Streams:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, str, bytes]:
    """Read one answer: its status, what it says of the connection, and its body."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head.split(" ")[1]), headers["connection"], body


async def asked(server: HttpServer, data: bytes) -> tuple[int, str, bytes]:
    reader, writer = await opened(server)
    writer.write(data)
    try:
        return await answer_of(reader)
    finally:
        writer.close()


async def test_a_connection_is_kept_and_takes_requests_that_come_together() -> None:
    async with serving() as server:
        reader, writer = await opened(server)
        one = b"POST /?a=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
        chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        chunked += b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nt: 1\r\n\r\n"
        writer.write(one + chunked + b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert await answer_of(reader) == (200, "keep-alive", b"POST a=1 hi")
        assert await answer_of(reader) == (200, "keep-alive", b"POST  abc")
        assert await answer_of(reader) == (200, "close", b"GET  ")
        assert await reader.read() == b""
        writer.close()


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with serving() as server:
        reader, writer = await opened(server)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await answer_of(reader))[2] == b"POST  ok"
        writer.close()


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 101\r\n\r\n" + b"x" * 101, 413, b"101 bytes; at most 100"),
        (b"POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx", 413, b"at most 0"),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
            413,
            b"over 100 bytes",
        ),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, b"not a chunk"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc", 400, b"not a chunk"),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            b"not an HTTP request",
        ),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", 400, b"not an HTTP"),
        (b"nonsense\r\n\r\n", 400, b"not an HTTP request"),
    ],
)
async def test_what_is_not_taken_is_answered_and_ends_the_connection(data: bytes, status: int, why: bytes) -> None:
    async with serving() as server:
        found, connection, body = await asked(server, data)
        assert (found, connection) == (status, "close")
        assert why in body


async def test_all_bodies_together_are_bounded() -> None:
    gate = asyncio.Event()

    async def waits(request: HttpRequest) -> Page:
        await gate.wait()
        return await echo(request)

    limits = ServingLimits(body_bytes=lambda _: 100, idle_seconds=5.0, buffered_bytes=150)
    async with serving(waits, limits) as server:
        data = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + b"x" * 100
        first = asyncio.ensure_future(asked(server, data))
        await asyncio.sleep(0.05)
        assert (await asked(server, data))[0] == 503
        gate.set()
        assert (await first)[0] == 200
        assert (await asked(server, data))[0] == 200


async def test_slow_and_silent_clients_are_dropped_and_too_many_refused() -> None:
    limits = ServingLimits(
        head_seconds=0.1, body_seconds=0.1, body_bytes=lambda _: 100, idle_seconds=0.2, connections=3
    )
    async with serving(limits=limits) as server:
        streams = [await opened(server) for _ in range(4)]
        for (_, writer), data in zip(
            streams, (b"", b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nx", b""), strict=True
        ):
            writer.write(data)
        for reader, writer in streams:
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert (await asked(server, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 200


async def test_the_longest_idle_makes_room_and_busy_ones_do_not() -> None:
    gate = asyncio.Event()

    async def waits(request: HttpRequest) -> Page:
        if request.query:
            await gate.wait()
        return await echo(request)

    async with serving(waits) as server:
        streams = [await opened(server) for _ in range(3)]
        for reader, writer in streams:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await answer_of(reader))[1] == "keep-alive"
        streams.append(await opened(server))
        assert await asyncio.wait_for(streams[0][0].read(), 5) == b""
        for reader, writer in streams[1:]:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await answer_of(reader))[1] == "keep-alive"
        for _, writer in streams[1:]:
            writer.write(b"GET /?wait HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        late = await opened(server)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(late[0].read(), 5) == b""
        gate.set()
        for reader, _ in streams[1:]:
            assert (await answer_of(reader))[0] == 200
        for _, writer in (*streams, late):
            writer.close()


async def test_a_stop_answers_what_goes_on_and_ends_the_idle() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def waits(request: HttpRequest) -> Page:
        begun.set()
        await gate.wait()
        return await echo(request)

    async with serving(waits) as server:
        idle, busy = await opened(server), await opened(server)
        busy[1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await begun.wait()
        stopping = asyncio.ensure_future(server.stop(5))
        assert await asyncio.wait_for(idle[0].read(), 5) == b""
        assert not stopping.done()
        assert not server.is_listening
        gate.set()
        assert await answer_of(busy[0]) == (200, "close", b"GET  ")
        await stopping
        with pytest.raises(ConnectionError):
            await opened(server)
        for _, writer in (idle, busy):
            writer.close()


async def test_a_stop_waits_no_longer_than_it_may() -> None:
    begun = asyncio.Event()

    async def never(_: HttpRequest) -> Page:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(never) as server:
        reader, writer = await opened(server)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await begun.wait()
        await asyncio.wait_for(server.stop(0.05), 5)
        assert not [task for task in asyncio.all_tasks() if "_serve" in repr(task.get_coro())]
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


# Calls of handlers


async def test_plain_functions_and_coroutines_are_called() -> None:
    runner = Runner(FakeClock())
    main = threading.get_ident()

    async def waits(number: int) -> int:
        assert threading.get_ident() == main
        return number + 1

    class Callable:
        async def __call__(self, number: int) -> int:
            return await waits(number)

    assert await runner.call(waits, 1) == 2
    assert await runner.call(Callable(), 1) == 2
    assert await runner.call(functools.partial(waits, 1)) == 2
    assert await runner.call(lambda: waits(1)) == 2
    assert await runner.call(threading.get_ident) != main
    with pytest.raises(ZeroDivisionError):
        await runner.call(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await runner.call(next, iter(()))
    for function in (sys.exit, exits):
        with pytest.raises(RuntimeError, match=r"it called exit\(3\)"):
            await runner.call(function, 3)
    with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        await runner.call(interrupted)
    with pytest.raises(RuntimeError, match="it was cancelled from within"):
        await runner.within(9.0, cancelled())
    assert runner.busy == 0


async def exits(code: int) -> None:
    sys.exit(code)


def interrupted() -> None:
    raise KeyboardInterrupt


async def cancelled() -> None:
    raise asyncio.CancelledError


async def test_what_blocks_is_given_up_and_how_many_threads_there_are_is_bounded() -> None:
    clock, gate = FakeClock(), threading.Event()
    runner = Runner(clock, threads=2)
    calls = [asyncio.ensure_future(runner.within(9.0, runner.call(gate.wait))) for _ in range(2)]
    await asyncio.sleep(0.01)
    with pytest.raises(
        Overloaded, match="2 plain functions of webhooks do not return; write what waits as a coroutine"
    ):
        await runner.call(int)
    clock.advance(8.9)
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    clock.advance(0.2)
    for call in calls:
        with pytest.raises(Late):
            await call
    assert runner.busy == 2
    gate.set()
    while runner.busy:  # noqa: ASYNC110  a count, which nobody tells of
        await asyncio.sleep(0.001)
    assert await runner.call(int) == 0


async def test_a_coroutine_that_does_not_end_when_cancelled_is_given_up_too() -> None:
    clock, gate, seen = FakeClock(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.set()
            await gate.wait()
            raise RuntimeError("too late to matter") from None

    call = asyncio.ensure_future(Runner(clock).within(1.0, stubborn()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(1.0)
    with pytest.raises(Late):
        await call
    await seen.wait()
    gate.set()
    await asyncio.sleep(0.01)
