"""Pods: their quality of service, and what survives an update of spec or status."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.strategies.base import Context, Strategy
from pilothouse.kinds.quantity import QuantityError, parse

__all__ = ["POD", "qos_class"]

_COUNTED = ("cpu", "memory")


@lru_cache(maxsize=4096)
def _amount(text: str) -> Fraction:
    try:
        return parse(text).exact()
    except (QuantityError, OverflowError):
        return Fraction(0)


def _amounts(resources: Object, which: str) -> dict[str, Fraction]:
    return {
        name: amount
        for name, text in (resources.get(which) or {}).items()
        if name in _COUNTED and (amount := _amount(str(text))) > 0
    }


def qos_class(pod: Object) -> str:
    """Return `Guaranteed`, `Burstable` or `BestEffort` from the pod's requests and limits."""
    spec = pod.get("spec") or {}
    whole = spec.get("resources")
    if isinstance(whole, dict) and (_amounts(whole, "requests") or _amounts(whole, "limits")):
        holders = [whole]
    else:
        holders = [
            container.get("resources") or {}
            for part in ("containers", "initContainers")
            for container in spec.get(part) or ()
        ]
    guaranteed, anything = bool(holders), False
    for holder in holders:
        requests, limits = _amounts(holder, "requests"), _amounts(holder, "limits")
        anything = anything or bool(requests or limits)
        if set(limits) != set(_COUNTED) or any(requests.get(name, limits[name]) != limits[name] for name in limits):
            guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _create(new: Object, context: Context) -> None:
    new["status"] = {"phase": "Pending", "qosClass": qos_class(new)}
    spec = new.get("spec") or {}
    if spec.get("schedulingGates"):
        new["status"] = {
            "phase": "Pending",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "lastProbeTime": None,
                    "lastTransitionTime": None,
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }
            ],
            "qosClass": qos_class(new),
        }


def _status(new: Object, old: Object, context: Context) -> None:
    status = new.setdefault("status", {})
    if not status.get("qosClass") and (old.get("status") or {}).get("qosClass"):
        status["qosClass"] = old["status"]["qosClass"]
    addresses = status.get("podIPs")
    if status.get("podIP") and not addresses:
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif addresses and status.get("podIP") != addresses[0].get("ip"):
        before = old.get("status") or {}
        if status.get("podIP") and before.get("podIP") != status["podIP"]:
            status["podIPs"] = [{"ip": status["podIP"]}]
        else:
            status["podIP"] = addresses[0].get("ip")


POD = Strategy(
    status_subresource=True,
    keeps_status=True,
    wanted=("spec",),
    grace=True,
    finish_create=_create,
    finish_status=_status,
)
