"""What outlives a version: old sets, the way back to them, and services that take turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pilothouse.delivery.rollouts import verbs
from pilothouse.kinds.structs import replace
from support.rolloutworld import World, rollout_of

ROUTING: dict[str, Any] = {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "shop"}}}
ROUTED: dict[str, Any] = {
    "canaryService": "shop-canary",
    "stableService": "shop-stable",
    "trafficRouting": ROUTING,
}
PAUSED: dict[str, Any] = {"steps": [{"setWeight": 50}, {"pause": {}}]}


def world_of(strategy: dict[str, Any], **more: Any) -> World:
    world = World(rollout_of(json.dumps(strategy), **more))
    world.add_route()
    world.settle()
    return world


def deploy(world: World, image: str, seconds: float = 60) -> None:
    """Set a version and see it through."""
    world.wait(60)
    world.set_image(image)
    world.settle()
    while world.status.pause_conditions:
        world.verb(verbs.promote(world.rollout))
        world.settle()
    world.wait(3)
    world.settle()
    world.wait(seconds)
    world.settle()


def test_old_sets_are_kept_up_to_a_limit() -> None:
    world = world_of({"canary": {}}, revisionHistoryLimit=2)
    for number in range(2, 7):
        deploy(world, f"v{number}")
    assert sorted(found.metadata.name for found in world.sets.values()) == sorted(
        f"shop-{world.hash(image)}" for image in ("v4", "v5", "v6")
    )


def test_a_version_of_the_window_skips_the_steps() -> None:
    world = world_of({"canary": {**ROUTED, **PAUSED, "scaleDownDelaySeconds": 600}}, rollbackWindow={"revisions": 1})
    for image in ("v2", "v3"):
        deploy(world, image, 0)
    world.set_image("v1")
    world.settle()
    assert world.status.phase == "Paused"  # there is one between
    world.set_image("v2")
    world.settle()
    world.wait(3)
    world.settle()
    assert world.status.phase == "Healthy"
    assert world.selected("shop-stable") == "v2"


def test_only_so_many_replaced_sets_keep_their_pods() -> None:
    limits = {"scaleDownDelaySeconds": 600, "scaleDownDelayRevisionLimit": 1}
    world = world_of({"canary": {**ROUTED, **PAUSED, **limits}}, replicas=2)
    for image in ("v2", "v3", "v4"):
        deploy(world, image, 0)
    assert [world.size(image) for image in ("v1", "v2", "v3", "v4")] == [0, 0, 2, 2]


@pytest.mark.parametrize(("delay", "kept"), [(None, 0), (100, 5), (0, 5)])
def test_an_aborted_version_keeps_its_pods_as_long_as_is_said(delay: int | None, kept: int) -> None:
    more = {} if delay is None else {"abortScaleDownDelaySeconds": delay}
    world = world_of({"canary": {**ROUTED, **PAUSED, **more}})
    world.wait(60)
    world.set_image("v2")
    world.settle()
    world.verb(verbs.abort(world.rollout))
    world.settle()
    assert world.size("v2") == 5
    world.wait(31)
    world.settle()
    assert world.size("v2") == kept


def test_services_take_turns_in_being_stable() -> None:
    ping_pong = {"pingService": "shop-stable", "pongService": "shop-canary"}
    world = world_of({"canary": {"pingPong": ping_pong, "trafficRouting": ROUTING, **PAUSED}})
    assert (world.status.canary.stable_ping_pong, world.weights()["shop-stable"]) == ("ping", 100)
    deploy(world, "v2")
    assert (world.status.canary.stable_ping_pong, world.selected("shop-canary")) == ("pong", "v2")
    assert world.weights() == {"shop-stable": 0, "shop-canary": 100}
    assert world.size("v1") == 0
    deploy(world, "v3")
    assert (world.status.canary.stable_ping_pong, world.selected("shop-stable")) == ("ping", "v3")
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}
    assert world.selected("shop-canary") == "v2"


@pytest.mark.parametrize("kind", ["Percent", "Percentage"])
def test_part_of_the_pods_may_be_enough(kind: str) -> None:
    threshold = {"replicaProgressThreshold": {"type": kind, "value": 50}}
    world = world_of({"canary": {**ROUTED, **PAUSED, **threshold}})
    world.wait(60)
    world.set_image("v2")
    for _ in range(8):
        world.step()
        for name, found in world.sets.items():
            if world.size("v2") == (found.spec.replicas or 0) and found.metadata.name.endswith(world.hash("v2")):
                counts = {"replicas": 5, "available_replicas": 3, "ready_replicas": 3}
                world.sets[name] = replace(found, **{f"status__{key}": value for key, value in counts.items()})
    assert world.weights() == {"shop-stable": 50, "shop-canary": 50}


def test_how_long_it_took_and_how_it_ended_is_kept() -> None:
    world = world_of({"canary": {**ROUTED, **PAUSED}})
    world.wait(60)
    world.set_image("v2")
    world.settle()
    world.wait(90)
    world.verb(verbs.abort(world.rollout))
    world.settle()
    duration = world.status.duration
    assert (duration.completion_status, duration.rollout_started_at) == ("Aborted", "2025-01-01T00:01:00Z")
    assert duration.finished_at == "2025-01-01T00:02:30Z"
    deploy(world, "v3")
    assert world.status.duration.completion_status == "Promoted"


def test_when_it_was_decided_is_known_to_the_microsecond() -> None:
    world = world_of({"canary": {**ROUTED, **PAUSED}})
    world.wait(60)
    world.set_image("v2")
    world.settle()
    world.wait(1.25)
    world.verb(verbs.abort(world.rollout))
    world.settle()
    assert world.status.aborted_at == "2025-01-01T00:01:01.250000Z"
    world.wait(9)
    world.settle()
    assert world.status.aborted_at == "2025-01-01T00:01:01.250000Z"


def test_other_steps_do_not_try_an_aborted_version_again() -> None:
    world = world_of({"canary": {**ROUTED, **PAUSED}})
    world.wait(60)
    world.set_image("v2")
    world.settle()
    world.verb(verbs.abort(world.rollout))
    world.settle()
    world.change(strategy={"canary": {**ROUTED, "steps": [{"setWeight": 10}]}})
    world.settle()
    assert (world.status.abort, world.weights()) == (True, {"shop-stable": 100, "shop-canary": 0})
    world.verb(verbs.retry(world.rollout))
    world.settle()
    world.wait(3)
    world.settle()
    assert (world.status.phase, world.selected("shop-stable")) == ("Healthy", "v2")


def test_a_canary_becomes_blue_green() -> None:
    world = world_of({"canary": {**ROUTED, **PAUSED}})
    world.wait(60)
    world.set_image("v2")
    world.settle()
    world.change(strategy={"blueGreen": {"activeService": "shop-stable", "previewService": "shop-canary"}})
    world.settle()
    assert (world.status.phase, world.selected("shop-stable")) == ("Healthy", "v2")
    world.wait(31)
    world.settle()
    assert (world.size("v1"), world.size("v2")) == (0, 10)
