"""What the API is told of a pod: phase, conditions and states of containers, as a kubelet derives them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from pilothouse.kinds.structs.core_pod_status import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    PodIP,
    PodStatus,
)
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.times import format_seconds

from .conditions import pod_conditions
from .facts import pod_qos, should_restart
from .model import KillPod, Record
from .slot import Slot

__all__ = ["NodeFacts", "View", "pod_status"]


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a pod's status says of its node; `runtime` is the prefix of container ids."""

    name: str = ""
    host_ips: tuple[str, ...] = ()
    runtime: str = "process"

    def moment(self, seconds: float) -> str:
        """Return a moment as statuses have it."""
        return moment(seconds)


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a status is derived of; `before` is the status that was written last."""

    pod: Pod
    slots: Mapping[str, Slot]
    node: NodeFacts
    ip: str
    sandbox_ready: bool
    had_sandbox: bool
    start_time: str
    before: PodStatus
    kill: KillPod | None
    finished: bool
    epoch: int

    def of(self, *roles: str) -> list[Slot]:
        """Return the containers of these roles."""
        return [slot for slot in self.slots.values() if slot.role in roles]


def moment(seconds: float) -> str:
    """Return seconds since the epoch in RFC 3339."""
    return format_seconds(datetime.fromtimestamp(seconds, UTC))


def pod_status(view: View, now: float) -> PodStatus:
    """Return the whole status as it is to be written."""
    phase = _phase(view)
    killed = view.kill if view.kill is not None and phase == "Failed" else None
    rejected = view.kill is not None and not view.had_sandbox and view.finished
    address = view.ip or (view.node.host_ips[0] if _on_host(view) and view.node.host_ips and view.had_sandbox else "")
    return PodStatus(
        phase=phase,  # type: ignore[arg-type]  # one of the five
        reason=killed.reason if killed else "",
        message=killed.message if killed else "",
        conditions=pod_conditions(view, phase, now),
        host_ip=view.node.host_ips[0] if view.node.host_ips else "",
        host_ips=[HostIP(ip=ip) for ip in view.node.host_ips],
        pod_ip=address,
        pod_ips=[PodIP(ip=address)] if address else [],
        start_time=view.start_time or None,
        qos_class=pod_qos(view.pod),
        init_container_statuses=[] if rejected else [_container(view, slot) for slot in view.of("init", "sidecar")],
        container_statuses=[] if rejected else [_container(view, slot) for slot in view.of("main")],
        ephemeral_container_statuses=[_container(view, slot) for slot in view.of("ephemeral")],
        observed_generation=view.pod.metadata.generation,
    )


def _on_host(view: View) -> bool:
    return bool(view.pod.spec.host_network)


def _container(view: View, slot: Slot) -> ContainerStatus:
    record = slot.current
    state, last = _states(view, slot)
    is_init_done = slot.role == "init" and record is not None and record.state == "Exited" and record.exit_code == 0
    return ContainerStatus(
        name=slot.name,
        state=state,
        last_state=last,
        ready=is_init_done if slot.role == "init" else slot.role != "ephemeral" and slot.is_ready,
        started=slot.role != "ephemeral" and slot.is_started,
        restart_count=record.attempt if record is not None else 0,
        image=slot.spec.image,
        image_id=(record.image_id or slot.image_id) if record is not None else "",
        container_id=f"{view.node.runtime}://{record.id}" if record is not None else "",
    )


def _states(view: View, slot: Slot) -> tuple[ContainerState, ContainerState]:
    record = slot.current
    last = _ended(view, slot.last) if slot.last is not None else ContainerState()
    if record is None or record.state == "Created":
        return _waiting(view, slot), last
    if record.state == "Running":
        return ContainerState(running=ContainerStateRunning(started_at=moment(record.started_at))), last
    restarts = should_restart(view.pod, slot.role, slot.spec, record.exit_code) and not view.finished
    if slot.waiting[0] and restarts:
        return _waiting(view, slot), _ended(view, record)
    return _ended(view, record), last


def _waiting(view: View, slot: Slot) -> ContainerState:
    reason, message = slot.waiting
    if not reason:
        reason = "PodInitializing" if view.pod.spec.init_containers else "ContainerCreating"
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _ended(view: View, record: Record) -> ContainerState:
    return ContainerState(
        terminated=ContainerStateTerminated(
            exit_code=record.exit_code,
            signal=record.signal,
            reason=record.reason or ("Completed" if record.exit_code == 0 else "Error"),
            message=record.message,
            started_at=moment(record.started_at or record.finished_at),
            finished_at=moment(record.finished_at),
            container_id=f"{view.node.runtime}://{record.id}",
        )
    )


def _phase(view: View) -> str:
    if view.kill is not None and view.finished:
        return "Failed"
    failed_init = pending_init = False
    begun = _begun(view.of("main"), view.epoch)
    for slot in view.of("init", "sidecar"):
        failed, pending = _init_state(view, slot)
        failed_init |= failed
        pending_init |= pending and not begun
    mains = [_tell(slot, view) for slot in view.of("main")]
    if failed_init and not begun:
        return "Failed" if not any(slot.is_running for slot in view.slots.values()) else "Pending"
    if pending_init and not view.finished:
        return "Pending"
    return _main_phase(view, mains)


def _main_phase(view: View, mains: list[str]) -> str:
    if "waiting" in mains:
        return "Pending" if not view.finished else "Failed"
    if "running" in mains:
        return "Running"
    if not mains:
        return "Pending"
    sidecars_run = any(slot.is_running for slot in view.of("sidecar"))
    over = view.finished or not any(_restarts(view, slot) for slot in view.of("main"))
    if not over or sidecars_run:
        return "Running"
    return "Succeeded" if all(tell == "succeeded" for tell in mains) else "Failed"


def _restarts(view: View, slot: Slot) -> bool:
    return slot.current is None or should_restart(view.pod, slot.role, slot.spec, slot.current.exit_code)


def _begun(mains: Iterable[Slot], epoch: int) -> bool:
    return any(slot.current is not None and slot.epoch == epoch for slot in mains)


def _init_state(view: View, slot: Slot) -> tuple[bool, bool]:
    """Return whether an init container or sidecar has failed for good, and whether it is still to come."""
    record = slot.current
    if slot.role == "sidecar":
        return False, not slot.is_started
    if record is None or record.state != "Exited":
        return False, True
    if record.exit_code == 0:
        return False, slot.epoch != view.epoch
    return not should_restart(view.pod, slot.role, slot.spec, record.exit_code), True


def _tell(slot: Slot, view: View) -> str:
    record = slot.current
    if record is None or record.state == "Created":
        return "waiting" if slot.last is None else "failed"
    if record.state == "Running":
        return "running"
    if slot.waiting[0] and _restarts(view, slot):
        return "running"  # between two runs
    return "succeeded" if record.exit_code == 0 else "failed"
