"""What becomes of one more event: written, counted on an earlier one, gathered with similar ones, or dropped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pilothouse.client.ratelimit import TokenBucket
from pilothouse.foundation.clock import Clock
from pilothouse.kinds import times

__all__ = ["Correlated", "CorrelationOptions", "EventCorrelator"]

V = TypeVar("V")

_COMBINED: Final = "(combined from similar events): "


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationOptions:
    """When events count as too many; the defaults are client-go's.

    similar: different messages of one reason about one object, from which on they are gathered in one event, within
    `similar_seconds` from one to the next. burst, per_second: events about one object from one source, beyond which
    they are dropped. remembered: objects and events, the least recently used go first.
    """

    similar: int = 10
    similar_seconds: float = 600.0
    burst: int = 25
    per_second: float = 1.0 / 300.0
    remembered: int = 4_096


@dataclass(frozen=True, slots=True)
class Correlated:
    """What to write. patch: for the event that is there already, to be made anew if it is gone; None to create."""

    event: dict[str, Any]
    patch: dict[str, Any] | None


@dataclass(slots=True)
class _Similar:
    messages: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass(frozen=True, slots=True)
class _Seen:
    count: int
    first: str
    name: str
    resource_version: str


class _Remembered(Generic[V]):
    """A bounded memory; the least recently used goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
        return found

    def put(self, key: Hashable, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)


class EventCorrelator:
    """Decides by what it remembers of earlier events, as client-go's EventCorrelator does. Events are of core/v1."""

    def __init__(self, clock: Clock, options: CorrelationOptions | None = None) -> None:
        self.options: Final = options or CorrelationOptions()
        self._clock = clock
        self._similar: _Remembered[_Similar] = _Remembered(self.options.remembered)
        self._seen: _Remembered[_Seen] = _Remembered(self.options.remembered)
        self._buckets: _Remembered[TokenBucket] = _Remembered(self.options.remembered)

    def correlate(self, event: dict[str, Any]) -> Correlated | None:
        """Return what to write, or None for spam."""
        gathered, key = self._gather(event)
        correlated = self._count(gathered, key)
        return None if self._is_spam(correlated.event) else correlated

    def written(self, event: dict[str, Any]) -> None:
        """Take note of an event as the server keeps it."""
        metadata = event["metadata"]
        seen = _Seen(
            event.get("count", 1),
            event.get("firstTimestamp") or "",
            metadata["name"],
            metadata.get("resourceVersion", ""),
        )
        self._seen.put(_event_key(event), seen)

    def _gather(self, event: dict[str, Any]) -> tuple[dict[str, Any], Hashable]:
        now, key = self._clock.monotonic(), _similar_key(event)
        similar = self._similar.get(key)
        if similar is None or now - similar.last > self.options.similar_seconds:
            similar = _Similar()
        similar.messages.add(event["message"])
        similar.last = now
        self._similar.put(key, similar)
        if len(similar.messages) < self.options.similar:
            return event, _event_key(event)
        similar.messages.pop()
        moment = self._clock.now()
        stamp = times.format_seconds(moment)
        nanoseconds = int(moment.timestamp() * 1_000_000) * 1_000
        name = f"{event['involvedObject'].get('name', '')}.{nanoseconds:x}"
        combined = {
            **event,
            "metadata": {"name": name, "namespace": event["metadata"]["namespace"]},
            "message": _COMBINED + event["message"],
            "count": 1,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
        }
        return combined, key

    def _count(self, event: dict[str, Any], key: Hashable) -> Correlated:
        last = self._seen.get(key)
        patch = None
        if last is not None and last.count > 0:
            metadata = {**event["metadata"], "name": last.name, "resourceVersion": last.resource_version}
            event = {**event, "metadata": metadata, "firstTimestamp": last.first, "count": last.count + 1}
            patch = {name: event[name] for name in ("count", "lastTimestamp", "message")}
        self._seen.put(
            key,
            _Seen(
                event["count"],
                event["firstTimestamp"],
                event["metadata"]["name"],
                event["metadata"].get("resourceVersion", ""),
            ),
        )
        return Correlated(event, patch)

    def _is_spam(self, event: dict[str, Any]) -> bool:
        key = _source_key(event)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(self.options.per_second, self.options.burst, self._clock)
            self._buckets.put(key, bucket)
        return not bucket.try_accept()


def _source_key(event: dict[str, Any]) -> Hashable:
    """Name the source and the object; client-go leaves the reason out here."""
    source, about = event["source"], event["involvedObject"]
    return (
        source.get("component"),
        source.get("host"),
        about.get("kind"),
        about.get("namespace"),
        about.get("name"),
        about.get("uid"),
        about.get("apiVersion"),
        event["type"],
    )


def _similar_key(event: dict[str, Any]) -> Hashable:
    return _source_key(event), event["reason"], event.get("reportingComponent"), event.get("reportingInstance")


def _event_key(event: dict[str, Any]) -> Hashable:
    return _source_key(event), event["involvedObject"].get("fieldPath"), event["reason"], event["message"]
