"""Defaults of the networking and discovery groups."""

from __future__ import annotations

from pilothouse.kinds.defaults.fill import Object, child, empties, fill_missing, items

__all__ = ["DEFAULTERS", "DISCOVERY"]


def _network_policy(obj: Object) -> None:
    spec = child(obj, "spec")
    child(spec, "podSelector")
    for direction in ("ingress", "egress"):
        for rule in items(spec, direction):
            for port in items(rule, "ports"):
                fill_missing(port, (("protocol", "TCP"),))
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _ingress(obj: Object) -> None:
    spec = child(obj, "spec")
    backends = [spec.get("defaultBackend")]
    for rule in items(spec, "rules"):
        backends += [path.get("backend") for path in items(rule.get("http") or {}, "paths")]
    for backend in backends:
        service = (backend or {}).get("service")
        if service is not None:
            child(service, "port")


def _ingress_class(obj: Object) -> None:
    parameters = child(obj, "spec").get("parameters")
    if parameters is not None:
        fill_missing(parameters, (("scope", "Cluster"),))


def _endpoint_slice(obj: Object) -> None:
    fill_missing(obj, (("endpoints", None), ("ports", None)))
    for endpoint in items(obj, "endpoints"):
        empties(endpoint, ("conditions",))
    for port in items(obj, "ports"):
        fill_missing(port, (("name", ""), ("protocol", "TCP")))


DEFAULTERS = {"Ingress": _ingress, "IngressClass": _ingress_class, "NetworkPolicy": _network_policy}
DISCOVERY = {"EndpointSlice": _endpoint_slice}
