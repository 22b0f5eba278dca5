"""Payloads out of pipes in the frames of an engine: nothing but their headers says what goes where."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from ngh2 import Configuration, Connection, Role, Setting, StreamClosed

from pilothouse.traffic.plane.outlets2 import Outlet
from pilothouse.traffic.plane.payloads2 import Payload, Payloads
from pilothouse.traffic.plane.reactor import IN, Reactor
from pilothouse.traffic.plane.wires import Counters, Gone, Pipe, Pipes, Wire
from support.planekit import until

REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
FRAME = struct.Struct(">HBBBL")


class Held(Pipe):
    """A pipe of the test's own: what it holds is in `content`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.held = len(content)

    def take(self, size: int) -> bytes:
        taken, self.content = self.content[:size], self.content[size:]
        assert len(taken) == size, "more is taken than the pipe holds"
        return taken


class Ends:
    """An engine with `Payloads` behind it, and h2 as its client, which checks every frame and window."""

    def __init__(self, window: int, frame: int) -> None:
        self.engine = Connection(Role.SERVER, Configuration(auto_window_update=False))
        self.engine.initiate_connection({Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        self.payloads = Payloads()
        self.client = H2Connection(H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame})
        self.most = frame
        self.bodies: dict[int, bytes] = {}
        self.unread: dict[int, int] = {}
        self.ended: set[int] = set()
        self.whole: dict[int, bytes] = {}
        self.over: set[int] = set()
        self.reset: set[int] = set()

    def open(self) -> int:
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, REQUEST, end_stream=True)
        self.bodies[stream] = self.whole[stream] = b""
        self.exchange(1 << 20)
        assert self.engine.remote_settings[Setting.MAX_FRAME_SIZE] == self.most
        self.engine.send_response(stream, [(b":status", b"200")])
        return stream

    def hold(self, stream: int, content: bytes, *, is_last: bool) -> None:
        pipe = Held(content)
        ahead = self.engine.queued_body_size(stream)
        self.engine.send_data(stream, bytes(len(content)), end_stream=is_last)
        self.payloads.expect(stream, pipe, len(content), ahead)

    def step(self, what: str, stream: int, content: bytes) -> None:
        """Do something with a stream that still has room, as a sink would."""
        if what == "read":
            self.read(stream)
        elif stream in self.over:
            return
        elif what == "reset":
            self.client.reset_stream(stream, ErrorCodes.CANCEL)
            self.over.add(stream)
            self.reset.add(stream)
        elif stream not in self.payloads._runs:
            self._put(what, stream, content)

    def _put(self, what: str, stream: int, content: bytes) -> None:
        if what in {"last", "trailers"}:
            self.over.add(stream)
        if what == "trailers":
            self.engine.send_trailers(stream, [(b"x-sum", b"1")])
            return
        self.whole[stream] += content
        if what == "copy":
            self.engine.send_data(stream, content)
        else:
            self.hold(stream, content, is_last=what == "last")

    def exchange(self, amount: int) -> None:
        """Pass on all that both sides say."""
        while True:
            sent = self.client.data_to_send()
            if sent:
                self.engine.receive_data(sent)
                for event in self.engine.events():
                    if isinstance(event, StreamClosed):
                        self.payloads.leave(event.stream_id)
            data = self.engine.data_to_send(amount)
            if not data:
                for run in self.payloads.dry():
                    run.pipe.held = 0
                if not sent:
                    return
                continue
            pieces = [memoryview(data)] if self.payloads.is_idle else self.payloads.cut(data, self.most)
            said = [self.written(piece) if isinstance(piece, Payload) else bytes(piece) for piece in pieces]
            self.payloads.seal()
            self.told(b"".join(said))

    def written(self, piece: Payload) -> bytes:
        pipe = piece.run.pipe
        assert isinstance(pipe, Held)
        piece.run.framed -= piece.size
        return piece.header + pipe.take(piece.size)

    def told(self, said: bytes) -> None:
        for event in self.client.receive_data(said):
            if isinstance(event, DataReceived):
                assert event.stream_id is not None
                self.bodies[event.stream_id] += event.data or b""
                self.unread[event.stream_id] = self.unread.get(event.stream_id, 0) + event.flow_controlled_length
            elif isinstance(event, StreamEnded):
                assert event.stream_id is not None
                self.ended.add(event.stream_id)

    def read(self, stream: int) -> None:
        size = self.unread.pop(stream, 0)
        if size and stream not in self.ended:
            self.client.acknowledge_received_data(size, stream)
        elif size:
            self.client.increment_flow_control_window(size)


def content_of(seed: int, size: int) -> bytes:
    return ((b"%08x" % (seed * 2654435761 % (1 << 32))) * (size // 8 + 1))[:size]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["copy", "hold", "hold", "hold", "last", "trailers", "reset", "read"]),
        st.integers(0, 2),
        st.one_of(st.integers(1, 300), st.integers(1, 70_000)),
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    window=st.sampled_from([100, 16_384, 65_535, 1 << 20]),
    frame=st.sampled_from([16_384, 40_000, 262_144]),
    amount=st.sampled_from([7, 1000, 16_393, 65_572]),
)
def test_every_body_is_what_was_put_in(steps: list[tuple[str, int, int]], window: int, frame: int, amount: int) -> None:
    ends = Ends(window, frame)
    streams = [ends.open() for _ in range(3)]
    for number, (what, which, size) in enumerate(steps):
        ends.step(what, streams[which], content_of(number, size))
        ends.exchange(amount)
    for _ in range(20_000):
        if not ends.unread:
            break
        for stream in streams:
            ends.read(stream)
        ends.exchange(amount)
    for stream in streams:
        if stream in ends.reset:
            assert ends.whole[stream].startswith(ends.bodies[stream])
        else:
            assert ends.bodies[stream] == ends.whole[stream]
            assert (stream in ends.ended) == (stream in ends.over)
    assert not ends.payloads._runs
    assert ends.payloads.is_idle


@pytest.mark.parametrize("frame", [16_384, 65_536, 90_000])
def test_frames_are_as_large_as_the_peer_has_them(frame: int) -> None:
    ends = Ends(1 << 20, frame)
    ends.client.increment_flow_control_window(1 << 20)
    stream = ends.open()
    ends.exchange(65_572)
    content = os.urandom(200_000)
    ends.engine.send_data(stream, zeros := bytes(200_000), end_stream=True)
    ends.payloads.expect(stream, Held(content), len(zeros), 0)
    pieces = [
        piece
        for data in iter(lambda: ends.engine.data_to_send(65_572), b"")
        for piece in ends.payloads.cut(data, frame)
    ]
    sizes = []
    for piece in pieces:
        if isinstance(piece, Payload):
            high, low, kind, flags, stream_id = FRAME.unpack(piece.header)
            assert (high << 8 | low, kind, stream_id) == (piece.size, 0, stream)
            sizes.append((piece.size, flags))
    left = 200_000 % frame
    assert sizes == [(frame, 0)] * (200_000 // frame) + [(left, 1)]


@pytest.fixture
def connected() -> Iterator[tuple[Reactor, Wire, socket.socket, Counters]]:
    reactor, counters = Reactor(), Counters()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.settimeout(20)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setblocking(False)
        yield reactor, Wire(reactor, ours, counters), theirs, counters
        ours.close()
        reactor.close()


class Told:
    """Counts events."""

    def on_event(self, events: int) -> None:
        del events

    def on_crash(self) -> None:
        raise AssertionError


def is_gone(outlet: Outlet) -> bool:
    try:
        outlet.flush()
    except Gone:
        return True
    return False


def lent(pipe: Pipe) -> bool:
    return pipe.is_lent


def fill(pipe: Pipe, content: bytes) -> None:
    assert os.write(pipe.writing, content) == len(content)
    pipe.held += len(content)


def server(window: int = 1 << 20) -> tuple[Connection, Connection, int]:
    engine = Connection(Role.SERVER, Configuration(auto_window_update=False))
    engine.initiate_connection({})
    client = Connection(Role.CLIENT)
    client.initiate_connection({Setting.INITIAL_WINDOW_SIZE: window, Setting.MAX_FRAME_SIZE: 65_536})
    client.set_local_window_size(1 << 24)
    stream = client.send_request([(name.encode(), value.encode()) for name, value in REQUEST], end_stream=True)
    engine.receive_data(client.data_to_send())
    client.receive_data(engine.data_to_send())
    engine.events()
    engine.send_response(stream, [(b":status", b"200")])
    return engine, client, stream


def test_a_frame_that_has_begun_is_completed_though_its_stream_is_reset(
    connected: tuple[Reactor, Wire, socket.socket, Counters],
) -> None:
    _, wire, theirs, counters = connected
    wire.attach(Told(), IN)
    engine, client, stream = server()
    outlet, pipes = Outlet(engine, wire), Pipes(counters)
    pipe = pipes.take()
    content = os.urandom(60_000)
    fill(pipe, content)
    engine.send_data(stream, bytes(60_000))
    outlet.expect(stream, pipe, 0)
    assert not outlet.flush(), "more than the socket has room for"
    assert outlet.is_blocked
    client.reset_stream(stream)
    engine.receive_data(client.data_to_send())
    outlet.forget(stream)
    pipes.give(pipe)
    came = bytearray()
    while not outlet.flush():
        came += theirs.recv(1 << 20)
    while not came.endswith(content[-100:]):
        came += theirs.recv(1 << 20)
    assert came.endswith(content)
    assert counters.bytes_spliced == 60_000
    assert not lent(pipe)
    assert pipes.take() is pipe, "it is free again"
    pipe.close()
    pipes.close()


def test_what_waits_for_windows_goes_with_its_stream(
    connected: tuple[Reactor, Wire, socket.socket, Counters],
) -> None:
    _, wire, theirs, counters = connected
    wire.attach(Told(), IN)
    engine, client, stream = server(window=1000)
    outlet, pipes = Outlet(engine, wire), Pipes(counters)
    pipe = pipes.take()
    fill(pipe, os.urandom(5000))
    engine.send_data(stream, bytes(5000))
    outlet.expect(stream, pipe, 0)
    assert outlet.flush()
    assert counters.bytes_spliced == 1000
    assert lent(pipe)
    pipes.give(pipe)
    client.receive_data(theirs.recv(65_536))
    client.reset_stream(stream)
    engine.receive_data(client.data_to_send())
    outlet.forget(stream)
    assert not lent(pipe)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe.reading)  # it held bytes of nobody, so it is closed


def test_a_connection_that_ends_lets_go_of_its_pipes(
    connected: tuple[Reactor, Wire, socket.socket, Counters],
) -> None:
    _, wire, _, counters = connected
    wire.attach(Told(), IN)
    engine, _, stream = server(window=1000)
    outlet, pipes = Outlet(engine, wire), Pipes(counters)
    pipe = pipes.take()
    fill(pipe, os.urandom(5000))
    engine.send_data(stream, bytes(5000))
    outlet.expect(stream, pipe, 0)
    outlet.flush()
    outlet.close()
    assert not lent(pipe)
    pipes.give(pipe)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe.reading)


def test_a_client_that_breaks_the_connection_leaves_no_pipe_lent(
    connected: tuple[Reactor, Wire, socket.socket, Counters],
) -> None:
    _, wire, theirs, counters = connected
    wire.attach(Told(), IN)
    engine, _, stream = server()
    outlet, pipes = Outlet(engine, wire), Pipes(counters)
    pipe = pipes.take()
    fill(pipe, os.urandom(60_000))
    engine.send_data(stream, bytes(60_000))
    outlet.expect(stream, pipe, 0)
    assert not outlet.flush()
    pipes.give(pipe)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    until(lambda: is_gone(outlet), "the reset")
    outlet.close()
    assert not lent(pipe)
    assert pipes.taken == 0
