"""Disruption budgets: numbers, pods that are to go, and what cannot be counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod, PodDisruptionBudget, from_dict, replace
from pilothouse.kinds.structs.meta import LabelSelector
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.disruption import (
    disrupted,
    failed_status,
    needs_scales,
    selector_text,
    stale_in,
    status_of,
    without_disruption,
)
from pilothouse.workloads.reconcilers.disruption import add_disruption

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ago(seconds: float) -> str:
    return times.format_seconds(NOW - timedelta(seconds=seconds))


def budget(status: dict[str, Any] | None = None, **spec: Any) -> PodDisruptionBudget:
    metadata = {"name": "b", "namespace": "ns", "generation": 3}
    return from_dict({"metadata": metadata, "spec": spec, "status": status or {}}, PodDisruptionBudget)


def pod(name: str, ready: bool = True, **status: Any) -> Pod:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return from_dict({"metadata": {"name": name}, "status": {"conditions": conditions} | status}, Pod)


@pytest.mark.parametrize(
    ("spec", "scale", "ready", "expected"),
    [
        ({"minAvailable": 2}, 5, 3, (3, 2, 1)),
        ({"minAvailable": 0}, 5, 3, (3, 0, 3)),
        ({"minAvailable": "50%"}, 5, 4, (5, 3, 1)),
        ({"minAvailable": "100%"}, 3, 3, (3, 3, 0)),
        ({"maxUnavailable": 1}, 5, 5, (5, 4, 1)),
        ({"maxUnavailable": "30%"}, 5, 4, (5, 3, 1)),
        ({"maxUnavailable": 9}, 5, 2, (5, 0, 2)),
        ({"maxUnavailable": "0%"}, 0, 0, (0, 0, 0)),
        ({}, 5, 5, (0, 0, 0)),
    ],
)
def test_numbers(spec: dict[str, Any], scale: int, ready: int, expected: tuple[int, int, int]) -> None:
    found = budget(**spec)
    status = status_of(found, [pod(f"p{at}") for at in range(ready)], [scale], {}, NOW)
    assert (status.expected_pods, status.desired_healthy, status.disruptions_allowed) == expected
    assert status.observed_generation == 3
    state = ("True", "SufficientPods") if expected[2] else ("False", "InsufficientPods")
    assert [(each.status, each.reason) for each in status.conditions] == [state]
    again = replace(found, status=status)
    assert status_of(again, [pod(f"p{at}") for at in range(ready)], [scale], {}, NOW) is status
    assert needs_scales(found) == ("maxUnavailable" in spec or isinstance(spec.get("minAvailable"), str))


def test_pods_that_were_to_go_count_again_after_two_minutes() -> None:
    found = budget({"disruptedPods": {"a": ago(60), "b": ago(121), "gone": ago(1)}}, minAvailable=1)
    made = disrupted(found, [pod("a"), pod("b"), pod("c")], NOW)
    assert made.pods == {"a": ago(60)}
    assert [each.metadata.name for each in made.late] == ["b"]
    assert made.again == 60.0
    assert status_of(found, [pod("a"), pod("b"), pod("c")], (), made.pods, NOW).current_healthy == 2


def test_what_cannot_be_counted_allows_nothing() -> None:
    status = failed_status(budget({"disruptionsAllowed": 2}), "no scale", NOW)
    assert status.disruptions_allowed == 0
    assert [(each.status, each.reason, each.message) for each in status.conditions] == [
        ("False", "SyncFailed", "no scale")
    ]


def test_selectors_are_shown_as_kubernetes_does() -> None:
    selector = from_dict(
        {
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}],
        },
        LabelSelector,
    )
    assert selector_text(selector) == (
        "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{"
        "LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
    )
    assert selector_text(None) == "nil"


@pytest.mark.parametrize(
    ("condition", "phase", "expected"),
    [
        ({"status": "True", "lastTransitionTime": ago(30)}, "Running", 90.0),
        ({"status": "True", "lastTransitionTime": ago(300)}, "Running", 0.0),
        ({"status": "False", "lastTransitionTime": ago(300)}, "Running", None),
        ({"status": "True", "lastTransitionTime": ago(300)}, "Failed", None),
        ({"status": "True", "lastTransitionTime": ago(300), "reason": "TerminationByKubelet"}, "Running", None),
    ],
)
def test_a_disruption_that_did_not_happen_is_taken_back(
    condition: dict[str, Any], phase: str, expected: float | None
) -> None:
    found = pod("p", conditions=[{"type": "DisruptionTarget"} | condition], phase=phase)
    assert stale_in(found, NOW) == expected
    assert without_disruption(found, NOW).status.conditions[0].status == "False"


async def test_an_eviction_that_does_not_happen_is_forgotten() -> None:
    clock = FakeClock()
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=clock)
        add_disruption(harness.manager)
        pods = "/api/v1/namespaces/default/pods"
        meta = {"name": "p", "labels": {"a": "b"}, "finalizers": ["example.com/stay"]}
        spec = {"automountServiceAccountToken": False, "containers": [{"name": "c", "image": "i"}]}
        await plane.call("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await plane.call("PATCH", f"{pods}/p/status", {"status": ready})
        budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        wanted = {"minAvailable": 0, "selector": {"matchLabels": {"a": "b"}}}
        made = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": wanted}
        await plane.call("POST", budgets, made)
        async with harness:
            await harness.converge()
            status = (await plane.call("GET", f"{budgets}/b"))["status"]
            assert status["disruptionsAllowed"] == 1
            time = times.format_seconds(clock.now())
            await plane.call("PATCH", f"{budgets}/b/status", {"status": {"disruptedPods": {"p": time}}})
            await harness.advance(60)
            assert (await plane.call("GET", f"{budgets}/b"))["status"]["disruptionsAllowed"] == 0
            await harness.advance(65)
            status = (await plane.call("GET", f"{budgets}/b"))["status"]
            assert status["disruptionsAllowed"] == 1
            assert "disruptedPods" not in status
