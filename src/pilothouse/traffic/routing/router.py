"""The routes of a configuration, compiled: from a request's head to its rule, in the order that Gateway API states.

Of the host names that fit the most specific comes first. Then: a whole path before a prefix, a longer prefix before a
shorter one, those before regular expressions; a method; more headers (a region counts as one); more query parameters;
the older route; the route first by name; the rule, and the match, that stands first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import re2  # type: ignore[import-untyped]

from pilothouse.traffic.config import Configuration, HttpRoute, HttpRule, Match, Mirror, ValueMatch

from .counters import Counters
from .shares import Portion, RegionShares, Shares

__all__ = ["BadRoute", "Found", "Router"]

Header: TypeAlias = Callable[[str], str | None]
"""Gives a header's value by its name in lower case, several joined by commas; None where it is not there."""

_HOSTS_KEPT: Final = 4096


class BadRoute(ValueError):
    """A route cannot be used; the message names it, the field and what is wrong."""


class Found:
    """A rule that a request falls under. prefix: what of the path has matched, for rewrites of it; empty for no prefix.

    name: the rule's own, or its number in the route.
    """

    __slots__ = ("_shares", "name", "prefix", "route", "rule")

    def __init__(self, route: HttpRoute, rule: HttpRule, name: str, prefix: str, shares: RegionShares) -> None:
        self.route = route
        self.rule = rule
        self.name = name
        self.prefix = prefix
        self._shares = shares

    def shares(self, region: str) -> Shares:
        """Return the shares of backends for clients of a region."""
        return self._shares.of(region)


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """One match of one rule, ready to be tried. order: the smaller the earlier, within one path.

    place: the kind of path and its value, empty for expressions, which `takes` tries.
    """

    order: tuple[Any, ...]
    place: tuple[str, str]
    takes: Callable[[str], Any] | None
    method: str
    headers: tuple[tuple[str, Callable[[str], bool]], ...]
    queries: tuple[tuple[str, Callable[[str], bool]], ...]
    regions: frozenset[str]
    found: Found

    def fits(self, method: str, header: Header, query: dict[str, str], region: str) -> bool:
        if self.method and self.method != method:
            return False
        if self.regions and region not in self.regions:
            return False
        for name, takes in self.headers:
            value = header(name)
            if value is None or not takes(value):
                return False
        for name, takes in self.queries:
            value = query.get(name)
            if value is None or not takes(value):
                return False
        return True


class _Part:
    """A route compiled. It is never changed, so routers one after another share it."""

    __slots__ = ("entries", "hostnames", "keys", "portions", "route")

    def __init__(self, route: HttpRoute) -> None:
        self.route = route
        self.hostnames = tuple(each.lower() for each in route.hostnames) or ("",)
        entries: list[_Entry] = []
        keys: list[str] = []
        self.portions: dict[tuple[int, int], Portion] = {}
        for number, rule in enumerate(route.rules):
            key = f"{route.name}/{number}"
            try:
                shares = RegionShares(key, rule.backends, rule.regions)
            except ValueError as error:
                raise BadRoute(f"route '{route.name}': rules[{number}].backends: {error}") from None
            portions = _portions(key, rule)
            self.portions |= portions
            keys += [each.key for each in portions.values() if each.is_counted]
            keys += [key, *(f"{key}#{split}" for split in range(len(rule.regions)))]
            for place, match in enumerate(rule.matches):
                where = f"route '{route.name}': rules[{number}].matches[{place}]"
                prefix = match.path.value if match.path.type == "PathPrefix" else ""
                found = Found(route, rule, rule.name or str(number), prefix, shares)
                entries.append(_entry(match, found, (route.created, route.name, route.is_grpc, number, place), where))
        self.entries, self.keys = tuple(entries), tuple(keys)


def _portions(key: str, rule: HttpRule) -> dict[tuple[int, int], Portion]:
    """Return what mirrors of a rule take, by the identities of both, which stay theirs as long as the route is kept."""
    weighted = (*rule.backends, *(each for split in rule.regions for each in split.backends))
    filters = (*rule.filters, *(each for one in weighted for each in one.filters))
    mirrors = [each for each in filters if isinstance(each, Mirror)]
    return {
        (id(rule), id(each)): Portion(f"{key}~{place}", each.numerator, each.of) for place, each in enumerate(mirrors)
    }


class _Paths:
    """The entries of one host name at one listener; never changed, so routers one after another share it."""

    __slots__ = ("exact", "expressions", "prefixes")

    def __init__(
        self,
        exact: dict[str, tuple[_Entry, ...]] | None = None,
        prefixes: dict[str, tuple[_Entry, ...]] | None = None,
        expressions: tuple[_Entry, ...] = (),
    ) -> None:
        self.exact = exact or {}
        self.prefixes = prefixes or {}
        self.expressions = expressions

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes or self.expressions)

    def changed(self, gone: set[_Entry], new: Sequence[_Entry]) -> _Paths:
        """Return the same without some entries and with others."""
        made = _Paths(dict(self.exact), dict(self.prefixes), self.expressions)
        touched: dict[tuple[str, str], list[_Entry]] = {each.place: [] for each in gone}
        for each in new:
            touched.setdefault(each.place, []).append(each)
        for (kind, value), added in touched.items():
            if kind == "RegularExpression":
                made.expressions = _merged(self.expressions, gone, added)
                continue
            entries = made.exact if kind == "Exact" else made.prefixes
            if left := _merged(entries.get(value, ()), gone, added):
                entries[value] = left
            else:
                entries.pop(value, None)
        return made

    def candidates(self, path: str) -> Iterator[_Entry]:
        yield from self.exact.get(path, ())
        if self.prefixes:
            rest = path
            while True:
                entries = self.prefixes.get(rest)
                if entries is not None and (rest == path or path[len(rest)] == "/"):
                    yield from entries
                if not rest:
                    break
                rest = rest[: rest.rfind("/")] if "/" in rest else ""
        for entry in self.expressions:
            if entry.takes is not None and entry.takes(path):
                yield entry


def _merged(entries: Sequence[_Entry], gone: set[_Entry], new: Sequence[_Entry]) -> tuple[_Entry, ...]:
    left = [each for each in entries if each not in gone] if gone else list(entries)
    return tuple(sorted((*left, *new), key=lambda each: each.order))


class Router:
    """Finds rules. Raises BadRoute for a configuration that cannot be used.

    before: the router of another configuration. What it has compiled of routes that are the same objects, and of host
    names that no other route is for, is shared; it goes on as it was.
    """

    def __init__(self, configuration: Configuration, before: Router | None = None) -> None:
        known = before._parts if before is not None else {}
        # By identity: a part keeps its route, so nothing else can be known by its number.
        self._parts: dict[int, _Part] = {
            id(route): known.get(id(route)) or _Part(route) for route in configuration.routes
        }
        self._portions = {pair: each for part in self._parts.values() for pair, each in part.portions.items()}
        gone = _by_listener(part for key, part in known.items() if key not in self._parts)
        new = _by_listener(part for key, part in self._parts.items() if key not in known)
        every: dict[str, list[_Part]] | None = None
        self._listeners: dict[str, _Hosts] = {}
        for listener in configuration.listeners:
            name, own = listener.name, listener.hostname.lower()
            hosts = before._listeners.get(name) if before is not None else None
            if hosts is not None and hosts.own == own:
                self._listeners[name] = hosts.changed(gone.get(name, ()), new.get(name, ()))
            else:
                every = _by_listener(self._parts.values()) if every is None else every
                self._listeners[name] = _Hosts(own).changed((), every.get(name, ()))

    @property
    def keys(self) -> list[str]:
        """The keys of all counters, for `Slots.take`."""
        return [key for part in self._parts.values() for key in part.keys]

    def find(
        self, listener: str, host: str, method: str, path: str, query: str, header: Header, region: str = ""
    ) -> Found | None:
        """Return the rule of a request, None where there is none.

        host: in lower case, without port. path: as it was sent, without query. query: without its question mark.
        """
        hosts = self._listeners.get(listener)
        if hosts is None:
            return None
        asked: dict[str, str] | None = None
        for paths in hosts.of(host):
            for entry in paths.candidates(path):
                if entry.queries and asked is None:
                    asked = _first_values(query)
                if entry.fits(method, header, asked or {}, region):
                    return entry.found
        return None

    def is_mirrored(self, rule: HttpRule, mirror: Mirror, counters: Counters) -> bool:
        """Return whether it is the turn of a rule's request to be copied."""
        portion = self._portions.get((id(rule), id(mirror)))
        return portion is not None and portion.takes(counters)


def _by_listener(parts: Iterable[_Part]) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for part in parts:
        for name in dict.fromkeys(part.route.listeners):
            found.setdefault(name, []).append(part)
    return found


class _Hosts:
    """The host names of routes at one listener; never changed but for what is kept of answers."""

    def __init__(self, own: str, by_name: dict[str, _Paths] | None = None) -> None:
        self.own = own
        self._by_name = by_name or {}
        self._found: dict[str, list[_Paths]] = {}

    def changed(self, gone: Sequence[_Part], new: Sequence[_Part]) -> _Hosts:
        """Return the same without some routes and with others."""
        if not gone and not new:
            return self
        less, more = self._entries(gone), self._entries(new)
        by_name = dict(self._by_name)
        for name in {**less, **more}:
            paths = by_name.get(name, _NOTHING).changed(set(less.get(name, ())), more.get(name, ()))
            if paths:
                by_name[name] = paths
            else:
                by_name.pop(name, None)
        return _Hosts(self.own, by_name)

    def _entries(self, parts: Sequence[_Part]) -> dict[str, list[_Entry]]:
        """Return the entries of routes by the host names that they have in common with the listener."""
        found: dict[str, list[_Entry]] = {}
        for part in parts:
            for name in {_intersection(self.own, each) for each in part.hostnames}:
                if name is not None:
                    found.setdefault(name, []).extend(part.entries)
        return found

    def of(self, host: str) -> list[_Paths]:
        """Return the paths of all host names that fit, the most specific first."""
        try:
            return self._found[host]
        except KeyError:
            pass
        if len(self._found) >= _HOSTS_KEPT:
            self._found.clear()
        found = self._found[host] = [
            paths for name in _specific_first(host) if (paths := self._by_name.get(name)) is not None
        ]
        return found


_NOTHING: Final = _Paths()


def _specific_first(host: str) -> Iterator[str]:
    """Give a host name, and the wildcards that it is below of."""
    yield host
    rest = host
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if host:
        yield ""


def _intersection(listener: str, route: str) -> str | None:
    """Return the host name that both have, None where there is none."""
    if not listener or listener == route:
        return route
    if not route:
        return listener
    if listener.startswith("*.") and route.endswith(listener[1:]):
        return route
    if route.startswith("*.") and listener.endswith(route[1:]):
        return listener
    return None


def _entry(match: Match, found: Found, tail: tuple[Any, ...], where: str) -> _Entry:
    headers = _conditions(match.headers, f"{where}.headers", str.lower)
    queries = _conditions(match.queries, f"{where}.queries", str)
    weight = len(headers) + (1 if match.regions else 0)
    order = (0 if match.method else 1, -weight, -len(queries), *tail)
    kind, value, takes = match.path.type, match.path.value, None
    if kind == "RegularExpression":
        order, takes, value = (-len(value), *order), _compiled(value, f"{where}.path"), ""
    elif kind == "PathPrefix":
        value = value.rstrip("/")
    return _Entry(order, (kind, value), takes, match.method, headers, queries, frozenset(match.regions), found)


def _conditions(
    wanted: Sequence[ValueMatch], where: str, spelled: Callable[[str], str]
) -> tuple[tuple[str, Callable[[str], bool]], ...]:
    """Return names with what takes their values; of one name the first counts."""
    made: dict[str, Callable[[str], bool]] = {}
    for number, each in enumerate(wanted):
        name = spelled(each.name)
        if name in made:
            continue
        made[name] = (
            each.value.__eq__
            if each.type == "Exact"
            else functools.partial(_matches, _compiled(each.value, f"{where}[{number}]"))
        )
    return tuple(made.items())


def _matches(takes: Callable[[str], Any], value: str) -> bool:
    return takes(value) is not None


def _compiled(expression: str, where: str) -> Callable[[str], Any]:
    try:
        taking: Callable[[str], Any] = re2.compile(expression).fullmatch
    except re2.error as error:
        raise BadRoute(f"{where}: {expression!r} is no regular expression of RE2: {error}") from None
    return taking


def _first_values(query: str) -> dict[str, str]:
    """Return the parameters of a query, of one name the first, as Gateway API has it."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="surrogateescape", max_num_fields=None):
        found.setdefault(name, value)
    return found
