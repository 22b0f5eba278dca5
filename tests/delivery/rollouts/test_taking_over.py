"""What a rollout takes over and lets go: sets that nobody controls, routes of connections, and other strategies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import pytest
import yaml

from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.deciding import decide
from pilothouse.delivery.rollouts.names import EXPERIMENT_NAME, HASH
from pilothouse.delivery.rollouts.view import RouteKey
from pilothouse.kinds.structs import ReplicaSet, from_dict, replace, to_dict
from pilothouse.operator import definition, install
from pilothouse.operator.owners import controller_of
from pilothouse.traffic.control.kinds import TCPRoute
from support.rolloutkit import SERVICES, Fleet, fleet
from support.rolloutworld import Conflict, World, rollout_of

NAMES: Final = {"canaryService": "shop-canary", "stableService": "shop-stable"}
PLUGIN: Final = "argoproj-labs/gatewayAPI"


def canary(*steps: Any, **config: Any) -> dict[str, Any]:
    routing = {"managedRoutes": [{"name": "vip"}], "plugins": {PLUGIN: config or {"httpRoute": "shop"}}}
    return {"canary": {**NAMES, "trafficRouting": routing, "steps": [*steps]}}


def blue_green(**more: Any) -> dict[str, Any]:
    green = {"activeService": "shop-active", "previewService": "shop-preview", "autoPromotionEnabled": False}
    return {"blueGreen": {**green, **more}}


def started(strategy: dict[str, Any], **more: Any) -> World:
    services = ("shop-stable", "shop-canary", "shop-active", "shop-preview")
    world = World(rollout_of(json.dumps(strategy), replicas=4, **more), services=services)
    world.add_route()
    world.settle()
    world.wait(60)
    return world


# Sets


def orphaned(world: World, change: Callable[[ReplicaSet], ReplicaSet] = lambda found: found) -> World:
    """Return a world in which the rollout is made anew beside the sets that it had."""
    made = World(rollout_of(json.dumps(canary({"setWeight": 50}, {"pause": {}})), replicas=4))
    made.add_route()
    made.names = dict(world.names)
    made.orphans = {name: change(found) for name, found in world.sets.items()}
    return made


def test_a_rollout_that_is_made_anew_finds_its_sets() -> None:
    before = started(canary({"setWeight": 50}, {"pause": {}}))
    (name,) = before.sets
    world = orphaned(before)
    world.settle()
    assert [*world.sets] == [name]
    assert not world.orphans
    assert world.status.phase == "Healthy"
    assert world.size("v1") == 4
    assert not any("create set" in line for line in world.log)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: replace(found, metadata__labels={"app": "another"}),
        lambda found: replace(found, metadata__deletion_timestamp="2025-01-01T00:00:00Z"),
        lambda found: replace(found, metadata__annotations={EXPERIMENT_NAME: "trial"}),
    ],
    ids=["of another selector", "going", "of an experiment"],
)
def test_what_is_not_its_own_stays(change: Callable[[ReplicaSet], ReplicaSet]) -> None:
    before = started(canary())
    world = orphaned(before, change)
    assert not [line for line in map(str, decide(world.view(), world.now).actions) if line.startswith("AdoptSet")]


def test_a_set_that_the_selector_takes_no_more_is_let_go() -> None:
    world = started(canary({"setWeight": 50}, {"pause": {}}))
    world.set_image("v2")
    world.settle()
    name = f"shop-{world.hash('v2')}"
    labels = {**world.sets[name].metadata.labels, "app": "kept-for-a-look"}
    world.sets[name] = replace(world.sets[name], metadata__labels=labels)
    with pytest.raises(Conflict):  # its name is taken
        world.settle()
    world.settle()
    assert [*world.orphans] == [name]
    assert name not in world.sets
    assert (world.status.stable_rs, world.status.phase) == (world.hash("v1"), "Paused")
    assert world.size("v2") == 2


def test_users_are_taken_back_before_sets_are_let_go() -> None:
    world = started(canary({"setWeight": 50}, {"pause": {}}))
    world.set_image("v2")
    world.settle()
    stray = replace(next(iter(world.sets.values())), metadata__name="stray", metadata__labels={"app": "shop"})
    world.orphans["stray"] = stray
    world.verb(verbs.abort(world.rollout))
    told = [type(each).__name__ for each in decide(world.view(), world.now).actions]
    assert told.index("WriteRoute") < told.index("WriteStatus") < told.index("AdoptSet")


# Workloads


def beside_a_deployment(scale_down: str) -> World:
    """Return a world with a Deployment of 4 pods, and a rollout of its template that has just begun."""
    tree = to_dict(rollout_of(json.dumps({"canary": {}}), replicas=4))
    template = tree["spec"].pop("template")
    tree["spec"]["workloadRef"] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "shop",
        "scaleDown": scale_down,
    }
    world = World(from_dict(tree, Rollout))
    spec = {"replicas": 4, "selector": tree["spec"].pop("selector"), "template": template}
    world.workload = {"metadata": {"name": "shop", "namespace": "default", "generation": 1}, "spec": spec}
    for _ in range(3):
        world.step()
    return world


def pods(world: World, ready: int) -> int:
    """Have so many pods of the rollout be ready; return how many the Deployment is left with."""
    for name, found in world.sets.items():
        counts = {"replicas": 4, "ready_replicas": ready, "available_replicas": ready}
        world.sets[name] = replace(found, **{f"status__{key}": value for key, value in counts.items()})
    for _ in range(4):
        world.step()
        assert world.workload is not None
        world.workload["spec"]["replicas"] = world.workload_replicas(4)
    return world.workload_replicas(4)


@pytest.mark.parametrize(
    ("scale_down", "left"), [("never", [4, 4, 4]), ("onsuccess", [4, 4, 0]), ("progressively", [3, 2, 0])]
)
def test_a_deployment_loses_its_pods_as_is_said(scale_down: str, left: list[int]) -> None:
    world = beside_a_deployment(scale_down)
    assert [pods(world, ready) for ready in (1, 2, 4)] == left


def test_a_deployment_gets_its_pods_back_where_those_of_the_rollout_fail() -> None:
    world = beside_a_deployment("progressively")
    assert [pods(world, ready) for ready in (3, 1)] == [1, 3]


# Routes of connections


def streams(world: World, kind: str = "TCPRoute", name: str = "wire") -> RouteKey:
    refs = [{"name": "shop-stable", "port": 80, "weight": 100}, {"name": "shop-canary", "port": 80, "weight": 0}]
    world.add_route(name, kind, [{"backendRefs": refs}])
    return RouteKey(kind, "default", name)


def split_of(world: World, key: RouteKey) -> list[dict[str, int]]:
    return [{ref["name"]: ref["weight"] for ref in rule["backendRefs"]} for rule in world.routes[key]["spec"]["rules"]]


@pytest.mark.parametrize("kind", ["TCPRoute", "TLSRoute"])
def test_connections_are_split_by_weight_and_taken_back(kind: str) -> None:
    word = {"TCPRoute": "tcpRoutes", "TLSRoute": "tlsRoutes"}[kind]
    world = World(rollout_of(json.dumps(canary({"setWeight": 30}, {"pause": {}}, **{word: [{"name": "wire"}]}))))
    key = streams(world, kind)
    world.settle()
    world.wait(60)
    world.set_image("v2")
    world.settle()
    assert split_of(world, key) == [{"shop-stable": 70, "shop-canary": 30}]
    world.verb(verbs.abort(world.rollout))
    world.settle()
    assert split_of(world, key) == [{"shop-stable": 100, "shop-canary": 0}]


def test_beside_requests_connections_have_the_weight_and_neither_headers_nor_regions() -> None:
    steps = [
        {"setWeight": 30},
        {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 60}}},
        {"setHeaderRoute": {"name": "vip", "match": [{"headerName": "x", "headerValue": {"exact": "1"}}]}},
        {"pause": {}},
    ]
    world = World(rollout_of(json.dumps(canary(*steps, httpRoute="shop", tcpRoute="wire"))))
    world.add_route()
    key = streams(world)
    world.settle()
    world.wait(60)
    world.set_image("v2")
    world.settle()
    assert world.status.phase == "Paused"
    assert split_of(world, key) == [{"shop-stable": 70, "shop-canary": 30}]
    assert len(world.routes[RouteKey("HTTPRoute", "default", "shop")]["spec"]["rules"]) == 2
    world.verb(verbs.abort(world.rollout))
    world.settle()
    assert split_of(world, key) == [{"shop-stable": 100, "shop-canary": 0}]


@pytest.mark.parametrize(
    "step",
    [
        {"setHeaderRoute": {"name": "vip", "match": [{"headerName": "x", "headerValue": {"exact": "1"}}]}},
        {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 60}}},
    ],
)
def test_what_connections_cannot_carry_is_said(step: dict[str, Any]) -> None:
    world = World(rollout_of(json.dumps(canary(step, tcpRoute="wire"))))
    streams(world)
    world.step()
    assert "needs a route of requests" in (world.status.message or "")


def test_header_routes_are_made_where_they_are_asked_for() -> None:
    header = {"setHeaderRoute": {"name": "vip", "match": [{"headerName": "x", "headerValue": {"exact": "1"}}]}}
    routes = [{"name": "shop", "useHeaderRoutes": True}, {"name": "other"}]
    world = World(rollout_of(json.dumps(canary(header, {"pause": {}}, httpRoutes=routes))))
    world.add_route()
    world.add_route("other")
    world.settle()
    world.wait(60)
    world.set_image("v2")
    world.settle()
    rules = {key.name: len(route["spec"]["rules"]) for key, route in world.routes.items()}
    assert rules == {"shop": 2, "other": 1}


# Another strategy in the midst of an update


def in_the_midst() -> World:
    regions = {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["cn-east"], "weight": 60}}}
    world = started(canary({"setWeight": 30}, regions, {"pause": {}}))
    world.set_image("v2")
    world.settle()
    assert world.weights() == {"shop-stable": 70, "shop-canary": 30}
    assert world.regions is not None
    return world


@pytest.mark.parametrize("strategy", [blue_green(), {"canary": NAMES}], ids=["blue-green", "without routes"])
def test_routes_of_the_former_strategy_lead_back_to_the_stable_service(strategy: dict[str, Any]) -> None:
    world = in_the_midst()
    world.change(strategy=strategy)
    plan = world.step()
    assert [type(each).__name__ for each in plan.actions][:2] == ["WriteRoute", "WriteRegions"]
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}
    (route,) = world.routes.values()
    assert not route["spec"]["rules"][0].get("filters")
    assert world.regions is None
    world.settle()
    assert world.status.canary.weights is None


def test_blue_green_begins_with_the_stable_version_after_a_canary() -> None:
    world = in_the_midst()
    world.change(strategy=blue_green())
    world.settle()
    assert (world.selected("shop-active"), world.selected("shop-preview")) == ("v1", "v2")
    assert world.status.phase == "Paused"
    world.verb(verbs.promote(world.rollout))
    world.settle()
    assert (world.selected("shop-active"), world.status.stable_rs) == ("v2", world.hash("v2"))


def test_a_canary_after_blue_green_begins_at_its_first_step() -> None:
    world = started(blue_green())
    world.set_image("v2")
    world.settle()
    world.change(strategy=canary({"setWeight": 30}, {"pause": {}}))
    world.settle()
    assert world.weights() == {"shop-stable": 70, "shop-canary": 30}
    assert (world.selected("shop-stable"), world.selected("shop-canary")) == ("v1", "v2")
    world.verb(verbs.abort(world.rollout))
    world.settle()
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}


def test_what_is_known_of_a_route_too_late_does_not_let_its_split_be_forgotten() -> None:
    world = started(canary({"setWeight": 30}, {"pause": {}}))
    old = dict(world.routes)
    world.set_image("v2")
    world.settle()
    world.change(strategy=blue_green())
    fresh, world.routes = world.routes, old
    view = world.view()
    world.routes = fresh
    with pytest.raises(Conflict):
        world.step(view)
    world.settle()
    assert world.weights() == {"shop-stable": 100, "shop-canary": 0}


def test_rules_that_steps_have_made_go_though_no_step_names_them_any_more() -> None:
    header = {"setHeaderRoute": {"name": "vip", "match": [{"headerName": "x", "headerValue": {"exact": "1"}}]}}
    world = started(canary(header, {"pause": {}}))
    key = next(iter(world.routes))
    kept = {"name": "mine", "backendRefs": [{"name": "shop-canary", "port": 80, "weight": 1}]}
    world.routes[key]["spec"]["rules"].append(kept)
    world.set_image("v2")
    world.settle()
    assert [rule.get("name") for rule in world.routes[key]["spec"]["rules"]] == ["vip", None, "mine"]
    world.change(strategy=blue_green())
    world.settle()
    assert [rule.get("name") for rule in world.routes[key]["spec"]["rules"]] == [None, "mine"]
    assert "annotations" not in world.routes[key]["metadata"]


# On a control plane


def manifest(strategy: dict[str, Any]) -> str:
    made = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "shop"}}
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "shop", "image": "shop:v1"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "shop"}}, "template": template, "strategy": strategy}
    return yaml.safe_dump({**made, "spec": spec})


async def owner_of(made: Fleet, name: str) -> str:
    found = controller_of(await made.client.get(ReplicaSet, name))
    return "" if found is None else found.uid


async def test_sets_are_adopted_and_released_on_a_server() -> None:
    text = manifest({"canary": {}})
    async with fleet(SERVICES, text) as made:
        (found,) = [one async for one in made.client.list(ReplicaSet)]
        await made.client.delete(Rollout, "shop", propagation="Orphan")
        # What a garbage collector does.
        await made.client.patch(ReplicaSet, found.metadata.name, {"metadata": {"ownerReferences": None}})
        await made.settle()
        await made.apply(text)
        await made.settle()
        assert await owner_of(made, found.metadata.name) == (await made.rollout()).metadata.uid
        assert [one.metadata.name async for one in made.client.list(ReplicaSet)] == [found.metadata.name]
        assert (await made.status()).phase == "Healthy"
        await made.set_image("v2")
        await made.settle()
        labels = {"metadata": {"labels": {"app": "kept-for-a-look"}}}
        await made.client.patch(ReplicaSet, found.metadata.name, labels)
        await made.settle()
        assert await owner_of(made, found.metadata.name) == ""
        # And back again: whoever sets the label has it taken in.
        await made.client.patch(ReplicaSet, found.metadata.name, {"metadata": {"labels": {"app": "shop"}}})
        await made.settle()
        assert await owner_of(made, found.metadata.name) == (await made.rollout()).metadata.uid
        assert (await made.client.get(ReplicaSet, found.metadata.name)).metadata.labels[HASH]


async def test_a_tcp_route_of_a_server_is_split() -> None:
    strategy = canary({"setWeight": 30}, {"pause": {}}, tcpRoute="wire")
    async with fleet(SERVICES) as made:
        await install(made.client, definition(TCPRoute))
        refs = [{"name": "shop-stable", "port": 80, "weight": 100}, {"name": "shop-canary", "port": 80, "weight": 0}]
        route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "wire"}}
        await made.apply(
            yaml.safe_dump({**route, "spec": {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": refs}]}})
        )
        await made.apply(manifest(strategy))
        await made.settle()
        await made.set_image("v2")
        await made.settle()
        (rule,) = (await made.client.dynamic("gateway.networking.k8s.io/v1", "TCPRoute").get("wire"))["spec"]["rules"]
        assert {ref["name"]: ref["weight"] for ref in rule["backendRefs"]} == {"shop-stable": 70, "shop-canary": 30}
