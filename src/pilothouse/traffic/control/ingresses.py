"""Ingress: the older way to say where requests go, at listeners of its own, on ports 80 and 443 by default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, Literal

import msgspec

from pilothouse.kinds.structs import Ingress, IngressBackend, IngressClass, Secret, Service
from pilothouse.traffic import config

from .addresses import Assigned
from .backends import Backends
from .certificates import Problem, is_pair
from .conditions import StatusOf
from .names import DEFAULT_CLASS, INGRESS_CONTROLLER, OLD_CLASS
from .snapshot import Snapshot, key_of, seconds_of

__all__ = ["INGRESS_CONTROLLER", "PORTS", "Entry", "ingresses_of", "translate_ingresses"]

PORTS: Final = (80, 443)
_UNAVAILABLE: Final = "pilothouse.dev/PortUnavailable"
_SOURCE: Final = ("networking.k8s.io", "Ingress")
_TYPES: Final[Mapping[str, Any]] = {"Exact": "Exact", "Prefix": "PathPrefix", "ImplementationSpecific": "PathPrefix"}


def ingresses_of(snapshot: Snapshot) -> list[Ingress]:
    """Return the ingresses that are ours: of our class, or of none where ours is the default."""
    classes = {each.metadata.name: each for each in snapshot.all(IngressClass)}
    ours = {name for name, each in classes.items() if each.spec.controller == INGRESS_CONTROLLER}
    defaults = {name for name in ours if classes[name].metadata.annotations.get(DEFAULT_CLASS) == "true"}
    found: list[Ingress] = []
    for each in snapshot.all(Ingress):
        name = each.spec.ingress_class_name or each.metadata.annotations.get(OLD_CLASS)
        if name in ours or (name is None and defaults):
            found.append(each)
    return found


@dataclass(frozen=True)
class Entry:
    """Where ingresses are reached. ports: without and with TLS. refused: why a listener cannot be, by its name."""

    assigned: Assigned
    ports: tuple[int, int] = PORTS
    refused: Mapping[str, str] = field(default_factory=dict)


def translate_ingresses(
    snapshot: Snapshot,
    ingresses: list[Ingress],
    backends: Backends,
    entry: Entry,
    certificates: dict[str, config.Certificate],
    listeners: list[config.Listener],
) -> tuple[list[config.HttpRoute], list[StatusOf]]:
    """Return routes and statuses of ingresses; the certificates that they name are added, and the listeners they need.

    A port that a Gateway has at the same address is shared: by a listener for all names, which then has the routes of
    ingresses as well, or beside listeners for certain ones.
    """
    used = _certificates(snapshot, ingresses, certificates)
    names: list[str] = []
    failed: dict[int, str] = {}
    for address in entry.assigned.bound:
        for protocol, port, tls in _ports(entry.ports, used):
            name = f"ingress/{protocol}@{address}"
            wanted = config.Listener(name=name, port=port, protocol=protocol, address=address, tls=tls)
            place = "" if name in entry.refused else _place(wanted, listeners)
            if place:
                names.append(place)
            else:
                failed[port] = _UNAVAILABLE
    routes = [route for each in ingresses for route in _routes(snapshot, each, backends, tuple(names))]
    shown = [_shown(address, entry.ports, failed, has_tls=bool(used)) for address in entry.assigned.shown]
    statuses = [StatusOf(Ingress, *key_of(each), fields={"loadBalancer": {"ingress": shown}}) for each in ingresses]
    return routes, statuses


def _place(wanted: config.Listener, listeners: list[config.Listener]) -> str:
    """Return the name of the listener that serves what a wanted one should, which is added; "" where none can."""
    there = [
        (number, each)
        for number, each in enumerate(listeners)
        if (each.address, each.port) == (wanted.address, wanted.port)
    ]
    if any(each.protocol != wanted.protocol for _, each in there):
        return ""
    number, found = next(((number, each) for number, each in there if not each.hostname), (-1, wanted))
    if number < 0:
        listeners.append(wanted)
    elif wanted.tls is not None and found.tls is not None:
        both = tuple(dict.fromkeys((*found.tls.certificates, *wanted.tls.certificates)))
        listeners[number] = msgspec.structs.replace(found, tls=msgspec.structs.replace(found.tls, certificates=both))
    return found.name


def _shown(address: str, ports: tuple[int, int], failed: Mapping[int, str], *, has_tls: bool) -> dict[str, Any]:
    """Return an address for a status, with the ports where they are none that one would guess, or cannot be had."""
    if ports == PORTS and not failed:
        return {"ip": address}
    used = ports if has_tls else ports[:1]
    listed = [{"port": port, "protocol": "TCP", **({"error": failed[port]} if port in failed else {})} for port in used]
    return {"ip": address, "ports": listed}


def _ports(
    ports: tuple[int, int], used: tuple[str, ...]
) -> list[tuple[Literal["HTTP", "HTTPS"], int, config.ListenerTls | None]]:
    plain, secure = ports
    made: list[tuple[Literal["HTTP", "HTTPS"], int, config.ListenerTls | None]] = [("HTTP", plain, None)]
    if used:
        made.append(("HTTPS", secure, config.ListenerTls(certificates=used)))
    return made


def _certificates(
    snapshot: Snapshot, ingresses: list[Ingress], certificates: dict[str, config.Certificate]
) -> tuple[str, ...]:
    used: list[str] = []
    for each in ingresses:
        for tls in each.spec.tls:
            secret = snapshot.get(Secret, (each.metadata.namespace, tls.secret_name))
            if secret is None:
                continue
            chain, key = secret.data.get("tls.crt", b""), secret.data.get("tls.key", b"")
            if is_pair(chain, key):
                name = "/".join(key_of(secret))
                certificates[name] = config.Certificate(chain=chain, key=key)
                used.append(name)
    return tuple(dict.fromkeys(used))


def _routes(snapshot: Snapshot, ingress: Ingress, backends: Backends, names: tuple[str, ...]) -> list[config.HttpRoute]:
    by_host: dict[str, list[config.HttpRule]] = {}
    for rule in ingress.spec.rules:
        for path in rule.http.paths:
            match = config.Match(path=config.PathMatch(type=_TYPES[path.path_type or "Prefix"], value=path.path or "/"))
            share = _share(snapshot, ingress, path.backend, backends)
            by_host.setdefault(rule.host, []).append(config.HttpRule(matches=(match,), backends=(share,)))
    base = "/".join(key_of(ingress))
    made = [
        config.HttpRoute(
            name=f"{base}:{host or '*'}",
            listeners=names,
            hostnames=(host.lower(),) if host else (),
            rules=tuple(rules),
            created=seconds_of(ingress),
        )
        for host, rules in by_host.items()
    ]
    if ingress.spec.default_backend is not None:
        # Last of all: what any ingress says of a path comes before it.
        share = _share(snapshot, ingress, ingress.spec.default_backend, backends)
        fallback = config.HttpRule(backends=(share,))
        hosts = tuple(host.lower() for host in by_host if host)
        for name, hostnames in (("default", ()), ("default-hosts", hosts)):
            if name == "default" or hosts:
                made.append(
                    config.HttpRoute(
                        name=f"{base}:{name}", listeners=names, hostnames=hostnames, rules=(fallback,), created=math.inf
                    )
                )
    return made


def _share(snapshot: Snapshot, ingress: Ingress, backend: IngressBackend, backends: Backends) -> config.Weighted:
    namespace = ingress.metadata.namespace
    name, version = config.INVALID, ""
    if backend.service is not None:
        version = backend.service.name
        number = backend.service.port.number
        service = snapshot.get(Service, (namespace, version))
        if service is not None and backend.service.port.name:
            found = next((each for each in service.spec.ports if each.name == backend.service.port.name), None)
            number = found.port if found is not None else 0
        ref = SimpleNamespace(group="", kind="Service", name=version, namespace=None, port=number)
        try:
            name = backends.resolve(ref, (*_SOURCE, namespace), ())
        except Problem:
            name = config.INVALID
    return config.Weighted(backend=name, version=version)
