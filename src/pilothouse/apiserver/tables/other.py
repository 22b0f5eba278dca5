"""The rows of the remaining built-in kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, Object, Printer, age
from pilothouse.kinds.ages import Ages

__all__ = ["PRINTERS"]

_EMPTY: Final[Mapping[str, Any]] = {}


def _parts(obj: Object) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    return obj["metadata"].get("name", ""), obj.get("spec") or _EMPTY, obj.get("status") or _EMPTY


def _name_and_age(obj: Object, ages: Ages) -> list[Any]:
    return [obj["metadata"].get("name", ""), age(obj, ages)]


def _available(status: Object) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Available":
            told = str(condition.get("status", ""))
            return told if told == "True" or not condition.get("reason") else f"{told} ({condition['reason']})"
    return "Unknown"


def _api_service(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    service = spec.get("service")
    told = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    return [name, told, _available(status), age(obj, ages)]


def _priority_class(obj: Object, ages: Ages) -> list[Any]:
    name, value, default = obj["metadata"].get("name", ""), obj.get("value", 0), bool(obj.get("globalDefault"))
    return [name, value, default, age(obj, ages), obj.get("preemptionPolicy") or ""]


def _runtime_class(obj: Object, ages: Ages) -> list[Any]:
    return [obj["metadata"].get("name", ""), obj.get("handler", ""), age(obj, ages)]


def _lease(obj: Object, ages: Ages) -> list[Any]:
    name, spec, _ = _parts(obj)
    return [name, spec.get("holderIdentity") or "", age(obj, ages)]


def _flow_schema(obj: Object, ages: Ages) -> list[Any]:
    name, spec, status = _parts(obj)
    method = spec.get("distinguisherMethod")
    dangling = [one.get("status", "") for one in status.get("conditions") or () if one.get("type") == "Dangling"]
    return [
        name,
        (spec.get("priorityLevelConfiguration") or _EMPTY).get("name", ""),
        spec.get("matchingPrecedence", 0),
        NONE if method is None else method.get("type", ""),
        age(obj, ages),
        dangling[0] if dangling else "?",
    ]


def _priority_level(obj: Object, ages: Ages) -> list[Any]:
    name, spec, _ = _parts(obj)
    limited = spec.get("limited")
    shares: Any = NONE if limited is None else limited.get("nominalConcurrencyShares")
    queuing = ((limited or _EMPTY).get("limitResponse") or _EMPTY).get("queuing")
    fields = ("queues", "handSize", "queueLengthLimit")
    queues = [NONE if queuing is None else queuing.get(field, 0) for field in fields]
    return [name, spec.get("type", ""), shares, *queues, age(obj, ages)]


def _resource_claim(obj: Object, ages: Ages) -> list[Any]:
    name, _, status = _parts(obj)
    deleted = bool(obj["metadata"].get("deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if status.get("allocation") is not None:
        states += ["allocated", "reserved"] if status.get("reservedFor") else ["allocated"]
    elif not deleted:
        states.append("pending")
    return [name, ",".join(states), age(obj, ages)]


def _resource_slice(obj: Object, ages: Ages) -> list[Any]:
    name, spec, _ = _parts(obj)
    pool = (spec.get("pool") or _EMPTY).get("name", "")
    return [name, spec.get("nodeName") or "", spec.get("driver", ""), pool, age(obj, ages)]


PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    ("apiregistration.k8s.io", "APIService"): _api_service,
    ("coordination.k8s.io", "Lease"): _lease,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): _flow_schema,
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): _priority_level,
    ("node.k8s.io", "RuntimeClass"): _runtime_class,
    ("resource.k8s.io", "DeviceClass"): _name_and_age,
    ("resource.k8s.io", "ResourceClaim"): _resource_claim,
    ("resource.k8s.io", "ResourceClaimTemplate"): _name_and_age,
    ("resource.k8s.io", "ResourceSlice"): _resource_slice,
    ("scheduling.k8s.io", "PriorityClass"): _priority_class,
}
