"""Large bodies over HTTP/2 without TLS: spliced behind their frames' headers, whole whatever happens beside them."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    RequestReceived,
    ResponseReceived,
    Role,
    Setting,
    StreamClosed,
    TrailersReceived,
)

from pilothouse.traffic.config import Limits
from pilothouse.traffic.plane.wires import Pipe
from support.planekit import Origin, Plane, configuration, free_port, head_of, plane, until

MIB = 1 << 20


def body_of(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def digest(data: bytes | bytearray) -> str:
    return hashlib.blake2b(data).hexdigest()


class Client:
    """An HTTP/2 client with windows and frames as large as a test has them. It reads only when it is told to."""

    def __init__(self, port: int, *, frame: int = 65_536, window: int = 16 * MIB, buffer: int = 0) -> None:
        self.sock = socket.socket()
        if buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.settimeout(20)
        self.sock.connect(("127.0.0.1", port))
        self.engine = Connection(Role.CLIENT)
        self.engine.initiate_connection({Setting.INITIAL_WINDOW_SIZE: window, Setting.MAX_FRAME_SIZE: frame})
        self.engine.set_local_window_size(max(window, 65_535))
        self.statuses: dict[int, int] = {}
        self.bodies: dict[int, bytearray] = {}
        self.trailers: dict[int, dict[bytes, bytes]] = {}
        self.closed: dict[int, int] = {}
        self.came = bytearray()

    def ask(self, path: str) -> int:
        head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        stream = self.engine.send_request([(name.encode(), value.encode()) for name, value in head], end_stream=True)
        self.bodies[stream] = bytearray()
        self.flush()
        return stream

    def flush(self) -> None:
        while data := self.engine.data_to_send():
            self.sock.sendall(data)

    def turn(self, most: int = 1 << 18) -> None:
        data = self.sock.recv(most)
        assert data, "the connection ended"
        self.came += data
        self.engine.receive_data(data)
        for event in self.engine.events():
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
            elif isinstance(event, TrailersReceived):
                self.trailers[event.stream_id] = {bytes(name): bytes(value) for name, value in event.headers}
            elif isinstance(event, StreamClosed):
                self.closed[event.stream_id] = event.error_code
        self.flush()

    def until(self, true: Callable[[], object]) -> None:
        while not true():
            self.turn()

    def whole(self, stream: int) -> str:
        self.until(lambda: stream in self.closed)
        assert (self.statuses[stream], self.closed[stream]) == (200, 0)
        return digest(self.bodies[stream])

    def frames(self) -> list[tuple[int, int, int, int]]:
        """Return length, kind, flags and stream of the frames that came."""
        found, at = [], 0
        while at + 9 <= len(self.came):
            head = self.came[at : at + 9]
            length = int.from_bytes(head[:3], "big")
            found.append((length, head[3], head[4], int.from_bytes(head[5:], "big")))
            at += 9 + length
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


class Bodies(Origin):
    """Answers /NUMBER/SIZE with that body, /NUMBER/SIZE/HOW otherwise: chunked, with trailers, cut off, or late."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.go_on = threading.Event()

    def answer(self, sock: socket.socket, number: int) -> None:
        del number
        while True:
            head, _ = head_of(sock)
            _, which, size, *how = head.split(b" ")[1].decode().split("/")
            body = body_of(int(which), int(size))
            if how == ["chunked"]:
                parts = [body[at : at + 300_000] for at in range(0, len(body), 300_000)]
                coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
                sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n" + coded)
                sock.sendall(b"0\r\nx-sum: 7\r\n\r\n")
                continue
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            if how == ["half"]:
                sock.sendall(body[: len(body) // 2])
                self.go_on.wait(20)
                return
            sock.sendall(body)


@pytest.fixture
def origin() -> Iterator[Bodies]:
    with Bodies() as made:
        yield made
        made.go_on.set()


@pytest.fixture
def served(origin: Bodies) -> Iterator[Plane]:
    limits = Limits(body_idle_seconds=30, streams=50)
    with plane(configuration(origin.port, port=free_port(), limits=limits)) as made:
        yield made


def spliced(served: Plane) -> int:
    return int(served.do(lambda: served.worker.counters.bytes_spliced))


def in_use(served: Plane) -> int:
    """Return how many pipes were taken and not given back."""
    return int(served.do(lambda: served.worker.pipes.taken))


@pytest.mark.parametrize(("window", "frame"), [(65_535, 65_536), (16 * MIB, 65_536), (16 * MIB, 16_384)])
def test_a_body_is_spliced_in_frames_as_large_as_the_client_has_them(served: Plane, window: int, frame: int) -> None:
    with Client(served.port, window=window, frame=frame) as client:
        stream = client.ask(f"/1/{3 * MIB}")
        assert client.whole(stream) == digest(body_of(1, 3 * MIB))
        data = [(length, flags) for length, kind, flags, _ in client.frames() if kind == 0]
        if window > 65_535:
            assert max(length for length, _ in data) == frame
        assert data[-1][1] == 1, "the last frame ends the stream"
        assert data[-1][0] > 0
        assert [flags for _, flags in data[:-1]] == [0] * (len(data) - 1)
    assert spliced(served) > 2 * MIB
    until(lambda: in_use(served) == 0, "all pipes free")


def test_streams_share_a_connection(served: Plane) -> None:
    sizes = [12 * MIB, 70_000, 1, MIB, 200_000, 3 * MIB, 300, 2 * MIB]
    with Client(served.port, buffer=16_384) as client:
        streams = [client.ask(f"/{number}/{size}") for number, size in enumerate(sizes)]
        found = [client.whole(stream) for stream in streams]
        assert found == [digest(body_of(number, size)) for number, size in enumerate(sizes)]
        order = [stream for length, kind, _, stream in client.frames() if kind == 0 and length]
        last = {stream: order.index(stream) for stream in streams}
        first_end = len(order) - 1 - order[::-1].index(streams[0])
        assert all(begun < first_end for begun in last.values()), "nobody waits for the first to end"
    assert spliced(served) > 8 * MIB


def test_a_slow_client_gets_all_of_it_in_order(served: Plane) -> None:
    with Client(served.port, buffer=4096) as client:
        streams = [client.ask(f"/{number}/{400_000}") for number in range(3)]
        client.until(lambda: streams[0] in client.statuses)
        for _ in range(50):
            client.turn(1000)
        small = client.ask("/9/10")
        assert client.whole(small) == digest(body_of(9, 10))
        for number, stream in enumerate(streams):
            assert client.whole(stream) == digest(body_of(number, 400_000))


def test_chunked_bodies_keep_their_trailers(served: Plane) -> None:
    with Client(served.port) as client:
        stream = client.ask(f"/4/{2 * MIB}/chunked")
        assert client.whole(stream) == digest(body_of(4, 2 * MIB))
        assert client.trailers[stream] == {b"x-sum": b"7"}
    assert spliced(served) > 0


def test_a_stream_reset_in_the_middle_leaves_the_others_whole(served: Plane) -> None:
    with Client(served.port, buffer=65_536) as client:
        lost = client.ask(f"/5/{8 * MIB}")
        client.until(lambda: len(client.bodies[lost]) > 100_000)
        kept = client.ask(f"/6/{2 * MIB}")
        client.engine.reset_stream(lost)
        client.flush()
        assert client.whole(kept) == digest(body_of(6, 2 * MIB))
        assert body_of(5, 8 * MIB).startswith(client.bodies[lost])
        assert client.whole(client.ask("/7/500000")) == digest(body_of(7, 500_000))
    until(lambda: in_use(served) == 0, "all pipes free")


def test_a_backend_that_dies_resets_its_stream_alone(served: Plane, origin: Bodies) -> None:
    with Client(served.port) as client:
        dying = client.ask(f"/8/{4 * MIB}/half")
        client.until(lambda: len(client.bodies[dying]) > MIB)
        origin.go_on.set()
        client.until(lambda: dying in client.closed)
        assert client.closed[dying] == 2, "INTERNAL_ERROR"
        assert body_of(8, 4 * MIB).startswith(client.bodies[dying])
        assert client.whole(client.ask(f"/9/{MIB}")) == digest(body_of(9, MIB))
    until(lambda: in_use(served) == 0, "all pipes free")


def test_a_client_that_goes_away_leaves_no_pipe_behind(served: Plane) -> None:
    with Client(served.port, buffer=4096) as client:
        stream = client.ask(f"/5/{8 * MIB}")
        client.until(lambda: len(client.bodies[stream]) > 1000)
        until(lambda: in_use(served) > 0)
    until(lambda: in_use(served) == 0, "all pipes free")


def test_a_client_whose_windows_are_shut_holds_few_pipes(served: Plane) -> None:
    with Client(served.port, window=16_384) as client:
        streams = [client.ask(f"/{number}/200000") for number in range(24)]
        until(lambda: in_use(served) == 16, "streams with pipes")
        until(lambda: served.do(lambda: served.worker.counters.bytes_copied) > 24 * 50_000, "streams without")
        assert in_use(served) == 16
        found = [client.whole(stream) for stream in streams]
        assert found == [digest(body_of(number, 200_000)) for number in range(24)]
    until(lambda: in_use(served) == 0, "all pipes free")


def test_without_descriptors_bodies_are_copied(served: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    def take() -> Pipe:
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(served.worker.pipes, "take", take)
    with Client(served.port) as client:
        assert client.whole(client.ask(f"/1/{MIB}")) == digest(body_of(1, MIB))
    assert spliced(served) == 0


@pytest.mark.parametrize(("frame", "size"), [(65_536, 20_000), (16_384, MIB - 1)])
def test_what_is_not_worth_a_pipe_is_copied(served: Plane, frame: int, size: int) -> None:
    with Client(served.port, frame=frame) as client:
        assert client.whole(client.ask(f"/1/{size}")) == digest(body_of(1, size))
    assert spliced(served) == 0


class Uploads(Origin):
    """A backend that speaks HTTP/2 and answers with the digest of what came."""

    def __init__(self) -> None:
        super().__init__(self.answer)

    def answer(self, sock: socket.socket, number: int) -> None:
        del number
        engine = Connection(Role.SERVER, Configuration())
        engine.initiate_connection({Setting.MAX_FRAME_SIZE: 65_536, Setting.INITIAL_WINDOW_SIZE: MIB})
        engine.set_local_window_size(MIB)
        bodies: dict[int, bytearray] = {}
        while True:
            while data := engine.data_to_send():
                sock.sendall(data)
            data = sock.recv(MIB)
            if not data:
                return
            engine.receive_data(data)
            for event in engine.events():
                if isinstance(event, RequestReceived):
                    bodies[event.stream_id] = bytearray()
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                    if event.end_stream:
                        engine.send_response(event.stream_id, [(b":status", b"200")])
                        engine.send_data(event.stream_id, digest(bodies[event.stream_id]).encode(), end_stream=True)


def test_uploads_to_a_backend_of_http2_are_spliced() -> None:
    with (
        Uploads() as origin,
        plane(configuration(origin.port, port=free_port(), backend={"protocol": "h2"})) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=20) as client,
    ):
        for number, size in enumerate([3 * MIB, MIB]):
            body = body_of(number, size)
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            client.sendall(body)
            head, rest = head_of(client)
            assert head.startswith(b"HTTP/1.1 200")
            while digest(body).encode() not in rest:
                came = client.recv(65_536)
                assert came, f"want the digest, got {rest!r}"
                rest += came
            while not rest.endswith(b"0\r\n\r\n") and b"transfer-encoding" in head:
                rest += client.recv(65_536)
        assert spliced(served) > 2 * MIB


def test_h2load_gets_every_body(served: Plane) -> None:
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed: apt-get install nghttp2-client")
    url = f"http://127.0.0.1:{served.port}/1/{MIB}"
    command = ["h2load", "-n", "12", "-c", "2", "-m", "3", "--max-frame-size=64K", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    assert "12 succeeded, 0 failed" in done.stdout
    assert spliced(served) > 8 * MIB
