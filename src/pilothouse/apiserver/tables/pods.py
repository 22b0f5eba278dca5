"""The row of a pod: what its containers are up to, in one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, Object
from pilothouse.kinds.ages import Ages

__all__ = ["pod", "pod_conditions"]

_FINISHED: Final = {
    "Succeeded": (
        {
            "type": "Completed",
            "status": "True",
            "reason": "Succeeded",
            "message": "The pod has completed successfully.",
        },
    ),
    "Failed": ({"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."},),
}
_EMPTY: Final[Mapping[str, Any]] = {}


def pod_conditions(obj: Object) -> Sequence[Mapping[str, str]]:
    """Return the conditions of a pod's row: whether it has finished."""
    return _FINISHED.get((obj.get("status") or _EMPTY).get("phase", ""), ())


class _Tally:
    """Counts over a pod's containers."""

    __slots__ = ("last_restart", "last_sidecar_restart", "ready", "reason", "restarts", "sidecar_restarts")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.ready = 0
        self.restarts = 0
        self.sidecar_restarts = 0
        # moments in RFC 3339 with the same number of digits sort as texts
        self.last_restart = ""
        self.last_sidecar_restart = ""


def _ended(state: Object, prefix: str) -> str:
    """Say how a container ended."""
    if state.get("reason"):
        return f"{prefix}{state['reason']}"
    if state.get("signal"):
        return f"{prefix}Signal:{state['signal']}"
    return f"{prefix}ExitCode:{state.get('exitCode', 0)}"


def _finished_at(container: Object) -> str:
    last = container.get("lastState")
    if last and "terminated" in last:
        return str((last["terminated"] or _EMPTY).get("finishedAt") or "")
    return ""


def _initialize(statuses: Sequence[Object], sidecars: set[str], total: int, tally: _Tally) -> bool:
    """Count init containers up to the one at work; return whether there is one."""
    for place, container in enumerate(statuses):
        restarts = container.get("restartCount", 0)
        tally.restarts += restarts
        ended = _finished_at(container)
        tally.last_restart = max(tally.last_restart, ended)
        sidecar = container.get("name") in sidecars
        if sidecar:
            tally.sidecar_restarts += restarts
            tally.last_sidecar_restart = max(tally.last_sidecar_restart, ended)
        state = container.get("state") or _EMPTY
        terminated = state.get("terminated")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            tally.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            tally.reason = _ended(terminated, "Init:")
            return True
        waiting = (state.get("waiting") or _EMPTY).get("reason")
        if waiting and waiting != "PodInitializing":
            tally.reason = f"Init:{waiting}"
        else:
            tally.reason = f"Init:{place}/{total}"
        return True
    return False


def _run(statuses: Sequence[Object], conditions: Sequence[Object], tally: _Tally) -> None:
    """Count the containers proper."""
    tally.restarts = tally.sidecar_restarts
    tally.last_restart = tally.last_sidecar_restart
    running = False
    for container in reversed(statuses):
        tally.restarts += container.get("restartCount", 0)
        ended = _finished_at(container)
        tally.last_restart = max(tally.last_restart, ended)
        state = container.get("state") or _EMPTY
        waiting = state.get("waiting")
        if waiting and waiting.get("reason"):
            tally.reason = waiting["reason"]
        elif state.get("terminated") is not None:
            tally.reason = _ended(state["terminated"], "")
        elif container.get("ready") and "running" in state:
            running = True
            tally.ready += 1
    if tally.reason == "Completed" and running:
        ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
        tally.reason = "Running" if ready else "NotReady"


def _gates(gates: Sequence[Object], conditions: Sequence[Object]) -> str:
    if not gates:
        return NONE
    first: dict[Any, Any] = {}
    for condition in conditions:
        first.setdefault(condition.get("type"), condition.get("status"))
    passed = sum(first.get(gate.get("conditionType")) == "True" for gate in gates)
    return f"{passed}/{len(gates)}"


def _tally(spec: Object, status: Object) -> tuple[_Tally, int]:
    """Count over all containers; return that and how many should be ready."""
    conditions = status.get("conditions") or ()
    tally = _Tally(status.get("reason") or status.get("phase", ""))
    initialized = None
    for condition in conditions:
        kind = condition.get("type")
        if kind == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            tally.reason = "SchedulingGated"
        elif kind == "Initialized" and initialized is None:
            initialized = condition.get("status") == "True"
    total = len(spec.get("containers") or ())
    initializing = False
    if inits := spec.get("initContainers"):
        sidecars = {one.get("name", "") for one in inits if one.get("restartPolicy") == "Always"}
        total += sum(one.get("restartPolicy") == "Always" for one in inits)
        initializing = _initialize(status.get("initContainerStatuses") or (), sidecars, len(inits), tally)
    if not initializing or initialized:
        _run(status.get("containerStatuses") or (), conditions, tally)
    return tally, total


def _deleted(status: Object, reason: str) -> str:
    """Return the word for a pod that is being deleted."""
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in ("Succeeded", "Failed") else "Terminating"


def pod(obj: Object, ages: Ages) -> list[Any]:
    """Give the cells of a pod."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or _EMPTY, obj.get("status") or _EMPTY
    tally, total = _tally(spec, status)
    reason = _deleted(status, tally.reason) if "deletionTimestamp" in metadata else tally.reason
    restarts = str(tally.restarts)
    if tally.restarts and tally.last_restart:
        restarts = f"{restarts} ({ages.since(tally.last_restart)} ago)"
    addresses = status.get("podIPs")
    address = addresses[0].get("ip") if addresses else status.get("podIP")
    return [
        metadata.get("name", ""),
        f"{tally.ready}/{total}",
        reason,
        restarts,
        ages.since(metadata.get("creationTimestamp")),
        address or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec.get("readinessGates") or (), status.get("conditions") or ()),
    ]
