"""What a rollout writes into services and routes is no drift, and syncs of other fields keep it."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.comparing import compare
from pilothouse.delivery.gitops.keeping import MARK, compared, is_shared, noted, planned_claims, written
from pilothouse.delivery.gitops.targets import Key, Target
from pilothouse.delivery.resources.rollouts import (
    HeaderMatch,
    SetHeaderRoute,
    SetMirrorRoute,
    StringMatch,
    WeightDestination,
)
from pilothouse.delivery.rollouts.claims import HASH, Claim, claims_of
from pilothouse.delivery.rollouts.names import MADE_RULES
from pilothouse.delivery.rollouts.routes import RouteWants, rewritten
from pilothouse.delivery.rollouts.weights import Split
from pilothouse.kinds.structs import to_dict

Object = dict[str, Any]
STEPS = [
    {"setHeaderRoute": {"name": "vip", "match": [{"headerName": "x", "headerValue": {"exact": "1"}}]}},
    {"setMirrorRoute": {"name": "copies", "percentage": 10, "match": [{"path": {"prefix": "/"}}]}},
    {"setWeight": 20},
]
VIP = SetHeaderRoute(name="vip", match=[HeaderMatch(header_name="x", header_value=StringMatch(exact="1"))])
COPIES = SetMirrorRoute(name="copies", percentage=10)


def rollout(*, busy: bool = False, experiments: tuple[str, ...] = (), **strategy: Any) -> Object:
    canary = {
        "stableService": "stable",
        "canaryService": "canary",
        "steps": STEPS,
        "trafficRouting": {
            "plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": "web", "grpcRoutes": [{"name": "g"}]}}
        },
    }
    status: Object = {
        "observedGeneration": "2",
        "stableRS": "h1",
        "currentPodHash": "h2" if busy else "h1",
        "phase": "Paused" if busy else "Healthy",
    }
    if experiments:
        weight = WeightDestination(weight=1)
        additional = [{"serviceName": name, "weight": 5} for name in experiments]
        weights = {"canary": to_dict(weight), "stable": to_dict(weight), "additional": additional}
        status["canary"] = {"weights": weights}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "d", "generation": 2},
        "spec": {"strategy": strategy or {"canary": canary}},
        "status": status,
    }


def claims(**given: Any) -> tuple[Claim, ...]:
    return (claims_of(rollout(**given))["HTTPRoute", "d", "web"],)


def service_claims(**given: Any) -> tuple[Claim, ...]:
    return (claims_of(rollout(**given))["Service", "d", "stable"],)


def route(stable: int | None = 100, canary: int | None = 0, *, path: str = "/") -> Object:
    refs: list[Object] = [{"name": "stable", "port": 80}, {"name": "canary", "port": 80}]
    for ref, weight in zip(refs, (stable, canary), strict=True):
        if weight is not None:
            ref["weight"] = weight
    headers = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-own"]}}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": refs},
                {
                    "matches": [{"path": {"type": "Exact", "value": "/own"}}],
                    "backendRefs": [{"name": "own", "port": 1}],
                },
                {"name": "api", "filters": [headers], "backendRefs": copy.deepcopy(refs)},
            ]
        },
    }


def service(**selector: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "stable", "namespace": "d"},
        "spec": {"selector": {"app": "web", **selector}, "ports": [{"port": 80}]},
    }


def split_of(git: Object, split: Split) -> Object:
    """Return a route as the rollouts controller writes it."""
    found = claims()[0]
    return rewritten(git, RouteWants("stable", "canary", split, found.managed, found.regions))


def marked(git: Object) -> Object:
    """Return an object as a sync made it at first, when only git had the rollout."""
    planned = claims() if git["kind"] == "HTTPRoute" else service_claims()
    return written(git, None, (), planned)


SPLITS = st.builds(
    Split,
    canary=st.integers(0, 95),
    regions=st.dictionaries(st.sampled_from(["cn-east", "cn-north"]), st.integers(0, 100)),
    additional=st.sampled_from([(), (WeightDestination(weight=5, service_name="web-ab-base"),)]),
    managed=st.sampled_from([(), (VIP,), (COPIES,), (VIP, COPIES)]),
)


@given(SPLITS, st.sampled_from([(100, 0), (1, 1), (None, None), (100, None)]), st.booleans())
def test_whatever_steps_write_is_no_drift_and_stays(split: Split, weights: Any, busy: bool) -> None:
    git = route(*weights)
    live = split_of(marked(git), split)
    found = claims(busy=busy, experiments=tuple(one.service_name or "" for one in split.additional))
    assert compare(compared(git, live, found), live) == []
    assert written(git, live, found)["spec"] == live["spec"]
    made = written(git, live, found)
    notes = {name: each for name, each in live["metadata"]["annotations"].items() if name != MADE_RULES}
    assert made["metadata"] == {**live["metadata"], "annotations": notes}, "an apply leaves the other note as it is"
    assert noted(made, live)["metadata"] == live["metadata"], "and what replaces the object has it too"


@given(SPLITS)
def test_a_commit_changes_its_own_fields_and_the_split_stays(split: Split) -> None:
    before, after = route(), route(path="/shop")
    after["spec"]["rules"][2]["timeouts"] = {"request": "5s"}
    after["spec"]["rules"][1]["backendRefs"][0]["weight"] = 7
    live = split_of(marked(before), split)
    found = claims(busy=True, experiments=tuple(one.service_name or "" for one in split.additional))
    drift = {each.path for each in compare(compared(after, live, found), live)}
    first = "spec.rules[0].matches" if not split.managed else "spec.rules["
    assert any(path.startswith(first) for path in drift)
    made = written(after, live, found)
    # The controller, which comes by later, has nothing to change but what its own rules copy of the others.
    assert made["spec"]["rules"][-3:] == split_of(after, split)["spec"]["rules"][-3:]
    names = [rule.get("name") for rule in made["spec"]["rules"][:-3]]
    assert names == [rule.get("name") for rule in live["spec"]["rules"][:-3]]


def test_a_rule_that_comes_gets_the_split_and_one_that_goes_takes_it_along() -> None:
    live = split_of(marked(route()), Split(canary=30))
    more = route()
    more["spec"]["rules"].insert(0, {**copy.deepcopy(more["spec"]["rules"][0]), "matches": [{"method": "GET"}]})
    made = written(more, live, claims(busy=True))["spec"]["rules"]
    assert [[ref.get("weight") for ref in rule["backendRefs"]] for rule in made] == [
        [70, 30],
        [70, 30],
        [None],
        [70, 30],
    ]
    less = route()
    del less["spec"]["rules"][0]
    drift = compare(compared(less, live, claims(busy=True)), live)
    assert [each.path for each in drift] == ["spec.rules"]
    assert len(written(less, live, claims(busy=True))["spec"]["rules"]) == 2


def test_weights_changed_in_git_count_when_no_update_is_on_its_way() -> None:
    git, busy, idle = route(90, 10), claims(busy=True), claims()
    live = split_of(marked(route()), Split(canary=30))
    assert compare(compared(git, live, busy), live) == []
    assert written(git, live, busy)["metadata"] == live["metadata"], "it is remembered that git's change waits"
    live = split_of(live, Split())
    assert [tuple(each) for each in compare(compared(git, live, idle), live)] == [
        ("spec.rules[0].backendRefs[0].weight", 90, 100),
        ("spec.rules[0].backendRefs[1].weight", 10, 0),
        ("spec.rules[2].backendRefs[0].weight", 90, 100),
        ("spec.rules[2].backendRefs[1].weight", 10, 0),
    ]
    made = written(git, live, idle)
    assert made["spec"] == git["spec"]
    live = split_of(made, Split())  # and the rollout's word is the last one
    assert compare(compared(git, live, idle), live) == []


def test_a_route_from_before_is_not_reset() -> None:
    live = split_of(route(), Split(canary=30))
    assert MARK not in live["metadata"].get("annotations", {})
    assert compare(compared(route(1, 1), live, claims()), live) == []
    assert MARK in written(route(1, 1), live, claims())["metadata"]["annotations"]


def test_without_a_rollout_everything_is_as_git_says() -> None:
    live = split_of(marked(route()), Split(canary=30, managed=(VIP,)))
    assert [each.path for each in compare(compared(route(), live, ()), live)] == ["spec.rules"]
    assert written(route(), live, ()) == route()
    back = marked(route())
    assert compare(compared(route(), back, ()), back) == [], "the mark alone is no drift"
    hand = service(**{HASH: "h1"})
    assert [tuple(each) for each in compare(compared(service(), hand, ()), hand)] != []
    assert written(service(), hand, ()) == service()


@pytest.mark.parametrize("busy", [True, False])
def test_the_selectors_hash_stays_and_other_keys_are_gits(busy: bool) -> None:
    found = service_claims(busy=busy)
    live = service(**{HASH: "h1"})
    assert compare(compared(service(), live, found), live) == []
    git = service(tier="web")
    git["spec"]["ports"] = [{"port": 81}]
    assert {each.path for each in compare(compared(git, live, found), live)} >= {"spec.selector.tier"}
    made = written(git, live, found)
    assert made["spec"] == {"selector": {"app": "web", "tier": "web", HASH: "h1"}, "ports": [{"port": 81}]}
    assert "annotations" not in made["metadata"]


def test_a_hash_of_git_counts_once_when_no_update_is_on_its_way() -> None:
    git, live = service(**{HASH: "h0"}), service(**{HASH: "h1"})
    assert compare(compared(git, live, service_claims(busy=True)), live) == []
    assert "annotations" not in written(git, live, service_claims(busy=True))["metadata"]
    idle = service_claims()
    assert compare(compared(git, live, idle), live) != []
    made = written(git, live, idle)
    assert made["spec"]["selector"][HASH] == "h0"
    made["spec"]["selector"][HASH] = "h1"
    assert compare(compared(git, made, idle), made) == []


def test_marks_that_nobody_can_read_are_none() -> None:
    live = split_of(route(), Split(canary=30))
    for text in ("{", "[1]", '"x"'):
        live["metadata"]["annotations"] = {MARK: text}
        assert compare(compared(route(5, 5), live, claims()), live) == []


def test_what_is_claimed() -> None:
    found = claims_of(rollout(busy=True))
    assert set(found) == {
        ("Service", "d", "stable"),
        ("Service", "d", "canary"),
        ("HTTPRoute", "d", "web"),
        ("GRPCRoute", "d", "g"),
    }
    claim = found["GRPCRoute", "d", "g"]
    assert (claim.services, claim.managed, claim.regions) == (("stable", "canary"), ("vip", "copies"), "web-regions")
    assert claim.busy
    assert not claims_of(rollout())["Service", "d", "stable"].busy
    two: Object = {"blueGreen": {"activeService": "a", "previewService": "p"}}
    assert set(claims_of(rollout(**two))) == {("Service", "d", "a"), ("Service", "d", "p")}
    turns: Object = {"canary": {"pingPong": {"pingService": "a", "pongService": "p"}}}
    assert set(claims_of(rollout(**turns))) == {("Service", "d", "a"), ("Service", "d", "p")}
    assert claims_of(rollout(canary={"steps": "nonsense"})) == {}
    old = rollout()
    old["metadata"]["generation"] = 3
    assert claims_of(old)["Service", "d", "stable"].busy, "the status is of the template before"


def test_kinds_and_plans() -> None:
    key = Key("argoproj.io", "Rollout", "d", "web")
    target = Target(key, "argoproj.io/v1alpha1", "f", msgspec.json.encode(rollout()), b"", 0)
    planned = planned_claims([target])
    assert set(planned) == {
        Key("", "Service", "d", "stable"),
        Key("", "Service", "d", "canary"),
        Key("gateway.networking.k8s.io", "HTTPRoute", "d", "web"),
        Key("gateway.networking.k8s.io", "GRPCRoute", "d", "g"),
    }
    assert all(is_shared(each) for each in planned)
    assert not is_shared(key)
    assert not is_shared(Key("serving.knative.dev", "Service", "d", "stable"))
