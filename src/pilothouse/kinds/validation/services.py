"""Validation of Services."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.metadata import labels

__all__ = ["service_create", "service_update"]

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES = ("ClientIP", "None")
_TRAFFIC = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_EXTERNAL_NAME_ONLY = "may not be set for ExternalName services"
_AFFINITY_MAXIMUM = 86400


def service_create(errors: ErrorList, obj: Object) -> None:
    """Check a Service, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    kind, headless = spec.get("type") or "", _is_headless(spec)
    ports = items(spec, "ports")
    if not ports and not headless and kind != "ExternalName":
        errors.required(SPEC.child("ports"))
    if kind in {"LoadBalancer", "NodePort"} and headless:
        text = f"may not be set to 'None' for {kind} services"
        errors.invalid(SPEC.child("clusterIPs").index(0), "None", text)
    if kind == "ExternalName":
        _external_name(errors, spec)
    _ports(errors, SPEC.child("ports"), ports)
    if selector := spec.get("selector"):
        labels(errors, SPEC.child("selector"), selector)
    checks.one_of(errors, SPEC, spec, "sessionAffinity", _AFFINITIES)
    _affinity(errors, spec)
    if kind != "ExternalName":
        _addresses(errors, spec)
    for position, address in enumerate(items(spec, "externalIPs")):
        checks.name(errors, SPEC.child("externalIPs").index(position), address, names.legacy_ip)
    checks.one_of(errors, SPEC, spec, "type", _TYPES)
    _node_ports(errors, kind, ports)
    _duplicate_ports(errors, ports)
    _balancer(errors, spec, kind)
    _traffic(errors, spec, kind)


def service_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a Service that replaces another: its cluster addresses and families stay, unless it is for a name."""
    spec: Object = new.get("spec") or {}
    before: Object = old.get("spec") or {}
    if spec.get("type") != "ExternalName":
        wrong = ErrorList()
        _addresses(wrong, spec)
        if wrong:
            errors.extend(wrong)
            return  # they are looked at before anything else
        if before.get("type") != "ExternalName":
            _addresses_update(errors, spec, before)
    _class_update(errors, spec, before)
    _health_port_update(errors, spec, before)
    service_create(errors, new)


def _health_port_update(errors: ErrorList, spec: Object, before: Object) -> None:
    same = spec.get("healthCheckNodePort") == before.get("healthCheckNodePort")
    if _has_health_port(spec) and _has_health_port(before) and not same:
        errors.forbidden(SPEC.child("healthCheckNodePort"), "field is immutable")


def _has_health_port(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _class_update(errors: ErrorList, spec: Object, before: Object) -> None:
    """Check the class of load balancers, which an update does twice."""
    at, now = SPEC.child("loadBalancerClass"), spec.get("loadBalancerClass")
    if spec.get("type") != "LoadBalancer":
        if now is not None:
            errors.forbidden(at, "may only be used when `type` is 'LoadBalancer'")
    elif before.get("type") == "LoadBalancer" and now != before.get("loadBalancerClass"):
        errors.invalid(at, now, "may not change once set")


def _is_headless(spec: Object) -> bool:
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return list(addresses) == ["None"]


def _external_name(errors: ErrorList, spec: Object) -> None:
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            errors.forbidden(SPEC.child(field), _EXTERNAL_NAME_ONLY)
    name = (spec.get("externalName") or "").removesuffix(".")
    if name:
        checks.name(errors, SPEC.child("externalName"), name, names.dns1123_subdomain)
    else:
        errors.required(SPEC.child("externalName"))


def _ports(errors: ErrorList, at: Path, ports: Sequence[Object]) -> None:
    seen: set[str] = set()
    for position, port in enumerate(ports):
        place = at.index(position)
        if name := port.get("name"):
            checks.name(errors, place.child("name"), name, names.dns1123_label)
            if name in seen:
                errors.duplicate(place.child("name"), name)
            seen.add(name)
        elif len(ports) > 1:
            errors.required(place.child("name"))
        checks.port(errors, place.child("port"), port.get("port") or 0)
        checks.one_of(errors, place, port, "protocol", _PROTOCOLS)
        checks.port(errors, place.child("targetPort"), port.get("targetPort") or 0)
        if protocol := port.get("appProtocol"):
            checks.name(errors, place.child("appProtocol"), protocol, names.qualified_name)


def _affinity(errors: ErrorList, spec: Object) -> None:
    at, config = SPEC.child("sessionAffinityConfig"), spec.get("sessionAffinityConfig")
    if spec.get("sessionAffinity") == "None":
        if config is not None:
            errors.forbidden(at, "must not be set when session affinity is None")
    elif spec.get("sessionAffinity") == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        if seconds is None:
            errors.required(at, "when session affinity type is ClientIP")
        elif not 0 < seconds <= _AFFINITY_MAXIMUM:
            text = f"must be greater than 0 and less than {_AFFINITY_MAXIMUM}"
            errors.invalid(at.child("clientIP", "timeoutSeconds"), seconds, text)


def _addresses(errors: ErrorList, spec: Object) -> None:
    at, addresses = SPEC.child("clusterIPs"), list(items(spec, "clusterIPs"))
    first = spec.get("clusterIP") or ""
    if first and addresses and addresses[0] != first:
        errors.invalid(at, addresses, "first value must match `clusterIP`")
    if not first and addresses:
        errors.invalid(at, addresses, "must be empty when `clusterIP` is not specified")
    families = items(spec, "ipFamilies")
    for position, family in enumerate(families):
        place = SPEC.child("ipFamilies").index(position)
        if family not in _FAMILIES:
            errors.not_supported(place, family, _FAMILIES)
        if family in families[:position]:
            errors.duplicate(place, family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        errors.not_supported(SPEC.child("ipFamilyPolicy"), policy, _FAMILY_POLICIES)
    if not addresses and first:
        addresses = [first]
    _cluster_ips(errors, at, addresses)
    if addresses != ["None"]:
        _matching(errors, at, addresses, families)


def _matching(errors: ErrorList, at: Path, addresses: Sequence[str], families: Sequence[str]) -> None:
    for position, (address, family) in enumerate(zip(addresses, families, strict=False)):
        if family in _FAMILIES and family != ("IPv6" if ":" in address else "IPv4"):
            text = f"expected an {family} value as indicated by `ipFamilies[{position}]`"
            errors.invalid(at.index(position), address, text)


def _cluster_ips(errors: ErrorList, at: Path, addresses: list[str]) -> None:
    for position, address in enumerate(addresses):
        if position == 0 and address == "None":
            if len(addresses) > 1:
                errors.invalid(at, addresses, "'None' must be the first and only value")
        else:
            checks.name(errors, at.index(position), address, names.legacy_ip)
    if len(addresses) > 2:
        errors.invalid(at, addresses, "may only hold up to 2 values")
    elif len(addresses) == 2 and (":" in addresses[0]) == (":" in addresses[1]):
        errors.invalid(at, addresses, "may specify no more than one IP for each IP family")


def _node_ports(errors: ErrorList, kind: str, ports: Sequence[Object]) -> None:
    seen: set[tuple[str, int]] = set()
    for position, port in enumerate(ports):
        number = port.get("nodePort")
        if not number:
            continue
        place = SPEC.child("ports").index(position).child("nodePort")
        if kind == "ClusterIP":
            errors.forbidden(place, "may not be used when `type` is 'ClusterIP'")
        key = (port.get("protocol") or "", number)
        if key in seen:
            errors.duplicate(place, number)
        seen.add(key)


def _duplicate_ports(errors: ErrorList, ports: Sequence[Object]) -> None:
    seen: set[tuple[str, int]] = set()
    for position, port in enumerate(ports):
        key = (port.get("protocol") or "", port.get("port") or 0)
        if key in seen:
            shown = Struct(Name="", Protocol=key[0], AppProtocol=None, Port=key[1], TargetPort=0, NodePort=0)
            errors.duplicate(SPEC.child("ports").index(position), shown)
        seen.add(key)


def _balancer(errors: ErrorList, spec: Object, kind: str) -> None:
    for field in ("loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"):
        if spec.get(field) in (None, []) or kind == "LoadBalancer":
            continue
        # The path of the ranges begins with a capital letter, as Kubernetes reports it.
        shown = "LoadBalancerSourceRanges" if field == "loadBalancerSourceRanges" else field
        errors.forbidden(SPEC.child(shown), "may only be used when `type` is 'LoadBalancer'")
    for position, network in enumerate(items(spec, "loadBalancerSourceRanges")):
        place = SPEC.child("LoadBalancerSourceRanges").index(position)
        checks.name(errors, place, network.strip(), names.legacy_cidr)


def _traffic(errors: ErrorList, spec: Object, kind: str) -> None:
    external = spec.get("externalTrafficPolicy") or ""
    if kind in {"NodePort", "LoadBalancer"} or (kind == "ClusterIP" and spec.get("externalIPs")):
        checks.one_of(errors, SPEC, spec, "externalTrafficPolicy", _TRAFFIC)
    elif external:
        text = "may only be set for externally-accessible services"
        errors.invalid(SPEC.child("externalTrafficPolicy"), external, text)
    if spec.get("healthCheckNodePort") and not (kind == "LoadBalancer" and external == "Local"):
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.invalid(SPEC.child("healthCheckNodePort"), spec["healthCheckNodePort"], text)
    internal = spec.get("internalTrafficPolicy")
    if internal is not None and internal not in _TRAFFIC:
        errors.not_supported(SPEC.child("internalTrafficPolicy"), internal, _TRAFFIC)


def _addresses_update(errors: ErrorList, spec: Object, before: Object) -> None:
    new, old = list(items(spec, "clusterIPs")), list(items(before, "clusterIPs"))
    at = SPEC.child("clusterIPs")
    if old == ["None"] == new:
        return
    if len(new) == len(old):
        for position, (address, previous) in enumerate(zip(new, old, strict=True)):
            if address != previous:
                errors.invalid(at.index(position), new, "may not change once set")
        return
    if not new:
        errors.invalid(at.index(0), None, "primary clusterIP can not be unset")
    elif old and new[0] != old[0]:
        errors.invalid(at.index(0), new, "may not change once set")
    if len(new) == 1 and len(old) > 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.invalid(SPEC.child("ipFamilyPolicy"), spec.get("ipFamilyPolicy"), text)
