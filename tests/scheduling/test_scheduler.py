"""Objects in, decisions out: what is taken as done, what is given back, and what wakes pods that wait."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from pilothouse.kinds.structs import ConfigMap, Pod
from pilothouse.scheduling import Bind, Gated, Scheduler, Skipped
from pilothouse.scheduling.columns import Ints
from pilothouse.scheduling.framework import Cycle, Nodes, Refusal, Reject, Scope, Wait
from pilothouse.scheduling.plugins import REGISTRY

from .kit import Scene, configured, node, pod

FULL = {"cpu": "4"}


def test_what_was_decided_counts_before_it_is_written() -> None:
    scene = Scene(node("n1"))
    assert scene.where(pod("a", FULL)) == "n1"
    assert "Insufficient cpu" in scene.why(pod("b", FULL))


def test_a_binding_that_failed_gives_back_what_it_took() -> None:
    scene = Scene(node("n1"))
    scene.where(pod("a", FULL))
    scene.why(pod("b", FULL))
    failed = scene.scheduler.bind_failed("a", "no route")
    assert failed is not None
    assert (failed.pod.metadata.name, failed.message, failed.reason) == ("a", "no route", "SchedulerError")
    assert scene.scheduler.bind_failed("a", "again") is None
    # The other pod heard of it and is tried first; the one whose binding failed backs off.
    assert scene.where() == "n1"
    assert scene.scheduler.schedule() is None
    scene.clock.advance(1)
    scene.scheduler.tick()
    assert scene.failed().pod.metadata.name == "a"


def test_a_bound_pod_that_comes_back_is_counted_once() -> None:
    scene = Scene(node("n1"))
    scene.where(pod("a", {"cpu": "2"}))
    scene.scheduler.bound("a")
    scene.scheduler.upsert(pod("a", {"cpu": "2"}, on="n1"))
    scene.scheduler.upsert(pod("a", {"cpu": "2"}, on="n1", status={"phase": "Running"}))
    assert scene.where(pod("b", {"cpu": "2"})) == "n1"
    assert "Insufficient" in scene.why(pod("c", {"cpu": "1"}))


def test_a_pod_that_is_done_frees_its_node() -> None:
    scene = Scene(node("n1"), pod("a", FULL, on="n1"))
    scene.why(pod("b", FULL))
    scene.scheduler.upsert(pod("a", FULL, on="n1", status={"phase": "Succeeded"}))
    scene.clock.advance(1)
    scene.scheduler.tick()
    assert scene.where() == "n1"


def test_without_nodes_pods_wait() -> None:
    scene = Scene()
    assert scene.failed(pod("a")).message == "no nodes available to schedule pods"
    scene.scheduler.upsert(node("n1"))
    scene.clock.advance(1)
    scene.scheduler.tick()
    assert scene.where() == "n1"


def test_pods_on_a_node_that_is_not_known_count_when_it_comes() -> None:
    scene = Scene(pod("a", FULL, on="late"), node("n1"))
    assert scene.where(pod("b", {"cpu": "1"})) == "n1"
    scene.scheduler.upsert(node("late"))
    assert scene.where(pod("c", {"cpu": "1"})) == "n1"
    scene.scheduler.remove(node("n1"))
    assert "Insufficient cpu" in scene.why(pod("d", {"cpu": "1"}))
    scene.scheduler.remove(pod("a", FULL, on="late"))
    assert scene.where() == "late"


@pytest.mark.parametrize(
    "change",
    [
        node("n1", taints=[]),
        node("n2"),
    ],
    ids=["taint gone", "node added"],
)
def test_a_change_of_nodes_wakes_those_it_helps(change: Any) -> None:
    scene = Scene(node("n1", taints=[{"key": "x", "effect": "NoSchedule"}]))
    scene.why(pod("a"))
    scene.scheduler.upsert(node("n1", {"new": "label"}, taints=[{"key": "x", "effect": "NoSchedule"}]))
    scene.clock.advance(1)
    assert scene.scheduler.schedule() is None
    scene.scheduler.upsert(change)
    assert isinstance(scene.scheduler.schedule(), Bind)


def test_a_heartbeat_is_no_change() -> None:
    scene = Scene(node("n1"))
    position = scene.scheduler.cluster.table.changes.position
    scene.scheduler.upsert(node("n1"))
    assert scene.scheduler.cluster.table.changes.position == position


def test_a_pod_that_is_being_deleted_is_not_tried() -> None:
    scene = Scene(node("n1"))
    decision = scene.decide(pod("a", deleted=True))
    assert isinstance(decision, Skipped)
    assert decision.message == "skip schedule deleting pod: default/a"
    assert scene.scheduler.schedule() is None


def test_a_gated_pod_is_told_once_and_tried_when_it_may() -> None:
    scene = Scene(node("n1"))
    gated = pod("a", schedulingGates=[{"name": "one"}, {"name": "two"}])
    decision = scene.decide(gated)
    assert isinstance(decision, Gated)
    assert decision.message == "waiting for scheduling gates: [one two]"
    assert scene.decide(gated) is None
    assert scene.where(pod("a")) == "n1"


def test_the_same_calls_with_the_same_seed_give_the_same_decisions() -> None:
    def nodes(seed: int) -> list[str]:
        scene = Scene(*(node(f"n{i}") for i in range(8)), seed=seed)
        return [scene.where(pod(f"p{i}", {"cpu": "100m"})) for i in range(20)]

    assert nodes(5) == nodes(5)
    assert nodes(5) != nodes(6)


def test_objects_that_do_not_matter_are_refused() -> None:
    with pytest.raises(TypeError, match="ConfigMap"):
        Scheduler().upsert(ConfigMap())
    with pytest.raises(TypeError, match="ConfigMap"):
        Scheduler().remove(ConfigMap())


class Doorman:
    """Has pods wait, lets them in or not, and notes what is reserved."""

    name: ClassVar[str] = "Doorman"

    def __init__(self) -> None:
        self.answer: Wait | Reject | None = Wait(10)
        self.reserved: list[str] = []
        self.seen: list[str] = []

    def reserve(self, cycle: Cycle, node: str) -> Reject | None:
        self.reserved.append(node)
        return None

    def unreserve(self, cycle: Cycle, node: str) -> None:
        self.reserved.remove(node)

    def permit(self, cycle: Cycle, node: str) -> Wait | Reject | None:
        return self.answer

    def post_bind(self, pod: Pod, node: str) -> None:
        self.seen.append(f"{pod.metadata.name} on {node}")


def guarded(doorman: Doorman) -> Scene:
    tree = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{"plugins": {"multiPoint": {"enabled": [{"name": "Doorman"}]}}}],
    }
    from pilothouse.scheduling import parse

    registry = {**REGISTRY, "Doorman": lambda _: doorman}
    return Scene(node("n1"), configuration=parse(tree, registry), registry=registry)


def test_a_pod_may_have_to_wait_for_a_permit() -> None:
    doorman = Doorman()
    scene = guarded(doorman)
    assert scene.decide(pod("a", FULL)) is None
    assert dict(scene.scheduler.waiting()) == {"a": "n1"}
    assert doorman.reserved == ["n1"]
    assert scene.scheduler.next_tick() == 10
    assert scene.scheduler.allow("a")
    assert not scene.scheduler.allow("a")
    assert scene.where() == "n1"
    scene.scheduler.bound("a")
    assert doorman.seen == ["a on n1"]


def test_a_permit_that_does_not_come_gives_the_node_back() -> None:
    doorman = Doorman()
    scene = guarded(doorman)
    scene.decide(pod("a", FULL))
    scene.clock.advance(10)
    scene.scheduler.tick()
    failed = scene.failed()
    assert failed.message == "0/1 nodes are available: 1 rejected due to timeout after waiting at plugin Doorman."
    assert doorman.reserved == []
    doorman.answer = None
    assert scene.where(pod("b", FULL)) == "n1"


def test_a_permit_may_be_refused() -> None:
    doorman = Doorman()
    scene = guarded(doorman)
    doorman.answer = Reject("not today")
    failed = scene.failed(pod("a"))
    assert (failed.message, failed.plugins) == ("0/1 nodes are available: 1 not today.", frozenset({"Doorman"}))
    assert not scene.scheduler.refuse("a", "nobody waits")
    doorman.answer = Wait(5)
    scene.decide(pod("b"))
    assert scene.scheduler.refuse("b", "too late")
    assert "too late" in scene.failed().message


def test_a_pod_that_goes_while_it_waits_gives_everything_back() -> None:
    doorman = Doorman()
    scene = guarded(doorman)
    scene.decide(pod("a", FULL))
    scene.scheduler.remove(pod("a", FULL))
    assert doorman.reserved == []
    doorman.answer = None
    assert scene.where(pod("b", FULL)) == "n1"


def test_scores_off_any_node_that_fits_will_do() -> None:
    config = configured({"plugins": {"score": {"disabled": [{"name": "*"}]}}})
    found = {Scene(node("a"), node("b"), configuration=config, seed=seed).where(pod("p")) for seed in range(10)}
    assert found == {"a", "b"}


def test_the_table_grows_and_rows_are_used_again() -> None:
    scene = Scene()
    for number in range(300):
        scene.scheduler.upsert(node(f"n{number}", {"big": str(number % 2)}, allocatable={f"x.com/{number % 9}": "1"}))
    table = scene.scheduler.cluster.table
    for number in range(0, 300, 2):
        scene.scheduler.remove(node(f"n{number}"))
    size = table.size
    for number in range(150):
        scene.scheduler.upsert(node(f"m{number}"))
    assert (table.size, len(table)) == (size, 300)
    where = scene.where(pod("p", {"x.com/1": "1"}, nodeSelector={"big": "1"}))
    assert int(where[1:]) % 9 == 1


def test_pods_that_differ_in_labels_share_answers_unless_a_plugin_looks_at_labels() -> None:
    class Reader(Doorman):
        name: ClassVar[str] = "Doorman"
        scope: ClassVar[Scope] = Scope.NODE

        def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
            return nodes.full(int(cycle.pod.metadata.labels["n"]) % 2)

        def explain(self, cycle: Cycle, code: int) -> Refusal:
            return Refusal(("odd",))

    for doorman, number in ((Doorman(), 1), (Reader(), 4)):
        doorman.answer = None
        scene = guarded(doorman)
        decisions = [scene.decide(pod(f"p{i}", labels={"n": str(i)})) for i in range(4)]
        assert len(scene.scheduler._evaluations) == number
        assert [isinstance(one, Bind) for one in decisions] == [i % 2 == 0 or number == 1 for i in range(4)]


def test_a_plugin_that_fails_for_one_pod_stops_no_other() -> None:
    class Moody(Doorman):
        name: ClassVar[str] = "Doorman"
        scope: ClassVar[Scope] = Scope.NODE
        moods: ClassVar[set[str]] = {"filter", "permit"}

        def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
            if cycle.pod.metadata.name == "filter" and "filter" in self.moods:
                raise KeyError("mood")
            return nodes.full(0)

        def explain(self, cycle: Cycle, code: int) -> Refusal:
            return Refusal(())

        def permit(self, cycle: Cycle, node: str) -> None:
            if cycle.pod.metadata.name == "permit" and "permit" in self.moods:
                raise ValueError("no")

    scene = guarded(Moody())
    for name, message in (("filter", "KeyError: 'mood'"), ("permit", "ValueError: no")):
        failed = scene.failed(pod(name, FULL, labels={"n": name}))
        assert (failed.message, failed.reason) == (message, "SchedulerError")
    assert scene.where(pod("other", {"cpu": "1"})) == "n1"
    scene.scheduler.remove(pod("other", {"cpu": "1"}))
    Moody.moods.clear()
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() == "n1"


def test_pods_are_kept_without_what_does_not_matter() -> None:
    scene = Scene(node("n1"))
    big = {"name": "main", "image": "app", "env": [{"name": f"V{i}", "value": "x" * 100} for i in range(50)]}
    token = {"name": "kube-api-access-xyz", "projected": {"sources": []}}
    for number in range(3):
        volumes = [{**token, "name": f"kube-api-access-{number}"}]
        scene.where(pod(f"p{number}", containers=[big], volumes=volumes))
    placed = [*scene.scheduler.cluster.table.placed.values()]
    assert len({id(one.shape) for one in placed}) == 1
    assert len({id(one.pod.spec) for one in placed}) == 1
    assert not placed[0].pod.spec.containers[0].env
    assert not placed[0].pod.spec.volumes


def test_what_nodes_had_that_went_is_forgotten() -> None:
    zone = "topology.kubernetes.io/zone"
    spread = [
        {
            "topologyKey": zone,
            "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }
    ]
    scene = Scene(node("a", {zone: "a"}), node("b", {zone: "b"}))
    web: dict[str, Any] = {"labels": {"app": "web"}, "topologySpreadConstraints": spread}
    first = scene.where(pod("p0", **web))
    for number in range(3000):
        taints = [{"key": "x", "value": str(number), "effect": "NoSchedule"}]
        scene.scheduler.upsert(node(f"n{number}", {zone: f"z{number}"}, taints=taints))
        scene.scheduler.remove(node(f"n{number}"))
    table = scene.scheduler.cluster.table
    assert table.column(zone).width < 2000
    assert len(table.taint_sets) < 2000
    assert {first, scene.where(pod("p1", **web))} == {"a", "b"}
    assert scene.where(pod("p2", nodeSelector={zone: "b"})) == "b"
    scene.scheduler.upsert(node("late", {zone: "late"}, taints=[{"key": "x", "value": "1", "effect": "NoSchedule"}]))
    tolerant = [{"key": "x", "value": "1"}]
    assert scene.where(pod("p3", {"cpu": "3500m"}, nodeSelector={zone: "late"}, tolerations=tolerant)) == "late"
    assert "1 node(s) had untolerated taint(s)" in scene.why(pod("p4", nodeSelector={zone: "late"}))
