"""What a reflector asks next: lists, watches and waits, decided from answers, events and the time, without any IO."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from pilothouse.client.errors import ConnectFailed, TransportTimeout
from pilothouse.client.listwatch import BOOKMARK, ListOptions, ListResult, WatchEvent, WatchOptions
from pilothouse.client.objects import ObjectKeyError, key_of
from pilothouse.client.reflector_options import BACKOFF, Delays, ReflectorOptions
from pilothouse.kinds.status import ApiStatus, Expired, Gone, InternalError, TooManyRequests

__all__ = [
    "BACKOFF",
    "Action",
    "ListRequest",
    "Phase",
    "ReflectorCore",
    "ReflectorOptions",
    "ReflectorStore",
    "VeryShortWatchError",
    "Wait",
    "WatchRequest",
    "is_expired",
    "is_too_large_resource_version",
]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_SHORT_SECONDS: Final = 1.0
_OPEN_SECONDS: Final = 75.0
"""For so long a request that nothing is heard of may yet be on its way to a server that does not answer: longer than
transports wait for an answer."""
_INTERNAL_RESET_SECONDS: Final = 60.0
_CUT_STREAMS: Final = 3
"""Initial streams that end without the bookmark before a list is tried: some servers never send it."""
_TOO_LARGE: Final = "Too large resource version"

Phase = Literal["new", "listing", "streaming", "watching", "waiting"]


class VeryShortWatchError(Exception):
    """A watch ended within a second and brought nothing: something on the way does not let watches through."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name}: the watch ended within a second without any event; look for a proxy that cuts streams, or a "
            "server that cannot watch this resource"
        )


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Ask for a page; answer with `listed` or `list_failed`."""

    options: ListOptions


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Begin a watch; answer with `watched` for each event and with `watch_ended`."""

    options: WatchOptions


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds; answer with `waited`."""

    seconds: float


Action: TypeAlias = ListRequest | WatchRequest | Wait


class ReflectorStore(Protocol[T_contra]):
    """Where a reflector puts what it learns: a delta queue. Methods raise ObjectKeyError for what has no name."""

    def add(self, obj: T_contra) -> None: ...
    def update(self, obj: T_contra) -> None: ...
    def delete(self, obj: T_contra) -> None: ...
    def replace(self, items: Iterable[T_contra], *, transformed: bool = False) -> None: ...


@dataclass(slots=True)
class Counts:
    """What a reflector did so far."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    skipped: int = 0
    failures: int = 0
    replaced: int = 0


@dataclass(slots=True)
class _Listing(Generic[T]):
    """A list under way."""

    version: str
    items: list[T] = field(default_factory=list)
    limit: int = 0
    paged: bool = False
    whole: bool = False
    """Whether its pages expired, so that it is asked for as one."""


class ReflectorCore(Generic[T]):
    """One resource's way from nothing to a followed state, as client-go's Reflector goes it.

    Each method takes what happened and returns what to do now; `watched` returns None, for the watch goes on. Times are
    of a monotonic clock, in seconds. name: for errors. store: gets the changes. accepts: whether an object is of the
    wanted type; others are skipped. on_skip: is told of each one skipped, and why.
    """

    def __init__(
        self,
        name: str,
        store: ReflectorStore[T],
        options: ReflectorOptions | None = None,
        *,
        source: random.Random | None = None,
        accepts: Callable[[T], bool] | None = None,
        on_skip: Callable[[WatchEvent[T], Exception | None], object] | None = None,
        transformed: Callable[[T], T] | None = None,
    ) -> None:
        self.name: Final = name
        self.options: Final = options or ReflectorOptions()
        self.counts: Final = Counts()
        self.phase: Phase = "new"
        self.resource_version = ""
        """The last version seen: of a list, an event or a bookmark."""
        self.last_error: Exception | None = None
        self.failing = 0
        """Failures since anything last went well."""
        self.failing_since = 0.0
        """When the first of them was."""
        self._store = store
        self._source = source or random.Random()  # noqa: S311  # spreads load, guards nothing
        self._accepts = accepts
        self._on_skip = on_skip
        self._transformed = transformed
        self._delays = Delays(self.options.backoff, self.options.backoff_reset, self._source)
        self._unavailable = False
        self._paged = False
        self._listing: _Listing[T] = _Listing("")
        self._streamed: dict[str, T] = {}
        self._cut_streams = 0
        self._began = 0.0
        self._events_before = 0
        self._advances = True
        self._after: Callable[[float], Action] = self.begin
        self._internal_since: float | None = None
        self._internal_last = 0.0

    # What happened, and what is to be done

    def begin(self, now: float) -> Action:
        """Start, or start over: ask for the present state."""
        self._cut_streams = 0
        return self._stream(now) if self.options.stream_initial_list else self._list(now)

    def waited(self, now: float) -> Action:
        """Go on after a wait."""
        return self._after(now)

    def listed(self, result: ListResult[T], now: float) -> Action:
        """Take a page: ask for the next one, or hand the list over and watch from its version."""
        listing = self._listing
        listing.items.extend(result.items)
        if result.continue_:
            listing.paged = True
            options = self._list_options(None, listing.limit, result.continue_)
            return ListRequest(options)
        if listing.version == "0" and listing.paged:
            self._paged = True
        items, self._listing = listing.items, _Listing("")
        self._store.replace(items)
        self._settled(result.resource_version)
        return self._watch(now)

    def list_failed(self, error: Exception, now: float) -> Action:
        """Ask again: whole where a page expired, for the newest state where a version is gone, else after a wait."""
        listing = self._listing
        if isinstance(error, Expired) and listing.paged and not listing.whole:
            self._listing = _Listing(listing.version, whole=True)
            self.counts.lists += 1
            return ListRequest(self._list_options(listing.version, 0))
        if not self._unavailable and (is_expired(error) or is_too_large_resource_version(error)):
            self._unavailable = True
            return self._list(now)
        self._listing = _Listing("")
        return self._wait(error, now, self.begin)

    def watched(self, event: WatchEvent[T]) -> None:
        """Take an event of the watch: every one advances the version, what does not fit is skipped."""
        kind, obj, version, initial_end, error = event.type, event.object, event.resource_version, False, event.error
        self.counts.events += 1
        if kind == BOOKMARK:
            self.counts.bookmarks += 1
            initial_end = event.initial_events_end
        elif obj is None or error is not None or (self._accepts is not None and not self._accepts(obj)):
            self._skip(event, error)
        else:
            try:
                self._take(kind, obj)
            except ObjectKeyError as unnamed:
                self._skip(event, unnamed)
        if kind != "ADDED":
            self._advances = True
        if self.failing:
            self.failing = 0
        if self.phase == "streaming":
            if initial_end:
                self._streamed_all(version)
        elif version and self._advances:
            self.resource_version = version

    def watch_ended(self, error: Exception | None, now: float) -> Action:
        """Watch again, start over, or wait: None is the stream's proper end."""
        quiet = self.counts.events == self._events_before
        unanswered = isinstance(error, ConnectFailed | ConnectionRefusedError | TransportTimeout)
        if self.is_well(now) and not unanswered:
            self.failing = 0
        if error is None and quiet and now - self._began < _SHORT_SECONDS:
            error = VeryShortWatchError(self.name)
        if self.phase == "streaming":
            return self._stream_ended(error, quiet, now)
        if error is None:
            return self._watch(now)
        if isinstance(error, OSError):
            # It broke: nothing says that the versions are gone.
            if not unanswered and (not quiet or now - self._began >= _SHORT_SECONDS):
                self.last_error = error
                return self._watch(now)
            return self._wait(error, now, self._watch)
        if isinstance(error, TooManyRequests):
            return self._wait(error, now, self._watch)
        if isinstance(error, InternalError) and self._may_repeat(now):
            self.last_error = error
            return self._watch(now)
        return self._wait(error, now, self.begin)

    def is_well(self, now: float) -> bool:
        """Whether the last thing asked of the server went well, or a watch has been open for a while."""
        return not self.failing or (self.phase == "watching" and now - self._began >= _OPEN_SECONDS)

    def crashed(self, error: Exception, now: float) -> Action:
        """Start over after a wait: something raised that has no business to."""
        self._listing = _Listing("")
        self._streamed = {}
        return self._wait(error, now, self.begin)

    # How it gets there

    def _streamed_all(self, version: str) -> None:
        streamed, self._streamed = self._streamed, {}
        self._store.replace(streamed.values(), transformed=True)
        self._settled(version)
        self.phase = "watching"

    def _list(self, now: float) -> Action:
        version = "" if self._unavailable else self.resource_version or "0"
        paged = self.options.always_paged or self._paged or version in {"", "0"}
        self._listing = _Listing(version, limit=self.options.page_size if paged else 0)
        self.phase, self._began = "listing", now
        self.counts.lists += 1
        return ListRequest(self._list_options(version, self._listing.limit))

    def _list_options(self, version: str | None, limit: int, continue_: str = "") -> ListOptions:
        return ListOptions(
            label_selector=self.options.label_selector,
            field_selector=self.options.field_selector,
            resource_version=version or None,
            limit=limit,
            continue_=continue_,
        )

    def _stream(self, now: float) -> Action:
        self._streamed = {}
        self._opened(now)
        self._advances = False
        self.phase = "streaming"
        return self._watch_request("" if self._unavailable else self.resource_version, initial=True)

    def _watch(self, now: float) -> Action:
        self._opened(now)
        self._advances = self.resource_version not in {"", "0"}
        self.phase = "watching"
        return self._watch_request(self.resource_version, initial=False)

    def _opened(self, now: float) -> None:
        self._began = now
        self._events_before = self.counts.events
        self.counts.watches += 1

    def _watch_request(self, version: str, *, initial: bool) -> WatchRequest:
        low, high = self.options.min_watch_seconds, self.options.max_watch_seconds
        return WatchRequest(
            WatchOptions(
                label_selector=self.options.label_selector,
                field_selector=self.options.field_selector,
                resource_version=version or None,
                resource_version_match="NotOlderThan" if initial else "",
                send_initial_events=True if initial else None,
                timeout_seconds=int(low + self._source.random() * (high - low)),
            )
        )

    def _stream_ended(self, error: Exception | None, quiet: bool, now: float) -> Action:
        self._streamed = {}
        if error is None or (isinstance(error, OSError) and not quiet):
            self.last_error = error or self.last_error
            self._cut_streams += 1
            return self._stream(now) if self._cut_streams < _CUT_STREAMS else self._list(now)
        if isinstance(error, OSError | TooManyRequests):
            return self._wait(error, now, self._stream)
        if not self._unavailable and (is_expired(error) or is_too_large_resource_version(error)):
            self._unavailable = True
            return self._stream(now)
        # The server cannot do it, most likely because it does not know how: Invalid, as a rule.
        self.last_error = error
        return self._list(now)

    def _take(self, kind: str, obj: T) -> None:
        if self.phase == "streaming":
            key = key_of(obj)
            if kind == "DELETED":
                self._streamed.pop(key, None)
            else:
                self._streamed[key] = obj if self._transformed is None else self._transformed(obj)
        elif kind == "MODIFIED":
            self._store.update(obj)
        elif kind == "ADDED":
            self._store.add(obj)
        else:
            self._store.delete(obj)

    def _skip(self, event: WatchEvent[T], error: Exception | None) -> None:
        self.counts.skipped += 1
        if self._on_skip is not None:
            self._on_skip(event, error)

    def _settled(self, version: str) -> None:
        self.resource_version = version
        self._unavailable = False
        self.failing = 0
        self.counts.replaced += 1

    def _may_repeat(self, now: float) -> bool:
        """Whether an error of the server is within the time in which watches are simply begun again."""
        if self.options.internal_error_seconds <= 0:
            return False
        if self._internal_since is None or now - self._internal_last >= _INTERNAL_RESET_SECONDS:
            self._internal_since = now
        self._internal_last = now
        if now - self._internal_since <= self.options.internal_error_seconds:
            return True
        self._internal_since = None
        return False

    def _wait(self, error: Exception, now: float, after: Callable[[float], Action]) -> Action:
        self.last_error = error
        self.counts.failures += 1
        if not self.failing:
            self.failing_since = self._began if isinstance(error, TransportTimeout) else now
        self.failing += 1
        self.phase = "waiting"
        self._after = after
        # Some servers say it in the header alone.
        asked = error.retry_after_seconds or getattr(error, "retry_header", 0) if isinstance(error, ApiStatus) else 0
        return Wait(max(self._delays.next(now), asked))


def is_expired(error: Exception) -> bool:
    """Whether a version is no longer known to the server, so that a new list is needed."""
    return isinstance(error, Expired | Gone)


def is_too_large_resource_version(error: Exception) -> bool:
    """Whether a version is not known to this server yet."""
    if not isinstance(error, ApiStatus):
        return False
    if any(cause.get("reason") == "ResourceVersionTooLarge" for cause in error.causes):
        return True
    if error.reason != "Timeout":
        return False
    return _TOO_LARGE in error.message or any(cause.get("message") == _TOO_LARGE for cause in error.causes)
