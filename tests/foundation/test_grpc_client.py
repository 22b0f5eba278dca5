"""The client against grpcio's server, and against servers that fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import pytest
from ngh2 import Connection, ErrorCode, RequestReceived, Role

from pilothouse.foundation.grpc import GrpcChannel, GrpcCode, GrpcError, GrpcServer, ServerCall, ServerStream


class Peer:
    """grpcio's server with handlers of every kind."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.metadata: dict[str, Any] = {}
        self.remaining: float | None = None
        self.server = grpc.aio.server()
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Flood": grpc.unary_stream_rpc_method_handler(self.flood),
            "Deaf": grpc.stream_unary_rpc_method_handler(self.deaf),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Peer", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def echo(self, message: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        return message

    async def fail(self, _: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("why-bin", b"\0\1"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö")
        return b""

    async def hang(self, _: bytes, __: Any) -> bytes:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return b""

    async def chat(self, messages: Any, context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata((("mood", "fine"),))
        async for message in messages:
            yield message.upper()
        context.set_trailing_metadata((("seen", "all"),))

    async def flood(self, _: bytes, __: Any) -> AsyncIterator[bytes]:
        for number in range(200):
            yield bytes([number]) * 50_000

    async def deaf(self, _: Any, __: Any) -> bytes:
        self.entered.set()
        await asyncio.Event().wait()
        return b""


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    made = Peer()
    await made.server.start()
    yield made
    await made.server.stop(0)


@pytest.fixture
async def channel(peer: Peer) -> AsyncIterator[GrpcChannel]:
    made = GrpcChannel("127.0.0.1", peer.port, metadata=[("base", "b")])
    await made.connect()
    yield made
    await made.close()


async def test_messages_of_every_size_go_through(channel: GrpcChannel) -> None:
    for size in (0, 1, 16_384, 3_000_000):
        assert await channel.unary("/t.Peer/Echo", bytes(size), timeout=20) == bytes(size)


async def test_metadata_and_timeout_reach_the_server(peer: Peer, channel: GrpcChannel) -> None:
    await channel.unary("/t.Peer/Echo", b"", metadata=[("token", "t"), ("raw-bin", b"\0\xff")], timeout=20)
    assert (peer.metadata["base"], peer.metadata["token"], peer.metadata["raw-bin"]) == ("b", "t", b"\0\xff")
    assert peer.remaining is not None
    assert 10 < peer.remaining <= 21


async def test_a_status_is_raised_with_message_and_trailers(channel: GrpcChannel) -> None:
    with pytest.raises(GrpcError, match="FAILED_PRECONDITION: nö") as caught:
        await channel.unary("/t.Peer/Fail", b"", timeout=20)
    assert ("why-bin", b"\0\1") in caught.value.trailers


async def test_an_unknown_method_is_unimplemented(channel: GrpcChannel) -> None:
    with pytest.raises(GrpcError) as caught:
        await channel.unary("/t.Peer/Nothing", b"", timeout=20)
    assert caught.value.code is GrpcCode.UNIMPLEMENTED


async def test_a_timeout_ends_the_call_on_both_sides(peer: Peer, channel: GrpcChannel) -> None:
    seconds = 0.05
    while not peer.entered.is_set():  # on a busy machine it may be over before the call has come in
        with pytest.raises(GrpcError) as caught:
            await channel.unary("/t.Peer/Hang", b"", timeout=seconds)
        assert caught.value.code is GrpcCode.DEADLINE_EXCEEDED
        seconds *= 4
    await asyncio.wait_for(peer.cancelled.wait(), 20)


async def test_a_cancelled_task_cancels_the_call(peer: Peer, channel: GrpcChannel) -> None:
    task = asyncio.create_task(channel.unary("/t.Peer/Hang", b""))
    await peer.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(peer.cancelled.wait(), 10)
    assert await channel.unary("/t.Peer/Echo", b"on", timeout=20) == b"on"


async def test_ten_thousand_calls_at_a_time(channel: GrpcChannel) -> None:
    """The server takes fewer streams at once than that; the rest wait for their turn."""
    server = GrpcServer(max_concurrent_streams=1000)

    async def echo(message: bytes, _: ServerCall) -> bytes:
        await asyncio.sleep(0)
        return message

    server.unary("/t/echo", echo)
    host, port = await server.listen_tcp("127.0.0.1", 0)
    own = GrpcChannel(host, port)
    await own.connect()
    messages = [b"%d" % number for number in range(10_000)]
    assert await asyncio.gather(*(own.unary_future("/t/echo", message) for message in messages)) == messages
    await own.close()
    await server.close(0)


async def test_a_stream_both_ways(channel: GrpcChannel) -> None:
    stream = channel.stream("/t.Peer/Chat", timeout=20)
    for word in (b"one", b"two"):
        stream.send(word)
        await stream.drain()
        assert await anext(stream) == word.upper()
    stream.half_close()
    assert [message async for message in stream] == []
    assert ("mood", "fine") in (stream.initial_metadata or ())
    assert ("seen", "all") in (stream.trailing_metadata or ())
    with pytest.raises(GrpcError, match="the call is over"):
        stream.send(b"")


async def test_a_long_answer_arrives_whole_and_in_order(channel: GrpcChannel) -> None:
    stream = channel.stream("/t.Peer/Flood", timeout=30)
    stream.send(b"")
    stream.half_close()
    assert [(message[0], len(message)) async for message in stream] == [(number, 50_000) for number in range(200)]


async def test_a_server_that_does_not_read_holds_the_sender(peer: Peer, channel: GrpcChannel) -> None:
    stream = channel.stream("/t.Peer/Deaf")
    sent = 0

    async def write() -> None:
        nonlocal sent
        while True:
            stream.send(bytes(100_000))
            sent += 100_000
            await stream.drain()

    task = asyncio.create_task(write())
    await peer.entered.wait()
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.1)
    assert stream.queued_bytes < (1 << 20) + 200_000
    stream.cancel()
    with pytest.raises(GrpcError, match="CANCELLED"):
        await task
    with pytest.raises(GrpcError, match="CANCELLED"):
        await anext(stream)


async def test_a_lost_connection_is_unavailable_and_the_next_call_reconnects(peer: Peer) -> None:
    relay = Relay(peer.port)
    port = await relay.start()
    channel = GrpcChannel("127.0.0.1", port)
    assert not channel.connected
    task = asyncio.create_task(channel.unary("/t.Peer/Hang", b""))
    await peer.entered.wait()
    stream = channel.stream("/t.Peer/Chat")
    relay.cut()
    for ended in (task, anext(stream)):
        with pytest.raises(GrpcError, match="connection") as caught:
            await ended
        assert caught.value.code is GrpcCode.UNAVAILABLE
    assert not channel.connected
    with pytest.raises(GrpcError, match="await connect"):
        channel.stream("/t.Peer/Chat")
    assert await channel.unary("/t.Peer/Echo", b"again", timeout=20) == b"again"
    await channel.close()
    await relay.stop()


async def test_a_connection_that_went_silent_is_found_by_its_ping(peer: Peer) -> None:
    relay = Relay(peer.port)
    port = await relay.start()
    channel = GrpcChannel("127.0.0.1", port, keepalive_seconds=0.1, keepalive_timeout=0.2)
    task = asyncio.create_task(channel.unary("/t.Peer/Hang", b""))
    await peer.entered.wait()
    relay.silent = True
    with pytest.raises(GrpcError, match="no answer to a keepalive ping") as caught:
        await asyncio.wait_for(task, 10)
    assert caught.value.code is GrpcCode.UNAVAILABLE
    await channel.close()
    await relay.stop()


async def test_nobody_listening_is_unavailable() -> None:
    relay = Relay(0)
    port = await relay.start()
    await relay.stop()
    channel = GrpcChannel("127.0.0.1", port)
    with pytest.raises(GrpcError, match=f"127.0.0.1:{port}: cannot connect") as caught:
        await channel.unary("/t/x", b"")
    assert caught.value.code is GrpcCode.UNAVAILABLE
    await channel.close()
    with pytest.raises(GrpcError, match="channel is closed"):
        await channel.connect()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0\0\0\4\0\0\0\0\0" + b"\xff" * 40])
async def test_a_server_of_something_else_is_unavailable(answer: bytes) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    channel = GrpcChannel("127.0.0.1", server.sockets[0].getsockname()[1])
    with pytest.raises(GrpcError) as caught:
        await channel.unary("/t/x", b"", timeout=10)
    assert caught.value.code is GrpcCode.UNAVAILABLE
    await channel.close()
    server.close()
    await server.wait_closed()


async def test_a_server_that_goes_away_is_reconnected_to() -> None:
    first, second = GrpcServer(), GrpcServer()
    first.unary("/t/who", lambda _, __: b"0")
    second.unary("/t/who", lambda _, __: b"1")
    host, port = await first.listen_tcp("127.0.0.1", 0)
    channel = GrpcChannel(host, port)
    assert await channel.unary("/t/who", b"") == b"0"
    await first.close(1)
    await second.listen_tcp(host, port)
    assert await channel.unary("/t/who", b"") == b"1"
    await channel.close()
    await second.close(0)


async def test_closing_the_channel_cancels_its_calls(peer: Peer, channel: GrpcChannel) -> None:
    task = asyncio.create_task(channel.unary("/t.Peer/Hang", b""))
    await peer.entered.wait()
    await channel.close()
    with pytest.raises(GrpcError, match="the channel was closed"):
        await task
    await asyncio.wait_for(peer.cancelled.wait(), 10)


async def test_a_unix_socket_serves_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("s") / "s")
    server = GrpcServer()
    server.unary("/t/peer", lambda _, call: call.peer.encode())
    await server.listen_unix(path)
    channel = GrpcChannel(unix_path=path)
    assert await channel.unary("/t/peer", b"") == b"unix:"
    await channel.close()
    await server.close(0)


async def test_an_answer_over_the_limit_and_too_many_calls_are_refused() -> None:
    server = GrpcServer()

    async def large(stream: ServerStream) -> None:
        stream.send(bytes(2000))

    server.stream("/t/large", large)
    host, port = await server.listen_tcp("127.0.0.1", 0)
    channel = GrpcChannel(host, port, max_message_bytes=1000, max_calls=1)
    await channel.connect()
    future = channel.unary_future("/t/large", b"")
    with pytest.raises(GrpcError, match="already 1 calls are open"):
        channel.unary_future("/t/large", b"")
    with pytest.raises(GrpcError, match="message of 2000 bytes is over the 1000 bytes accepted"):
        await future
    await channel.close()
    await server.close(0)


class Relay:
    """Pass bytes on to a port until told to cut the connections or to fall silent."""

    def __init__(self, port: int) -> None:
        self.silent = False
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, other_writer]
        for source, target in ((reader, other_writer), (other_reader, writer)):
            task = asyncio.create_task(self._copy(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self.silent:
                    target.write(data)
        target.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


class Scripted(asyncio.Protocol):
    """A server of raw HTTP/2 that does to each request in turn what its script says."""

    script: list[Callable[[Connection, int], None]]

    def __init__(self, script: list[Callable[[Connection, int], None]]) -> None:
        self.script = script
        self.engine = Connection(Role.SERVER)
        self.engine.initiate_connection({})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.engine.receive_data(data)
        for event in self.engine.events():
            if isinstance(event, RequestReceived):
                self.script.pop(0)(self.engine, event.stream_id)
        self.transport.write(self.engine.data_to_send())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.close()


def refuse(engine: Connection, stream_id: int) -> None:
    engine.reset_stream(stream_id, ErrorCode.REFUSED_STREAM)


def go_away(engine: Connection, _: int) -> None:
    engine.send_goaway(0, last_stream_id=0)


def answer(engine: Connection, stream_id: int) -> None:
    engine.send_response(stream_id, [(b":status", b"200"), (b"content-type", b"application/grpc")])
    engine.send_data(stream_id, b"\0\0\0\0\2ok")
    engine.send_trailers(stream_id, [(b"grpc-status", b"0")])


def only_status(status: bytes) -> Callable[[Connection, int], None]:
    return lambda engine, stream_id: engine.send_response(stream_id, [(b":status", status)], end_stream=True)


def no_trailers(engine: Connection, stream_id: int) -> None:
    engine.send_response(stream_id, [(b":status", b"200"), (b"content-type", b"application/grpc")])
    engine.send_data(stream_id, b"\0\0\0\0\2ok", end_stream=True)


def only_headers(engine: Connection, stream_id: int) -> None:
    headers = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    engine.send_response(stream_id, headers, end_stream=True)


@contextlib.asynccontextmanager
async def scripted(*script: Callable[[Connection, int], None]) -> AsyncIterator[GrpcChannel]:
    steps = list(script)
    server = await asyncio.get_running_loop().create_server(lambda: Scripted(steps), "127.0.0.1", 0)
    channel = GrpcChannel("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield channel
    finally:
        await channel.close()
        server.close()
        await server.wait_closed()
    assert steps == []


@pytest.mark.parametrize("first", [refuse, go_away])
async def test_a_call_that_was_not_looked_at_is_sent_once_more(first: Callable[[Connection, int], None]) -> None:
    async with scripted(first, answer) as channel:
        assert await channel.unary("/t/x", b"", timeout=10) == b"ok"


async def test_a_call_refused_twice_is_unavailable() -> None:
    async with scripted(refuse, refuse) as channel:
        with pytest.raises(GrpcError, match="refused the stream") as caught:
            await channel.unary("/t/x", b"", timeout=10)
        assert caught.value.code is GrpcCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (only_status(b"404"), GrpcCode.UNIMPLEMENTED),
        (only_status(b"503"), GrpcCode.UNAVAILABLE),
        (only_status(b"418"), GrpcCode.UNKNOWN),
        (only_status(b"200"), GrpcCode.UNKNOWN),
        (no_trailers, GrpcCode.INTERNAL),
        (only_headers, GrpcCode.INTERNAL),
        (lambda engine, stream: engine.reset_stream(stream, ErrorCode.ENHANCE_YOUR_CALM), GrpcCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_an_answer_without_a_status_has_a_code(script: Callable[[Connection, int], None], code: GrpcCode) -> None:
    async with scripted(script, script) as channel:
        with pytest.raises(GrpcError) as caught:
            await channel.unary("/t/x", b"", timeout=10)
        assert caught.value.code is code
        stream = channel.stream("/t/x")
        with pytest.raises(GrpcError) as streamed:
            _ = [message async for message in stream]
        assert streamed.value.code is code
