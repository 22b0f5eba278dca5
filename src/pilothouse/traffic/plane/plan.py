"""A configuration as a worker uses it: compiled once, then read only.

The parent compiles it first, to refuse what cannot be used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pilothouse.traffic.config import (
    Backend,
    BackendTls,
    Configuration,
    Cors,
    HeaderChange,
    HttpRoute,
    Listener,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Settings,
    StreamRoute,
    Weighted,
)
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.decisions import Decision
from pilothouse.traffic.plane.http import Refused, Request
from pilothouse.traffic.plane.pools import BackendConnector
from pilothouse.traffic.plane.ratestore import is_able, place_of
from pilothouse.traffic.plane.scopes import Scope, region_of
from pilothouse.traffic.plane.tls import BadTls, Terminator, connector
from pilothouse.traffic.routing import BadRoute, Counters, Found, Router

__all__ = ["BadConfiguration", "Plan", "Port"]

_HOSTS_KEPT: Final = 4096
_PROTOCOLS: Final = ("h2", "http/1.1")
_TOKEN: Final = re.compile("[!#$%&'*+\\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile("[\t\x20-\x7e\x80-\U0010ffff]*")
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "keep-alive", "te"})


class BadConfiguration(ValueError):
    """A configuration that cannot be used; the message names the object and what is wrong with it."""


class Port:
    """The listeners of one socket. kind: HTTP, TLS (a greeting is read first) or TCP.

    settings: by name; scope: what of them holds now, which is the worker's to keep up.
    """

    def __init__(self, address: str, port: int, scope: Scope) -> None:
        self.address = address
        self.settings = scope.name
        self.scope = scope
        self.port = port
        self.kind = "HTTP"
        self.has_proxy_protocol = False
        self.listeners: list[Listener] = []
        self._exact: dict[str, Listener] = {}
        self._wild: dict[str, Listener] = {}
        self._any: Listener | None = None
        self._found: dict[str, Listener | None] = {}

    def add(self, listener: Listener) -> None:
        """Add a listener. Raises BadConfiguration."""
        kind = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP"}[listener.protocol]
        if self.listeners and (kind != self.kind or kind == "TCP"):
            raise BadConfiguration(
                f"listener '{listener.name}': port {self.port} is used as {self.kind} by '{self.listeners[0].name}'"
            )
        if self.listeners and listener.has_proxy_protocol != self.has_proxy_protocol:
            raise BadConfiguration(f"listener '{listener.name}': has_proxy_protocol differs at port {self.port}")
        if listener.settings != self.settings:
            raise BadConfiguration(f"listener '{listener.name}': settings differ at port {self.port}")
        self.kind, self.has_proxy_protocol = kind, listener.has_proxy_protocol
        self.listeners.append(listener)
        name = listener.hostname.lower()
        if name.startswith("*."):
            self._wild.setdefault(name[1:], listener)
        elif name:
            self._exact.setdefault(name, listener)
        else:
            self._any = self._any or listener

    def listener_for(self, host: str) -> Listener | None:
        """Return the listener whose host name fits best."""
        try:
            return self._found[host]
        except KeyError:
            pass
        if len(self._found) >= _HOSTS_KEPT:
            self._found.clear()
        found = self._found[host] = self._look(host)
        return found

    def _look(self, host: str) -> Listener | None:
        found, dot = self._exact.get(host), host.find(".")
        while found is None and dot >= 0:
            found, dot = self._wild.get(host[dot:]), host.find(".", dot + 1)
        return found or self._any


class Plan:
    """All that is decided by configuration. Raises BadConfiguration.

    before: the plan of another configuration. What was compiled for parts that are the same is shared with it, so that
    a change costs what it changes; the plan before goes on as it was.
    """

    def __init__(
        self, configuration: Configuration, before: Plan | None = None, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.configuration = configuration
        self.generation = configuration.generation
        self.scopes: dict[str, Scope] = _scopes(configuration, before, wall)
        for listener in configuration.listeners:
            if listener.settings not in self.scopes:
                raise BadConfiguration(f"listener '{listener.name}': there are no settings '{listener.settings}'")
        self.ports: dict[tuple[str, int], Port] = {}
        self.terminators: dict[str, Terminator] = {}
        self.connectors: dict[str, BackendConnector] = {}
        if before is not None and _has_same_doors(before.configuration, configuration):
            self.ports, self.terminators = before.ports, before.terminators
        else:
            for listener in configuration.listeners:
                self._listen(listener)
        if before is not None and _has_same_backends(before.configuration, configuration):
            self.connectors = before.connectors
        else:
            for name, backend in configuration.backends.items():
                if backend.tls is not None:
                    self._connect(name, backend, backend.tls, before)
        _check_routes(configuration, before)
        self.stores: dict[str, float] = {}
        """The URLs of stores of rate limits, and how long requests wait for each at most."""
        for route in configuration.routes:
            self._share_rates(route)
        try:
            self.router: Router = Router(configuration, before.router if before is not None else None)
        except BadRoute as error:
            raise BadConfiguration(str(error)) from None
        streams = {each.name for each in configuration.streams}
        turns: Mapping[str, int] = before._turns if before is not None else {}
        self._turns: dict[str, int] = {name: turn for name, turn in turns.items() if name in streams}

    def _listen(self, listener: Listener) -> None:
        if not 0 < listener.port < 65_536:
            raise BadConfiguration(f"listener '{listener.name}': port {listener.port} is none")
        key = (listener.address, listener.port)
        scope = self.scopes[listener.settings]
        port = self.ports.get(key)
        if port is None:
            port = self.ports[key] = Port(*key, scope.copy())
        port.add(listener)
        if listener.protocol == "HTTPS" and listener.tls is None:
            raise BadConfiguration(f"listener '{listener.name}': tls is not given; HTTPS needs a certificate")
        if listener.tls is None:
            return
        pairs = []
        for name in listener.tls.certificates:
            certificate = self.configuration.certificates.get(name)
            if certificate is None:
                raise BadConfiguration(f"listener '{listener.name}': there is no certificate '{name}'")
            pairs.append((name, certificate))
        is_http = listener.protocol == "HTTPS"
        alpn = [each for each in listener.tls.alpn if each in _PROTOCOLS] if is_http else []
        try:
            self.terminators[listener.name] = Terminator(listener.tls, pairs, alpn)
        except BadTls as error:
            raise BadConfiguration(f"listener '{listener.name}': {error}") from None

    def _connect(self, name: str, backend: Backend, tls: BackendTls, before: Plan | None) -> None:
        certificate = None
        if tls.certificate:
            certificate = self.configuration.certificates.get(tls.certificate)
            if certificate is None:
                raise BadConfiguration(f"backend '{name}': there is no certificate '{tls.certificate}'")
        if before is not None and (old := before.configuration.backends.get(name)) is not None:
            shown = before.configuration.certificates.get(tls.certificate)
            if (old.tls, old.protocol, shown) == (tls, backend.protocol, certificate):
                self.connectors[name] = before.connectors[name]
                return
        try:
            self.connectors[name] = connector(tls, certificate, _alpn(backend))
        except BadTls as error:
            raise BadConfiguration(f"backend '{name}': {error}") from None

    def _share_rates(self, route: HttpRoute) -> None:
        for number, rule in enumerate(route.rules):
            if rule.rate is None or not rule.rate.store:
                continue
            where = f"route '{route.name}': rules[{number}].rate.store"
            try:
                place_of(rule.rate.store)
            except ValueError as error:
                raise BadConfiguration(f"{where}: {error}") from None
            if not is_able():
                raise BadConfiguration(f"{where}: hiredis is not installed; pip install 'pilothouse[redis]'")
            self.stores[rule.rate.store] = max(self.stores.get(rule.rate.store, 0.0), rule.rate.patience)

    def decide(self, peer: Peer, request: Request, counters: Counters) -> Decision:
        """Return what is to be done with a request. Raises Refused where nobody takes it."""
        port = self.ports.get(peer.socket)
        listener = port.listener_for(request.host) if port is not None else None
        if listener is None or port is None:
            raise Refused(404, "no listener", "no listener takes this host")
        if peer.server_name and peer.listener != listener.name:
            raise Refused(421, "misdirected", "this host is served by another connection")
        scope, region = port.scope, ""
        if scope.regions.is_used:
            region = region_of(scope, peer.address, peer.forwarding.client(request.fields), request)
        found = self.router.find(
            listener.name,
            request.host,
            request.method.decode("ascii"),
            request.path,
            request.query,
            request.header,
            region,
        )
        if found is None:
            raise Refused(404, "no route", "no route matches")
        return _decision(found, request, region, counters, scope)

    def stream_for(self, port: Port, server_name: str) -> tuple[StreamRoute, Weighted] | None:
        """Return where a connection is passed on to."""
        listener = port.listener_for(server_name)
        if listener is None:
            return None
        best: tuple[int, StreamRoute] | None = None
        for route in self.configuration.streams:
            if listener.name not in route.listeners:
                continue
            rank = _rank(route.hostnames, server_name)
            if rank >= 0 and (best is None or rank > best[0]):
                best = (rank, route)
        if best is None or not best[1].backends:
            return None
        return best[1], self._turn(best[1])

    def _turn(self, route: StreamRoute) -> Weighted:
        total = sum(each.weight for each in route.backends)
        turn = self._turns[route.name] = (self._turns.get(route.name, -1) + 1) % max(total, 1)
        for each in route.backends:
            turn -= each.weight
            if turn < 0:
                return each
        return route.backends[-1]


def _decision(found: Found, request: Request, region: str, counters: Counters, scope: Scope) -> Decision:
    rule = found.rule
    decision = Decision(found.route.name, rule, found.name, request)
    decision.is_grpc = found.route.is_grpc
    decision.prefix = found.prefix
    decision.region = region
    shares = found.shares(region)
    if rule.stickiness is None:
        share = shares.next(counters)
    else:
        share, decision.session = scope.sessions.begin(rule.stickiness, request, shares, counters)
    if share is not None:
        weighted = share.weighted
        decision.backend, decision.version = weighted.backend, weighted.version
        if weighted.filters:
            decision.filters = (*rule.filters, *weighted.filters)
    return decision


def _check_routes(configuration: Configuration, before: Plan | None) -> None:
    known = {id(route) for route in before.configuration.routes} if before is not None else set()
    for route in configuration.routes:
        if id(route) not in known:
            _check_filters(route)


def _check_filters(route: HttpRoute) -> None:
    """See that nothing that filters put into heads could end a line of them. Raises BadConfiguration."""
    for number, rule in enumerate(route.rules):
        where = f"route '{route.name}': rules[{number}].filters"
        for each in (*rule.filters, *(one for backend in rule.backends for one in backend.filters)):
            if isinstance(each, RequestHeaders | ResponseHeaders):
                _check_change(each.change, where)
            elif isinstance(each, Rewrite | Redirect):
                _check_values((each.hostname, each.path or "", each.prefix or ""), where)
            elif isinstance(each, Cors):
                _check_values((*each.origins, *each.methods, *each.headers, *each.expose), where)


def _check_change(change: HeaderChange, where: str) -> None:
    for name in (*(name for name, _ in (*change.set, *change.add)), *change.remove):
        if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING:
            raise BadConfiguration(f"{where}: {name!r} is no header that can be changed")
    _check_values([value for _, value in (*change.set, *change.add)], where)


def _check_values(values: Iterable[str], where: str) -> None:
    for value in values:
        if not _VALUE.fullmatch(value):
            raise BadConfiguration(f"{where}: {value!r} holds what no header may hold")


def _rank(hostnames: tuple[str, ...], name: str) -> int:
    """Return how specifically host names fit, -1 where none does."""
    if not hostnames:
        return 0
    rank = -1
    for each in hostnames:
        if each == name:
            return 1000
        if each.startswith("*.") and name.endswith(each[1:]):
            rank = max(rank, len(each))
    return rank


def _alpn(backend: Backend) -> tuple[str, ...]:
    return ("h2",) if backend.protocol == "h2" else ("http/1.1",) if backend.protocol == "http/1.1" else ()


def _has_same_doors(one: Configuration, other: Configuration) -> bool:
    """Say whether two configurations have the same listeners, with the same certificates."""
    if one.listeners != other.listeners:
        return False
    used = {name for each in one.listeners if each.tls is not None for name in each.tls.certificates}
    return all(one.certificates.get(name) == other.certificates.get(name) for name in used)


def _has_same_backends(one: Configuration, other: Configuration) -> bool:
    """Say whether it is easily seen that two configurations have the same backends, with the same certificates."""
    return one.backends is other.backends and one.certificates is other.certificates


def _scopes(configuration: Configuration, before: Plan | None, wall: Callable[[], float]) -> dict[str, Scope]:
    """Return the settings by name, those of the whole by an empty one. Raises BadConfiguration."""
    whole = Settings(
        regions=configuration.regions,
        limits=configuration.limits,
        trusted_proxies=configuration.trusted_proxies,
        session_keys=configuration.session_keys,
    )
    known = before.scopes if before is not None else {}
    found = {}
    for name, settings in {**configuration.settings, "": whole}.items():
        keys = settings.session_keys or configuration.session_keys
        old = known.get(name)
        if old is not None and old.is_of(settings, keys):
            found[name] = old
            continue
        try:
            found[name] = Scope(name, settings, keys, wall)
        except ValueError as error:
            raise BadConfiguration(f"settings '{name}': {error}" if name else str(error)) from None
    return found
