"""What each plugin lets pass, what it says, and what it likes, as kube-scheduler 1.36 does."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.structs import Namespace, ReplicaSet, Service, from_dict
from pilothouse.scheduling import parse
from pilothouse.scheduling.columns import Ints
from pilothouse.scheduling.framework import Cycle, Narrow, Nodes, Refusal, Scope
from pilothouse.scheduling.plugins import REGISTRY

from .kit import Scene, configured, node, pod

ZONE = "topology.kubernetes.io/zone"


def fit(**args: Any) -> Any:
    return configured({"pluginConfig": [{"name": "NodeResourcesFit", "args": args}]})


def container(**more: Any) -> dict[str, Any]:
    return {"name": "main", "image": "app", **more}


@pytest.mark.parametrize(
    ("wants", "reasons"),
    [
        ({"cpu": "5"}, "1 Insufficient cpu"),
        ({"cpu": "4001m"}, "1 Insufficient cpu"),
        ({"memory": "9Gi", "cpu": "9"}, "1 Insufficient cpu, 1 Insufficient memory"),
        ({"ephemeral-storage": "1"}, "1 Insufficient ephemeral-storage"),
        ({"example.com/gpu": "1"}, "1 Insufficient example.com/gpu"),
        ({"hugepages-2Mi": "2Mi"}, "1 Insufficient hugepages-2Mi"),
    ],
)
def test_a_pod_that_asks_for_more_than_there_is_stays(wants: dict[str, str], reasons: str) -> None:
    assert Scene(node("n1")).why(pod("p", wants)) == f"0/1 nodes are available: {reasons}."


def test_what_nobody_can_give_does_not_matter_if_nobody_asks() -> None:
    assert Scene(node("n1", allocatable={"cpu": "0"})).where(pod("p")) == "n1"
    assert Scene(node("n1")).where(pod("p", {"unknown": "7"})) == "n1"
    assert Scene(node("n1")).where(pod("p", {"cpu": "4", "memory": "8Gi"})) == "n1"


def test_only_so_many_pods_are_on_a_node() -> None:
    scene = Scene(node("n1", allocatable={"pods": "1"}), pod("a", on="n1"))
    assert scene.why(pod("p")) == "0/1 nodes are available: 1 Too many pods."


def test_an_init_container_counts_as_far_as_it_needs_more_and_a_sidecar_for_good() -> None:
    half = {"resources": {"requests": {"cpu": "500m"}}}
    two = {"resources": {"requests": {"cpu": "2"}}}
    spec: dict[str, Any] = {
        "containers": [container(**half)],
        "initContainers": [{"name": "init", "image": "i", **two}],
    }
    scene = Scene(node("n1"))
    assert scene.where(pod("a", **spec)) == "n1"
    assert scene.where(pod("b", {"cpu": "2"})) == "n1"
    assert "Insufficient cpu" in scene.why(pod("c", {"cpu": "1m"}))
    sidecar = {"name": "side", "image": "s", "restartPolicy": "Always", **half}
    scene = Scene(node("n1"))
    scene.where(pod("a", containers=[container(**half)], initContainers=[sidecar], overhead={"cpu": "1"}))
    assert scene.where(pod("b", {"cpu": "2"})) == "n1"
    assert "Insufficient cpu" in scene.why(pod("c", {"cpu": "1m"}))


def test_what_the_pod_as_a_whole_asks_for_takes_the_place_of_its_containers_sum() -> None:
    scene = Scene(node("n1"))
    assert scene.where(pod("a", {"cpu": "1"}, resources={"requests": {"cpu": "3"}})) == "n1"
    assert "Insufficient cpu" in scene.why(pod("b", {"cpu": "2"}))


def test_a_pod_that_is_being_made_smaller_counts_with_what_it_has() -> None:
    given = {"name": "main", "resources": {"requests": {"cpu": "3"}}}
    scene = Scene(node("n1"), pod("a", {"cpu": "1"}, on="n1", status={"containerStatuses": [given]}))
    assert "Insufficient cpu" in scene.why(pod("b", {"cpu": "2"}))


def test_a_resize_that_the_node_cannot_do_counts_with_what_the_pod_has() -> None:
    given = {"name": "main", "resources": {"requests": {"cpu": "1"}}}
    status: dict[str, Any] = {"containerStatuses": [given]}
    pending = {"type": "PodResizePending", "status": "True", "reason": "Infeasible"}
    scene = Scene(node("n1"), pod("a", {"cpu": "3"}, on="n1", status=status))
    assert "Insufficient cpu" in scene.why(pod("b", {"cpu": "2"}))
    scene.scheduler.upsert(pod("a", {"cpu": "3"}, on="n1", status={**status, "conditions": [pending]}))
    assert scene.where(pod("c", {"cpu": "2"})) == "n1"


def test_ignored_resources_are_not_looked_at() -> None:
    scene = Scene(node("n1"), configuration=fit(ignoredResources=["example.com/gpu"], ignoredResourceGroups=["other"]))
    assert scene.where(pod("p", {"example.com/gpu": "1", "other/thing": "2"})) == "n1"


@pytest.mark.parametrize(
    ("strategy", "chosen"),
    [
        ({"type": "LeastAllocated"}, "empty"),
        ({"type": "MostAllocated"}, "full"),
        (
            {
                "type": "RequestedToCapacityRatio",
                "requestedToCapacityRatio": {
                    "shape": [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]
                },
            },
            "full",
        ),
        (
            {
                "type": "RequestedToCapacityRatio",
                "requestedToCapacityRatio": {
                    "shape": [{"utilization": 0, "score": 10}, {"utilization": 100, "score": 0}]
                },
            },
            "empty",
        ),
    ],
)
def test_nodes_are_filled_as_the_strategy_says(strategy: dict[str, Any], chosen: str) -> None:
    scene = Scene(node("empty"), node("full"), configuration=fit(scoringStrategy=strategy))
    scene.scheduler.upsert(pod("a", {"cpu": "2", "memory": "4Gi"}, on="full"))
    for number in range(3):
        assert scene.where(pod(f"p{number}", {"cpu": "100m", "memory": "200Mi"})) == chosen
        scene.scheduler.remove(pod(f"p{number}"))


def test_a_node_is_liked_that_the_pod_makes_more_even() -> None:
    only = {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesBalancedAllocation", "weight": 1}]}
    scene = Scene(
        node("cpu"),
        node("memory"),
        pod("a", {"cpu": "2"}, on="cpu"),
        pod("b", {"memory": "4Gi"}, on="memory"),
        configuration=configured({"plugins": {"score": only}}),
    )
    assert scene.where(pod("p", {"memory": "1Gi"})) == "cpu"
    assert scene.where(pod("q", {"cpu": "500m"})) == "memory"


@pytest.mark.parametrize(
    ("term", "nodes"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}, {"a"}),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, {"b", "c"}),
        ({"key": "disk", "operator": "Exists"}, {"a", "b"}),
        ({"key": "disk", "operator": "DoesNotExist"}, {"c"}),
        ({"key": "age", "operator": "Gt", "values": ["9"]}, {"b"}),
        ({"key": "age", "operator": "Lt", "values": ["10"]}, {"a"}),
        ({"key": "age", "operator": "Gt", "values": ["old"]}, set()),
    ],
)
def test_node_affinity_takes_the_nodes_its_terms_say(term: dict[str, Any], nodes: set[str]) -> None:
    labelled = [
        node("a", {"disk": "ssd", "age": "5"}),
        node("b", {"disk": "hdd", "age": "10"}),
        node("c", {"age": "x"}),
    ]
    required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    found = set()
    for seed in range(12):
        scene = Scene(*labelled, seed=seed)
        decision = scene.decide(pod("p", affinity=affinity))
        found.add(getattr(decision, "node", None))
    assert found - {None} == nodes
    if not nodes:
        why = Scene(*labelled).why(pod("p", affinity=affinity))
        assert why == "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."


def by_name(*names: str) -> dict[str, Any]:
    field = [{"key": "metadata.name", "operator": "In", "values": [name]} for name in names]
    required = {"nodeSelectorTerms": [{"matchFields": field}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def test_nodes_that_the_affinity_does_not_name_are_not_looked_at() -> None:
    nodes = [node("a", allocatable={"cpu": "1"}), node("b"), node("c")]
    assert Scene(*nodes).where(pod("p", affinity=by_name("b"))) == "b"
    why = Scene(*nodes).why(pod("p", {"cpu": "2"}, affinity=by_name("a")))
    assert why == "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    why = Scene(*nodes).why(pod("p", affinity=by_name("a", "b")))
    assert why == "0/3 nodes are available: pod affinity terms conflict."
    why = Scene(*nodes).why(pod("p", affinity=by_name("x")))
    assert why == "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]."


@pytest.mark.parametrize("scope", [Scope.NODE, Scope.CLUSTER])
def test_a_plugin_may_name_the_nodes_worth_looking_at(scope: Scope) -> None:
    class Chooser:
        name = "Chooser"

        def pre_filter(self, cycle: Cycle) -> Narrow:
            return Narrow(frozenset(cycle.pod.metadata.labels["on"].split("-")))

        def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
            return nodes.full(0)

        def explain(self, cycle: Cycle, code: int) -> Refusal:
            raise AssertionError

    Chooser.scope = scope  # type: ignore[attr-defined]
    registry = {**REGISTRY, "Chooser": lambda _: Chooser()}
    tree = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "Chooser"}]}}}],
    }
    scene = Scene(node("a"), node("b"), node("c"), configuration=parse(tree, registry), registry=registry)
    for wanted in ("a", "b", "a"):
        assert scene.where(pod(f"to-{wanted}-{scene.clock.monotonic()}", labels={"on": wanted})) == wanted
        scene.clock.advance(1)
    big = {"cpu": "9"}
    assert scene.why(pod("p", big, labels={"on": "a-b"})) == (
        "0/3 nodes are available: 1 node(s) didn't satisfy plugin(s) [Chooser], 2 Insufficient cpu."
    )
    why = scene.why(pod("q", labels={"on": "a"}, affinity=by_name("b")))
    assert why == ("0/3 nodes are available: node(s) didn't satisfy plugin(s) [Chooser NodeAffinity] simultaneously.")


def test_affinity_that_the_profile_adds_counts_for_all_pods() -> None:
    added = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["own"]}]}]
        }
    }
    config = configured({"pluginConfig": [{"name": "NodeAffinity", "args": {"addedAffinity": added}}]})
    assert Scene(node("a"), node("b", {"pool": "own"}), configuration=config).where(pod("p")) == "b"
    why = Scene(node("a"), configuration=config).why(pod("p"))
    assert why == "0/1 nodes are available: 1 node(s) didn't match scheduler-enforced node affinity."


@pytest.mark.parametrize(
    ("toleration", "passes"),
    [
        ({"key": "team", "value": "x", "effect": "NoSchedule"}, True),
        ({"key": "team", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "team", "value": "x"}, True),
        ({"key": "team", "value": "y"}, False),
        ({"key": "team", "value": "x", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_taint_keeps_away_who_does_not_tolerate_it(toleration: dict[str, str], passes: bool) -> None:
    scene = Scene(node("n1", taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}]))
    tolerant = pod("p", tolerations=[toleration])
    if passes:
        assert scene.where(tolerant) == "n1"
    else:
        assert scene.why(tolerant) == "0/1 nodes are available: 1 node(s) had untolerated taint(s)."


def test_soft_taints_are_avoided() -> None:
    scene = Scene(node("soft", taints=[{"key": "old", "effect": "PreferNoSchedule"}]), node("clean"))
    assert scene.where(pod("p", {"cpu": "1"})) == "clean"
    assert scene.where(pod("q", {"cpu": "1"})) == "clean"


def test_a_cordoned_node_takes_only_pods_that_tolerate_it() -> None:
    toleration = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
    scene = Scene(node("n1", unschedulable=True))
    assert scene.why(pod("p")) == "0/1 nodes are available: 1 node(s) were unschedulable."
    assert scene.where(pod("q", tolerations=[toleration])) == "n1"


@pytest.mark.parametrize(
    ("first", "second", "passes"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, False),
        ({"hostPort": 80}, {"hostPort": 81}, True),
        ({"hostPort": 80, "protocol": "UDP"}, {"hostPort": 80}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, False),
        ({"hostPort": 80}, {"hostPort": 80, "hostIP": "10.0.0.1"}, False),
        ({"containerPort": 80}, {"containerPort": 80}, True),
    ],
)
def test_a_port_of_the_node_is_given_once(first: dict[str, Any], second: dict[str, Any], passes: bool) -> None:
    scene = Scene(node("n1"), pod("a", containers=[container(ports=[first])], on="n1"))
    wants = pod("p", containers=[container(ports=[second])])
    if passes:
        assert scene.where(wants) == "n1"
    else:
        expected = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        assert scene.why(wants) == expected


def test_a_node_with_the_image_is_liked() -> None:
    image = {"names": ["shop/web:v1"], "sizeBytes": 900 * 1024 * 1024}
    scene = Scene(node("a"), node("b", images=[image]), node("c"))
    assert scene.where(pod("p", containers=[container(image="shop/web:v1")])) == "b"


def spread(key: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
            **more,
        }
    ]


def test_pods_are_spread_over_zones() -> None:
    scene = Scene(node("a", {ZONE: "1"}), node("b", {ZONE: "1"}), node("c", {ZONE: "2"}), node("d"))
    zones = []
    for number in range(6):
        where = scene.where(pod(f"p{number}", labels={"app": "web"}, topologySpreadConstraints=spread(ZONE)))
        zones.append({"a": 1, "b": 1, "c": 2}[where])
        assert abs(zones.count(1) - zones.count(2)) <= 1


def test_why_pods_are_not_spread() -> None:
    scene = Scene(node("a", {ZONE: "1"}), node("c", {ZONE: "2"}, allocatable={"cpu": "0"}), node("d"))
    scene.where(pod("p", {"cpu": "1"}, labels={"app": "web"}, topologySpreadConstraints=spread(ZONE)))
    assert scene.why(pod("q", {"cpu": "1"}, labels={"app": "web"}, topologySpreadConstraints=spread(ZONE))) == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints, "
        "1 node(s) didn't match pod topology spread constraints (missing required label)."
    )


def test_with_too_few_domains_no_domain_takes_more_than_the_skew() -> None:
    constraints = spread(ZONE, minDomains=3)
    scene = Scene(node("a", {ZONE: "1"}), node("c", {ZONE: "2"}))
    for number in range(2):
        scene.where(pod(f"p{number}", labels={"app": "web"}, topologySpreadConstraints=constraints))
    why = scene.why(pod("q", labels={"app": "web"}, topologySpreadConstraints=constraints))
    assert why == "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints."
    scene.scheduler.upsert(node("e", {ZONE: "3"}))
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() == "e"


def test_pods_of_a_service_are_spread_though_nobody_said_so() -> None:
    service = from_dict(
        {"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}}, Service
    )
    scene = Scene(node("a", allocatable={"cpu": "64", "memory": "64Gi"}), node("b"), service)
    nodes = [scene.where(pod(f"p{number}", labels={"app": "web"})) for number in range(8)]
    assert sorted(nodes).count("b") == 4


def test_pods_of_a_replica_set_are_spread_as_the_profile_has_it() -> None:
    tree = {"metadata": {"name": "rs", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}
    constraint = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    args = {"defaultingType": "List", "defaultConstraints": [constraint]}
    config = configured({"pluginConfig": [{"name": "PodTopologySpread", "args": args}]})
    scene = Scene(node("a", {ZONE: "1"}), from_dict(tree, ReplicaSet), configuration=config)
    scene.scheduler.upsert(node("b", {ZONE: "2"}, allocatable={"cpu": "0"}))
    wants = {"cpu": "1"}
    assert scene.where(pod("p", wants, labels={"app": "web"}, owner="rs")) == "a"
    assert "topology spread" in scene.why(pod("q", wants, labels={"app": "web"}, owner="rs"))
    assert scene.where(pod("r", wants, labels={"app": "web"})) == "a"


def affinity(kind: str, key: str = ZONE, app: str = "db", **more: Any) -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_pods_go_where_those_are_that_they_want_to_be_with() -> None:
    scene = Scene(node("a", {ZONE: "1"}), node("b", {ZONE: "2"}), pod("db", labels={"app": "db"}, on="b"))
    assert scene.where(pod("p", affinity=affinity("podAffinity"))) == "b"
    assert scene.where(pod("q", affinity=affinity("podAntiAffinity"))) == "a"
    why = scene.why(pod("r", affinity=affinity("podAffinity", app="none")))
    assert why == "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."


def test_the_first_of_a_group_may_be_anywhere() -> None:
    scene = Scene(node("a", {ZONE: "1"}), node("b", {ZONE: "2"}))
    first = scene.where(pod("p1", labels={"app": "db"}, affinity=affinity("podAffinity")))
    for number in range(4):
        assert scene.where(pod(f"q{number}", labels={"app": "db"}, affinity=affinity("podAffinity"))) == first


def test_pods_on_nodes_keep_others_away() -> None:
    shy = pod("shy", labels={"app": "shy"}, affinity=affinity("podAntiAffinity", app="web"), on="a")
    scene = Scene(node("a", {ZONE: "1"}), node("b", {ZONE: "1"}), shy)
    why = scene.why(pod("p", labels={"app": "web"}))
    assert why == "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    assert scene.where(pod("q", labels={"app": "db"})) in {"a", "b"}
    scene.scheduler.remove(shy)
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() in {"a", "b"}


def test_namespaces_of_a_term_may_be_selected_by_their_labels() -> None:
    def namespace(tier: str) -> Namespace:
        return from_dict({"metadata": {"name": "store", "labels": {"tier": tier}}}, Namespace)

    other = pod("db", labels={"app": "db"}, namespace="store", on="b")
    scene = Scene(node("a", {ZONE: "1"}), node("b", {ZONE: "2"}), namespace("back"), other)
    wants = affinity("podAffinity", namespaceSelector={"matchLabels": {"tier": "front"}})
    assert "pod affinity rules" in scene.why(pod("p", affinity=wants))
    scene.scheduler.upsert(namespace("front"))
    assert scene.where(pod("q", affinity=wants)) == "b"


def test_label_keys_tell_versions_apart() -> None:
    old = pod("old", labels={"app": "db", "version": "1"}, on="a")
    new = pod("new", labels={"app": "db", "version": "2"}, on="b")
    key = "kubernetes.io/hostname"
    of_its_own = affinity("podAntiAffinity", key, matchLabelKeys=["version"])
    of_others = affinity("podAntiAffinity", key, mismatchLabelKeys=["version"])
    for terms, chosen in ((of_its_own, "b"), (of_others, "a")):
        scene = Scene(node("a"), node("b"), old, new)
        assert scene.where(pod("p", labels={"app": "db", "version": "1"}, affinity=terms)) == chosen


@pytest.mark.parametrize(("weight", "chosen"), [(1, "b"), (0, "a")])
def test_required_terms_of_pods_on_nodes_attract_by_the_weight_of_the_profile(weight: int, chosen: str) -> None:
    config = configured({"pluginConfig": [{"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": weight}}]})
    fond = pod("fond", {"cpu": "1"}, affinity=affinity("podAffinity", app="web"), on="b")
    scene = Scene(node("a", {ZONE: "1"}), node("b", {ZONE: "2"}), fond, configuration=config)
    assert scene.where(pod("p", labels={"app": "web"})) == chosen
