"""Validate what a watcher received against the writes that are known to have happened.

The rules are etcd's promises for watches. Each validator takes what one watcher saw and the whole history of events
(with `prev_kv` filled in) in (revision, sub) order, and returns a sentence for every breach.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pilothouse.store.model import Event, KeyValue, WatchFilter, WatchRequest, WatchResponse

__all__ = ["VALIDATORS", "Breach", "Watched", "validate"]

Content: TypeAlias = tuple[bytes, bytes, int, int, int, int]


@dataclass(frozen=True)
class Watched:
    """One watch: what was asked, what came, and the first revision whose events it owes.

    `first_revision` is the request's `start_revision`, or, for a watch from now, the revision after the one that
    was current when it was made. A watch taken up again after a break is a `Watched` of its own.
    """

    request: WatchRequest
    responses: Sequence[WatchResponse]
    first_revision: int

    @property
    def events(self) -> list[Event]:
        """All events in the order in which they came."""
        return [event for response in self.responses for event in response.events]

    @property
    def seen_to(self) -> int:
        """The revision up to which nothing is still to come."""
        return max((r.revision for r in self.responses if not r.canceled), default=self.first_revision - 1)


class Breach(NamedTuple):
    """A promise that was not kept."""

    rule: str
    detail: str


Validator: TypeAlias = Callable[[Watched, Sequence[Event]], list[str]]


def validate(watched: Watched, history: Sequence[Event]) -> list[Breach]:
    """Return every breach of every rule; empty when all promises were kept."""
    return [Breach(rule, detail) for rule, check in VALIDATORS.items() for detail in check(watched, history)]


def wanted(request: WatchRequest, event: Event) -> bool:
    """Return whether a watcher asked for this event."""
    key, start, end = event.kv.key, request.key, request.range_end
    inside = key == start if not end else key >= start and (end == b"\0" or key < end)
    return inside and (WatchFilter.NODELETE if event.is_delete else WatchFilter.NOPUT) not in request.filters


def _filter(watched: Watched, _history: Sequence[Event]) -> list[str]:
    return [f"{_name(event)} was not asked for" for event in watched.events if not wanted(watched.request, event)]


def _ordered(watched: Watched, history: Sequence[Event]) -> list[str]:
    place = {_identity(event): n for n, event in enumerate(history)}
    known = [(place[_identity(event)], event) for event in watched.events if _identity(event) in place]
    return [
        f"{_name(event)} came after {_name(before)}"
        for (earlier, before), (later, event) in itertools.pairwise(known)
        if later < earlier
    ]


def _unique(watched: Watched, _history: Sequence[Event]) -> list[str]:
    times = Counter(_identity(event) for event in watched.events)
    return [f"{key!r} at revision {revision} came {n} times" for (key, revision, _), n in times.items() if n > 1]


def _atomic(watched: Watched, _history: Sequence[Event]) -> list[str]:
    found: list[str] = []
    response_of: dict[int, int] = {}
    for n, response in enumerate(watched.responses):
        for event in response.events:
            revision = event.kv.mod_revision
            if response_of.setdefault(revision, n) != n:
                found.append(f"revision {revision} was split between responses {response_of[revision]} and {n}")
            if revision > response.revision:
                found.append(f"{_name(event)} came in a response of revision {response.revision}")
    return found


def _reliable(watched: Watched, history: Sequence[Event]) -> list[str]:
    received = {_identity(event): event for event in watched.events}
    real = {_identity(event): event for event in history}
    missing = [
        f"{_name(event)} never came although revision {watched.seen_to} was reached"
        for identity, event in real.items()
        if watched.first_revision <= event.kv.mod_revision <= watched.seen_to
        and wanted(watched.request, event)
        and identity not in received
    ]
    invented = [f"{_name(event)} was never written" for identity, event in received.items() if identity not in real]
    changed = [
        f"{_name(event)} is {event.kv} but {real[identity].kv} was written"
        for identity, event in received.items()
        if identity in real and _content(event.kv) != _content(real[identity].kv)
    ]
    return missing + invented + changed


def _resumable(watched: Watched, history: Sequence[Event]) -> list[str]:
    early = [
        f"{_name(event)} is before the start at {watched.first_revision}"
        for event in watched.events
        if event.kv.mod_revision < watched.first_revision
    ]
    owed = [e for e in history if e.kv.mod_revision >= watched.first_revision and wanted(watched.request, e)]
    if watched.events and owed and _identity(watched.events[0]) != _identity(owed[0]):
        early.append(f"the first event is {_name(watched.events[0])}, not {_name(owed[0])}")
    return early


def _bookmarkable(watched: Watched, _history: Sequence[Event]) -> list[str]:
    found: list[str] = []
    bookmark = 0
    for response in watched.responses:
        if response.canceled:
            continue
        late = [event for event in response.events if event.kv.mod_revision <= bookmark]
        found += [f"{_name(event)} came after revision {bookmark} was reported as complete" for event in late]
        if response.revision < bookmark:
            found.append(f"a response of revision {response.revision} came after one of {bookmark}")
        bookmark = max(bookmark, response.revision)
    return found


def _prev_kv(watched: Watched, history: Sequence[Event]) -> list[str]:
    real = {_identity(event): event.prev_kv for event in history}
    found: list[str] = []
    for event in watched.events:
        expected = real.get(_identity(event))
        # One event object serves all watchers of an engine, so it may hold what this one did not ask for.
        unasked = event.prev_kv is None and not watched.request.prev_kv
        if not unasked and _maybe_content(event.prev_kv) != _maybe_content(expected):
            found.append(f"{_name(event)} has prev_kv {event.prev_kv}, not {expected}")
    return found


def _create_or_modify(watched: Watched, history: Sequence[Event]) -> list[str]:
    before = {_identity(event): event.prev_kv for event in history}
    found: list[str] = []
    for event in watched.events:
        kv, old = event.kv, before.get(_identity(event))
        if event.is_delete:
            correct = kv.create_revision == 0 and not kv.value
        elif old is None:
            correct = kv.version == 1 and kv.create_revision == kv.mod_revision
        else:
            correct = kv.version == old.version + 1 and kv.create_revision == old.create_revision
        if not correct:
            found.append(f"{_name(event)} with version {kv.version}, created at {kv.create_revision}, follows {old}")
    return found


VALIDATORS: dict[str, Validator] = {
    "filter": _filter,
    "ordered": _ordered,
    "unique": _unique,
    "atomic": _atomic,
    "reliable": _reliable,
    "resumable": _resumable,
    "bookmarkable": _bookmarkable,
    "prev_kv": _prev_kv,
    "create or modify": _create_or_modify,
}
"""Each promise by name."""


def _identity(event: Event) -> tuple[bytes, int, bool]:
    # One revision may both put and delete a key, by two transactions nested in one.
    return event.kv.key, event.kv.mod_revision, event.is_delete


def _name(event: Event) -> str:
    return f"{'delete' if event.is_delete else 'put'} of {event.kv.key!r} at revision {event.kv.mod_revision}"


def _content(kv: KeyValue) -> Content:
    # Everything that a client sees: `sub` is the store's own.
    return kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease


def _maybe_content(kv: KeyValue | None) -> Content | None:
    return None if kv is None else _content(kv)
