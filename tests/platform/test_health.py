"""What is said of nodes and pods: what is wrong by its name, and nothing of what is as it should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from pilothouse.platform.health import Node, Pod, node_problems, node_rows, phases, pod_problems

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str = "web", *, seconds: float = 60, node: str = "a", deleted: bool = False, **status: Any) -> Pod:
    created = (_NOW - timedelta(seconds=seconds)).isoformat()
    metadata = {"name": name, "namespace": "default", "creationTimestamp": created}
    if deleted:
        metadata["deletionTimestamp"] = created
    return msgspec.convert({"metadata": metadata, "spec": {"nodeName": node}, "status": status}, Pod)


def node(name: str = "a", *, cordoned: bool = False, **conditions: str) -> Node:
    listed = [{"type": kind, "status": status, "reason": "Because"} for kind, status in conditions.items()]
    status = {
        "conditions": listed,
        "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.0.0.1"}],
        "nodeInfo": {"kubeletVersion": "v1"},
    }
    return msgspec.convert(
        {"metadata": {"name": name}, "spec": {"unschedulable": cordoned}, "status": status, "more": 1}, Node
    )


def waiting(reason: str, message: str = "", restarts: int = 0) -> list[dict[str, Any]]:
    state = {"waiting": {"reason": reason, "message": message}}
    return [{"name": "main", "restartCount": restarts, "state": state}]


_UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes\nmore"}]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod(phase="Running"), []),
        (pod(phase="Succeeded", containerStatuses=waiting("Error")), []),
        (pod(phase="Failed"), []),
        (pod(phase="Pending", containerStatuses=waiting("ContainerCreating"), seconds=1), []),
        (pod(phase="Pending", deleted=True, containerStatuses=waiting("ErrImagePull")), []),
        (
            pod(phase="Running", containerStatuses=waiting("CrashLoopBackOff", "back-off 10s", 3)),
            ["pod default/web: main: CrashLoopBackOff, 3 restarts: back-off 10s"],
        ),
        (pod(phase="Pending", initContainerStatuses=waiting("ErrImagePull")), ["pod default/web: main: ErrImagePull"]),
        (pod(phase="Pending", node="", seconds=5, conditions=_UNSCHEDULABLE), []),
        (
            pod(phase="Pending", node="", conditions=_UNSCHEDULABLE),
            ["pod default/web has no node: Unschedulable: 0/1 nodes"],
        ),
        (pod(phase="Pending"), ["pod default/web does not start"]),
    ],
)
def test_a_pods_problem_is_said(found: Pod, said: list[str]) -> None:
    assert pod_problems([found], _NOW) == said


def test_sentences_about_pods_are_bounded() -> None:
    assert len(pod_problems([pod(str(number), phase="Pending") for number in range(500)], _NOW)) == 50


def test_nodes_say_what_they_are_and_have() -> None:
    pods = [pod(node="a", phase="Running"), pod(node="a", phase="Succeeded"), pod(node="b", phase="Running")]
    nodes = [node("b", cordoned=True, Ready="False"), node("a", Ready="True", DiskPressure="True"), node("c")]
    assert [(each.name, each.state, each.pods, each.address) for each in node_rows(nodes, pods)] == [
        ("a", "Ready", 1, "10.0.0.1"),
        ("b", "NotReady,SchedulingDisabled", 1, "10.0.0.1"),
        ("c", "Unknown", 0, "10.0.0.1"),
    ]
    assert node_problems(nodes) == [
        "node b is not ready: Because",
        "node a has DiskPressure: Because",
        "node c is not ready",
    ]
    assert node_problems([node(Ready="True", MemoryPressure="False")]) == []


def test_pods_are_counted_by_phase() -> None:
    assert phases([pod(phase="Running"), pod(phase="Running", deleted=True), pod(phase="Pending")]) == {
        "Pending": 1,
        "Running": 1,
        "Terminating": 1,
    }
