"""Warnings about values that many kinds have: addresses, labels of nodes, quantities, names of pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import Path, quote
from pilothouse.kinds.quantity import QuantityError, parse

__all__ = [
    "address",
    "fractions",
    "hostname",
    "network",
    "node_label",
    "node_label_keys",
    "node_term",
    "storage_request",
]

Object = dict[str, Any]
_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}


def hostname(name: str, where: str) -> list[str]:
    """Warn of a name that makes no label in the names of hosts; where: what it is part of."""
    if messages := names.dns1123_label(name):
        text = f"this is used in {where}, which can result in surprising behavior; a DNS label is recommended"
        return [f"metadata.name: {text}: [{' '.join(messages)}]"]
    return []


def address(at: Path, value: str) -> list[str]:
    """Warn of an IP address that is not in its one shortest form."""
    if not names.ip(value):
        return []
    plain = names.plain_address(value)
    if plain is None:
        return []
    mapped = plain.ipv4_mapped if isinstance(plain, ipaddress.IPv6Address) else None
    if names.legacy_ip(value):
        return [f"{at}: non-standard IP address {quote(value)} is invalid: use {quote(str(mapped or plain))}"]
    text = f"should be in RFC 5952 canonical format ({quote(str(plain))})"
    return [f"{at}: IPv6 address {quote(value)} {text}"]


def network(at: Path, value: str) -> list[str]:
    """Warn of a network with bits beyond its prefix, or not in its one shortest form."""
    if not names.cidr(value) or names.legacy_cidr(value, strict=False):
        return []
    text, _, digits = value.partition("/")
    plain = names.plain_address(text)
    if plain is None:
        return []
    length = int(digits)
    mapped = plain.ipv4_mapped if isinstance(plain, ipaddress.IPv6Address) else None
    single = plain
    if mapped is not None and length >= 96:
        single, length = mapped, length - 96
    found = ipaddress.ip_network((single, length), strict=False)
    warnings = []
    if found.network_address != single:
        alone = quote(f"{single}/{single.max_prefixlen}")
        warnings.append(
            f"{at}: CIDR value {quote(value)} is ambiguous in this context (should be {quote(str(found))} or {alone}?)"
        )
    if names.legacy_ip(text) or digits != str(int(digits)):
        warnings.append(f"{at}: non-standard CIDR value {quote(value)} is invalid: use {quote(str(found))}")
    if not warnings:
        text = f"should be in RFC 5952 canonical format ({quote(str(found))})"
        warnings.append(f"{at}: IPv6 CIDR value {quote(value)} {text}")
    return warnings


def node_label(key: str) -> str:
    """Return what is said of a label of nodes that is no longer used; empty for any other."""
    return _NODE_LABELS.get(key, "")


def node_label_keys(at: Path, expressions: Iterable[Object]) -> list[str]:
    """Warn of old labels of nodes in expressions."""
    return [
        f"{at.index(position).child('key')}: {expression['key']} is {text}"
        for position, expression in enumerate(expressions)
        if (text := _NODE_LABELS.get(expression.get("key") or ""))
    ]


def node_term(at: Path, term: Object, *, values: bool = False) -> list[str]:
    """Warn of old labels in a term that selects nodes; values: and of values that no label can have."""
    expressions = term.get("matchExpressions") or ()
    at = at.child("matchExpressions")
    warnings = node_label_keys(at, expressions)
    if values:
        for position, expression in enumerate(expressions):
            for place, value in enumerate(expression.get("values") or ()):
                where = at.index(position).child("values").index(place)
                warnings += [f"{where}: {value} is invalid, {why}" for why in names.label_value(value)]
    return warnings


def fractions(at: Path, amounts: Mapping[str, Any] | None, *resources: str) -> list[str]:
    """Warn of amounts of these resources, which have whole bytes, with a part of a byte."""
    warnings: list[str] = []
    for resource in resources if amounts else ():
        value = (amounts or {}).get(resource)
        if value is None or (type(value) is str and value[-1:] != "m" and "." not in value):
            continue
        try:
            amount = parse(str(value))
        except (QuantityError, OverflowError):
            continue
        if amount.milli_value() % 1000:
            text = f"fractional byte value {quote(str(amount))} is invalid, must be an integer"
            warnings.append(f"{at.key(resource)}: {text}")
    return warnings


def storage_request(at: Path, claim: Object) -> list[str]:
    """Warn of parts of a byte in the spec of a claim."""
    resources = claim.get("resources") or {}
    return [
        warning
        for field in ("requests", "limits")
        for warning in fractions(at.child("resources", field), resources.get(field), "storage")
    ]
