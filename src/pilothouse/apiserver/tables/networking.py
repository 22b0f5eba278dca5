"""The rows of services and of what leads to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, Object, Printer, age, format_labels, format_selector, limited
from pilothouse.kinds.ages import Ages

__all__ = ["PRINTERS"]

_EMPTY: Final[Mapping[str, Any]] = {}
_SHOWN_HOSTS: Final = 3


def _spec(obj: Object) -> tuple[str, Mapping[str, Any]]:
    return obj["metadata"].get("name", ""), obj.get("spec") or _EMPTY


def _balancer(obj: Object) -> list[str]:
    """Return the addresses that a load balancer gave."""
    status = (obj.get("status") or _EMPTY).get("loadBalancer") or _EMPTY
    given = {one.get("ip") or one.get("hostname") or "" for one in status.get("ingress") or ()}
    return sorted(given - {""})


def _external(obj: Object, spec: Object) -> str:
    kind, listed = spec.get("type", ""), list(spec.get("externalIPs") or ())
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(listed) or NONE
    if kind == "LoadBalancer":
        return ",".join(_balancer(obj) + listed) or "<pending>"
    return str(spec.get("externalName", "")) if kind == "ExternalName" else "<unknown>"


def _port(port: Object) -> str:
    if port.get("nodePort"):
        return f"{port['port']}:{port['nodePort']}/{port.get('protocol', '')}"
    return f"{port['port']}/{port.get('protocol', '')}"


def _service(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _spec(obj)
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [NONE])
    ports = ",".join(map(_port, spec.get("ports") or ())) or NONE
    return [
        name,
        spec.get("type", ""),
        addresses[0],
        _external(obj, spec),
        ports,
        age(obj, ages),
        format_labels(spec.get("selector")),
    ]


def _hosts(rules: Sequence[Object]) -> str:
    listed: list[str] = []
    more = False
    for rule in rules:
        more = more or len(listed) == _SHOWN_HOSTS
        if not more and rule.get("host"):
            listed.append(rule["host"])
    text = ",".join(listed)
    return f"{text} + {len(rules) - _SHOWN_HOSTS} more..." if more else text or "*"


def _ingress(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _spec(obj)
    class_name = spec.get("ingressClassName")
    return [
        name,
        NONE if class_name is None else class_name,
        _hosts(spec.get("rules") or ()),
        ",".join(_balancer(obj)),
        "80, 443" if spec.get("tls") else "80",
        age(obj, ages),
    ]


def _ingress_class(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _spec(obj)
    told = NONE
    if parameters := spec.get("parameters"):
        kind, group = parameters.get("kind", ""), parameters.get("apiGroup")
        kind = kind if group is None else f"{kind}.{group}"
        told = f"{kind}/{parameters.get('name', '')}"
    return [name, spec.get("controller", ""), told, age(obj, ages)]


def _network_policy(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _spec(obj)
    return [name, format_selector(spec.get("podSelector") or _EMPTY), age(obj, ages)]


def _ip_address(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _spec(obj)
    told = NONE
    if parent := spec.get("parentRef"):
        resource, group = parent.get("resource", ""), parent.get("group", "")
        parts = [(f"{resource}.{group}" if group else resource).lower()]
        parts += [parent["namespace"]] if parent.get("namespace") else []
        told = "/".join([*parts, parent.get("name", "")])
    # one cell more than there are columns, as kube-apiserver has it
    return [name, told, age(obj, ages)]


def _service_cidr(obj: Object, ages: Ages) -> list[Any]:
    name, spec = _spec(obj)
    return [name, ",".join(spec.get("cidrs") or ()), age(obj, ages)]


def _slice_port(port: Object) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return "*" if port.get("name") is None else str(port["name"])


def _endpoint_slice(obj: Object, ages: Ages) -> list[Any]:
    addresses = [address for one in obj.get("endpoints") or () for address in one.get("addresses") or ()]
    ports = limited(map(_slice_port, obj.get("ports") or ()))
    return [obj["metadata"].get("name", ""), obj.get("addressType", ""), ports, limited(addresses), age(obj, ages)]


PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    ("", "Service"): _service,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("networking.k8s.io", "IPAddress"): _ip_address,
    ("networking.k8s.io", "Ingress"): _ingress,
    ("networking.k8s.io", "IngressClass"): _ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("networking.k8s.io", "ServiceCIDR"): _service_cidr,
}
