"""What is refused, with the field and the way out, and that a bad version loses its traffic even then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.situation import Situation
from pilothouse.delivery.rollouts.validation import not_acted_on, problems
from pilothouse.kinds.structs import replace
from support.rolloutworld import START, World, rollout_of

ROUTED = {
    "canaryService": "shop-canary",
    "stableService": "shop-stable",
    "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "shop"}}},
}


def found(strategy: dict[str, Any], **spec: Any) -> list[str]:
    world = World(rollout_of(json.dumps(strategy), **spec))
    world.add_route()
    return problems(Situation(world.view(), START))


def steps(*given: Any, routed: bool = True) -> dict[str, Any]:
    return {"canary": {**(ROUTED if routed else {}), "steps": [*given]}}


@pytest.mark.parametrize(
    ("strategy", "problem"),
    [
        ({}, "spec.strategy: want one of canary and blueGreen"),
        ({"canary": {}, "blueGreen": {"activeService": "x"}}, "want one of canary and blueGreen"),
        ({"blueGreen": {"activeService": "a", "previewService": "a"}}, "activeService and previewService are the same"),
        ({"canary": {"maxSurge": 0, "maxUnavailable": 0}}, "both 0"),
        ({"canary": {"maxSurge": "x%"}}, "maxSurge"),
        ({"canary": {"dynamicStableScale": True}}, "dynamicStableScale: it needs trafficRouting"),
        ({"canary": {**ROUTED, "dynamicStableScale": True, "scaleDownDelaySeconds": 1}}, "exclude each other"),
        ({"canary": {**ROUTED, "canaryService": "shop-stable"}}, "are the same"),
        ({"canary": {**ROUTED, "trafficRouting": {"istio": {"a": 1}}}}, "trafficRouting.istio: not acted on here"),
        ({"canary": {**ROUTED, "stableService": "gone"}}, "service 'gone' is not there"),
        (steps({}), "steps[0]: it says nothing"),
        (steps({"setWeight": 101}), "setWeight: 101; want 0 to 100"),
        (steps({"pause": {"duration": "soon"}}), "pause.duration: 'soon'"),
        (steps({"setCanaryScale": {"replicas": 1}}, routed=False), "setCanaryScale: it needs trafficRouting"),
        (steps({"plugin": {"name": "x/y"}}), "plugin 'x/y' is not known here"),
        (steps({"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": []}}}), "config wants regions"),
        (
            steps({"setHeaderRoute": {"name": "vip", "match": [{"headerName": "a", "headerValue": {"exact": "b"}}]}}),
            "route 'vip' is not in trafficRouting.managedRoutes",
        ),
        (steps({"analysis": {"templates": [{"templateName": "gone"}]}}), "AnalysisTemplate 'gone' is not there"),
        (
            steps({"setWeight": 96}, {"experiment": {"templates": [{"name": "a", "specRef": "stable", "weight": 5}]}}),
            "its weights are 5 and the canary has 96",
        ),
        (
            steps({"experiment": {"templates": [{"name": "a", "specRef": "other"}]}}),
            "specRef 'other'; want stable or canary",
        ),
    ],
)
def test_what_is_wrong_is_named(strategy: dict[str, Any], problem: str) -> None:
    assert any(problem in one for one in found(strategy)), found(strategy)


def test_what_is_right_is_not() -> None:
    assert found({"canary": {}}) == []
    assert found(steps({"setWeight": 20}, {"pause": {"duration": "1h5m"}}, {"pause": {"duration": 3}})) == []


def test_a_selector_has_to_take_the_template() -> None:
    assert any("do not match" in one for one in found({"canary": {}}, selector={"matchLabels": {"app": "other"}}))
    assert any("it is empty" in one for one in found({"canary": {}}, selector={}))
    assert any("no containers" in one for one in found({"canary": {}}, template={}))


def test_other_routers_beside_ours_are_kept_and_named() -> None:
    routing = {**ROUTED["trafficRouting"], "nginx": {"stableIngress": "x"}}  # type: ignore[dict-item]
    world = World(rollout_of(json.dumps({"canary": {**ROUTED, "trafficRouting": routing}})))
    world.add_route()
    sit = Situation(world.view(), START)
    assert problems(sit) == []
    assert not_acted_on(sit) == ["spec.strategy.canary.trafficRouting.nginx"]


def running() -> World:
    analysis = {"templates": [{"templateName": "errors"}]}
    strategy = {"canary": {**ROUTED, "analysis": analysis, "steps": [{"setWeight": 40}, {"pause": {}}]}}
    world = World(rollout_of(json.dumps(strategy)))
    world.add_route()
    world.add_template("errors")
    world.settle()
    world.wait(60)
    world.set_image("v2")
    world.settle()
    assert world.weights() == {"shop-stable": 60, "shop-canary": 40}
    return world


def test_nothing_goes_on_while_it_is_wrong() -> None:
    world = running()
    world.change(replicas=-1)
    world.settle()
    assert world.status.phase == "Degraded"
    assert world.weights() == {"shop-stable": 60, "shop-canary": 40}
    world.change(replicas=10)
    world.settle()
    assert world.status.phase == "Paused"


@pytest.mark.parametrize("how", ["judged", "aborted"])
def test_users_are_taken_back_from_a_bad_version_even_while_it_is_wrong(how: str) -> None:
    world = running()
    world.change(replicas=-1)
    world.settle()
    if how == "judged":
        world.judge("Failed")
    else:
        world.verb(verbs.abort(world.rollout))
    world.settle()
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}
    world.change(replicas=10)
    world.settle()
    assert world.status.abort
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}


def test_users_are_taken_back_by_the_routes_and_services_that_are_left() -> None:
    world = running()
    world.change(replicas=-1)
    routing = {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoutes": [{"name": "shop"}, {"name": "gone"}]}}}
    world.change(
        strategy={"canary": {**ROUTED, "trafficRouting": routing, "steps": [{"setWeight": 40}, {"pause": {}}]}}
    )
    world.verb(verbs.abort(world.rollout))
    world.settle()
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}
    strategy = {
        "blueGreen": {
            "activeService": "shop-stable",
            "postPromotionAnalysis": {"templates": [{"templateName": "errors"}]},
        }
    }
    green = World(rollout_of(json.dumps(strategy)))
    green.add_template("errors")
    green.settle()
    green.wait(60)
    green.set_image("v2")
    green.settle()
    assert green.selected("shop-stable") == "v2"
    green.change(replicas=-1)
    green.judge("Failed")
    green.settle()
    assert green.selected("shop-stable") == "v1"


def test_a_service_of_another_rollout_is_left_alone() -> None:
    world = running()
    other = World(rollout_of(json.dumps({"canary": ROUTED})))
    other.add_route()
    other.services = world.services
    other.rollout = world.rollout
    missing = "AnalysisTemplate 'errors' is not there; apply it, or name another"
    assert problems(Situation(other.view(), START)) == [missing]
    other.rollout = replace(world.rollout, metadata__name="cart")
    assert any("managed by rollout 'shop'" in one for one in problems(Situation(other.view(), START)))
