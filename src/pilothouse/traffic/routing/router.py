"""The routes of a configuration, compiled: from a request's head to its rule, in the order that Gateway API states.

Of the host names that fit the most specific comes first. Then: a whole path before a prefix, a longer prefix before a
shorter one, those before regular expressions; a method; more headers (a region counts as one); more query parameters;
the older route; the route first by name; the rule, and the match, that stands first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import re2  # type: ignore[import-untyped]

from pilothouse.traffic.config import Configuration, HttpRoute, HttpRule, Match, Mirror, PathMatch, ValueMatch

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


@dataclass(frozen=True, slots=True)
class _Entry:
    """One match of one rule, ready to be tried. order: the smaller the earlier, within one path."""

    order: tuple[Any, ...]
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


class _Paths:
    """The entries of one host name at one listener."""

    def __init__(self) -> None:
        self.exact: dict[str, list[_Entry]] = {}
        self.prefixes: dict[str, list[_Entry]] = {}
        self.expressions: list[tuple[Callable[[str], Any], _Entry]] = []

    def add(self, path: PathMatch, entry: _Entry, where: str) -> None:
        if path.type == "Exact":
            self.exact.setdefault(path.value, []).append(entry)
        elif path.type == "PathPrefix":
            self.prefixes.setdefault(path.value.rstrip("/"), []).append(entry)
        else:
            self.expressions.append((_compiled(path.value, f"{where}.path"), entry))

    def sort(self) -> None:
        for entries in (*self.exact.values(), *self.prefixes.values()):
            entries.sort(key=lambda each: each.order)
        self.expressions.sort(key=lambda each: each[1].order)

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
        for takes, entry in self.expressions:
            if takes(path):
                yield entry


class Router:
    """Finds rules. Raises BadRoute for a configuration that cannot be used."""

    def __init__(self, configuration: Configuration) -> None:
        self._listeners = {listener.name: _Hosts(listener.hostname.lower()) for listener in configuration.listeners}
        self.keys: Final[list[str]] = []
        """The keys of all counters, for `Slots.take`."""
        self._portions: dict[tuple[int, int], tuple[HttpRule, Mirror, Portion]] = {}
        for route in configuration.routes:
            self._add(route)
        for hosts in self._listeners.values():
            hosts.sort()

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

    def _add(self, route: HttpRoute) -> None:
        attached = [self._listeners[name] for name in route.listeners if name in self._listeners]
        hostnames = [each.lower() for each in route.hostnames] or [""]
        for number, rule in enumerate(route.rules):
            key = f"{route.name}/{number}"
            try:
                shares = RegionShares(key, rule.backends, rule.regions)
            except ValueError as error:
                raise BadRoute(f"route '{route.name}': rules[{number}].backends: {error}") from None
            self._portion(key, rule)
            self.keys.extend([key, *(f"{key}#{split}" for split in range(len(rule.regions)))])
            for place, match in enumerate(rule.matches):
                where = f"route '{route.name}': rules[{number}].matches[{place}]"
                prefix = match.path.value if match.path.type == "PathPrefix" else ""
                found = Found(route, rule, rule.name or str(number), prefix, shares)
                entry = _entry(match, found, (route.created, route.name, number, place), where)
                for hosts in attached:
                    for hostname in hostnames:
                        hosts.add(hostname, match.path, entry, where)

    def _portion(self, key: str, rule: HttpRule) -> None:
        weighted = (*rule.backends, *(each for split in rule.regions for each in split.backends))
        filters = (*rule.filters, *(each for one in weighted for each in one.filters))
        for place, each in enumerate(each for each in filters if isinstance(each, Mirror)):
            portion = Portion(f"{key}~{place}", each.numerator, each.of)
            self._portions[id(rule), id(each)] = rule, each, portion  # which it keeps, so that the ids stay theirs
            if portion.is_counted:
                self.keys.append(portion.key)

    def is_mirrored(self, rule: HttpRule, mirror: Mirror, counters: Counters) -> bool:
        """Return whether it is the turn of a rule's request to be copied."""
        found = self._portions.get((id(rule), id(mirror)))
        return found is not None and found[2].takes(counters)


class _Hosts:
    """The host names of routes at one listener."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._by_name: dict[str, _Paths] = {}
        self._found: dict[str, list[_Paths]] = {}

    def add(self, hostname: str, path: PathMatch, entry: _Entry, where: str) -> None:
        name = _intersection(self._own, hostname)
        if name is not None:
            self._by_name.setdefault(name, _Paths()).add(path, entry, where)

    def sort(self) -> None:
        for paths in self._by_name.values():
            paths.sort()

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
    if match.path.type == "RegularExpression":
        order = (-len(match.path.value), *order)
    return _Entry(order, match.method, headers, queries, frozenset(match.regions), found)


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
