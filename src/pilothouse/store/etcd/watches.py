"""Many watches over one stream, each resumed where it was when the stream breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from pilothouse.foundation.grpc import ClientStream, GrpcError
from pilothouse.store import errors
from pilothouse.store.etcd.balancer import Connection
from pilothouse.store.etcd.caller import Caller
from pilothouse.store.etcd.requests import WatchCancel, WatchCreate, WatchProgress, encode_watch
from pilothouse.store.etcd.responses import WatchMessage, decode_status_response, decode_watch_response
from pilothouse.store.etcd.settings import EtcdOptions
from pilothouse.store.model import Event, WatchRequest, WatchResponse

__all__ = ["EtcdWatch", "WatchStream"]

_PATH = "/etcdserverpb.Watch/Watch"
_STATUS = "/etcdserverpb.Maintenance/Status"
_ALL_WATCHES = -1
_EVENT_OVERHEAD = 64
_TURN_EVENTS = 128


class EtcdWatch:
    """A watch of an `EtcdStore`.

    One that starts from now begins when the member has said so: entering its context waits for that, so that what
    is written afterwards is seen. It goes on over lost connections until it is cancelled by either side.
    """

    def __init__(self, stream: WatchStream, watch_id: int, request: WatchRequest) -> None:
        self._stream = stream
        self.watch_id = watch_id
        self.request = request
        self.next_revision = request.start_revision
        self.fragments: list[Event] = []
        self.wants_progress = False
        self._ready: deque[tuple[WatchResponse, int]] = deque()
        self._count = 0
        self._bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._created = asyncio.Event()
        self._ended = False
        self._over = False

    def __aiter__(self) -> AsyncIterator[WatchResponse]:
        return self

    async def __anext__(self) -> WatchResponse:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        response, size = self._ready.popleft()
        self._count -= len(response.events)
        self._bytes -= size
        if response.canceled:
            self._over = True
            self._ready.clear()
        return response

    def request_progress(self) -> None:
        if not self._ended:
            self.wants_progress = True
            self._stream.request_progress()

    async def cancel(self) -> None:
        self._ready.clear()
        self._over = True
        self._notify()
        if not self._ended:
            self._ended = True
            self._stream.forget(self)

    async def __aenter__(self) -> Self:
        await self._stream.settled(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    @property
    def created(self) -> asyncio.Event:
        """Set once the member has taken the watch, or has refused it."""
        return self._created

    def begin(self, revision: int) -> None:
        """Note that the member has taken the watch while the store was at `revision`."""
        if self.next_revision == 0:
            self.next_revision = revision + 1
        self._created.set()

    def take(self, events: list[Event]) -> bool:
        """Add events of whole revisions; end the watch and return False where its consumer is too slow for them."""
        events = [event for event in events if event.kv.mod_revision >= self.next_revision]
        if not events:
            return True
        revision = events[-1].kv.mod_revision
        size = _size(events)
        # What waits is bounded; a single response, however large, is taken by a consumer that waits for it.
        if self._ready:
            options = self._stream.options
            if self._count + len(events) > options.watch_buffer_events:
                return self._drop(f"{options.watch_buffer_events} events")
            if self._bytes + size > options.watch_buffer_bytes:
                return self._drop(f"{options.watch_buffer_bytes} bytes")
        self.next_revision = revision + 1
        self._count += len(events)
        self._bytes += size
        self._put(WatchResponse(revision, events), size)
        return True

    def report(self, revision: int) -> None:
        """Add a progress report, in the place of one that waits with nothing after it."""
        self.wants_progress = False
        if self._ready and not self._ready[-1][0].events:
            self._ready.pop()
        self._put(WatchResponse(revision))

    def end(self, reason: str, compact_revision: int = 0, resume_revision: int = 0) -> None:
        """Let a last response follow what waits."""
        self._ended = True
        self._created.set()
        last = max(self.next_revision - 1, 0)
        self._put(WatchResponse(last, [], True, compact_revision, reason, resume_revision))

    def _drop(self, bound: str) -> bool:
        first = next((one.events[0].kv.mod_revision for one, _ in self._ready if one.events), self.next_revision)
        self._ready.clear()
        self._count = self._bytes = 0
        self.next_revision = first
        self.end(f"slow consumer: more than {bound} waited; resume from revision {first}", resume_revision=first)
        return False

    def _put(self, response: WatchResponse, size: int = 0) -> None:
        self._ready.append((response, size))
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class WatchStream:
    """The stream that all watches of one store share; it is there while there are watches."""

    def __init__(self, options: EtcdOptions, caller: Caller) -> None:
        self.options = options
        self._caller = caller
        self._watches: dict[int, EtcdWatch] = {}
        self._last_id = 0
        self._stream: ClientStream | None = None
        self._asked: deque[int] = deque()
        self._ordered_progress = False
        self._served = False
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    def watch(self, request: WatchRequest) -> EtcdWatch:
        """Start a watch; ids count up and are never used again, so what is late for an old one is known."""
        if self._closed:
            raise errors.Unavailable("etcd: the store is closed")
        self._last_id += 1
        watch = EtcdWatch(self, self._last_id, request)
        self._watches[watch.watch_id] = watch
        if self._stream is not None:
            self._create(self._stream, watch)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return watch

    def forget(self, watch: EtcdWatch) -> None:
        """Stop a watch on the member."""
        self._watches.pop(watch.watch_id, None)
        self._tell(WatchCancel(watch.watch_id))
        if not self._watches and self._stream is not None:
            stream, self._stream = self._stream, None
            stream.cancel()

    def request_progress(self) -> None:
        """Ask for a progress report for all watches."""
        self._tell(WatchProgress())

    async def settled(self, watch: EtcdWatch) -> None:
        """Wait until a member has taken the watch; `Unavailable` when none does in the request timeout."""
        try:
            async with asyncio.timeout(self.options.request_timeout):
                await watch.created.wait()
        except TimeoutError:
            await watch.cancel()
            raise errors.Unavailable(self._caller.explain("no member took the watch in time")) from None

    async def close(self) -> None:
        """End all watches."""
        self._closed = True
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
        self._end_all("etcd: the store is closed")

    async def _run(self) -> None:
        """Keep a stream open while there are watches."""
        delays = self._caller.backoff.delays(self.options.source)
        while self._watches:
            try:
                connection, stream = await self._caller.open(_PATH)
            except errors.Unavailable:
                await self.options.clock.sleep(next(delays))
                continue
            except errors.StoreError as error:
                self._end_all(error.message)
                return
            failure = await self._serve(connection, stream)
            if failure is not None:
                self._end_all(failure.message)
                return
            if self._served:
                delays = self._caller.backoff.delays(self.options.source)
            if self._watches:
                await self.options.clock.sleep(next(delays))

    async def _serve(self, connection: Connection, stream: ClientStream) -> errors.StoreError | None:
        """Read one stream to its end; return the error that ends all watches, or None to go on elsewhere."""
        self._asked.clear()
        self._served = False
        try:
            self._ordered_progress = await self._has_ordered_progress(connection)
            if not self._watches:
                return None
            self._stream = stream
            await self._ask_for_all(stream)
            taken = 0
            async for data in stream:
                message = decode_watch_response(data)
                if not self._handle(message):
                    break
                # Many messages can be here already: consumers get their turn before they count as slow.
                taken += len(message.response.events)
                if taken >= _TURN_EVENTS:
                    taken = 0
                    await asyncio.sleep(0)
        except GrpcError as error:
            # Without `_stream` it was this side that ended it.
            if self._stream is not None:
                return self._caller.lost(connection, error)
        except errors.StoreError as error:
            return error
        finally:
            self._stream = None
            stream.cancel()
        return None

    async def _ask_for_all(self, stream: ClientStream) -> None:
        for watch in list(self._watches.values()):
            if watch.watch_id in self._watches:
                watch.fragments = []
                self._create(stream, watch)
                await stream.drain()
        if any(watch.wants_progress for watch in self._watches.values()):
            self.request_progress()

    async def _has_ordered_progress(self, connection: Connection) -> bool:
        """Whether the member sends a progress report after the events before it (etcd 3.4.25, 3.5.8 and later)."""
        try:
            data = await self._caller.one_member(connection, _STATUS, b"", self.options.request_timeout)
        except errors.StoreError:
            return False
        return ordered_progress(decode_status_response(data).version)

    def _create(self, stream: ClientStream, watch: EtcdWatch) -> None:
        request = watch.request
        resumed = WatchRequest(
            request.key,
            request.range_end,
            watch.next_revision,
            request.prev_kv,
            request.filters,
            request.progress_notify,
        )
        self._asked.append(watch.watch_id)
        try:
            stream.send(encode_watch(WatchCreate(resumed, watch.watch_id, fragment=True)))
        except GrpcError:
            # Whatever the stream lacks, all watches are asked for again on the next.
            stream.cancel()

    def _tell(self, message: WatchCancel | WatchProgress) -> None:
        # A stream that is lost needs no word: what it served is asked for anew, without what was cancelled.
        if self._stream is not None:
            with contextlib.suppress(GrpcError):
                self._stream.send(encode_watch(message))

    def _handle(self, message: WatchMessage) -> bool:
        """Give a message to its watch; return False where the stream must be opened anew."""
        watch_id = message.watch_id
        if message.created:
            asked = self._asked.popleft() if self._asked else 0
            # A watch that is refused at once comes back without its id; answers keep the order of the requests.
            watch_id = asked if message.response.canceled else watch_id
        elif watch_id == _ALL_WATCHES and not message.response.canceled:
            self._progress_of_all(message.response.revision)
            return True
        watch = self._watches.get(watch_id)
        if watch is None:
            return True
        response = message.response
        if response.canceled:
            return self._canceled(watch, response)
        self._served = True
        if message.created:
            watch.begin(response.revision)
        elif response.events or message.fragment:
            watch.fragments += response.events
            if not message.fragment:
                events, watch.fragments = watch.fragments, []
                if not watch.take(events):
                    self.forget(watch)
        else:
            watch.next_revision = max(watch.next_revision, response.revision + 1)
            watch.report(response.revision)
        return True

    def _canceled(self, watch: EtcdWatch, response: WatchResponse) -> bool:
        if self._caller.token_is_stale(response.cancel_reason):
            self._caller.forget_token()
            return False
        self._watches.pop(watch.watch_id, None)
        reason = response.cancel_reason
        if response.compact_revision:
            reason = reason or errors.Compacted.text
        watch.end(reason or "canceled by the member", response.compact_revision)
        return bool(self._watches)

    def _progress_of_all(self, revision: int) -> None:
        for watch in self._watches.values():
            if not (watch.wants_progress and watch.created.is_set()):
                continue
            if self._ordered_progress:
                watch.next_revision = max(watch.next_revision, revision + 1)
            # An older member may report ahead of events, so only what has been seen is said.
            watch.report(watch.next_revision - 1)

    def _end_all(self, reason: str) -> None:
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.end(reason)


def ordered_progress(version: str) -> bool:
    """Whether a member of this version sends progress reports in order with events (3.4.25, 3.5.8 and later)."""
    try:
        major, minor, patch = (int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return False
    fixed = {(3, 4): 25, (3, 5): 8}
    return (major, minor) > (3, 5) or patch >= fixed.get((major, minor), 1 << 30)


def _size(events: list[Event]) -> int:
    return sum(
        len(event.kv.key) + len(event.kv.value) + (len(event.prev_kv.value) if event.prev_kv else 0) + _EVENT_OVERHEAD
        for event in events
    )
