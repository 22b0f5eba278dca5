"""One watch stream: its watches by id, what each has to send, and how far the stream as a whole has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from pilothouse.foundation.grpc import GrpcCode, GrpcError, ServerStream
from pilothouse.foundation.logs import get_logger
from pilothouse.store.errors import AuthError, Compacted, Unavailable
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.requests import WatchCreate
from pilothouse.store.etcd.service_context import ServiceContext
from pilothouse.store.etcd.wire import event_field, varint
from pilothouse.store.model import Event, WatchResponse
from pilothouse.store.watchhub import EMPTY_RANGE, Watcher

__all__ = ["DUPLICATE_ID", "Wakeups", "WatchSession"]

DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
"""etcd's reason for refusing an id that is taken."""

_log = get_logger(__name__)

_NO_ID = -1
_MAX_QUEUED = 1 << 20
_MAX_EVENTS = 1000
_MAX_WATCHES = 100_000


class Wakeups:
    """Collects the watches that have something to send, of all streams, for one round an iteration of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: list[_Watch] = []
        self.encodings: dict[tuple[object, ...], tuple[Sequence[Event], bytes, bytes]] = {}
        """What this round has encoded: the events, so that their identity stays theirs, the header, and the bytes."""

    def add(self, watch: _Watch) -> None:
        """Have `watch` send what it has before the loop's next wait."""
        if not self._ready:
            self._loop.call_soon(self._round)
        self._ready.append(watch)

    def _round(self) -> None:
        ready, self._ready = self._ready, []
        for watch in ready:
            try:
                watch.send()
            except Exception as error:  # noqa: BLE001  # one stream that fails must not silence the others
                _log.exception("a watch cannot be served", watch_id=watch.watch_id)
                watch.fail(GrpcError(GrpcCode.INTERNAL, f"etcdserver: internal error ({type(error).__name__})"))
        self.encodings.clear()


class _Watch:
    """One watch of a stream."""

    __slots__ = ("_session", "_watcher", "fragment", "id_field", "kind", "prev_kv", "watch_id")

    def __init__(self, session: WatchSession, watch_id: int, create: WatchCreate) -> None:
        self.watch_id = watch_id
        self.id_field = b"\x10" + varint(watch_id) if watch_id else b""
        self.prev_kv = create.request.prev_kv
        self.fragment = create.fragment
        self.kind = (create.request.key, create.request.range_end, create.request.filters, self.prev_kv)
        self._session = session
        self._watcher = self._attach(session.context.store.hub.watch(create.request))

    def _attach(self, watcher: Watcher) -> Watcher:
        watcher.on_ready = self.wake
        return watcher

    def wake(self) -> None:
        """Note that there is something to send."""
        self._session.wakeups.add(self)

    def request_progress(self) -> None:
        """Ask for a report once everything up to now is sent."""
        self._watcher.request_progress()

    def cancel(self) -> None:
        """End the watch; what waits is dropped."""
        self._watcher.cancel()

    def fail(self, error: GrpcError) -> None:
        """End the whole stream."""
        self._session.fail(error)

    def send(self) -> None:
        """Send all that waits, or as much as the stream takes now."""
        session = self._session
        while not self._watcher.closed:
            if session.is_full():
                session.block(self)
                return
            responses = self._watcher.take(_MAX_EVENTS)
            if not responses:
                return
            for response in responses:
                if response.events:
                    session.send_events(self, response)
                elif response.canceled:
                    self._ended(response)
                else:
                    session.progressed(self, response.revision)

    def _ended(self, response: WatchResponse) -> None:
        if not response.resume_revision:
            self._session.ended(self, response)
            return
        # The client reads again, or this would not run: it goes on from history, behind what it has been sent.
        request = msgspec.structs.replace(self._watcher.request, start_revision=response.resume_revision)
        self._watcher = self._attach(self._session.context.store.hub.watch(request))
        self._session.resumed(self)
        self.wake()


class WatchSession:
    """The watches of one stream. Its owner feeds it the client's requests and calls `close` at the end."""

    def __init__(self, context: ServiceContext, wakeups: Wakeups, stream: ServerStream, max_bytes: int) -> None:
        self.context = context
        self.wakeups = wakeups
        self.failure: GrpcError | None = None
        self._stream = stream
        self._task = asyncio.current_task()
        self._max_bytes = max_bytes
        self._encoder = context.encoder
        self._watches: dict[int, _Watch] = {}
        self._next_id = 0
        self._blocked: dict[_Watch, None] = {}
        self._unblocking: asyncio.Task[None] | None = None
        # Watches that have yet to report for the stream's progress, and the smallest revision reported so far.
        self._reporting: dict[_Watch, None] = {}
        self._reported = 0
        self._asked_again = False

    # The client's requests

    def create(self, create: WatchCreate) -> None:
        """Start a watch, or refuse it with a response that is both created and canceled, as etcd does."""
        reason = self._refusal(create)
        if reason:
            rest = pb.WatchResponse(watch_id=_NO_ID, created=True, canceled=True, cancel_reason=reason)
            self._stream.send(self._encoder.header(self.context.revision) + rest.SerializeToString())
            return
        watch_id = create.watch_id or self._free_id()
        self._stream.send(self._encoder.watch_created(watch_id, self.context.revision))
        watch = self._watches[watch_id] = _Watch(self, watch_id, create)
        watch.wake()
        if self._reporting:
            # The report that is to come speaks for this watch too.
            self._reporting[watch] = None
            watch.request_progress()

    def cancel(self, watch_id: int) -> None:
        """End a watch and say so; an unknown id is passed over, for it may just have ended."""
        watch = self._watches.pop(watch_id, None)
        if watch is None:
            return
        watch.cancel()
        self._blocked.pop(watch, None)
        response = WatchResponse(self.context.revision, canceled=True)
        self._stream.send(self._encoder.watch(watch_id, response))
        self._no_longer_reporting(watch)

    def request_progress(self) -> None:
        """Report once, for the stream as a whole, when all of its watches have sent everything up to now."""
        if self._reporting:
            self._asked_again = True
            return
        self._reported = self.context.revision
        self._reporting = dict.fromkeys(self._watches.values())
        if not self._reporting:
            self._report()
        for watch in list(self._reporting):
            watch.request_progress()

    def close(self) -> None:
        """End all watches; nothing is sent any more."""
        for watch in self._watches.values():
            watch.cancel()
        self._watches.clear()
        self._blocked.clear()
        self._reporting.clear()
        if self._unblocking is not None:
            self._unblocking.cancel()

    def _refusal(self, create: WatchCreate) -> str:
        request = create.request
        key, range_end = request.key or b"\0", request.range_end
        if request.start_revision < 0:
            return Compacted.text
        if range_end not in {b"", b"\0"} and range_end <= key:
            return EMPTY_RANGE
        if create.watch_id in self._watches and create.watch_id:
            return DUPLICATE_ID
        if len(self._watches) >= _MAX_WATCHES:
            return f"etcdserver: too many requests: {_MAX_WATCHES} watches on one stream; open another stream"
        auth = self.context.auth
        if auth.enabled:
            try:
                auth.require_read(self.context.identify(self._stream), key, range_end)
            except AuthError as error:
                return error.message
        return ""

    def _free_id(self) -> int:
        while self._next_id in self._watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    # What the watches have to say

    def send_events(self, watch: _Watch, response: WatchResponse) -> None:
        """Send a response with events, in parts where it is large."""
        events, prev_kv = response.events, watch.prev_kv
        encodings = self.wakeups.encodings
        # Watchers of one range and filter see one sequence, of which the first, the last and the number make a piece.
        place = (id(events[0]), id(events[-1]), len(events), watch.kind)
        known = encodings.get(place)
        if known is None:
            body = b"".join([event_field(event, prev_kv) for event in events])
            known = encodings[place] = (events, self._encoder.header(response.revision), body)
        _, header, body = known
        if len(body) > self._max_bytes and len(events) > 1:
            self._send_parts(watch, response)
        else:
            self._send(b"%b%b%b" % (header, watch.id_field, body))

    def _send_parts(self, watch: _Watch, response: WatchResponse) -> None:
        for revision, events in _cut(response.events, watch.prev_kv, self._max_bytes):
            part = WatchResponse(revision, events)
            if watch.fragment:
                for message in self._encoder.watch_fragments(
                    watch.watch_id, part, prev_kv=watch.prev_kv, limit=self._max_bytes
                ):
                    self._send(message)
            else:
                self._send(self._encoder.watch(watch.watch_id, part, prev_kv=watch.prev_kv))

    def progressed(self, watch: _Watch, revision: int) -> None:
        """Take a report of one watch: for the stream's, or for the client that asked for regular ones."""
        if watch in self._reporting:
            self._reported = max(min(self._reported, revision), 0)
            self._no_longer_reporting(watch)
        else:
            self._send(self._encoder.watch(watch.watch_id, WatchResponse(revision)))

    def resumed(self, watch: _Watch) -> None:
        """Have a watch that reads on from history report anew."""
        if watch in self._reporting:
            watch.request_progress()

    def ended(self, watch: _Watch, response: WatchResponse) -> None:
        """Tell the client of a watch that the store ended."""
        if not response.compact_revision and response.cancel_reason == Unavailable.text:
            self.fail(GrpcError(GrpcCode.UNAVAILABLE, Unavailable.text))
            return
        self._watches.pop(watch.watch_id, None)
        self._send(self._encoder.watch(watch.watch_id, response))
        self._no_longer_reporting(watch)

    def _no_longer_reporting(self, watch: _Watch) -> None:
        if watch not in self._reporting:
            return
        del self._reporting[watch]
        if not self._reporting:
            self._report()

    def _report(self) -> None:
        self._send(self._encoder.watch(_NO_ID, WatchResponse(self._reported)))
        if self._asked_again:
            self._asked_again = False
            self.request_progress()

    # The stream

    def is_full(self) -> bool:
        """Whether the client has to read before more is sent."""
        return self._stream.queued_bytes > _MAX_QUEUED

    def block(self, watch: _Watch) -> None:
        """Have `watch` send again once the client has read."""
        self._blocked[watch] = None
        if self._unblocking is None:
            self._unblocking = self.context.loop.create_task(self._unblock())

    async def _unblock(self) -> None:
        try:
            await self._stream.drain()
        except GrpcError:
            return
        self._unblocking = None
        blocked, self._blocked = self._blocked, {}
        for watch in blocked:
            watch.wake()

    def _send(self, message: bytes) -> None:
        try:
            self._stream.send(message)
        except GrpcError as error:
            self.fail(error)

    def fail(self, error: GrpcError) -> None:
        """End the stream with a status."""
        if self.failure is None:
            self.failure = error
            if self._task is not None:
                self._task.cancel()


def _cut(events: Sequence[Event], prev_kv: bool, limit: int) -> Iterator[tuple[int, list[Event]]]:
    """Yield runs of whole revisions with at most `limit` bytes, one revision at least, and the last one of each."""
    run: list[Event] = []
    whole, size = 0, 0
    for event in events:
        revision = event.kv.mod_revision
        if run and run[-1].kv.mod_revision != revision:
            whole = len(run)
        run.append(event)
        size += len(event_field(event, prev_kv))
        if size > limit and whole:
            yield run[whole - 1].kv.mod_revision, run[:whole]
            run = run[whole:]
            whole, size = 0, sum(len(event_field(each, prev_kv)) for each in run)
    yield run[-1].kv.mod_revision, run
