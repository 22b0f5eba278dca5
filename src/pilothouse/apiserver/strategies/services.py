"""Services: addresses that were allocated stay with a service, and go when its type has no use for them."""

from __future__ import annotations

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
    if old.get("clusterIP") == single and old.get("clusterIPs") == several:
        return
    if old.get("clusterIP") != single:
        if not single and old.get("clusterIPs") == several:
            spec.pop("clusterIPs", None)
        elif single and old.get("clusterIPs") == several:
            spec["clusterIPs"] = [single]
    elif not several and old.get("clusterIPs"):
        spec.pop("clusterIP", None)


def _keep_allocated(spec: Object, old: Object) -> None:
    """Take over what the server allocated before where the client leaves it out."""
    if needs_cluster_ip(old) and needs_cluster_ip(spec):
        _keep_missing(spec, old, ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"))
    if old.get("type") in _WITH_PORTS and spec.get("type") in _WITH_PORTS:
        known = {_port_key(port): port["nodePort"] for port in old.get("ports") or () if port.get("nodePort")}
        for port in spec.get("ports") or ():
            kept = known.get(_port_key(port))
            if kept and not port.get("nodePort"):
                port["nodePort"] = kept
    if needs_health_port(old) and needs_health_port(spec):
        _keep_missing(spec, old, ("healthCheckNodePort",))


def _port_key(port: Object) -> tuple[int, str]:
    return port.get("port") or 0, port.get("protocol") or "TCP"


def _keep_missing(spec: Object, old: Object, names: tuple[str, ...]) -> None:
    for name in names:
        if not spec.get(name) and old.get(name):
            spec[name] = old[name]


_OF_ADDRESS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")


def _drop_unused(spec: Object, old: Object) -> None:
    """Take away what the former type had and this one does not, unless the client set it anew."""
    before, now = old.get("type"), spec.get("type")
    if needs_cluster_ip(old) and not needs_cluster_ip(spec) and _same(spec, old, ("clusterIP", "clusterIPs")):
        for name in _OF_ADDRESS:
            spec.pop(name, None)
    if before in _WITH_PORTS and now not in _WITH_PORTS:
        _drop_ports(spec, old)
        if not spec.get("externalIPs"):
            _drop_same(spec, old, ("externalTrafficPolicy",))
    if needs_health_port(old) and not needs_health_port(spec):
        _drop_same(spec, old, ("healthCheckNodePort",))
    if before == "LoadBalancer" != now:
        _drop_same(spec, old, ("allocateLoadBalancerNodePorts", "loadBalancerClass"))


def _drop_ports(spec: Object, old: Object) -> None:
    had = {port.get("nodePort") for port in old.get("ports") or ()}
    for port in spec.get("ports") or ():
        if port.get("nodePort") in had:
            port.pop("nodePort", None)


def _drop_same(spec: Object, old: Object, names: tuple[str, ...]) -> None:
    for name in names:
        if spec.get(name) == old.get(name):
            spec.pop(name, None)


def _same(spec: Object, old: Object, names: tuple[str, ...]) -> bool:
    return all(spec.get(name) == old.get(name) for name in names)


def _create(new: Object, context: Context) -> None:
    _normalise(new["spec"], None)


def _update(new: Object, old: Object, context: Context) -> None:
    spec, before = new["spec"], old["spec"]
    _normalise(spec, before)
    _keep_allocated(spec, before)
    _drop_unused(spec, before)


SERVICE = Strategy(
    status={"loadBalancer": {}},
    status_subresource=True,
    creates_on_update=True,
    finish_create=_create,
    finish_update=_update,
)
