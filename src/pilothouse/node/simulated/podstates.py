"""What a fleet remembers of a pod, and the status it writes of it. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.times import format_seconds
from pilothouse.node.agent.facts import pod_qos

from .rules import Rules

__all__ = ["SimPod", "status_of"]

State = Literal["waiting", "running", "crashed", "over", "ending"]


class SimPod:
    """One pod of a fleet: as little as its next step needs."""

    __slots__ = (
        "containers",
        "created",
        "exit_code",
        "inits",
        "ip",
        "key",
        "name",
        "namespace",
        "node",
        "policy",
        "qos",
        "ready",
        "restarts",
        "rules",
        "source",
        "started_at",
        "state",
        "step",
        "uid",
    )

    def __init__(self, pod: Pod, rules: Rules, ip: str, now: float) -> None:
        meta = pod.metadata
        self.key = f"{meta.namespace}/{meta.name}"
        self.name, self.namespace, self.uid = meta.name, meta.namespace, meta.uid
        self.node = pod.spec.node_name
        self.policy = str(pod.spec.restart_policy or "Always")
        self.qos = pod_qos(pod)
        self.containers = tuple((str(each.name), str(each.image)) for each in pod.spec.containers)
        self.inits = tuple(
            (str(each.name), str(each.image), each.restart_policy == "Always") for each in pod.spec.init_containers
        )
        self.rules = rules
        self.source = random.Random(meta.uid)  # noqa: S311  a simulation
        self.ip = ip
        self.state: State = "waiting"
        self.ready = False
        self.restarts = 0
        self.exit_code = 0
        self.created = now
        self.started_at = now
        self.step = 0
        """Counts what was planned: only the newest plan of a pod is carried out."""

    def adopt(self, pod: Pod) -> None:
        """Take over what an earlier fleet wrote."""
        status = pod.status
        if status.phase == "Running" and status.container_statuses:
            self.state, self.ready = "running", True
            self.restarts = status.container_statuses[0].restart_count
            self.ip = status.pod_ip or self.ip
            running = status.container_statuses[0].state.running
            if running is not None and running.started_at:
                self.started_at = datetime.fromisoformat(running.started_at).timestamp()
            if status.start_time:
                self.created = datetime.fromisoformat(status.start_time).timestamp()
        elif status.phase in {"Succeeded", "Failed"}:
            self.state = "over"


def status_of(pod: SimPod, address: str, now: float) -> dict[str, Any]:
    """Return the status of a pod, as a patch of it."""
    moment = _moment(now)
    over = pod.state in {"over", "ending"}
    phase = ("Succeeded" if pod.exit_code == 0 else "Failed") if over else "Running"
    if pod.state == "waiting":
        phase = "Pending"
    ready = pod.ready and pod.state == "running"
    reason = ("PodCompleted" if pod.exit_code == 0 else "PodFailed") if over else "ContainersNotReady"
    unready = "" if over else f"containers with unready status: [{' '.join(name for name, _ in pod.containers)}]"
    conditions = [
        _condition("PodReadyToStartContainers", not over, "", "", moment),
        _condition("Initialized", True, "", "", moment),
        _condition("Ready", ready, reason, unready, moment),
        _condition("ContainersReady", ready, reason, unready, moment),
    ]
    return {
        "phase": phase,
        "conditions": conditions,
        "hostIP": address,
        "hostIPs": [{"ip": address}],
        "podIP": pod.ip,
        "podIPs": [{"ip": pod.ip}],
        "startTime": _moment(pod.created),
        "qosClass": pod.qos,
        "containerStatuses": [_container(pod, each, now) for each in pod.containers],
        **({"initContainerStatuses": _inits(pod, pod.inits, now)} if pod.inits else {}),
    }


def _condition(kind: str, true: bool, reason: str, message: str, moment: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "lastTransitionTime": moment,
        "reason": None if true or not reason else reason,
        "message": None if true or not message else message,
    }


def _container(pod: SimPod, container: tuple[str, str], now: float) -> dict[str, Any]:
    name, image = container
    run = f"{pod.uid[:8]}-{name}-{pod.restarts}"
    made: dict[str, Any] = {
        "name": name,
        "image": image,
        "imageID": f"sha256:{image}",
        "containerID": f"simulated://{run}",
        "restartCount": pod.restarts,
        "ready": pod.ready and pod.state == "running",
        "started": pod.state == "running",
        "lastState": {},
    }
    ended = {"terminated": _ended(pod, run, now)}
    if pod.state == "running":
        made["state"] = {"running": {"startedAt": _moment(pod.started_at)}}
        if pod.restarts:
            made["lastState"] = ended
    elif pod.state == "crashed":
        message = f"back-off restarting failed container={name} pod={pod.name}_{pod.namespace}({pod.uid})"
        made["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        made["lastState"] = ended
    elif pod.state == "waiting":
        made["state"] = {"waiting": {"reason": "ContainerCreating"}}
    else:
        made["state"] = ended
    return made


def _ended(pod: SimPod, run: str, now: float) -> dict[str, Any]:
    return {
        "exitCode": pod.exit_code,
        "reason": "Completed" if pod.exit_code == 0 else "Error",
        "startedAt": _moment(pod.started_at),
        "finishedAt": _moment(now),
        "containerID": f"simulated://{run}",
    }


def _inits(pod: SimPod, inits: Sequence[tuple[str, str, bool]], now: float) -> list[dict[str, Any]]:
    found = []
    for name, image, sidecar in inits:
        made = _container(pod, (name, image), now)
        if not sidecar:
            done = {"exitCode": 0, "reason": "Completed", "startedAt": _moment(pod.created)}
            made |= {"ready": True, "started": False, "restartCount": 0, "lastState": {}}
            made["state"] = {"terminated": {**done, "finishedAt": _moment(pod.started_at)}}
        found.append(made)
    return found


def _moment(seconds: float) -> str:
    return format_seconds(datetime.fromtimestamp(seconds, UTC))
