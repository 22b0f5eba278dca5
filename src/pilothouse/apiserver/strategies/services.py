"""Services: addresses that were allocated stay with a service, and go when its type has no use for them."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.strategies.base import Context, Strategy

__all__ = ["SERVICE", "needs_cluster_ip", "needs_health_port", "needs_node_ports"]

_WITH_ADDRESS = frozenset({"ClusterIP", "NodePort", "LoadBalancer"})
_WITH_PORTS = frozenset({"NodePort", "LoadBalancer"})


def needs_cluster_ip(spec: Object) -> bool:
    """Whether a service of this kind has an address of the cluster (or says `None`)."""
    return spec.get("type", "ClusterIP") in _WITH_ADDRESS


def needs_node_ports(spec: Object) -> bool:
    """Whether a service of this kind gets ports of the nodes."""
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def needs_health_port(spec: Object) -> bool:
    """Whether a service of this kind gets a port for health checks of its nodes."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _normalise(spec: Object, old: Object | None) -> None:
    """Let `clusterIP` and `clusterIPs` agree, whichever the client knows."""
    single, several = spec.get("clusterIP"), spec.get("clusterIPs")
    if old is None:
        if single and not several:
            spec["clusterIPs"] = [single]
        return
    same = (several or []) == (old.get("clusterIPs") or [])
    if (single or "") == (old.get("clusterIP") or ""):
        if not several and old.get("clusterIPs"):
            spec["clusterIPs"] = old["clusterIPs"]
    elif same and single:
        spec["clusterIPs"] = [single]
    elif same:
        spec.pop("clusterIPs", None)


def _keep_allocated(spec: Object, old: Object) -> None:
    """Take over what the server allocated before where the client leaves it out."""
    if needs_cluster_ip(old) and needs_cluster_ip(spec):
        _keep_missing(spec, old, ("clusterIP", "clusterIPs"))
    if needs_node_ports(old) and needs_node_ports(spec):
        _keep_ports(spec.get("ports") or (), old.get("ports") or ())
    if needs_health_port(old) and needs_health_port(spec):
        _keep_missing(spec, old, ("healthCheckNodePort",))


def _keep_ports(ports: Sequence[Object], old: Sequence[Object]) -> None:
    """Give ports their former node ports, by name, unless another port asks for one of them."""
    known = {port.get("name") or "": port["nodePort"] for port in old if port.get("nodePort")}
    used = {port["nodePort"] for port in ports if port.get("nodePort")} & set(known.values())
    for port in ports:
        kept = known.get(port.get("name") or "")
        if kept and not port.get("nodePort") and kept not in used:
            port["nodePort"] = kept


def _keep_missing(spec: Object, old: Object, names: tuple[str, ...]) -> None:
    for name in names:
        if not spec.get(name) and old.get(name):
            spec[name] = old[name]


def _drop_unused(spec: Object, old: Object) -> None:
    """Take away what the former type had and this one does not, unless the client set it anew."""
    before, now = old.get("type"), spec.get("type")
    if needs_cluster_ip(old) and not needs_cluster_ip(spec):
        if _same(spec, old, ("clusterIP", "clusterIPs")):
            for name in ("clusterIP", "clusterIPs"):
                spec.pop(name, None)
        _drop_same(spec, old, ("ipFamilies", "ipFamilyPolicy"))
    if before in _WITH_PORTS and now not in _WITH_PORTS:
        _drop_ports(spec, old)
    if is_external(old) and not is_external(spec):
        _drop_same(spec, old, ("externalTrafficPolicy",))
    if needs_health_port(old) and not needs_health_port(spec):
        _drop_same(spec, old, ("healthCheckNodePort",))
    if before == "LoadBalancer" != now:
        _drop_same(spec, old, ("allocateLoadBalancerNodePorts", "loadBalancerClass"))


def is_external(spec: Object) -> bool:
    """Whether what is outside of the cluster reaches a service by addresses or ports of nodes."""
    return spec.get("type") in _WITH_PORTS or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


def _drop_ports(spec: Object, old: Object) -> None:
    had = {port.get("nodePort") or 0 for port in old.get("ports") or ()} | {0}
    if {port.get("nodePort") or 0 for port in spec.get("ports") or ()} <= had:
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)


def _drop_same(spec: Object, old: Object, names: tuple[str, ...]) -> None:
    for name in names:
        if spec.get(name) == old.get(name):
            spec.pop(name, None)


def _same(spec: Object, old: Object, names: tuple[str, ...]) -> bool:
    return all(spec.get(name) == old.get(name) for name in names)


def _drop_internal(spec: Object) -> None:
    if spec.get("type") == "ExternalName":
        spec.pop("internalTrafficPolicy", None)


def _create(new: Object, context: Context) -> None:
    _normalise(new["spec"], None)
    _drop_internal(new["spec"])


def _update(new: Object, old: Object, context: Context) -> None:
    spec, before = new["spec"], old["spec"]
    _keep_allocated(spec, before)
    _normalise(spec, before)
    _drop_unused(spec, before)
    _drop_internal(spec)


SERVICE = Strategy(
    status={"loadBalancer": {}},
    status_subresource=True,
    creates_on_update=True,
    finish_create=_create,
    finish_update=_update,
)
