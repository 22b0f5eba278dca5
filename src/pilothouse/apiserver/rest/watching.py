"""Watches: what is there, then every change, to each client as it selected."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.changes import ADDED, BOOKMARK, DELETED, MODIFIED, Change, Encode
from pilothouse.apiserver.cache.entries import Entry, encoded
from pilothouse.apiserver.cache.resourcecache import TooOldError
from pilothouse.apiserver.model import Answer, Sink, StreamingResponse
from pilothouse.apiserver.rest.engine import Call
from pilothouse.apiserver.rest.options import ListOptions, list_options
from pilothouse.apiserver.rest.rendering import Renderer, error_event
from pilothouse.apiserver.rest.selecting import Matches, selection
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.storing import store_status
from pilothouse.foundation.clock import Clock, Timer
from pilothouse.foundation.ids import Ids
from pilothouse.kinds import fields
from pilothouse.kinds.status import ApiStatus, Expired, too_large_resource_version
from pilothouse.store import StoreError

__all__ = ["Watching"]

_BUFFERED = 8 * 1024 * 1024
"""Bytes that may wait for one client; one that takes them too slowly has to watch anew."""
_WAITING = 20_000
"""Changes that may wait while the objects that are there are sent."""
_BOOKMARK_SECONDS = 60.0
_LEAST_SECONDS = 1800
_AT_ONCE = 100


class Session:
    """One watch. Between `feed` and the sink there is nothing but a test and an encoding that all share."""

    __slots__ = ("_deferred", "_encode", "_matches", "_sink", "after", "ended", "moved")

    def __init__(self, sink: Sink, matches: Matches | None, encode: Encode, after: int) -> None:
        self._sink = sink
        self._matches = matches
        self._encode = encode
        self._deferred: deque[Change] | None = deque()
        self.after = after
        """The resource version up to which the client knows everything."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.moved = False
        """Whether anything was sent since the last bookmark."""

    def feed(self, change: Change) -> None:
        if self.ended.done():
            return
        if self._deferred is not None:
            self._deferred.append(change)
            if len(self._deferred) > _WAITING:
                self.end()
            return
        if change.rv <= self.after:
            return
        self.after = change.rv
        kind = change.kind
        if self._matches is not None:
            kind = self._seen(change, self._matches)
            if not kind:
                return
        self.moved = True
        self._deliver(change, kind)

    def _deliver(self, change: Change, kind: str) -> None:
        sink = self._sink
        sink.write_piece(change.piece(kind, self._encode))
        if sink.buffered > _BUFFERED:
            self.end()

    def _seen(self, change: Change, matches: Matches) -> str:
        """Return the type of the event for who selects, empty where it is none."""
        before = change.old is not None and change.matched(matches, change.old)
        if change.deleted:
            return DELETED if before else ""
        if change.matched(matches, change.entry):
            return MODIFIED if before else ADDED
        return change.LEFT if before else ""

    def rewind(self, missed: list[Change]) -> None:
        """Let changes that were before the subscription come first."""
        if self._deferred is not None:
            self._deferred.extendleft(reversed(missed))

    def go_live(self) -> None:
        """Send what came while the objects that were there were sent, and everything from now on."""
        waiting, self._deferred = self._deferred, None
        for change in waiting or ():
            self.feed(change)

    def end(self) -> None:
        """End the watch; the client starts a new one where this one stopped."""
        if not self.ended.done():
            self.ended.set_result(None)

    def send(self, kind: str, entry: Entry) -> None:
        """Send one event that is for this client alone."""
        self._sink.write(self._encode(kind, entry))

    async def flush(self) -> None:
        """Wait until the client has taken enough of what was sent for more to be sent."""
        await self._sink.drain()

    async def run(self) -> None:
        """Wait until the watch ends."""
        await self.ended


class ConvertingSession(Session):
    """A watch in a version to which a webhook converts: events wait in order until each one's object is there."""

    __slots__ = ("_events", "_served", "_some")

    def __init__(self, served: Served, sink: Sink, matches: Matches | None, encode: Encode, after: int) -> None:
        super().__init__(sink, matches, encode, after)
        self._served = served
        self._events: deque[tuple[str, Entry]] = deque()
        self._some = asyncio.Event()

    def _deliver(self, change: Change, kind: str) -> None:
        if kind is change.LEFT and change.old is not None:
            kind, old = DELETED, change.old
            self.send(kind, Entry(old.key, old.value, change.rv, old.form))
        else:
            self.send(kind, change.entry)

    def send(self, kind: str, entry: Entry) -> None:
        self._events.append((kind, entry))
        self._some.set()
        if len(self._events) > _WAITING:
            self.end()

    async def run(self) -> None:
        pump = asyncio.ensure_future(self._pump())
        try:
            await asyncio.wait({pump, self.ended}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        finally:
            pump.cancel()

    async def _pump(self) -> None:
        while not self.ended.done():
            await self._some.wait()
            self._some.clear()
            await self.flush()

    async def flush(self) -> None:
        while self._events and not self.ended.done():
            kind, entry = self._events.popleft()
            try:
                converted = await self._converted(entry)
            except ApiStatus as error:
                self._sink.write(error_event(error))
                self.end()
                return
            self._sink.write(self._encode(kind, converted))
            await self._sink.drain()

    async def _converted(self, entry: Entry) -> Entry:
        if not entry.key:
            return entry
        return Entry(entry.key, encoded(await self._served.load(entry)), entry.rv, self._served.form)


class Watching:
    """Answers watches."""

    def __init__(self, cacher: Cacher, renderer: Renderer, clock: Clock, ids: Ids) -> None:
        self._cacher = cacher
        self._renderer = renderer
        self._clock = clock
        self._ids = ids
        self._sessions: dict[Session, Served] = {}
        # Who watched across a gap could not go on from the versions of what fills it; they start anew and are told.
        cacher.reloading.append(self.end_all)

    @property
    def running(self) -> int:
        """The number of watches."""
        return len(self._sessions)

    def end_all(self, served: Served | None = None) -> None:
        """End all watches, or those of one resource."""
        for session, watched in list(self._sessions.items()):
            if served is None or watched is served:
                session.end()

    def watch(self, call: Call) -> Answer | Awaitable[Answer]:
        """Answer a watch. Raises ApiStatus for what cannot be watched."""
        options = list_options(call.request, watch=True)
        if self._cacher.shared:
            return self._watch_shared(call, options)
        return self._watch(call, options)

    async def _watch_shared(self, call: Call, options: ListOptions) -> Answer:
        if options.version is None or options.version > self._cacher.revision:
            try:
                await self._cacher.current()
            except StoreError as error:
                raise store_status(error) from error
        return self._watch(call, options)

    def _watch(self, call: Call, options: ListOptions) -> Answer:
        served = call.served
        if call.info.name and options.fields.exact("metadata.name") != call.info.name:
            # The old form of the path, `/watch/.../name`: who may watch this one object sees no other.
            named = fields.parse(f"metadata.name={fields.escape(call.info.name)}")
            options.fields = named if options.fields.empty else fields.parse(f"{options.fields},{named}")
        chosen = selection(served, options)
        encode, content_type = self._renderer.encode_event(call.request, served)
        current = self._cacher.revision
        if options.version is not None and options.version > current:
            raise too_large_resource_version(options.version, current)
        timeout = options.timeout or _LEAST_SECONDS + self._ids.int63() % _LEAST_SECONDS

        async def run(sink: Sink) -> None:
            await self._run(call, sink, options, chosen.matches, encode, timeout)

        return StreamingResponse(run, content_type=content_type)

    async def _run(
        self,
        call: Call,
        sink: Sink,
        options: ListOptions,
        matches: Matches | None,
        encode: Encode,
        seconds: float,
    ) -> None:
        served, namespace = call.served, call.info.namespace if call.served.resource.namespaced else ""
        version = self._cacher.revision
        session = self._session(served, sink, matches, encode, version)
        wants_state = options.initial_events if options.initial_events is not None else not options.version
        stop = served.cache.subscribe(session, namespace)
        self._sessions[session] = served
        timers: list[Timer] = []
        try:
            if wants_state:
                await self._send_state(session, served.cache.entries(namespace), matches)
                if options.initial_events and options.bookmarks:
                    session.send(BOOKMARK, self._renderer.bookmark(served, version, initial=True))
            elif options.version and not self._send_past(call, session, sink, options.version):
                return
            session.go_live()
            self._arm(session, served, options, timers, seconds)
            await session.run()
        finally:
            for timer in timers:
                timer.cancel()
            stop()
            del self._sessions[session]

    def _session(self, served: Served, sink: Sink, matches: Matches | None, encode: Encode, version: int) -> Session:
        if not served.is_stored and served.conversions.by_webhook(served.resource):
            return ConvertingSession(served, sink, matches, encode, version)
        return Session(sink, matches, encode, version)

    async def _send_state(self, session: Session, entries: list[Entry], matches: Matches | None) -> None:
        for place, entry in enumerate(entries):
            if matches is None or matches(entry):
                session.send(ADDED, entry)
            if place % _AT_ONCE == _AT_ONCE - 1:
                await session.flush()
                await asyncio.sleep(0)

    def _send_past(self, call: Call, session: Session, sink: Sink, version: int) -> bool:
        """Send the changes since a version; an ERROR event, and False, where they are forgotten."""
        namespace = call.info.namespace if call.served.resource.namespaced else ""
        try:
            changes = call.served.cache.changes_after(version)
        except TooOldError as error:
            expired = Expired(f"too old resource version: {version} ({error.oldest})")
            sink.write(error_event(expired))
            return False
        session.after = version
        prefix = f"{namespace}/"
        missed = [change for change in changes if not namespace or change.entry.key.startswith(prefix)]
        session.rewind(missed)
        return True

    def _arm(self, session: Session, served: Served, options: ListOptions, timers: list[Timer], seconds: float) -> None:
        """Set the clock for the end of the watch and, where they are wanted, for bookmarks."""

        def end() -> None:
            if options.bookmarks and session.moved:
                bookmark()
            session.end()

        def bookmark() -> None:
            session.moved = False
            session.send(BOOKMARK, self._renderer.bookmark(served, self._cacher.revision, initial=False))

        def again() -> None:
            bookmark()
            timers[1] = self._clock.call_later(_BOOKMARK_SECONDS, again)

        timers.append(self._clock.call_later(seconds, end))
        if options.bookmarks:
            timers.append(self._clock.call_later(_BOOKMARK_SECONDS, again))
