"""What differs between two configurations, as the parent sends it to workers: small for a small change.

A whole configuration is what differs from the empty one. What stays the same is the same object after a change, by
which those who compile configurations know what they need not compile again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from .config import Backend, Certificate, Configuration, HttpRoute, Listener, RegionTable, Settings, StreamRoute

__all__ = ["Change", "Replaced", "applied", "difference", "replace", "replaced"]

_V = TypeVar("_V")
_N = TypeVar("_N", Listener, HttpRoute, StreamRoute)


class Replaced(msgspec.Struct, Generic[_V], frozen=True, array_like=True):
    """What of a mapping is new or another, and what is there no more."""

    new: dict[str, _V]
    gone: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True, array_like=True):
    """From one configuration to the next. rest: the next without what stands here. regions: None where they stay.

    Sequences stand as what is new, and between it, as (first, end), what stays of the sequence before.
    """

    rest: Configuration
    listeners: tuple[Listener | tuple[int, int], ...]
    routes: tuple[HttpRoute | tuple[int, int], ...]
    streams: tuple[StreamRoute | tuple[int, int], ...]
    backends: Replaced[Backend]
    certificates: Replaced[Certificate]
    regions: RegionTable | None
    settings: Replaced[Settings]


def difference(before: Configuration, after: Configuration) -> Change:
    """Return what `applied` makes `after` of `before` with."""
    rest = msgspec.structs.replace(
        after, listeners=(), routes=(), streams=(), backends={}, certificates={}, regions=RegionTable(), settings={}
    )
    return Change(
        rest,
        _edited(before.listeners, after.listeners),
        _edited(before.routes, after.routes),
        _edited(before.streams, after.streams),
        replaced(before.backends, after.backends),
        replaced(before.certificates, after.certificates),
        None if after.regions == before.regions else after.regions,
        replaced(before.settings, after.settings),
    )


def applied(before: Configuration, change: Change) -> Configuration:
    """Return the configuration after a change; what stays the same are the same objects."""
    return msgspec.structs.replace(
        change.rest,
        listeners=_sequence(before.listeners, change.listeners),
        routes=_sequence(before.routes, change.routes),
        streams=_sequence(before.streams, change.streams),
        backends=replace(before.backends, change.backends),
        certificates=replace(before.certificates, change.certificates),
        regions=before.regions if change.regions is None else change.regions,
        settings=replace(before.settings, change.settings),
    )


def replaced(before: Mapping[str, _V], after: Mapping[str, _V]) -> Replaced[_V]:
    """Return what `replace` makes `after` of `before` with."""
    if after is before:
        return Replaced({})
    new = {name: each for name, each in after.items() if name not in before or before[name] != each}
    return Replaced(new, tuple(before.keys() - after.keys()))


def replace(before: dict[str, _V], change: Replaced[_V]) -> dict[str, _V]:
    """Return a mapping after a change, the same where nothing of it changes."""
    if not change.new and not change.gone:
        return before
    made = {**before, **change.new}
    for name in change.gone:
        made.pop(name, None)
    return made


def _edited(before: Sequence[_N], after: Sequence[_N]) -> tuple[_N | tuple[int, int], ...]:
    if after is before:
        return ((0, len(before)),) if before else ()
    places = {each.name: place for place, each in enumerate(before)}
    made: list[_N | tuple[int, int]] = []
    first = end = -1  # what stays, as far as it goes on without a gap
    for each in after:
        place = places.get(each.name, -1)
        if place < 0 or before[place] != each:
            made.append(each)
            first = end = -1
        elif place == end:
            end += 1
            made[-1] = (first, end)
        else:
            first, end = place, place + 1
            made.append((first, end))
    return tuple(made)


def _sequence(before: tuple[_N, ...], edits: Sequence[_N | tuple[int, int]]) -> tuple[_N, ...]:
    if len(edits) == 1 and edits[0] == (0, len(before)):
        return before
    made: list[_N] = []
    for each in edits:
        if isinstance(each, tuple):
            made += before[each[0] : each[1]]
        else:
            made.append(each)
    return tuple(made)
