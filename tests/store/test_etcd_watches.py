"""The shared watch stream against scripted members: breaks at chosen messages, which real ones rarely show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.grpc import ClientStream, GrpcCode, GrpcError
from pilothouse.foundation.retry import Backoff
from pilothouse.store import errors
from pilothouse.store.etcd import codec
from pilothouse.store.etcd.balancer import Connection
from pilothouse.store.etcd.caller import Caller
from pilothouse.store.etcd.settings import EtcdOptions
from pilothouse.store.etcd.watches import WatchStream
from pilothouse.store.model import Event, KeyValue, Status, WatchRequest, WatchResponse

ENCODER = codec.ResponseEncoder(1, 2, 3)


class ScriptedStream:
    """A stream whose answers a test pushes, and which keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[codec.WatchInput] = []
        self.answers: asyncio.Queue[bytes | GrpcError | None] = asyncio.Queue()

    def send(self, message: bytes) -> None:
        self.asked.append(codec.decode_watch(message))

    async def drain(self) -> None:
        return

    def cancel(self) -> None:
        self.answers.put_nowait(GrpcError(GrpcCode.CANCELLED, "cancelled by the caller"))

    def breaks(self) -> None:
        self.answers.put_nowait(GrpcError(GrpcCode.UNAVAILABLE, "connection lost"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (answer := await self.answers.get()) is not None:
            if isinstance(answer, GrpcError):
                raise answer
            yield answer

    def created(self, watch_id: int, revision: int) -> None:
        self.answers.put_nowait(ENCODER.watch_created(watch_id, revision))

    def event(self, watch_id: int, *revisions: int, fragment: bool = False) -> None:
        events = [Event(KeyValue(b"k", b"v", 1, revision, revision)) for revision in revisions]
        response = WatchResponse(revisions[-1], events)
        self.answers.put_nowait(ENCODER.watch(watch_id, response, fragment=fragment))

    @property
    def creates(self) -> list[tuple[int, int]]:
        """The watches asked for: id and start revision."""
        return [(one.watch_id, one.request.start_revision) for one in self.asked if isinstance(one, codec.WatchCreate)]


class ScriptedCaller:
    """Opens scripted streams, one after the other."""

    backoff = Backoff(base=0.05, cap=1.0, attempts=None)

    def __init__(self, version: str = "3.6.0") -> None:
        self.streams: list[ScriptedStream] = []
        self.version = version
        self.forgotten = 0

    async def open(self, path: str) -> tuple[Connection, ClientStream]:
        assert path == "/etcdserverpb.Watch/Watch"
        self.streams.append(ScriptedStream())
        return cast("Connection", None), cast("ClientStream", self.streams[-1])

    async def one_member(self, connection: Connection, path: str, message: bytes, seconds: float) -> bytes:
        return ENCODER.status(Status(cluster_id=1, member_id=2, revision=1, version=self.version))

    def lost(self, connection: Connection, error: GrpcError) -> errors.StoreError | None:
        return None if error.code is GrpcCode.UNAVAILABLE else errors.StoreError(error.message)

    def token_is_stale(self, message: str) -> bool:
        return "invalid auth token" in message

    def forget_token(self) -> None:
        self.forgotten += 1


class Scene:
    """A watch stream with its scripted members and a clock that a test turns."""

    def __init__(self, version: str = "3.6.0", buffer: int = 10_000) -> None:
        self.clock = FakeClock()
        self.caller = ScriptedCaller(version)
        options = EtcdOptions(endpoints=("http://127.0.0.1:1",), clock=self.clock, watch_buffer_events=buffer)
        self.stream = WatchStream(options, cast("Caller", self.caller))

    async def settle(self) -> ScriptedStream:
        """Let everything happen that can; return the newest stream."""
        await self.clock.run(2)
        return self.caller.streams[-1]


def revisions(response: WatchResponse) -> list[int]:
    return [event.kv.mod_revision for event in response.events]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_all_watches_share_a_stream_and_are_asked_for_anew(scene: Scene) -> None:
    now, past = scene.stream.watch(WatchRequest(b"k")), scene.stream.watch(WatchRequest(b"k", start_revision=5))
    first = await scene.settle()
    assert first.creates == [(1, 0), (2, 5)]
    first.created(1, 9)
    first.created(2, 9)
    first.event(2, 5, 6)
    first.breaks()
    second = await scene.settle()
    assert second.creates == [(1, 10), (2, 7)]
    second.created(1, 9)
    second.created(2, 9)
    second.event(1, 10)
    second.event(2, 8)
    await scene.settle()
    assert len(scene.caller.streams) == 2
    assert revisions(await anext(now)) == [10]
    assert [revisions(await anext(past)) for _ in range(2)] == [[5, 6], [8]]
    await scene.stream.close()


async def test_fragments_cut_off_by_a_break_are_not_delivered(scene: Scene) -> None:
    watch = scene.stream.watch(WatchRequest(b"k", start_revision=5))
    first = await scene.settle()
    first.created(1, 9)
    first.event(1, 5, 6, fragment=True)
    first.breaks()
    second = await scene.settle()
    assert second.creates == [(1, 5)]
    second.created(1, 9)
    second.event(1, 5, 6, fragment=True)
    second.event(1, 7)
    await scene.settle()
    assert revisions(await anext(watch)) == [5, 6, 7]
    await scene.stream.close()


async def test_events_that_come_twice_are_delivered_once(scene: Scene) -> None:
    watch = scene.stream.watch(WatchRequest(b"k", start_revision=5))
    stream = await scene.settle()
    stream.created(1, 9)
    stream.event(1, 5, 6)
    stream.event(1, 5, 6, 7)
    await scene.settle()
    assert [revisions(await anext(watch)) for _ in range(2)] == [[5, 6], [7]]
    await scene.stream.close()


async def test_a_refusal_without_an_id_ends_the_watch_that_was_asked_first(scene: Scene) -> None:
    refused, taken = scene.stream.watch(WatchRequest(b"k", b"a")), scene.stream.watch(WatchRequest(b"k"))
    stream = await scene.settle()
    denial = codec.ResponseEncoder(1, 2, 3).watch(-1, WatchResponse(9, [], True, 0, "watcher range is empty"))
    stream.answers.put_nowait(denial + b"\x18\x01")
    stream.created(2, 9)
    stream.event(2, 10)
    await scene.settle()
    response = await anext(refused)
    assert (response.canceled, response.cancel_reason) == (True, "watcher range is empty")
    assert revisions(await anext(taken)) == [10]
    await scene.stream.close()


@pytest.mark.parametrize(("version", "reported"), [("3.6.0", 20), ("3.4.23", 10)])
async def test_a_progress_report_says_no_more_than_is_sure(version: str, reported: int) -> None:
    scene = Scene(version)
    asking, silent = scene.stream.watch(WatchRequest(b"k")), scene.stream.watch(WatchRequest(b"k"))
    stream = await scene.settle()
    stream.created(1, 9)
    stream.created(2, 9)
    stream.event(1, 10)
    await scene.settle()
    assert revisions(await anext(asking)) == [10]
    asking.request_progress()
    assert stream.asked[-1] == codec.WatchProgress()
    stream.answers.put_nowait(ENCODER.watch(-1, WatchResponse(20)))
    await scene.settle()
    assert await anext(asking) == WatchResponse(reported)
    stream.event(2, 21)
    await scene.settle()
    assert revisions(await anext(silent)) == [21]
    await scene.stream.close()


async def test_a_wish_for_progress_survives_a_break(scene: Scene) -> None:
    watch = scene.stream.watch(WatchRequest(b"k"))
    stream = await scene.settle()
    stream.created(1, 9)
    await scene.settle()
    watch.request_progress()
    stream.breaks()
    stream = await scene.settle()
    assert stream.asked[-1] == codec.WatchProgress()
    await scene.stream.close()


async def test_a_stale_token_opens_a_new_stream(scene: Scene) -> None:
    watch = scene.stream.watch(WatchRequest(b"k"))
    stream = await scene.settle()
    denial = ENCODER.watch(1, WatchResponse(0, [], True, 0, "etcdserver: invalid auth token"))
    stream.answers.put_nowait(denial + b"\x18\x01")
    stream = await scene.settle()
    assert scene.caller.forgotten == 1
    stream.created(1, 9)
    stream.event(1, 10)
    await scene.settle()
    assert revisions(await anext(watch)) == [10]
    await scene.stream.close()


async def test_a_consumer_that_keeps_up_is_not_slow_however_much_is_there_already() -> None:
    scene = Scene(buffer=300)
    watch = scene.stream.watch(WatchRequest(b"k", start_revision=1))
    stream = await scene.settle()
    stream.created(1, 5000)
    for revision in range(1, 5001):
        stream.event(1, revision)
    seen: list[int] = []

    async def consume() -> None:
        while len(seen) < 5000:
            response = await anext(watch)
            assert not response.canceled
            seen.extend(revisions(response))

    async with asyncio.timeout(30):
        await asyncio.gather(consume(), scene.settle())
    assert seen == list(range(1, 5001))
    await scene.stream.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda stream: stream.answers.put_nowait(b"\x0a\xff"), "are not a WatchResponse message"),
        (lambda stream: stream.answers.put_nowait(GrpcError(GrpcCode.UNIMPLEMENTED, "no watches here")), "no watches"),
    ],
)
async def test_what_cannot_be_mended_ends_all_watches(
    scene: Scene, spoil: Callable[[ScriptedStream], None], reason: str
) -> None:
    watches = [scene.stream.watch(WatchRequest(b"k")) for _ in range(2)]
    spoil(await scene.settle())
    for watch in watches:
        response = await anext(watch)
        assert response.canceled
        assert reason in response.cancel_reason
    await scene.stream.close()


async def test_a_watch_given_up_while_the_stream_opens_leaves_none_behind(scene: Scene) -> None:
    answered = asyncio.Event()
    asked = scene.caller.one_member

    async def slow(connection: Connection, path: str, message: bytes, seconds: float) -> bytes:
        await answered.wait()
        return await asked(connection, path, message, seconds)

    scene.caller.one_member = slow  # type: ignore[method-assign]
    watch = scene.stream.watch(WatchRequest(b"k"))
    stream = await scene.settle()
    await watch.cancel()
    answered.set()
    await scene.settle()
    assert isinstance(stream.answers.get_nowait(), GrpcError), "the stream was not cancelled"
    assert stream.asked == []
    await scene.stream.close()


async def test_the_stream_ends_with_its_last_watch_and_comes_back(scene: Scene) -> None:
    watch = scene.stream.watch(WatchRequest(b"k"))
    first = await scene.settle()
    first.created(1, 9)
    await watch.cancel()
    assert first.asked[-1] == codec.WatchCancel(1)
    await scene.settle()
    assert len(scene.caller.streams) == 1
    scene.stream.watch(WatchRequest(b"k"))
    second = await scene.settle()
    assert second.creates == [(2, 0)]
    await scene.stream.close()
