"""Objects that gateways are told things by, from a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilothouse.kinds.structs import ConfigMap, EndpointSlice, Namespace, Secret, Service, from_dict
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.conditions import CONTROLLER, StatusOf
from pilothouse.traffic.control.kinds import (
    BackendTLSPolicy,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    ReferenceGrant,
    RegionWeights,
    TCPRoute,
    TLSRoute,
)
from pilothouse.traffic.control.snapshot import Snapshot
from pilothouse.traffic.control.translate import Options, Translation, translate

OURS = from_dict({"metadata": {"name": "ours", "generation": 3}, "spec": {"controllerName": CONTROLLER}}, GatewayClass)
POOL = Options(Addresses(("127.5.0.0/24",)))


def meta(name: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "generation": 2, "uid": f"{namespace}-{name}", **more}


def listener(name: str = "http", port: int = 80, protocol: str = "HTTP", **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": protocol, **more}


def gateway(*listeners: Mapping[str, Any], name: str = "front", **spec: Any) -> Gateway:
    created = spec.pop("created", None)
    more = {"creationTimestamp": created} if created else {}
    whole = {"gatewayClassName": "ours", "listeners": list(listeners) or [listener()], **spec}
    return from_dict({"metadata": meta(name, **more), "spec": whole}, Gateway)


def listener_set(*listeners: Mapping[str, Any], name: str = "more", namespace: str = "shop") -> ListenerSet:
    spec = {"parentRef": {"name": "front", "namespace": "shop"}, "listeners": list(listeners)}
    return from_dict({"metadata": meta(name, namespace), "spec": spec}, ListenerSet)


def backend(name: str = "web", port: int = 80, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, **more}


def route(*rules: Mapping[str, Any], name: str = "web", namespace: str = "shop", **spec: Any) -> HTTPRoute:
    whole = {
        "parentRefs": [{"name": "front", "namespace": "shop"}],
        "rules": list(rules) or [{"backendRefs": [backend()]}],
        **spec,
    }
    return from_dict({"metadata": meta(name, namespace), "spec": whole}, HTTPRoute)


def grpc_route(*rules: Mapping[str, Any], **spec: Any) -> GRPCRoute:
    whole = {"parentRefs": [{"name": "front"}], "rules": list(rules), **spec}
    return from_dict({"metadata": meta("calls"), "spec": whole}, GRPCRoute)


def stream_route(kind: type[TLSRoute | TCPRoute], *refs: Mapping[str, Any], **spec: Any) -> Any:
    whole = {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": list(refs)}], **spec}
    return from_dict({"metadata": meta("stream"), "spec": whole}, kind)


def service(name: str = "web", namespace: str = "shop", **port: Any) -> Service:
    return from_dict({"metadata": meta(name, namespace), "spec": {"ports": [{"port": 80, **port}]}}, Service)


def slices(
    *addresses: str, name: str = "web", namespace: str = "shop", port: int = 8080, part: str = "1", **conditions: bool
) -> EndpointSlice:
    tree = {
        "metadata": {**meta(f"{name}-{part}", namespace), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port}],
        "endpoints": [{"addresses": [each], "conditions": conditions} for each in addresses],
    }
    return from_dict(tree, EndpointSlice)


def grant(kind: str, namespace: str, to: str, name: str | None = None, at: str = "other") -> ReferenceGrant:
    tree = {
        "metadata": meta("allow", at),
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace}],
            "to": [{"group": "", "kind": to, **({"name": name} if name else {})}],
        },
    }
    return from_dict(tree, ReferenceGrant)


def namespace(name: str, **labels: str) -> Namespace:
    return from_dict({"metadata": {"name": name, "labels": labels}}, Namespace)


def secret(name: str, namespace: str, chain: bytes, key: bytes) -> Secret:
    return Secret(
        metadata=from_dict({"metadata": meta(name, namespace)}, Secret).metadata,
        data={"tls.crt": chain, "tls.key": key},
    )


def authority(name: str = "ca", text: str = "", namespace: str = "shop") -> ConfigMap:
    return from_dict({"metadata": meta(name, namespace), "data": {"ca.crt": text}}, ConfigMap)


def tls_policy(name: str = "tls", section: str = "", created: str = "", **validation: Any) -> BackendTLSPolicy:
    target = {"group": "", "kind": "Service", "name": "web", **({"sectionName": section} if section else {})}
    whole = {"hostname": "web.example", **(validation or {"wellKnownCACertificates": "System"})}
    more = {"creationTimestamp": created} if created else {}
    spec = {"targetRefs": [target], "validation": whole}
    return from_dict({"metadata": meta(name, **more), "spec": spec}, BackendTLSPolicy)


def weights(*shares: Mapping[str, Any], name: str = "east") -> RegionWeights:
    return from_dict({"metadata": meta(name), "spec": {"weights": list(shares)}}, RegionWeights)


def translated(*objects: Any, options: Options = POOL) -> Translation:
    return translate(Snapshot.of(OURS, *objects), options)


def status_of(found: Translation, obj: Any) -> StatusOf:
    key = (type(obj), obj.metadata.namespace, obj.metadata.name)
    return next(each for each in found.statuses if (each.kind, each.namespace, each.name) == key)


def told(conditions: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return status and reason of conditions by type, all of which have to name the generation."""
    assert all(each["observedGeneration"] in {2, 3} for each in conditions)
    return {each["type"]: (each["status"], each["reason"]) for each in conditions}


def listener_told(found: Translation, obj: Any, number: int = 0) -> dict[str, tuple[str, str]]:
    return told(status_of(found, obj).fields["listeners"][number]["conditions"])


def parent_told(found: Translation, obj: Any, number: int = 0) -> dict[str, tuple[str, str]]:
    shared = status_of(found, obj).shared
    assert shared is not None
    return told(shared[1][number]["conditions"])
