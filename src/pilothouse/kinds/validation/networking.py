"""Validation of Ingresses and NetworkPolicies."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.metadata import label_selector

__all__ = ["ingress", "ingress_update", "network_policy"]

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDS = ("/..", "/.")
_POLICY_TYPES = ("Ingress", "Egress")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_CLASS_ANNOTATION = "kubernetes.io/ingress.class"


def ingress(errors: ErrorList, obj: Object) -> None:
    """Check a new Ingress, its metadata apart."""
    _ingress(errors, obj)
    annotation = ((obj.get("metadata") or {}).get("annotations") or {}).get(_CLASS_ANNOTATION)
    name = (obj.get("spec") or {}).get("ingressClassName")
    if annotation is not None and name is not None and annotation != name:
        text = "must match `ingressClassName` when both are specified"
        errors.invalid(Path("annotations").child(_CLASS_ANNOTATION), annotation, text)


def ingress_update(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check an Ingress that replaces another."""
    _ingress(errors, new)


def _ingress(errors: ErrorList, obj: Object) -> None:
    spec: Object = obj.get("spec") or {}
    rules, backend = items(spec, "rules"), spec.get("defaultBackend")
    if not rules and backend is None:
        errors.invalid(SPEC, None, "either `defaultBackend` or `rules` must be specified")
    if backend is not None:
        _backend(errors, SPEC.child("defaultBackend"), backend)
    for position, rule in enumerate(rules):
        _rule(errors, SPEC.child("rules").index(position), rule)
    for position, tls in enumerate(items(spec, "tls")):
        place = SPEC.child("tls").index(position)
        for index, host in enumerate(items(tls, "hosts")):
            _host_name(errors, place.child("hosts").index(index), host)
        if secret := tls.get("secretName"):
            checks.name(errors, place.child("secretName"), secret, names.dns1123_subdomain)
    name = spec.get("ingressClassName")
    if name is not None:
        checks.name(errors, SPEC.child("ingressClassName"), name, names.dns1123_subdomain)


def _host_name(errors: ErrorList, at: Path, host: str) -> None:
    rule = names.wildcard_dns1123_subdomain if "*" in host else names.dns1123_subdomain
    checks.name(errors, at, host, rule)


def _rule(errors: ErrorList, at: Path, rule: Object) -> None:
    if host := rule.get("host"):
        if not names.legacy_ip(host, strict=False):
            errors.invalid(at.child("host"), host, "must be a DNS name, not an IP address")
        _host_name(errors, at.child("host"), host)
    http = rule.get("http")
    if http is None:
        return
    paths = items(http, "paths")
    if not paths:
        errors.required(at.child("http", "paths"))
    for position, path in enumerate(paths):
        _path(errors, at.child("http", "paths").index(position), path)


def _path(errors: ErrorList, at: Path, path: Object) -> None:
    kind, text = path.get("pathType"), path.get("path") or ""
    if kind is None:
        errors.required(at.child("pathType"), "pathType must be specified")
        return
    if kind not in _PATH_TYPES:
        errors.not_supported(at.child("pathType"), kind, _PATH_TYPES)
    elif not text.startswith("/") and (text or kind != "ImplementationSpecific"):
        errors.invalid(at.child("path"), text, "must be an absolute path")
    if kind in {"Exact", "Prefix"}:
        for sequence in _BAD_SEQUENCES:
            if sequence in text:
                errors.invalid(at.child("path"), text, f"must not contain '{sequence}'")
        for end in _BAD_ENDS:
            if text.endswith(end):
                errors.invalid(at.child("path"), text, f"cannot end with '{end}'")
    _backend(errors, at.child("backend"), path.get("backend") or {})


def _backend(errors: ErrorList, at: Path, backend: Object) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        errors.invalid(at, "", "cannot set both resource and service backends")
    elif resource is not None:
        checks.required(errors, at.child("resource"), resource, "kind")
        checks.required(errors, at.child("resource"), resource, "name")
    elif service is None:
        errors.invalid(at, "", "resource or service backend is required")
    else:
        if checks.required(errors, at.child("service"), service, "name"):
            checks.name(errors, at.child("service", "name"), service["name"], names.dns1123_label)
        _backend_port(errors, at, service.get("port") or {})


def _backend_port(errors: ErrorList, at: Path, port: Object) -> None:
    name, number = port.get("name"), port.get("number")
    if name and number:
        errors.invalid(at, "", "cannot set both port name & port number")
    elif name or number:
        checks.port(errors, at.child("service", "port", "name" if name else "number"), name or number or 0)
    else:
        errors.required(at, "port name or number is required")


def network_policy(errors: ErrorList, obj: Object) -> None:
    """Check a NetworkPolicy, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    label_selector(errors, SPEC.child("podSelector"), spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for position, rule in enumerate(items(spec, direction)):
            place = SPEC.child(direction).index(position)
            _policy_ports(errors, place.child("ports"), items(rule, "ports"))
            for index, peer in enumerate(items(rule, peers)):
                _peer(errors, place.child(peers).index(index), peer)
    types = items(spec, "policyTypes")
    if len(types) > len(_POLICY_TYPES):
        errors.invalid(SPEC.child("policyTypes"), types, "may not specify more than two policyTypes")
        return
    for position, kind in enumerate(types):
        if kind not in _POLICY_TYPES:
            errors.not_supported(SPEC.child("policyTypes").index(position), kind, _POLICY_TYPES)


def _policy_ports(errors: ErrorList, at: Path, ports: Sequence[Object]) -> None:
    for position, port in enumerate(ports):
        place, number, end = at.index(position), port.get("port"), port.get("endPort")
        protocol = port.get("protocol")
        if protocol is not None and protocol not in _PROTOCOLS:
            errors.not_supported(place.child("protocol"), protocol, _PROTOCOLS)
        if number is not None:
            checks.port(errors, place.child("port"), number)
        if end is None:
            continue
        if number is None:
            errors.invalid(place.child("endPort"), end, "may not be specified when `port` is not specified")
        elif isinstance(number, str):
            errors.invalid(place.child("endPort"), end, "may not be specified when `port` is non-numeric")
        else:
            if end < number:
                errors.invalid(place.child("endPort"), number, "must be greater than or equal to `port`")
            checks.port(errors, place.child("endPort"), end)


def _peer(errors: ErrorList, at: Path, peer: Object) -> None:
    given = [field for field in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(field) is not None]
    for field in given:
        if field == "ipBlock":
            _block(errors, at.child(field), peer[field])
        else:
            label_selector(errors, at.child(field), peer[field])
    if not given:
        errors.required(at, "must specify a peer")
    elif len(given) > 1 and "ipBlock" in given:
        errors.forbidden(at, "may not specify both ipBlock and another peer")


def _block(errors: ErrorList, at: Path, block: Object) -> None:
    if not checks.required(errors, at, block, "cidr"):
        return
    checks.name(errors, at.child("cidr"), block["cidr"], names.legacy_cidr)
    for position, network in enumerate(items(block, "except")):
        checks.name(errors, at.child("except").index(position), network, names.legacy_cidr)
