"""The server against grpcio's client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from pilothouse.foundation.grpc import GrpcChannel, GrpcCode, GrpcError, GrpcServer, ServerCall, ServerStream


class Service:
    """Handlers of every kind, and what they saw."""

    def __init__(self) -> None:
        self.server = GrpcServer(error_mapper=self._map, max_message_bytes=1 << 20)
        self.calls: list[ServerCall] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.sent = 0
        self.server.unary("/t/echo", self.echo)
        self.server.unary("/t/later", self.later)
        self.server.unary("/t/future", self.future)
        self.server.unary("/t/hang", self.hang)
        self.server.unary("/t/fail", self.fail)
        self.server.stream("/t/chat", self.chat)
        self.server.stream("/t/flood", self.flood)
        self.server.stream("/t/deaf", self.deaf)

    @staticmethod
    def _map(error: Exception) -> GrpcError | None:
        return GrpcError(GrpcCode.DATA_LOSS, str(error)) if isinstance(error, LookupError) else None

    def echo(self, message: bytes, call: ServerCall) -> bytes:
        self.calls.append(call)
        return message

    async def later(self, message: bytes, _: ServerCall) -> bytes:
        await asyncio.sleep(0)
        return message[::-1]

    def future(self, message: bytes, _: ServerCall) -> asyncio.Future[bytes]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, message + b"!")
        return future

    async def hang(self, _: bytes, call: ServerCall) -> bytes:
        call.on_cancel(self.cancelled.set)
        self.calls.append(call)
        self.entered.set()
        await asyncio.Event().wait()
        return b""

    def fail(self, message: bytes, _: ServerCall) -> bytes:
        if message == b"grpc":
            raise GrpcError(GrpcCode.NOT_FOUND, "no ünit %", [("detail-bin", b"\0\xff"), ("why", "because")])
        if message == b"mapped":
            raise LookupError("lost")
        if message == b"trailers":
            raise GrpcError(GrpcCode.NOT_FOUND, "x", [("Not Allowed", "x")])
        raise ZeroDivisionError

    async def chat(self, stream: ServerStream) -> None:
        stream.send_initial_metadata([("mood", "fine")])
        async for message in stream:
            stream.send(message.upper())
        stream.trailing_metadata = [("seen", "all")]

    async def flood(self, stream: ServerStream) -> None:
        stream.on_cancel(self.cancelled.set)
        self.calls.append(stream)
        while True:
            stream.send(bytes(50_000))
            self.sent += 50_000
            await stream.drain()

    async def deaf(self, stream: ServerStream) -> None:
        self.calls.append(stream)
        self.entered.set()
        await asyncio.Event().wait()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    yield made
    await made.server.close(0)


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[Any]:
    _, port = await service.server.listen_tcp("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as made:
        yield made


async def status_of(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize(("path", "answer"), [("/t/echo", b"abc"), ("/t/later", b"cba"), ("/t/future", b"abc!")])
async def test_a_unary_call_is_answered_at_once_by_task_or_by_future(channel: Any, path: str, answer: bytes) -> None:
    assert await channel.unary_unary(path)(b"abc", timeout=10) == answer


async def test_an_empty_and_a_large_message_go_through(channel: Any) -> None:
    for message in (b"", bytes(range(256)) * 4000):
        assert await channel.unary_unary("/t/echo")(message, timeout=10) == message


async def test_a_gzip_request_is_read(channel: Any) -> None:
    message = b"a" * 500_000
    assert await channel.unary_unary("/t/echo")(message, timeout=10, compression=grpc.Compression.Gzip) == message


async def test_a_gzip_request_over_the_limit_is_refused(channel: Any) -> None:
    call = channel.unary_unary("/t/echo")(b"a" * 2_000_000, timeout=10, compression=grpc.Compression.Gzip)
    assert (await status_of(call))[0] == "RESOURCE_EXHAUSTED"


async def test_a_message_over_the_limit_is_refused(channel: Any) -> None:
    code, details = await status_of(channel.unary_unary("/t/echo")(bytes(2_000_000), timeout=10))
    assert (code, details) == ("RESOURCE_EXHAUSTED", "message of 2000000 bytes is over the 1048576 bytes accepted")
    assert await channel.unary_unary("/t/echo")(b"still there", timeout=10) == b"still there"


async def test_a_status_arrives_with_its_message_and_trailers(channel: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/t/fail")(b"grpc", timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "no ünit %"
    assert dict(caught.value.trailing_metadata()) == {"detail-bin": b"\0\xff", "why": "because"}


@pytest.mark.parametrize(
    ("path", "message", "code", "details"),
    [
        ("/t/fail", b"mapped", "DATA_LOSS", "lost"),
        ("/t/fail", b"other", "UNKNOWN", "/t/fail: the server failed: ZeroDivisionError"),
        ("/t/fail", b"trailers", "INTERNAL", "/t/fail: the server's trailers are invalid"),
        ("/t/nothing", b"", "UNIMPLEMENTED", "unknown method /t/nothing"),
    ],
)
async def test_failures_have_their_status(channel: Any, path: str, message: bytes, code: str, details: str) -> None:
    assert await status_of(channel.unary_unary(path)(message, timeout=10)) == (code, details)


async def test_a_handler_sees_metadata_peer_and_deadline(service: Service, channel: Any) -> None:
    metadata = (("token", "t"), ("twice", "a"), ("twice", "b"), ("raw-bin", b"\0\1"))
    await channel.unary_unary("/t/echo")(b"", timeout=30, metadata=metadata)
    call = service.calls[0]
    assert call.path == "/t/echo"
    assert {key: call.metadata[key] for key in ("token", "twice", "raw-bin")} == {
        "token": "t",
        "twice": "a,b",
        "raw-bin": b"\0\1",
    }
    assert not any(key.startswith((":", "grpc-")) for key in call.metadata)
    assert call.peer.startswith("127.0.0.1:")
    assert call.peer_certificate is None
    assert call.deadline is not None
    assert call.authority.startswith("127.0.0.1")


async def test_a_passed_deadline_ends_the_call_and_its_task(service: Service, channel: Any) -> None:
    seconds = 0.05
    while not service.entered.is_set():  # on a busy machine it may be over before the call has come in
        assert (await status_of(channel.unary_unary("/t/hang")(b"", timeout=seconds)))[0] == "DEADLINE_EXCEEDED"
        seconds *= 4
    await asyncio.wait_for(service.cancelled.wait(), 20)
    assert service.calls[0].cancelled


async def test_a_callers_cancellation_reaches_the_handler(service: Service, channel: Any) -> None:
    call = channel.unary_unary("/t/hang")(b"")
    task = asyncio.ensure_future(call)
    await service.entered.wait()
    call.cancel()
    await asyncio.wait_for(service.cancelled.wait(), 10)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    after: list[int] = []
    service.calls[0].on_cancel(lambda: after.append(1))
    assert after == [1]


async def test_messages_flow_both_ways(channel: Any) -> None:
    call = channel.stream_stream("/t/chat")(timeout=10)
    assert ("mood", "fine") in tuple(await call.initial_metadata())
    for word in (b"one", b"two"):
        await call.write(word)
        assert await call.read() == word.upper()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert tuple(await call.trailing_metadata()) == (("seen", "all"),)


async def test_a_reader_that_stops_holds_the_sender(service: Service, channel: Any) -> None:
    call = channel.unary_stream("/t/flood")(b"")
    await call.read()
    before = -1
    while service.sent != before:
        before = service.sent
        await asyncio.sleep(0.1)
    stream = service.calls[0]
    assert isinstance(stream, ServerStream)
    assert 1 << 20 < stream.queued_bytes < (1 << 20) + 100_000
    while service.sent == before:
        assert len(await asyncio.wait_for(call.read(), 10)) == 50_000
    call.cancel()
    await asyncio.wait_for(service.cancelled.wait(), 10)
    assert stream.queued_bytes == 0
    with pytest.raises(GrpcError, match="the call is over"):
        stream.send(b"")


async def test_a_handler_that_does_not_read_holds_the_caller(service: Service, channel: Any) -> None:
    call = channel.stream_unary("/t/deaf")()
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await call.write(bytes(100_000))
            written += 100_000

    task = asyncio.create_task(write())
    before = -1
    while written != before or not written:
        before = written
        await asyncio.sleep(0.1)
    assert written < 4_000_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    call.cancel()


async def test_close_lets_open_calls_end(service: Service, channel: Any) -> None:
    release = asyncio.Event()

    async def slow(message: bytes, _: ServerCall) -> bytes:
        service.entered.set()
        await release.wait()
        return message

    service.server.unary("/t/slow", slow)
    call = asyncio.ensure_future(channel.unary_unary("/t/slow")(b"kept", timeout=30))
    await service.entered.wait()
    closing = asyncio.create_task(service.server.close(20))
    await asyncio.sleep(0)
    release.set()
    assert await call == b"kept"
    await asyncio.wait_for(closing, 10)
    assert service.server.connection_count == 0


async def test_close_ends_what_outlasts_the_grace(service: Service, channel: Any) -> None:
    call = asyncio.ensure_future(channel.unary_unary("/t/hang")(b""))
    await service.entered.wait()
    await service.server.close(0.01)
    assert await status_of(call) == ("UNAVAILABLE", "the server is shutting down")
    assert service.calls[0].cancelled


async def test_a_connection_over_the_limit_is_refused() -> None:
    server = GrpcServer(max_connections=1)
    server.unary("/t/echo", lambda message, _: message)
    _, port = await server.listen_tcp("127.0.0.1", 0)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as first:
        assert await first.unary_unary("/t/echo")(b"a", timeout=10) == b"a"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as second:
            assert (await status_of(second.unary_unary("/t/echo")(b"a", timeout=0.5)))[0] in {
                "UNAVAILABLE",
                "DEADLINE_EXCEEDED",
            }
        assert await first.unary_unary("/t/echo")(b"b", timeout=10) == b"b"
    await server.close(0)


async def test_a_path_is_registered_once_and_starts_with_a_slash() -> None:
    server = GrpcServer()
    server.unary("/t/a", lambda message, _: message)
    for path in ("/t/a", "t/b"):
        with pytest.raises(ValueError, match="registered once"):
            server.unary(path, lambda message, _: message)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_unix_socket_is_for_its_user_alone_whatever_the_umask(
    factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    path = tmp_path / "socket"

    async def main() -> int:
        server = GrpcServer()
        server.unary("/t/echo", lambda message, _: message)
        await server.listen_unix(str(path))
        mode = stat.S_IMODE(path.stat().st_mode)
        channel = GrpcChannel(unix_path=str(path))
        assert await channel.unary("/t/echo", b"hello", timeout=5) == b"hello"
        await channel.close()
        await server.close()
        return mode

    before = os.umask(0)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(main()) == 0o600
    finally:
        os.umask(before)
