"""Service levels: counts by day and hour, what they come to, and what became of deploys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client import Client
from pilothouse.delivery.reliability.deploys import attributed, followed
from pilothouse.delivery.reliability.figures import ObjectiveError, counted, objective_of, summed_up
from pilothouse.delivery.reliability.recorder import add_service_levels
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.resources.servicelevels import (
    Deploy,
    ServiceLevel,
    ServiceLevelSpec,
    ServiceLevelStatus,
)
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import from_dict
from pilothouse.operator import Harness
from pilothouse.testing import ControlPlane

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
SPEC = ServiceLevelSpec(rollout="shop", routes=["shop"])
HOUR = timedelta(hours=1)


def test_objective_budget_and_burn_rates() -> None:
    status = ServiceLevelStatus()
    for hour in range(48):
        bad = 20 if hour == 47 else 0
        status = counted(status, NOW - 47 * HOUR + hour * HOUR, 1000, bad, 90)
    figures = summed_up(SPEC, status, NOW)
    assert figures.requests == 48_000
    assert figures.attained == "99.958%"  # 20 of 48,000
    assert figures.budget_left == "58.3%"  # 48 are allowed
    assert figures.burn_rate_1h == "10.00"  # 20 of 2,000 in the hours that are touched
    assert figures.burn_rate_6h == "2.86"
    assert len(status.days) == 3


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 500), st.integers(0, 50)), max_size=60))
def test_nothing_within_the_window_is_lost_and_what_is_kept_is_bounded(ticks: list[tuple[int, int, int]]) -> None:
    now, status, sent = NOW, ServiceLevelStatus(), []
    for minutes, good, bad in ticks:
        now += timedelta(minutes=minutes)
        status = counted(status, now, good + bad, bad, 30)
        sent.append((now, good + bad))
    assert len(status.days) <= 31
    assert len(status.hours) <= 73
    certainly = sum(requests for moment, requests in sent if moment >= now - timedelta(days=29))
    assert certainly <= sum(span.requests for span in status.days) <= sum(requests for _, requests in sent)


@pytest.mark.parametrize("text", ["100%", "0%", "much", "1.5", "-1%", ""])
def test_an_objective_that_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ObjectiveError, match="want a share below 100%"):
        objective_of(ServiceLevelSpec(rollout="x", objective=text))


def rollout(current: str, stable: str, phase: str, *, canary_weight: int | None = None, **status: Any) -> Rollout:
    weights = None if canary_weight is None else {"weights": {"canary": {"weight": canary_weight}, "stable": {"weight": 100 - canary_weight}}}  # fmt: skip  # noqa: E501
    template: dict[str, Any] = {"template": {"spec": {"containers": []}}, "selector": {}}
    return from_dict(
        {
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": template,
            "status": {
                "currentPodHash": current,
                "stableRS": stable,
                "phase": phase,
                **({"canary": weights} if weights else {}),
                **status,
            },
        },
        Rollout,
    )


def outcomes(deploys: Sequence[Deploy]) -> list[tuple[str, str | None]]:
    return [(each.version, each.outcome) for each in deploys]


def test_deploys_are_followed_from_the_rollouts_status() -> None:
    deploys: Sequence[Deploy] = ()
    aborted = {"abort": True, "abortedAt": "2026-03-01T12:03:54Z"}
    story = [
        (0, rollout("v1", "", "Progressing")),
        (5, rollout("v1", "v1", "Healthy")),
        (100, rollout("v2", "v1", "Progressing", canary_weight=20)),
        (160, rollout("v2", "v2", "Healthy")),
        (200, rollout("v3", "v2", "Progressing", canary_weight=20)),
        (204, rollout("v3", "v2", "Degraded", canary_weight=20, **aborted, message="2 % errors")),
        (205, rollout("v3", "v2", "Degraded", canary_weight=0, **aborted)),
        (206, rollout("v2", "v2", "Healthy")),
        (300, rollout("v4", "v2", "Progressing", canary_weight=20)),
        (310, rollout("v5", "v2", "Progressing", canary_weight=20)),
    ]  # fmt: skip
    for seconds, state in story:
        deploys = followed(deploys, state, NOW + timedelta(seconds=seconds))
        assert followed(deploys, state, NOW + timedelta(seconds=seconds)) is deploys
    assert outcomes(deploys) == [
        ("v1", "Succeeded"),
        ("v2", "Succeeded"),
        ("v3", "RolledBack"),
        ("v4", "Overtaken"),
        ("v5", None),
    ]
    assert deploys[2].message == "2 % errors"
    figures = summed_up(SPEC, ServiceLevelStatus(deploys=deploys), NOW + timedelta(seconds=400))
    assert (figures.deploys, figures.success_rate) == (3, "66.7%")
    assert figures.restore_seconds == "1.0"
    assert figures.lead_time_seconds == 32  # the median of 5 and 60


def test_a_template_put_back_by_hand_in_the_midst_of_a_canary_is_a_rollback() -> None:
    deploys = followed((), rollout("v1", "v1", "Healthy"), NOW)
    deploys = followed(deploys, rollout("v2", "v1", "Progressing", canary_weight=20), NOW)
    deploys = followed(deploys, rollout("v1", "v1", "Healthy", canary_weight=0), NOW)
    assert outcomes(deploys) == [("v1", "Succeeded"), ("v2", "RolledBack")]


@dataclass
class Steady:
    """A thousand requests a minute of which two are bad."""

    requests: int
    errors: int
    p95: float = 0.1

    def slower(self, seconds: float) -> int:
        return 1 if seconds < 1 else 0


class SteadyNumbers:
    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.counted = 0

    def last(self) -> tuple[int, float]:
        return int(self._clock.monotonic()), 1.0

    def over(self, seconds: int, last: int, *, route: str, version: str, regions: Sequence[str]) -> Steady:
        assert (route, version, tuple(regions)) == ("default/shop", "", ())
        assert last == self.last()[0]
        self.counted += seconds
        return Steady(seconds * 1000, seconds * 2)


async def test_seconds_are_counted_once_also_by_another_controller() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client, [ServiceLevel, Rollout])
        level = {"metadata": {"name": "shop", "namespace": "default"}, "spec": {"rollout": "shop", "routes": ["shop"]}}
        await client.create(from_dict(level, ServiceLevel))
        clock, sent, begun = FakeClock(), 0, 0.0
        for turn in range(2):
            harness = Harness(client, clock=clock)
            numbers = SteadyNumbers(clock)
            add_service_levels(harness.manager, numbers)
            async with harness:
                await harness.settle()
                begun = begun or clock.monotonic()
                for _ in range(3):
                    await harness.advance(60)
            sent += numbers.counted
            found = await client.get(ServiceLevel, "shop", "default")
            assert found.status.figures.attained == "99.800%"
            assert found.status.figures.budget_left == "-100.0%"
            assert found.status.figures.requests == sent * 1000
            await clock.run(40)
            assert turn or sent >= 120
        assert clock.monotonic() - 40 - begun - sent <= 61


def test_a_commit_counts_for_lead_time_where_it_is_new() -> None:
    first = Deploy(version="a", started_at="2026-03-01T10:00:00.000000Z", revision="1" * 40)
    last = Deploy(version="b", started_at="2026-03-02T10:00:00.000000Z")
    before, after = "2026-03-02T09:50:00Z", "2026-03-02T11:00:00Z"

    def told(deploys: list[Deploy], revision: str, committed_at: str | None) -> tuple[str | None, str | None]:
        found = attributed(deploys, revision, committed_at)
        assert [each.version for each in found] == [each.version for each in deploys]
        return found[-1].revision, found[-1].committed_at

    assert told([first, last], "2" * 40, before) == ("2" * 40, before)
    assert told([first, last], "2" * 40, None) == ("2" * 40, None)
    assert told([first, last], "2" * 40, after) == ("2" * 40, None)
    assert told([first, last], "1" * 40, before) == ("1" * 40, None)
    assert told([last], "2" * 40, before) == ("2" * 40, None)


async def test_the_commit_of_a_deploy_is_asked_for_while_it_is_new() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client, [ServiceLevel, Rollout])
        level = {"metadata": {"name": "shop", "namespace": "default"}, "spec": {"rollout": "shop", "routes": ["shop"]}}
        await client.create(from_dict(level, ServiceLevel))
        await client.create(from_dict({"metadata": {"name": "shop", "namespace": "default"}, "spec": {}}, Rollout))
        clock, asked = FakeClock(), list[str]()
        known: dict[str, str] = {}

        async def commit_of(rollout: Rollout, now: datetime) -> tuple[str, str | None] | None:
            assert now == clock.now()
            version = rollout.status.current_pod_hash or ""
            asked.append(version)
            return (known[version], None) if version in known else None

        harness = Harness(client, clock=clock)
        add_service_levels(harness.manager, None, commit_of)
        async with harness:
            for version, revision in (("a", "1" * 40), ("b", "")):
                known.update({version: revision} if revision else {})
                status = {"currentPodHash": version, "stableRS": "a", "phase": "Progressing"}
                await client.patch(Rollout, "shop", {"status": status}, "default", subresource="status")
                await harness.settle()
                for _ in range(4):
                    await harness.advance(60)
        found = await client.get(ServiceLevel, "shop", "default")
        assert [(each.version, each.revision) for each in found.status.deploys] == [("a", "1" * 40), ("b", None)]
        assert asked[0] == "a"
        assert "a" not in asked[1:]
        assert 1 <= asked.count("b") <= 4
