"""Validation of EndpointSlices."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.addresses import no_special_ip
from pilothouse.kinds.validation.checks import Object, items

__all__ = ["endpoint_slice", "endpoint_slice_update"]

_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_ENDPOINTS = Path("endpoints")
_ADDRESSES, _PORTS, _ENDPOINTS_MAXIMUM = 100, 20_000, 1000


def endpoint_slice(errors: ErrorList, obj: Object, *, loopback: bool = False) -> None:
    """Check an EndpointSlice, its metadata apart. loopback: whether addresses of 127.0.0.0/8 are fine."""
    checks.one_of(errors, Path(), obj, "addressType", _TYPES)
    _ports(errors, Path("ports"), items(obj, "ports"))
    endpoints = items(obj, "endpoints")
    if len(endpoints) > _ENDPOINTS_MAXIMUM:
        errors.too_many(_ENDPOINTS, len(endpoints), _ENDPOINTS_MAXIMUM)
        return
    for position, endpoint in enumerate(endpoints):
        _endpoint(errors, _ENDPOINTS.index(position), endpoint, obj.get("addressType") or "", loopback=loopback)


def endpoint_slice_update(errors: ErrorList, new: Object, old: Object, *, loopback: bool = False) -> None:
    """Check an EndpointSlice that replaces another: the type of its addresses stays."""
    endpoint_slice(errors, new, loopback=loopback)
    checks.immutable(errors, Path("addressType"), new.get("addressType"), old.get("addressType"))


def _ports(errors: ErrorList, at: Path, ports: Sequence[Object]) -> None:
    if len(ports) > _PORTS:
        errors.too_many(at, len(ports), _PORTS)
        return
    seen: set[str] = set()
    for position, port in enumerate(ports):
        place, name = at.index(position), port.get("name") or ""
        if name:
            checks.name(errors, place.child("name"), name, names.dns1123_label)
        if name in seen:
            errors.duplicate(place.child("name"), name)
        seen.add(name)
        checks.one_of(errors, place, port, "protocol", _PROTOCOLS)


def _endpoint(errors: ErrorList, at: Path, endpoint: Object, kind: str, *, loopback: bool) -> None:
    addresses = items(endpoint, "addresses")
    place = at.child("addresses")
    if not addresses:
        errors.required(place, "must contain at least 1 address")
    elif len(addresses) > _ADDRESSES:
        errors.too_many(place, len(addresses), _ADDRESSES)
    for position, address in enumerate(addresses):
        if kind not in _TYPES:
            continue
        if kind == "FQDN":
            checks.name(errors, place.index(position), address, names.fully_qualified_domain_name)
        elif messages := (names.legacy_ip if kind == "IPv4" else names.ip)(address):
            errors.invalid_each(place.index(position), address, messages)
        elif ipaddress.ip_address(address).version != int(kind[-1]):
            errors.invalid(place, address, f"must be an {kind} address")
        else:
            no_special_ip(errors, place.index(position), address, loopback=loopback)
    if endpoint.get("nodeName") is not None:
        checks.name(errors, at.child("nodeName"), endpoint["nodeName"], names.dns1123_subdomain)
    if endpoint.get("hostname") is not None:
        checks.name(errors, at.child("hostname"), endpoint["hostname"], names.dns1123_label)
