"""How many replicas metrics ask for, how fast it may go, and what an autoscaler does and tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.labels import Selector
from pilothouse.kinds.structs import Deployment, Event, HorizontalPodAutoscaler, Pod, ServiceAccount, from_dict, replace
from pilothouse.kinds.structs.autoscaling import CrossVersionObjectReference, HorizontalPodAutoscalerSpec
from pilothouse.operator import Harness
from pilothouse.workloads.autoscaling_limits import Change, History, limited
from pilothouse.workloads.autoscaling_metrics import MetricsError, Sample
from pilothouse.workloads.autoscaling_replicas import (
    Timing,
    Tolerance,
    by_average,
    by_ratio,
    by_utilization,
    per_pod,
)
from pilothouse.workloads.reconcilers.autoscaler import add_autoscalers
from support.operatorkit import plane_and_client

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)
TIMING = Timing(NOW)
LONG_AGO = "2025-01-01T00:00:00Z"


def pod(name: str, *, phase: str = "Running", ready: bool = True, request: str = "100m", **more: Any) -> Pod:
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": more.get("changed", LONG_AGO)}
    return from_dict(
        {
            "metadata": {"name": name, "deletionTimestamp": LONG_AGO if more.get("deleting") else None},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": request}}}]},
            "status": {"phase": phase, "startTime": more.get("began", LONG_AGO), "conditions": [condition]},
        },
        Pod,
    )


def used(**values: int) -> dict[str, Sample]:
    return {name: Sample(value, NOW, 30.0) for name, value in values.items()}


def utilization(pods: Sequence[Pod], samples: dict[str, Sample], target: int = 50, current: int | None = None) -> int:
    count = len(pods) if current is None else current
    return by_utilization(count, target, "cpu", "", samples, pods, Tolerance(), TIMING).replicas


@pytest.mark.parametrize(
    ("pods", "samples", "replicas"),
    [
        ([pod("a"), pod("b")], used(a=100, b=100), 4),
        ([pod("a"), pod("b")], used(a=54, b=54), 2),  # within the tolerance
        ([pod("a"), pod("b")], used(a=10, b=10), 1),
        ([pod("a"), pod("b"), pod("c")], used(a=100, b=100), 4),  # one is missing: it is taken to use nothing
        ([pod("a"), pod("b"), pod("c")], used(a=10, b=10), 3),  # one is missing: it is taken to use all it requests
        ([pod("a"), pod("b", phase="Pending")], used(a=200), 4),  # one is not ready: it is taken to use nothing
        ([pod("a"), pod("b", phase="Failed")], used(a=200, b=900), 4),
        ([pod("a"), pod("b", deleting=True)], used(a=50, b=900), 2),
        (
            [pod("a"), pod("b", ready=False, began="2025-01-01T11:59:00Z", changed="2025-01-01T11:59:00Z")],
            used(a=150, b=999),
            3,
        ),
        ([pod("a"), pod("b", ready=False, changed="2025-01-01T11:00:00Z")], used(a=100, b=100), 4),
    ],
)
def test_a_percentage_of_requests(pods: list[Pod], samples: dict[str, Sample], replicas: int) -> None:
    assert utilization(pods, samples) == replicas


@pytest.mark.parametrize(
    ("pods", "samples", "container", "why"),
    [
        ([], used(a=1), "", "no pods returned by selector while calculating replica count"),
        ([pod("a", phase="Pending")], used(a=1), "", "did not receive metrics for targeted pods"),
        ([pod("b")], used(a=1), "", "no metrics returned matched known pods"),
        ([pod("a")], used(a=1), "x", "container x not found in Pod a"),
    ],
)
def test_why_not(pods: list[Pod], samples: dict[str, Sample], container: str, why: str) -> None:
    with pytest.raises(MetricsError, match=why):
        by_utilization(1, 50, "cpu", container, samples, pods, Tolerance(), TIMING)


def test_averages_and_shared_values() -> None:
    pods = [pod("a"), pod("b")]
    assert by_average(2, 1000, used(a=3000, b=2000), pods, Tolerance(), TIMING) == (5, 2500, None)
    assert by_average(2, 1000, used(a=1050, b=1000), pods, Tolerance(), TIMING).replicas == 2
    assert by_ratio(2, 2.6, pods, Tolerance()) == 6
    assert by_ratio(0, 2.6, [], Tolerance()) == 3
    assert by_ratio(2, 1.1, pods, Tolerance()) == 2
    assert per_pod(3, 10_000, 2000, Tolerance()) == (5, 3334, None)
    assert per_pod(5, 10_000, 2000, Tolerance()).replicas == 5


@given(st.integers(1, 2000), st.integers(1, 200), st.integers(1, 20))
def test_the_target_is_met(use: int, target: int, count: int) -> None:
    pods = [pod(f"p{number}") for number in range(count)]
    replicas = utilization(pods, used(**{one.metadata.name: use for one in pods}), target)
    if replicas > count:
        assert (replicas - 1) * target < use * count
    if replicas < count:
        assert replicas * target >= use * count - count


def spec(minimum: int = 1, maximum: int = 100, **behavior: Any) -> HorizontalPodAutoscalerSpec:
    wanted = {"minReplicas": minimum, "maxReplicas": maximum, **({"behavior": behavior} if behavior else {})}
    return from_dict(wanted, HorizontalPodAutoscalerSpec)


@pytest.mark.parametrize(
    ("bounds", "current", "wanted", "replicas", "why"),
    [
        ((1, 100), 3, 5, 5, "DesiredWithinRange"),
        ((1, 100), 3, 50, 6, "ScaleUpLimit"),
        ((1, 100), 1, 50, 4, "ScaleUpLimit"),
        ((1, 5), 3, 50, 5, "TooManyReplicas"),
        ((2, 5), 3, 1, 2, "TooFewReplicas"),
    ],
)
def test_bounds(bounds: tuple[int, int], current: int, wanted: int, replicas: int, why: str) -> None:
    found = limited(spec(*bounds), History(), current, wanted, bounds[0], 0.0)
    assert (found.replicas, found.why[0]) == (replicas, why)
    assert found.is_limited is (why != "DesiredWithinRange")


def test_going_down_waits_for_the_highest_of_five_minutes() -> None:
    history = History()
    assert limited(spec(), history, 5, 5, 1, 0.0).replicas == 5
    found = limited(spec(), history, 5, 2, 1, 100.0)
    assert (found.replicas, found.able[0]) == (5, "ScaleDownStabilized")
    found = limited(spec(), history, 5, 2, 1, 301.0)
    assert (found.replicas, found.able[0]) == (2, "ReadyForNewScale")
    assert len(history.recommended) <= 3


_UP = {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}
_DOWN = {
    "selectPolicy": "Min",
    "stabilizationWindowSeconds": 0,
    "policies": [
        {"type": "Percent", "value": 50, "periodSeconds": 60},
        {"type": "Pods", "value": 1, "periodSeconds": 60},
    ],
}


def test_policies_bound_what_happens_in_a_period() -> None:
    rules, history = spec(scaleUp=_UP, scaleDown=_DOWN), History()
    assert limited(rules, history, 4, 20, 1, 0.0).replicas == 6
    history.scaled(rules, 4, 6, 0.0)
    again = limited(rules, history, 6, 20, 1, 30.0)
    assert (again.replicas, again.why[0]) == (6, "ScaleUpLimit")
    assert limited(rules, history, 6, 20, 1, 61.0).replicas == 8
    down = limited(rules, History(), 8, 1, 1, 400.0)
    assert (down.replicas, down.why[0]) == (7, "ScaleDownLimit")
    disabled = spec(scaleUp=_UP, scaleDown={**_DOWN, "selectPolicy": "Disabled"})
    assert limited(disabled, History(), 8, 1, 1, 0.0).replicas == 8


def test_going_up_can_wait_as_well() -> None:
    rules = spec(scaleUp={**_UP, "stabilizationWindowSeconds": 60}, scaleDown=_DOWN)
    history = History(recommended=[Change(3, 0.0)])
    found = limited(rules, history, 3, 5, 1, 30.0)
    assert (found.replicas, found.able[0]) == (3, "ScaleUpStabilized")


class _Source:
    """Metrics that a test sets."""

    def __init__(self) -> None:
        self.external_values: list[int] | None = [30_000]
        self.asked: list[str] = []

    async def resource(
        self, namespace: str, resource: str, selector: Selector, pods: Collection[str], container: str = ""
    ) -> dict[str, Sample]:
        self.asked.append(f"{resource} of {selector}")
        return {}

    async def of_pods(
        self, namespace: str, metric: str, selector: Selector, pods: Collection[str], labels: Selector
    ) -> dict[str, Sample]:
        raise MetricsError("no pods metrics")

    async def of_object(
        self, namespace: str, metric: str, described: CrossVersionObjectReference, labels: Selector
    ) -> int:
        raise MetricsError("no object metrics")

    async def external(self, namespace: str, metric: str, labels: Selector) -> Sequence[int]:
        if self.external_values is None:
            raise MetricsError("gone")
        return self.external_values


class _World:
    def __init__(self, client: Client, harness: Harness, source: _Source) -> None:
        self.client, self.harness, self.source = client, harness, source

    async def size(self) -> int | None:
        return (await self.client.get(Deployment, "d", "default")).spec.replicas

    async def autoscaler(self) -> HorizontalPodAutoscaler:
        return await self.client.get(HorizontalPodAutoscaler, "h", "default")

    async def conditions(self) -> dict[str, tuple[str, str]]:
        return {one.type: (one.status, one.reason) for one in (await self.autoscaler()).status.conditions}

    async def told(self, *reasons: str) -> bool:
        """Whether there are events of these reasons; they are written a little later than what they tell of."""
        for _ in range(200):
            if {*reasons} <= {event.reason for event in await self.client.list_all(Event, "default")}:
                return True
            await asyncio.sleep(0.005)
        return False


def _external(name: str = "queue") -> dict[str, Any]:
    return {
        "type": "External",
        "external": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": "10"}},
    }


@asynccontextmanager
async def world(size: int, **wanted: Any) -> AsyncIterator[_World]:
    clock, source = FakeClock(NOW), _Source()
    async with plane_and_client(clock=clock, crd=False) as (_, client):
        template = {"metadata": {"labels": {"a": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        body = {"replicas": size, "selector": {"matchLabels": {"a": "d"}}, "template": template}
        deployment = from_dict({"metadata": {"name": "d", "namespace": "default"}, "spec": body}, Deployment)
        made = await client.create(deployment)
        await client.update_status(replace(made, status__replicas=size))
        harness = Harness(client, clock=clock)
        add_autoscalers(harness.manager, source)
        async with harness:
            reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
            of = {"scaleTargetRef": reference, "maxReplicas": 10, "metrics": [_external()], **wanted}
            metadata = {"name": "h", "namespace": "default"}
            await client.create(from_dict({"metadata": metadata, "spec": of}, HorizontalPodAutoscaler))
            await harness.advance(14)
            assert not (await client.get(HorizontalPodAutoscaler, "h", "default")).status.conditions
            await harness.advance(2)
            yield _World(client, harness, source)


async def test_it_follows_a_metric() -> None:
    async with world(2) as there:
        assert await there.size() == 3
        status = (await there.autoscaler()).status
        assert (status.current_replicas, status.desired_replicas) == (2, 3)
        assert status.last_scale_time == "2025-01-01T12:00:15Z"
        (metric,) = status.current_metrics
        assert metric.external is not None
        assert metric.external.current.average_value == "15"
        assert await there.conditions() == {
            "AbleToScale": ("True", "SucceededRescale"),
            "ScalingActive": ("True", "ValidMetricFound"),
            "ScalingLimited": ("False", "DesiredWithinRange"),
        }
        assert await there.told("SuccessfulRescale")
        there.source.external_values = [1000]
        await there.harness.advance(200)
        assert await there.size() == 3
        assert (await there.conditions())["AbleToScale"] == ("True", "ScaleDownStabilized")
        await there.harness.advance(150)
        assert await there.size() == 1


async def test_a_metric_that_is_gone_changes_nothing() -> None:
    async with world(2) as there:
        there.source.external_values = None
        await there.harness.advance(30)
        assert await there.size() == 3
        assert (await there.conditions())["ScalingActive"] == ("False", "FailedGetExternalMetric")
        assert await there.told("FailedGetExternalMetric")


async def test_one_of_several_metrics_may_be_gone_when_there_shall_be_more() -> None:
    pods = {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "1"}}
    async with world(2, metrics=[{"type": "Pods", "pods": pods}, _external()]) as there:
        assert await there.size() == 3
        assert await there.told("FailedGetPodsMetric")
        there.source.external_values = [1000]
        await there.harness.advance(400)
        assert await there.size() == 3


@pytest.mark.parametrize(("size", "after"), [(1, 2), (20, 10), (0, 0)])
async def test_bounds_hold_without_metrics(size: int, after: int) -> None:
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    async with world(size, minReplicas=2, metrics=[{"type": "Resource", "resource": resource}]) as there:
        await there.harness.advance(20)
        assert await there.size() == after
        active = (await there.conditions())["ScalingActive"]
        assert active == ("False", "FailedGetResourceMetric" if size else "ScalingDisabled")
        assert there.source.asked == ([] if not size else ["cpu of a=d"] * len(there.source.asked))


async def test_what_somebody_sized_beyond_the_bounds_comes_back_when_it_is_time() -> None:
    async with world(2) as there:
        there.source.external_values = None
        await there.client.scale(Deployment, "d", 50, "default")
        await there.harness.advance(10)
        assert await there.size() == 50
        await there.harness.advance(5)
        assert await there.size() == 10


async def test_two_of_the_same_pods_do_nothing() -> None:
    async with world(2) as there:
        pod_of = from_dict(
            {
                "metadata": {"name": "p", "namespace": "default", "labels": {"a": "d"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
            Pod,
        )
        await there.client.create(from_dict({"metadata": {"name": "default", "namespace": "default"}}, ServiceAccount))
        await there.client.create(pod_of)
        first = await there.autoscaler()
        second = replace(first, metadata__name="other", metadata__uid="", metadata__resource_version="")
        await there.client.create(second)
        await there.harness.advance(40)
        assert (await there.conditions())["ScalingActive"] == ("False", "AmbiguousSelector")
