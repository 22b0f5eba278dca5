"""After which events a pod that a plugin refused is worth another try: not after those that cannot help it."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.scheduling.configuration import Configuration
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Kind, node_changes, pod_changes
from pilothouse.scheduling.profile import Profile

from .kit import node, pod

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
PROFILE = Profile(Configuration().profiles[0])


def wakes(plugin: str, waiting: Any, old: Any, new: Any) -> bool:
    """Say whether a plugin wants a pod tried again after what happened to a node or another pod."""
    about_node = type(old or new).__name__ == "Node"
    if old is None or new is None:
        kind = Kind.NODE if about_node else Kind.ASSIGNED_POD
        events = [ClusterEvent(kind, Action.ADD if old is None else Action.DELETE)]
    else:
        events = [*node_changes(old, new)] if about_node else pod_changes(old, new)
    return any(
        interest.event.concerns(event) and (interest.hint is None or interest.hint(waiting, old, new) is Hint.QUEUE)
        for interest in PROFILE.hints()[plugin]
        for event in events
    )


def sized(cpu: str, **more: Any) -> Any:
    return node("n", allocatable={"cpu": cpu, **more})


def tainted(*keys: str) -> Any:
    return node("n", taints=[{"key": key, "effect": "NoSchedule"} for key in keys])


def term(app: str = "db", key: str = ZONE) -> dict[str, Any]:
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}


def with_term(kind: str, app: str = "db") -> Any:
    return pod("waiting", affinity={kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(app)]}})


def spread() -> Any:
    constraint = {**term("web"), "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    return pod("waiting", labels={"app": "web"}, topologySpreadConstraints=[constraint])


def ports(name: str, port: int, **more: Any) -> Any:
    return pod(name, containers=[{"name": "c", "image": "i", "ports": [{"hostPort": port}]}], **more)


BIG = pod("waiting", {"cpu": "4"})
SSD = pod("waiting", nodeSelector={"disk": "ssd"})
PLAIN = pod("waiting")
DB: dict[str, Any] = {"labels": {"app": "db"}, "on": "n"}
WEB: dict[str, Any] = {"labels": {"app": "web"}, "on": "n"}

CASES = [
    # what the node has
    ("NodeResourcesFit", BIG, None, sized("4"), True),
    ("NodeResourcesFit", BIG, None, sized("3"), False),
    ("NodeResourcesFit", BIG, None, sized("4", pods="0"), False),
    ("NodeResourcesFit", BIG, sized("2"), sized("4"), True),
    ("NodeResourcesFit", BIG, sized("2"), sized("3"), False),
    ("NodeResourcesFit", BIG, sized("8"), sized("4"), False),
    ("NodeResourcesFit", BIG, sized("4", memory="1Gi"), sized("4", memory="2Gi"), False),
    ("NodeResourcesFit", BIG, sized("4", pods="1"), sized("4", pods="2"), True),
    ("NodeResourcesFit", BIG, tainted("x"), tainted(), False),
    # pods that go or become smaller
    ("NodeResourcesFit", BIG, pod("other", on="n"), None, True),
    ("NodeResourcesFit", BIG, pod("other"), None, False),
    ("NodeResourcesFit", BIG, pod("other", {"cpu": "2"}, on="n"), pod("other", {"cpu": "1"}, on="n"), True),
    ("NodeResourcesFit", BIG, pod("other", {"cpu": "1"}, on="n"), pod("other", {"cpu": "2"}, on="n"), False),
    ("NodeResourcesFit", BIG, pod("other", {"memory": "2"}, on="n"), pod("other", {"memory": "1"}, on="n"), False),
    ("NodeResourcesFit", BIG, pod("waiting", {"cpu": "5"}), BIG, True),
    ("NodeResourcesFit", BIG, None, pod("other", on="n"), False),
    # labels of nodes
    ("NodeAffinity", SSD, None, node("n", {"disk": "ssd"}), True),
    ("NodeAffinity", SSD, None, node("n", {"disk": "hdd"}), False),
    ("NodeAffinity", SSD, node("n"), node("n", {"disk": "ssd"}), True),
    ("NodeAffinity", SSD, node("n", {"disk": "ssd"}), node("n", {"disk": "ssd", "x": "y"}), False),
    ("NodeAffinity", SSD, node("n", {"disk": "ssd"}), None, False),
    # taints
    ("TaintToleration", PLAIN, None, tainted(), True),
    ("TaintToleration", PLAIN, None, tainted("x"), False),
    ("TaintToleration", PLAIN, tainted("x"), tainted(), True),
    ("TaintToleration", PLAIN, tainted("x", "y"), tainted("x"), False),
    ("TaintToleration", PLAIN, sized("1"), sized("2"), False),
    ("TaintToleration", PLAIN, PLAIN, pod("waiting", tolerations=[{"operator": "Exists"}]), True),
    ("TaintToleration", PLAIN, pod("other"), pod("other", tolerations=[{"operator": "Exists"}]), False),
    ("NodeUnschedulable", PLAIN, node("n", unschedulable=True), node("n"), True),
    ("NodeUnschedulable", PLAIN, None, node("n", unschedulable=True), False),
    ("NodeUnschedulable", PLAIN, None, node("n"), True),
    ("NodeUnschedulable", PLAIN, PLAIN, pod("waiting", tolerations=[{"operator": "Exists"}]), True),
    ("NodeUnschedulable", PLAIN, PLAIN, pod("waiting", tolerations=[{"key": "x", "operator": "Exists"}]), False),
    ("NodeName", PLAIN, None, node("n"), True),
    ("NodeName", PLAIN, node("n"), node("n", {"a": "b"}), False),
    # ports
    ("NodePorts", ports("waiting", 80), ports("other", 80, on="n"), None, True),
    ("NodePorts", ports("waiting", 80), ports("other", 81, on="n"), None, False),
    ("NodePorts", ports("waiting", 80), ports("other", 80), None, False),
    ("NodePorts", ports("waiting", 80), None, node("n"), True),
    # terms about other pods
    ("InterPodAffinity", with_term("podAffinity"), None, pod("db", **DB), True),
    ("InterPodAffinity", with_term("podAffinity"), None, pod("web", **WEB), False),
    ("InterPodAffinity", with_term("podAffinity"), pod("db", **WEB), pod("db", **DB), True),
    ("InterPodAffinity", with_term("podAffinity"), pod("db", **DB), pod("db", **WEB), False),
    ("InterPodAffinity", with_term("podAntiAffinity"), pod("db", **DB), None, True),
    ("InterPodAffinity", with_term("podAntiAffinity"), pod("db", **DB), pod("db", **WEB), True),
    ("InterPodAffinity", with_term("podAntiAffinity"), None, pod("db", **DB), False),
    ("InterPodAffinity", with_term("podAffinity"), None, node("n", {ZONE: "1"}), True),
    ("InterPodAffinity", with_term("podAffinity"), None, node("n"), False),
    ("InterPodAffinity", with_term("podAffinity"), node("n"), node("n", {ZONE: "1"}), True),
    ("InterPodAffinity", with_term("podAffinity"), node("n", {ZONE: "1"}), node("n"), False),
    ("InterPodAffinity", with_term("podAntiAffinity"), node("n", {ZONE: "1"}), node("n"), True),
    ("InterPodAffinity", with_term("podAntiAffinity"), node("n", {ZONE: "1"}), node("n", {ZONE: "2"}), True),
    ("InterPodAffinity", with_term("podAntiAffinity"), node("n", {ZONE: "1"}), node("n", {ZONE: "1", "a": "b"}), False),
    # spread
    ("PodTopologySpread", spread(), None, pod("web", **WEB), True),
    ("PodTopologySpread", spread(), None, pod("db", **DB), False),
    ("PodTopologySpread", spread(), pod("web", **WEB), None, True),
    ("PodTopologySpread", spread(), pod("web", namespace="else", **WEB), None, False),
    ("PodTopologySpread", spread(), pod("web", **WEB), pod("web", **DB), True),
    ("PodTopologySpread", spread(), None, node("n", {ZONE: "1"}), True),
    ("PodTopologySpread", spread(), None, node("n"), False),
    ("PodTopologySpread", spread(), node("n", {ZONE: "1"}), None, True),
    ("PodTopologySpread", spread(), node("n", {ZONE: "1"}), node("n"), True),
    ("PodTopologySpread", spread(), node("n", {ZONE: "1"}), node("n", {ZONE: "2"}), True),
    ("PodTopologySpread", spread(), node("n", {ZONE: "1"}), node("n", {ZONE: "1", "a": "b"}), False),
    # volumes
    ("NodeVolumeLimits", PLAIN, pod("other", on="n"), None, False),
    ("SchedulingGates", PLAIN, pod("waiting", schedulingGates=[{"name": "g"}]), PLAIN, True),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_pod_is_woken_by_what_can_help_it(number: int) -> None:
    plugin, waiting, old, new, expected = CASES[number]
    assert wakes(plugin, waiting, old, new) is expected
