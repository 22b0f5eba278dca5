"""The server against peers that break the protocol or overdo it, fed without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    Event,
    GoAwayReceived,
    ResponseReceived,
    Role,
    StreamClosed,
    TrailersReceived,
)

from pilothouse.foundation.grpc import GrpcServer, ServerCall, ServerStream
from pilothouse.foundation.grpc.serving import ServerConnection
from pilothouse.foundation.grpc.wire import frame_message

Headers = list[tuple[bytes, bytes]]


class Pipe(asyncio.Transport):
    """A transport whose written bytes are kept, and which can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.writes = 0
        self.closed = False
        self.reading: list[bool] = []

    def write(self, data: Any) -> None:
        self.written += data
        self.writes += 1

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None or low is None

    def pause_reading(self) -> None:
        self.reading.append(False)

    def resume_reading(self) -> None:
        self.reading.append(True)


class Caller:
    """An HTTP/2 client joined to a server connection by hand."""

    def __init__(self, server: GrpcServer, **configuration: Any) -> None:
        self.pipe = Pipe()
        self.connection: ServerConnection = server._connection()
        self.connection.connection_made(self.pipe)
        self.engine = Connection(Role.CLIENT, Configuration(**configuration))
        self.engine.initiate_connection({})
        self.pump()

    def request(self, path: bytes = b"/t/echo", *extra: tuple[bytes, bytes], **replaced: bytes) -> int:
        fields = {":method": b"POST", ":scheme": b"http", ":path": path, ":authority": b"x"} | {
            "content-type": b"application/grpc",
            **replaced,
        }
        return self.engine.send_request([(name.encode(), value) for name, value in fields.items()] + list(extra))

    def pump(self) -> list[Event]:
        """Pass bytes on until nobody has more to say; return what the client saw."""
        events: list[Event] = []
        while True:
            sent = self.engine.data_to_send()
            if sent and not self.pipe.closed:
                self.connection.data_received(sent)
            received = bytes(self.pipe.written)
            self.pipe.written.clear()
            if received:
                self.engine.receive_data(received)
                events += self.engine.events()
            if not sent and not received:
                return events

    async def settle(self) -> list[Event]:
        """Pump with turns of the loop between, so that scheduled writes happen."""
        events = []
        for _ in range(5):
            events += self.pump()
            await asyncio.sleep(0)
        return events + self.pump()

    def end(self) -> None:
        self.connection.connection_lost(None)


def make_server(**options: Any) -> GrpcServer:
    server = GrpcServer(**options)
    server.unary("/t/echo", lambda message, _: message)

    async def chat(stream: ServerStream) -> None:
        async for message in stream:
            stream.send(message)

    server.stream("/t/chat", chat)
    return server


def fields_of(events: list[Event]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for event in events:
        if isinstance(event, ResponseReceived | TrailersReceived):
            found |= dict(event.headers)
    return found


@pytest.mark.parametrize(
    ("replaced", "extra", "expected"),
    [
        ({"content-type": b"text/plain"}, [], {b":status": b"415"}),
        ({":method": b"GET"}, [], {b":status": b"405", b"allow": b"POST"}),
        ({"content-type": b"application/grpc+proto"}, [], {b":status": b"200", b"grpc-status": b"0"}),
        ({"content-type": b"application/grpc;x=y"}, [], {b":status": b"200", b"grpc-status": b"0"}),
        ({}, [(b"grpc-encoding", b"br")], {b":status": b"200", b"grpc-status": b"12"}),
        ({}, [(b"grpc-timeout", b"soon")], {b":status": b"200", b"grpc-status": b"3"}),
        ({":path": b"/t/none"}, [], {b":status": b"200", b"grpc-status": b"12"}),
    ],
)
async def test_request_headers_are_checked(replaced: dict[str, bytes], extra: Headers, expected: Headers) -> None:
    caller = Caller(make_server())
    stream = caller.request(b"/t/echo", *extra, **replaced)
    caller.engine.send_data(stream, frame_message(b"x"), end_stream=True)
    assert dict(expected).items() <= fields_of(await caller.settle()).items()
    caller.end()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", b"13", b"the request ended without a message"),
        (frame_message(b"abc")[:-1], b"13", b"stream ended inside a message"),
        (frame_message(b"a") + frame_message(b"b"), b"13", b"has one request message, not more"),
        (b"\x07" + frame_message(b"a"), b"13", b"compressed flag 7"),
        (b"\0\xff\xff\xff\xff", b"8", b"4294967295 bytes is over the 4194304"),
    ],
)
async def test_malformed_bodies_have_their_status(body: bytes, status: bytes, message: bytes) -> None:
    caller = Caller(make_server())
    stream = caller.request()
    caller.engine.send_data(stream, body, end_stream=True)
    found = fields_of(await caller.settle())
    assert found[b"grpc-status"] == status
    assert message in found[b"grpc-message"]
    caller.end()


async def test_an_answer_before_the_request_ends_stops_its_sender() -> None:
    caller = Caller(make_server())
    stream = caller.request(b"/t/none")
    events = await caller.settle()
    assert fields_of(events)[b"grpc-status"] == b"12"
    assert [event.error_code for event in events if isinstance(event, StreamClosed)] == [0]
    assert not caller.connection.is_open(stream)
    caller.end()


async def test_all_answers_of_one_read_leave_in_one_write() -> None:
    caller = Caller(make_server())
    for _ in range(50):
        caller.engine.send_data(caller.request(), frame_message(b"x"), end_stream=True)
    before = caller.pipe.writes
    caller.connection.data_received(caller.engine.data_to_send())
    assert caller.pipe.writes == before + 1
    assert len([event for event in caller.pump() if isinstance(event, DataReceived)]) == 50
    caller.end()


async def test_answers_of_one_turn_of_the_loop_leave_in_one_write() -> None:
    server = GrpcServer()
    futures: list[asyncio.Future[bytes]] = []

    def later(_: bytes, __: ServerCall) -> asyncio.Future[bytes]:
        futures.append(asyncio.get_running_loop().create_future())
        return futures[-1]

    server.unary("/t/later", later)
    caller = Caller(server)
    for _ in range(50):
        caller.engine.send_data(caller.request(b"/t/later"), frame_message(b"x"), end_stream=True)
    caller.pump()
    before = caller.pipe.writes
    for future in futures:
        future.set_result(b"y")
    for _ in range(3):
        await asyncio.sleep(0)
    assert caller.pipe.writes == before + 1
    caller.end()


async def test_nothing_is_kept_of_calls_that_ended() -> None:
    caller = Caller(make_server())
    for number in range(2000):
        stream = caller.request(b"/t/chat" if number % 2 else b"/t/echo")
        caller.engine.send_data(stream, frame_message(b"x"), end_stream=number % 3 > 0)
        caller.pump()
        if number % 3 == 0:
            caller.engine.reset_stream(stream)
        await asyncio.sleep(0)
    await caller.settle()
    connection = caller.connection
    assert connection._calls == {}
    assert connection._buffered == 0
    assert connection._finished_early == []
    assert connection.engine.queued_body_size() == 0
    caller.end()


async def test_a_full_transport_is_given_nothing_and_read_no_more() -> None:
    caller = Caller(make_server())
    caller.connection.pause_writing()
    assert caller.pipe.reading == [False]
    before = caller.pipe.writes
    caller.engine.send_data(caller.request(), frame_message(bytes(1000)), end_stream=True)
    caller.connection.data_received(caller.engine.data_to_send())
    assert caller.pipe.writes == before
    caller.connection.resume_writing()
    assert caller.pipe.reading == [False, True]
    assert fields_of(caller.pump())[b"grpc-status"] == b"0"
    caller.end()


async def test_answers_that_nobody_reads_end_in_refusals() -> None:
    caller = Caller(make_server(max_queued_bytes=200_000), auto_window_update=False)
    statuses = []
    for _ in range(6):
        caller.engine.send_data(caller.request(), frame_message(bytes(100_000)), end_stream=True)
        statuses.append(fields_of(caller.pump()).get(b"grpc-status"))
    assert b"8" in statuses
    assert caller.connection.engine.queued_body_size() < 400_000
    caller.end()


async def test_half_received_messages_are_bounded() -> None:
    caller = Caller(make_server(max_buffered_bytes=100_000))
    statuses = []
    for _ in range(4):
        caller.engine.send_data(caller.request(), frame_message(bytes(40_000))[:-1])
        statuses.append(fields_of(await caller.settle()).get(b"grpc-status"))
    assert statuses == [None, None, b"8", b"8"]
    caller.end()


async def test_an_unread_stream_gets_no_more_window() -> None:
    server = GrpcServer()

    async def deaf(_: ServerStream) -> None:
        await asyncio.Event().wait()

    server.stream("/t/deaf", deaf)
    caller = Caller(server)
    stream = caller.request(b"/t/deaf")
    caller.engine.send_data(stream, frame_message(bytes(10_000)) * 300)
    await caller.settle()
    assert caller.engine.queued_body_size(stream) == 300 * 10_005 - (1 << 20)
    caller.engine.reset_stream(stream)
    await caller.settle()
    other = caller.request(b"/t/deaf")
    caller.engine.send_data(other, bytes(1 << 20))
    await caller.settle()
    assert caller.engine.queued_body_size(other) == 0  # the dropped stream's window came back to the connection
    caller.end()


def _reset(caller: Caller) -> None:
    caller.engine.reset_stream(caller.engine.next_stream_id - 2)


def _ping(caller: Caller) -> None:
    caller.engine.ping(b"12345678")


def _set(caller: Caller) -> None:
    caller.engine.update_settings({4: 65_535})


@pytest.mark.parametrize(
    ("act", "bound", "what"), [(_reset, 300, b"resets"), (_ping, 1300, b"pings"), (_set, 200, b"settings")]
)
async def test_a_flood_ends_the_connection(act: Callable[[Caller], None], bound: int, what: bytes) -> None:
    caller = Caller(make_server(max_concurrent_streams=100, clock=lambda: 0.0))
    for _ in range(bound):
        if act is _reset:
            caller.request()
        caller.connection.data_received(caller.engine.data_to_send())
        act(caller)
        caller.connection.data_received(caller.engine.data_to_send())
        if caller.pipe.closed:
            break
    assert caller.pipe.closed
    caller.engine.receive_data(bytes(caller.pipe.written))
    farewells = [event for event in caller.engine.events() if isinstance(event, GoAwayReceived)]
    assert farewells[-1].error_code == 11
    assert what in farewells[-1].debug_data
    caller.end()


async def test_bandwidth_probes_are_no_flood() -> None:
    """gRPC clients send a ping after data, thousands a second where the round trip is short."""
    caller = Caller(make_server(clock=lambda: 0.0))
    for _ in range(3000):
        caller.engine.send_data(caller.request(), frame_message(b"x"), end_stream=True)
        caller.pump()
        _ping(caller)
        caller.pump()
    assert not caller.pipe.closed
    caller.end()


async def test_headers_over_the_limit_end_the_connection() -> None:
    caller = Caller(make_server(max_header_list_bytes=2000))
    caller.request(b"/t/echo", (b"big", bytes(3000).replace(b"\0", b"x")))
    caller.connection.data_received(caller.engine.data_to_send())
    assert caller.pipe.closed
    caller.engine.receive_data(bytes(caller.pipe.written))
    assert [event.error_code for event in caller.engine.events() if isinstance(event, GoAwayReceived)] == [11]
    caller.end()


def _recorded() -> bytes:
    engine = Connection(Role.CLIENT)
    engine.initiate_connection({})
    for path in (b"/t/echo", b"/t/chat", b"/t/none"):
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
        stream = engine.send_request([*fields, (b"content-type", b"application/grpc"), (b"grpc-timeout", b"1S")])
        engine.send_data(stream, frame_message(b"abc") * 2, end_stream=True)
    return engine.data_to_send()


RECORDED = _recorded()
EDITS = st.lists(st.tuples(st.integers(0, len(RECORDED) - 1), st.integers(0, 255)), max_size=6)


@settings(max_examples=300, deadline=None)
@given(EDITS, st.integers(1, 200), st.binary(max_size=80), st.booleans())
def test_mutated_frames_are_answered_or_end_the_connection(
    edits: list[tuple[int, int]],
    piece: int,
    tail: bytes,
    keep: bool,
) -> None:
    data = bytearray(RECORDED)
    for position, value in edits:
        data[position] = value
    asyncio.run(_feed(bytes(data) + tail if keep else RECORDED[:24] + tail, piece))


async def _feed(data: bytes, piece: int) -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    pipe = Pipe()
    connection = make_server()._connection()
    connection.connection_made(pipe)
    for start in range(0, len(data), piece):
        if pipe.closed:
            break
        connection.data_received(data[start : start + piece])
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert pipe.written
    connection.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert failures == []
