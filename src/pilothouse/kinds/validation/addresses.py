"""Validation of endpoints, IP addresses, service networks and ingress classes."""

from __future__ import annotations

import ipaddress
import re

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items

__all__ = [
    "endpoints",
    "ingress_class",
    "ingress_class_update",
    "ip_address",
    "ip_address_update",
    "no_special_ip",
    "service_network",
    "service_network_update",
]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_SCOPES = ("Cluster", "Namespace")
_CONTROLLER_BYTES = 250
_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_IS_PATH = re.compile(_PATH).fullmatch
_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))
_LOCAL = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))


def endpoints(errors: ErrorList, obj: Object, *, loopback: bool = False) -> None:
    """Check Endpoints, their metadata apart. loopback: whether addresses of 127.0.0.0/8 are fine."""
    for position, subset in enumerate(items(obj, "subsets")):
        at = Path("subsets").index(position)
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.required(at, "must specify `addresses` or `notReadyAddresses`")
        for field in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(items(subset, field)):
                _address(errors, at.child(field).index(index), address, loopback=loopback)
        ports = items(subset, "ports")
        for index, port in enumerate(ports):
            _port(errors, at.child("ports").index(index), port, named=len(ports) > 1)


def _address(errors: ErrorList, at: Path, address: Object, *, loopback: bool) -> None:
    ip = address.get("ip") or ""
    checks.name(errors, at.child("ip"), ip, names.legacy_ip)
    if hostname := address.get("hostname"):
        checks.name(errors, at.child("hostname"), hostname, names.dns1123_label)
    if (node := address.get("nodeName")) is not None:
        checks.name(errors, at.child("nodeName"), node, names.dns1123_subdomain)
    no_special_ip(errors, at.child("ip"), ip, loopback=loopback)


def no_special_ip(errors: ErrorList, at: Path, text: str, *, loopback: bool = False) -> None:
    """Want an address that other machines can reach: not unspecified, loopback or link-local.

    loopback: whether those of 127.0.0.0/8 are fine all the same, which pods have where all run on one machine.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        errors.invalid(at, text, "must be a valid IP address")
        return
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if address.is_unspecified:
        errors.invalid(at, text, f"may not be unspecified ({text})")
    if address.is_loopback and not (loopback and mapped is None and address.version == 4):
        errors.invalid(at, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if any(address in network for network in _LOCAL if network.version == address.version):
        errors.invalid(at, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if any(address in network for network in _MULTICAST if network.version == address.version):
        errors.invalid(at, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def _port(errors: ErrorList, at: Path, port: Object, *, named: bool) -> None:
    if name := port.get("name"):
        checks.name(errors, at.child("name"), name, names.dns1123_label)
    elif named:
        errors.required(at.child("name"))
    checks.port(errors, at.child("port"), port.get("port") or 0)
    checks.one_of(errors, at, port, "protocol", _PROTOCOLS)
    if (protocol := port.get("appProtocol")) is not None:
        checks.name(errors, at.child("appProtocol"), protocol, names.qualified_name)


def ip_address(errors: ErrorList, obj: Object) -> None:
    """Check an IPAddress, its metadata apart."""
    parent, at = (obj.get("spec") or {}).get("parentRef"), SPEC.child("parentRef")
    if parent is None:
        errors.required(at)
        return
    if group := parent.get("group"):
        checks.name(errors, at.child("group"), group, names.dns1123_subdomain)
    for field in ("resource", "name"):
        if checks.required(errors, at, parent, field):
            checks.name(errors, at.child(field), parent[field], names.path_segment)
    if namespace := parent.get("namespace"):
        checks.name(errors, at.child("namespace"), namespace, names.path_segment)


def ip_address_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check an IPAddress that replaces another: what it belongs to stays."""
    after, before = ((part.get("spec") or {}).get("parentRef") for part in (new, old))
    fields = ("group", "resource", "namespace", "name")
    shown = Struct({field.capitalize(): (after or {}).get(field) or "" for field in fields})
    checks.immutable(errors, SPEC.child("parentRef"), after, before, shown)


def service_network(errors: ErrorList, obj: Object) -> None:
    """Check a ServiceCIDR, its metadata apart."""
    _networks(errors, obj.get("spec") or {})


def _networks(errors: ErrorList, spec: Object) -> None:
    cidrs, at = list(items(spec, "cidrs")), SPEC.child("cidrs")
    if not cidrs:
        errors.required(at, "at least one CIDR required")
        return
    if len(cidrs) > 2:
        errors.invalid(at, Struct(CIDRs=cidrs), "may only hold up to 2 values")
        return
    good = True
    for position, cidr in enumerate(cidrs):
        messages = names.cidr(cidr)
        errors.invalid_each(at.index(position), cidr, messages)
        good = good and not messages
    if good and len(cidrs) == 2 and len({":" in cidr for cidr in cidrs}) == 1:
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        errors.invalid(at, cidrs, text)


def service_network_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ServiceCIDR that replaces another: a second network may be added, no other change."""
    spec, at = new.get("spec") or {}, SPEC.child("cidrs")
    after, before = list(items(spec, "cidrs")), list(items(old.get("spec") or {}, "cidrs"))
    if len(after) == len(before):
        for position, (cidr, previous) in enumerate(zip(after, before, strict=True)):
            checks.immutable(errors, at.index(position), cidr, previous)
    elif len(before) == 1 and len(after) == 2:
        checks.immutable(errors, at.index(0), after[0], before[0])
        _networks(errors, spec)
    else:
        errors.invalid(at, after, checks.IMMUTABLE)


def ingress_class(errors: ErrorList, obj: Object) -> None:
    """Check an IngressClass, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    controller, at = spec.get("controller") or "", SPEC.child("controller")
    if not controller:
        errors.required(at)
    else:
        if len(controller.encode()) > _CONTROLLER_BYTES:
            errors.too_long(at, _CONTROLLER_BYTES)
        _prefixed_path(errors, at, controller)
    if (parameters := spec.get("parameters")) is not None:
        _parameters(errors, SPEC.child("parameters"), parameters)


def _prefixed_path(errors: ErrorList, at: Path, value: str) -> None:
    host, _, path = value.partition("/")
    if not host or not path:
        errors.invalid(at, value, 'must be a domain-prefixed path (such as "acme.io/foo")')
        return
    checks.name(errors, at, host, names.dns1123_subdomain)
    if not _IS_PATH(path):
        errors.invalid(at, path, f"Invalid path (regex used for validation is '{_PATH}')")


def _parameters(errors: ErrorList, at: Path, parameters: Object) -> None:
    if (group := parameters.get("apiGroup")) is not None:
        checks.name(errors, at.child("apiGroup"), group, names.dns1123_subdomain)
    for field in ("kind", "name"):
        if checks.required(errors, at, parameters, field):
            checks.name(errors, at.child(field), parameters[field], names.path_segment)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.required(at.child("scope"))
    elif scope not in _SCOPES:
        errors.not_supported(at.child("scope"), scope, _SCOPES)
    elif scope == "Namespace":
        if namespace is None:
            errors.required(at.child("namespace"), "`parameters.scope` is set to 'Namespace'")
        else:
            checks.name(errors, at.child("namespace"), namespace, names.dns1123_label)
    elif namespace is not None:
        errors.forbidden(at.child("namespace"), "`parameters.scope` is set to 'Cluster'")


def ingress_class_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check an IngressClass that replaces another: its controller stays."""
    after, before = ((part.get("spec") or {}).get("controller") or "" for part in (new, old))
    checks.immutable(errors, SPEC.child("controller"), after, before)
    ingress_class(errors, new)
