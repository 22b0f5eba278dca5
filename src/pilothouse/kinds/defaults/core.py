"""Defaults of the core group, pods apart."""

from __future__ import annotations

import base64

from pilothouse.kinds.defaults.fill import (
    Object,
    Table,
    child,
    empties,
    fill_empty,
    fill_missing,
    items,
    labels_from_template,
)
from pilothouse.kinds.defaults.pods import claim_spec, persistent_source, pod, pod_template

__all__ = ["DEFAULTERS", "claim"]

_EVENT_TIMES: Table = (("firstTimestamp", None), ("lastTimestamp", None), ("eventTime", None))
_EVENT_TEXTS: Table = (("reportingComponent", ""), ("reportingInstance", ""))
_VOLUME: Table = (("persistentVolumeReclaimPolicy", "Retain"), ("volumeMode", "Filesystem"))
_AFFINITY_SECONDS = 10800
_INTERNAL_TRAFFIC = ("ClusterIP", "NodePort", "LoadBalancer")


def claim(obj: Object) -> None:
    """Default a PersistentVolumeClaim or a claim template."""
    empties(obj, ("metadata", "spec"))
    claim_spec(obj["spec"])
    fill_empty(child(obj, "status"), (("phase", "Pending"),))


def _volume(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_empty(spec, _VOLUME)
    persistent_source(spec)
    fill_empty(child(obj, "status"), (("phase", "Pending"),))


def _namespace(obj: Object) -> None:
    empties(obj, ("metadata", "spec", "status"))
    name = obj["metadata"].get("name")
    if name:
        child(obj["metadata"], "labels")["kubernetes.io/metadata.name"] = name
    fill_empty(obj["status"], (("phase", "Active"),))


def _service(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_empty(spec, (("sessionAffinity", "None"), ("type", "ClusterIP")))
    _session_affinity(spec)
    for port in items(spec, "ports"):
        fill_empty(port, (("protocol", "TCP"), ("port", 0), ("targetPort", port.get("port", 0))))
    kind = spec["type"]
    external = kind in {"NodePort", "LoadBalancer"} or (kind == "ClusterIP" and spec.get("externalIPs"))
    if external:
        fill_empty(spec, (("externalTrafficPolicy", "Cluster"),))
    if kind in _INTERNAL_TRAFFIC:
        fill_missing(spec, (("internalTrafficPolicy", "Cluster"),))
    status = child(obj, "status")
    ingress = items(child(status, "loadBalancer"), "ingress")
    if kind == "LoadBalancer":
        fill_missing(spec, (("allocateLoadBalancerNodePorts", True),))
        for address in ingress:
            if address.get("ip"):
                fill_missing(address, (("ipMode", "VIP"),))


def _session_affinity(spec: Object) -> None:
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if config.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _AFFINITY_SECONDS}}


def _replication_controller(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("replicas", 1),))
    if spec.get("template") is None:
        return
    labels = labels_from_template(obj, pod_template(spec))
    if labels is not None and not spec.get("selector"):
        spec["selector"] = dict(labels)


def _pod_template(obj: Object) -> None:
    pod_template(obj)


def _secret(obj: Object) -> None:
    fill_empty(obj, (("type", "Opaque"),))
    # Plain strings are written over the data when an object arrives, and never come back.
    texts = obj.pop("stringData", None)
    if texts:
        data = child(obj, "data")
        for key, value in texts.items():
            data[key] = base64.b64encode(value.encode()).decode()


def _config_map(obj: Object) -> None:
    if obj.get("data") is None:
        obj.pop("data", None)


def _endpoints(obj: Object) -> None:
    for subset in items(obj, "subsets"):
        for port in items(subset, "ports"):
            fill_empty(port, (("protocol", "TCP"),))


def _node(obj: Object) -> None:
    empties(obj, ("spec", "status"))
    status = obj["status"]
    capacity = status.get("capacity")
    if status.get("allocatable") is None and capacity is not None:
        status["allocatable"] = dict(capacity)


def _limit_range(obj: Object) -> None:
    spec = child(obj, "spec")
    fill_missing(spec, (("limits", None),))
    for item in items(spec, "limits"):
        if item.get("type") != "Container":
            continue
        limits = {**(item.get("max") or {}), **(item.get("default") or {})}
        requests = {**(item.get("min") or {}), **limits, **(item.get("defaultRequest") or {})}
        for name, values in (("default", limits), ("defaultRequest", requests)):
            if values:
                item[name] = values


def _resource_quota(obj: Object) -> None:
    empties(obj, ("spec",))


def _event(obj: Object) -> None:
    empties(obj, ("involvedObject", "source"))
    fill_missing(obj, _EVENT_TIMES + _EVENT_TEXTS)


DEFAULTERS = {
    "ConfigMap": _config_map,
    "Endpoints": _endpoints,
    "Event": _event,
    "LimitRange": _limit_range,
    "Namespace": _namespace,
    "Node": _node,
    "PersistentVolume": _volume,
    "PersistentVolumeClaim": claim,
    "Pod": pod,
    "PodTemplate": _pod_template,
    "ReplicationController": _replication_controller,
    "ResourceQuota": _resource_quota,
    "Secret": _secret,
    "Service": _service,
}
