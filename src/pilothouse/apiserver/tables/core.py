"""The rows of the core group, pods and volumes aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, Object, Printer, age, limited, quantity
from pilothouse.kinds.ages import Ages

__all__ = ["PRINTERS"]

_EMPTY: Final[Mapping[str, Any]] = {}
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE: Final = "kubernetes.io/role"
_UNKNOWN: Final = "<unknown>"


def _name(obj: Object) -> str:
    return str(obj["metadata"].get("name", ""))


def _config_map(obj: Object, ages: Ages) -> list[Any]:
    return [_name(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, ages)]


def _secret(obj: Object, ages: Ages) -> list[Any]:
    return [_name(obj), obj.get("type", ""), len(obj.get("data") or ()), age(obj, ages)]


def _service_account(obj: Object, ages: Ages) -> list[Any]:
    return [_name(obj), age(obj, ages)]


def _namespace(obj: Object, ages: Ages) -> list[Any]:
    return [_name(obj), (obj.get("status") or _EMPTY).get("phase", ""), age(obj, ages)]


def _component_status(obj: Object, ages: Ages) -> list[Any]:
    for condition in obj.get("conditions") or ():
        if condition.get("type") == "Healthy":
            status = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            return [_name(obj), status, condition.get("message", ""), condition.get("error", "")]
    return [_name(obj), "Unknown", "", ""]


def _node_status(spec: Object, status: Object) -> str:
    ready = None
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            ready = condition.get("status") == "True"
    told = "Unknown" if ready is None else "Ready" if ready else "NotReady"
    return f"{told},SchedulingDisabled" if spec.get("unschedulable") else told


def _node_roles(labels: Mapping[str, str]) -> str:
    roles = {label.removeprefix(_ROLE_PREFIX) for label in labels if label.startswith(_ROLE_PREFIX)}
    roles.add(labels.get(_ROLE, ""))
    return ",".join(sorted(role for role in roles if role)) or NONE


def _node_address(status: Object, kind: str) -> str:
    for address in status.get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address", ""))
    return NONE


def _node(obj: Object, ages: Ages) -> list[Any]:
    metadata, spec, status = obj["metadata"], obj.get("spec") or _EMPTY, obj.get("status") or _EMPTY
    info = status.get("nodeInfo") or _EMPTY
    return [
        _name(obj),
        _node_status(spec, status),
        _node_roles(metadata.get("labels") or _EMPTY),
        age(obj, ages),
        info.get("kubeletVersion", ""),
        _node_address(status, "InternalIP"),
        _node_address(status, "ExternalIP"),
        info.get("osImage") or _UNKNOWN,
        info.get("kernelVersion") or _UNKNOWN,
        info.get("containerRuntimeVersion") or _UNKNOWN,
    ]


def _resource_quota(obj: Object, ages: Ages) -> list[Any]:
    status = obj.get("status") or _EMPTY
    hard, used = status.get("hard") or _EMPTY, status.get("used") or _EMPTY
    told: dict[bool, list[str]] = {False: [], True: []}
    for name in sorted(hard):
        told[name.startswith("limits.")].append(f"{name}: {quantity(used.get(name))}/{quantity(hard[name])}")
    return [_name(obj), ", ".join(told[False]), ", ".join(told[True]), age(obj, ages)]


def _endpoints(obj: Object, ages: Ages) -> list[Any]:
    told = []
    for subset in obj.get("subsets") or ():
        hosts = [one.get("ip", "") for one in subset.get("addresses") or ()]
        ports = subset.get("ports")
        if not ports:
            told += hosts
        for port in ports or ():
            told += [f"[{host}]:{port['port']}" if ":" in host else f"{host}:{port['port']}" for host in hosts]
    text = limited(told, "" if obj.get("subsets") else NONE)
    return [_name(obj), text, age(obj, ages)]


def _core_event(obj: Object) -> Object:
    """Give an event of `events.k8s.io` in the terms of the core group."""
    if "regarding" not in obj and "note" not in obj and "deprecatedCount" not in obj:
        return obj
    return {
        **obj,
        "involvedObject": obj.get("regarding"),
        "message": obj.get("note"),
        "source": obj.get("deprecatedSource"),
        "firstTimestamp": obj.get("deprecatedFirstTimestamp"),
        "lastTimestamp": obj.get("deprecatedLastTimestamp"),
        "count": obj.get("deprecatedCount"),
        "reportingComponent": obj.get("reportingController"),
    }


def _event(obj: Object, ages: Ages) -> list[Any]:
    obj = _core_event(obj)
    first = ages.since(obj.get("firstTimestamp") or obj.get("eventTime"))
    last = ages.since(obj["lastTimestamp"]) if obj.get("lastTimestamp") else first
    count = obj.get("count") or 1
    if series := obj.get("series"):
        last, count = ages.since(series.get("lastObservedTime")), series.get("count", 0)
    about = obj.get("involvedObject") or _EMPTY
    kind = about.get("kind", "").lower()
    source = obj.get("source") or _EMPTY
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        (obj.get("message") or "").strip(),
        first,
        count,
        _name(obj),
    ]


PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    ("", "ComponentStatus"): _component_status,
    ("", "ConfigMap"): _config_map,
    ("", "Endpoints"): _endpoints,
    ("", "Event"): _event,
    ("", "Namespace"): _namespace,
    ("", "Node"): _node,
    ("", "ResourceQuota"): _resource_quota,
    ("", "Secret"): _secret,
    ("", "ServiceAccount"): _service_account,
    ("events.k8s.io", "Event"): _event,
}
