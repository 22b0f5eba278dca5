"""From what a gateway knows to what it answers its owner. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from pilothouse.traffic.config import Backend, Configuration, HttpRoute, HttpRule, Match, StreamRoute, Weighted
from pilothouse.traffic.numbers import Figures, Key, Rates, Windows
from pilothouse.traffic.numbers.exposition import Totals
from pilothouse.traffic.plane.messages import EndpointNow, Shown

from .answers import BackendNow, Backends, Counters, Measured, RouteNow, Routes, Top, TopRow

__all__ = ["MOST_ROWS", "backends_now", "counters_now", "routes_now", "top_now"]

MOST_ROWS: Final = 5_000
_USUAL: Final = -1
_STATES: Final = ("up", "draining", "ejected", "unhealthy")
"""The better before the worse."""


def _measured(figures: Figures | None, in_flight: int) -> Measured:
    if figures is None:
        return Measured(in_flight=in_flight)
    return Measured(
        requests=figures.requests,
        rate=figures.rate,
        errors=figures.errors,
        error_ratio=figures.error_ratio,
        p50=figures.p50,
        p95=figures.p95,
        p99=figures.p99,
        bytes_in_rate=figures.bytes_in / figures.seconds,
        bytes_out_rate=figures.bytes_out / figures.seconds,
        in_flight=in_flight,
    )


# Routes


class _Place(NamedTuple):
    """A backend of a rule. split: which of the rule's splits by region, -1 for none."""

    route: str
    rule: str
    backend: str
    version: str
    split: int


def routes_now(
    configuration: Configuration, windows: Windows, in_flight: Mapping[Key, int], seconds: int, now: float
) -> Routes:
    """Return each backend of each rule with its weight as it is now, and what came to it.

    What came to shares and routes that are gone has rows of its own, and so has, without a name, what no route fits.
    """
    splits = _splits(configuration)

    def place(key: Key) -> _Place:
        split = splits.get((key.route, key.rule), {}).get(key.region, _USUAL)
        return _Place(key.route, key.rule, key.backend, key.version, split)

    figures = windows.grouped(seconds, now, place)
    flying: dict[_Place, int] = {}
    for key, count in in_flight.items():
        flying[place(key)] = flying.get(place(key), 0) + count
    told = dict.fromkeys([*figures, *flying])
    rows = []
    for where, row in _configured(configuration):
        told.pop(where, None)
        measured = _measured(figures.get(where), flying.get(where, 0))
        rows.append(msgspec.structs.replace(row, measured=measured))
    for where in sorted(told):
        measured = _measured(figures.get(where), flying.get(where, 0))
        rows.append(
            RouteNow(
                route=where.route, rule=where.rule, backend=where.backend, version=where.version, measured=measured
            )
        )
    return Routes(
        seconds=seconds,
        generation=configuration.generation,
        rows=rows[:MOST_ROWS],
        left_out=max(0, len(rows) - MOST_ROWS),
    )


def _splits(configuration: Configuration) -> dict[tuple[str, str], dict[str, int]]:
    """Return which split a region has, by route and rule; the first that names it counts."""
    return {
        (route.name, _name(rule, number)): {
            region: at for at, split in reversed([*enumerate(rule.regions)]) for region in split.regions
        }
        for route in configuration.routes
        for number, rule in enumerate(route.rules)
        if rule.regions
    }


def _name(rule: HttpRule, number: int) -> str:
    return rule.name or str(number)


def _configured(configuration: Configuration) -> Iterator[tuple[_Place, RouteNow]]:
    """Give the shares of all rules, in the order of the configuration."""
    ports = {each.name: each.port for each in configuration.listeners}
    for route in configuration.routes:
        for number, rule in enumerate(route.rules):
            matches = tuple(_text(match) for match in rule.matches)
            row = _row(route, ports, rule=_name(rule, number), matches=matches)
            yield from _shares(row, rule.backends, _USUAL)
            for at, split in enumerate(rule.regions):
                yield from _shares(msgspec.structs.replace(row, regions=split.regions), split.backends, at)
    for stream in configuration.streams:
        yield from _shares(_row(stream, ports), stream.backends, _USUAL)


def _row(
    route: HttpRoute | StreamRoute, ports: Mapping[str, int], rule: str = "", matches: tuple[str, ...] = ()
) -> RouteNow:
    return RouteNow(
        route=route.name,
        rule=rule,
        listeners=route.listeners,
        ports=tuple(dict.fromkeys(ports[name] for name in route.listeners if name in ports)),
        hosts=route.hostnames,
        matches=matches,
    )


def _shares(row: RouteNow, backends: Sequence[Weighted], split: int) -> Iterator[tuple[_Place, RouteNow]]:
    if not backends:
        yield _Place(row.route, row.rule, "", "", split), row
    whole = sum(each.weight for each in backends) or 1
    for each in backends:
        made = msgspec.structs.replace(
            row, backend=each.backend, version=each.version, weight=each.weight, share=each.weight / whole
        )
        yield _Place(row.route, row.rule, each.backend, each.version, split), made


def _text(match: Match) -> str:
    """Return a match in short: `GET /shop/* x-user=me ?q=1 region=eu`; `~` is before regular expressions."""
    path = match.path
    if path.type == "PathPrefix":
        shown = f"{path.value.rstrip('/')}/*"
    else:
        shown = path.value if path.type == "Exact" else f"~{path.value}"
    headers = [f"{each.name}{'=' if each.type == 'Exact' else '~'}{each.value}" for each in match.headers]
    queries = [f"?{each.name}{'=' if each.type == 'Exact' else '~'}{each.value}" for each in match.queries]
    regions = [f"region={','.join(match.regions)}"] if match.regions else []
    return " ".join([*([match.method] if match.method else []), shown, *headers, *queries, *regions])


# Backends


def backends_now(
    configuration: Configuration, shown: Sequence[Sequence[Shown]], rates: Rates, seconds: int, now: float, wall: float
) -> Backends:
    """Return all addresses of all backends, as all workers together see them.

    now: monotonic seconds; wall: seconds since 1970.
    """
    waiting: dict[str, int] = {}
    seen: dict[tuple[str, str], list[EndpointNow]] = {}
    for part in (part for answer in shown for part in answer):
        for name, count in part.waiting.items():
            waiting[name] = waiting.get(name, 0) + count
        for each in part.endpoints:
            seen.setdefault((each.backend, each.address), []).append(each)
    came = rates.over(seconds, now)
    rows: list[BackendNow] = []
    for name, backend in configuration.backends.items():
        row = BackendNow(backend=name, protocol=_protocol(backend), waiting=waiting.get(name, 0))
        if not backend.endpoints:
            rows.append(row)
        for endpoint in backend.endpoints:
            where = (name, endpoint.authority)
            requests, failures = came.get(where, (0, 0))
            made = msgspec.structs.replace(row, requests=requests, failures=failures, rate=requests / seconds)
            rows.append(_endpoint(made, endpoint.authority, seen.get(where, []), wall))
    return Backends(
        seconds=seconds,
        generation=configuration.generation,
        rows=rows[:MOST_ROWS],
        left_out=max(0, len(rows) - MOST_ROWS),
    )


def _protocol(backend: Backend) -> str:
    return f"{backend.protocol}+tls" if backend.tls is not None else backend.protocol


def _endpoint(row: BackendNow, address: str, seen: Sequence[EndpointNow], wall: float) -> BackendNow:
    workers: dict[str, int] = {}
    for each in seen:
        workers[each.state] = workers.get(each.state, 0) + 1
    left = max((each.ejected_seconds for each in seen), default=0.0)
    until = dt.datetime.fromtimestamp(wall + left, dt.UTC).isoformat("T", "seconds") if left else ""
    return msgspec.structs.replace(
        row,
        address=address,
        state=max(workers, key=_STATES.index, default=""),
        workers=workers,
        ejected_seconds=left,
        ejected_until=until.replace("+00:00", "Z"),
        in_flight=sum(each.active for each in seen),
        idle=sum(each.idle for each in seen),
        open=sum(each.connections for each in seen),
        total=sum(each.total for each in seen),
        failed=sum(each.failed for each in seen),
    )


# Top


def top_now(
    windows: Windows,
    in_flight: Mapping[Key, int],
    counters: Counters,
    by: Sequence[str],
    most: int,
    seconds: int,
    now: float,
) -> Top:
    """Return the busiest by some fields of `Key`, such as route and version; at most so many, and the sum of all."""
    places = [Key._fields.index(name) for name in by]

    def names(key: Key) -> tuple[str, ...]:
        return tuple(key[place] for place in places)

    figures = windows.grouped(seconds, now, names)
    flying: dict[tuple[str, ...], int] = {}
    for key, count in in_flight.items():
        flying[names(key)] = flying.get(names(key), 0) + count
    made = [
        (group, _measured(figures.get(group), flying.get(group, 0))) for group in dict.fromkeys([*figures, *flying])
    ]
    made.sort(key=lambda each: (-each[1].requests, -each[1].in_flight, each[0]))
    return Top(
        seconds=seconds,
        by=tuple(by),
        whole=_measured(windows.over(seconds, now), sum(in_flight.values())),
        counters=counters,
        rows=[TopRow(names=dict(zip(by, group, strict=True)), measured=each) for group, each in made[:most]],
        left_out=max(0, len(made) - most),
    )


def counters_now(totals: Totals, workers: int, generation: int) -> Counters:
    """Return what was counted since the start."""
    moved, requests = totals.moved, totals.requests
    spliced, copied = moved.get("bytes_spliced", 0), moved.get("bytes_copied", 0)
    vectored, made, again = (moved.get(name, 0) for name in ("vectored_writes", "pipes_made", "pipes_reused"))
    buffers = moved.get("buffers_reused", 0)
    return Counters(
        workers=workers,
        generation=generation,
        connections=totals.connections,
        requests=requests,
        bytes_spliced=spliced,
        bytes_copied=copied,
        spliced_share=_part(spliced, spliced + copied),
        writes=moved.get("writes", 0),
        vectored_writes=vectored,
        vectored_writes_per_response=_part(vectored, requests),
        buffers_reused=buffers,
        buffer_reuse=_part(buffers, buffers + workers),  # each worker makes one buffer, once
        pipes_made=made,
        pipes_reused=again,
        pipe_reuse=_part(again, made + again),
        refused=dict(totals.refused),
    )


def _part(some: int, whole: int) -> float:
    return some / whole if some else 0.0
