"""How many pods canary and stable get: Argo's documented examples, and limits that always hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.delivery.rollouts.counts import Counts, counts
from pilothouse.delivery.rollouts.situation import Situation
from pilothouse.kinds.structs import replace
from support.rolloutworld import START, World, rollout_of


def situation(
    replicas: int,
    weight: int,
    canary: tuple[int, int],
    stable: tuple[int, int],
    **strategy: Any,
) -> Situation:
    """Return a canary at a weight; canary, stable: pods wanted and available."""
    given_ = {"steps": [{"setWeight": weight}, {"pause": {}}], **strategy}
    world = World(rollout_of(json.dumps({"canary": given_}), replicas=replicas))
    world.settle()
    world.set_image("v2")
    world.step()
    world.step()
    for name, found in list(world.sets.items()):
        wanted, ready = canary if "v2" in str(found.spec.template.spec.containers[0].image) else stable
        status = {"replicas": wanted, "available_replicas": ready, "ready_replicas": ready}
        changes: dict[str, Any] = {f"status__{key}": value for key, value in status.items()}
        world.sets[name] = replace(found, spec__replicas=wanted, **changes)
    return Situation(world.view(), START)


# replicas, weight, surge, unavailable; wanted and available pods of canary and stable; the counts of both next
EXAMPLES = [
    (10, 100, 3, 0, (6, 3), (7, 8), (6, 7)),
    (10, 20, 2, 0, (0, 0), (10, 10), (2, 10)),
    (10, 20, "20%", 0, (0, 0), (10, 10), (2, 10)),
    (10, 20, "20%", 0, (2, 2), (10, 10), (2, 8)),
    (10, 30, 2, 0, (0, 0), (10, 10), (2, 10)),
    (10, 20, 0, 2, (0, 0), (10, 10), (0, 8)),
    (10, 20, 0, "20%", (0, 0), (10, 10), (0, 8)),
    (10, 30, 0, 2, (0, 0), (10, 10), (0, 8)),
    (10, 50, 2, 1, (0, 0), (10, 10), (2, 9)),
    (10, 0, 1, 1, (1, 1), (10, 10), (0, 10)),
    (10, 100, 1, 1, (10, 10), (1, 1), (10, 0)),
    (1, 20, 1, 0, (0, 0), (1, 1), (1, 1)),
    (1, 90, 1, 0, (0, 0), (1, 1), (1, 1)),
    (1, 49, 0, 1, (0, 0), (1, 1), (0, 1)),
    (1, 51, 0, 1, (0, 0), (1, 1), (0, 0)),
    (1, 51, 0, 1, (0, 0), (0, 0), (1, 0)),
    (10, 30, 0, 3, (4, 4), (8, 5), (3, 7)),
    (10, 100, 1, 0, (10, 8), (10, 2), (9, 2)),
    (10, 5, 0, 1, (0, 0), (10, 10), (0, 9)),
    (10, 5, 0, 1, (0, 0), (9, 9), (1, 9)),
    (3, 99, 0, 2, (0, 0), (3, 3), (0, 1)),
    (3, 99, 0, 2, (0, 0), (1, 1), (2, 1)),
    (0, 50, 1, 0, (0, 0), (0, 0), (0, 0)),
]


@pytest.mark.parametrize(("replicas", "weight", "surge", "unavailable", "canary", "stable", "expected"), EXAMPLES)
def test_pods_that_split_the_traffic(
    replicas: int,
    weight: int,
    surge: int | str,
    unavailable: int | str,
    canary: tuple[int, int],
    stable: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    sit = situation(replicas, weight, canary, stable, maxUnavailable=unavailable, maxSurge=surge)
    assert counts(sit, None) == Counts(*expected)


ROUTED = {
    "canaryService": "shop-canary",
    "stableService": "shop-stable",
    "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "shop"}}},
}


@pytest.mark.parametrize(
    ("weight", "more", "expected"),
    [
        (20, {}, (2, 10)),
        (25, {}, (3, 10)),
        (1, {"minPodsPerReplicaSet": 2}, (2, 10)),
        (20, {"dynamicStableScale": True}, (2, 8)),
        (25, {"dynamicStableScale": True}, (3, 8)),
        (0, {}, (0, 10)),
    ],
)
def test_pods_beside_routes(weight: int, more: dict[str, Any], expected: tuple[int, int]) -> None:
    given_ = {"steps": [{"setWeight": weight}, {"pause": {}}], **ROUTED, **more}
    world = World(rollout_of(json.dumps({"canary": given_}), replicas=10))
    world.add_route()
    world.settle()
    world.set_image("v2")
    world.step()
    world.step()
    assert counts(Situation(world.view(), START), None) == Counts(*expected)


pods = st.integers(0, 12)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 10), st.integers(0, 100), pods, pods, st.integers(0, 3), st.integers(0, 3), st.data())
def test_surge_and_unavailability_are_kept(
    replicas: int, weight: int, canary: int, stable: int, unavailable: int, surge: int, data: st.DataObject
) -> None:
    if not surge and not unavailable:
        surge = 1
    ready = data.draw(st.integers(0, canary)), data.draw(st.integers(0, stable))
    sit = situation(
        replicas, weight, (canary, ready[0]), (stable, ready[1]), maxUnavailable=unavailable, maxSurge=surge
    )
    made = counts(sit, None)
    grows = made.canary > canary or made.stable > stable
    assert not grows or made.canary + made.stable <= max(replicas + surge, canary + stable)
    left = min(ready[0], made.canary) + min(ready[1], made.stable)
    least = min(replicas - min(unavailable, replicas), sum(ready))
    shrinks = made.canary < canary or made.stable < stable
    assert not shrinks or left >= least or made.canary + made.stable >= canary + stable - (canary - ready[0])
