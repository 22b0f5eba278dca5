"""Who has to go so that a more important pod fits, and where."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.structs import PodDisruptionBudget, from_dict
from pilothouse.scheduling import Bind, Failed

from .kit import Scene, configured, node, pod

FULL = {"cpu": "4"}
HALF = {"cpu": "2"}


def victims(failed: Failed) -> list[str]:
    return [one.metadata.name for one in failed.victims]


def budget(allowed: int, **labels: str) -> PodDisruptionBudget:
    meta = {"name": "budget", "namespace": "default"}
    tree = {"metadata": meta, "spec": {"selector": {"matchLabels": labels}}, "status": {"disruptionsAllowed": allowed}}
    return from_dict(tree, PodDisruptionBudget)


def started(second: int) -> dict[str, Any]:
    return {"startTime": f"2025-01-01T00:00:{second:02}Z"}


def test_no_more_pods_go_than_have_to() -> None:
    low = [pod(f"low{i}", {"cpu": "1"}, on="n1", status=started(i)) for i in range(4)]
    scene = Scene(node("n1"), *low)
    failed = scene.failed(pod("p", HALF, priority=10))
    assert failed.message == "0/1 nodes are available: 1 Insufficient cpu."
    assert failed.nominated == "n1"
    # The later a pod started, the sooner it goes.
    assert sorted(victims(failed)) == ["low2", "low3"]


def test_a_pod_as_important_does_not_go() -> None:
    scene = Scene(node("n1"), pod("same", FULL, on="n1", priority=10))
    failed = scene.failed(pod("p", HALF, priority=10))
    assert failed.nominated == ""
    assert failed.message == (
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
        "1 No preemption victims found for incoming pod."
    )


def test_a_pod_that_never_preempts_waits() -> None:
    scene = Scene(node("n1"), pod("low", FULL, on="n1"))
    failed = scene.failed(pod("p", HALF, priority=10, preemptionPolicy="Never"))
    assert failed.message.endswith("preemption: not eligible due to preemptionPolicy=Never.")
    assert failed.nominated is None
    assert not failed.victims


def test_nodes_that_no_pod_can_leave_do_not_help() -> None:
    taint = {"key": "x", "effect": "NoSchedule"}
    scene = Scene(node("a", taints=[taint]), node("b", allocatable={"cpu": "1"}), node("c"))
    scene.scheduler.upsert(pod("high", FULL, on="c", priority=99))
    failed = scene.failed(pod("p", HALF, priority=10))
    assert failed.message == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. "
        "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )


def test_the_node_with_the_least_important_victims_is_chosen() -> None:
    scene = Scene(node("a"), node("b"), pod("one", FULL, on="a", priority=5), pod("two", FULL, on="b", priority=3))
    assert scene.failed(pod("p", FULL, priority=10)).nominated == "b"


def test_the_node_with_the_lowest_sum_then_the_fewest_victims_is_chosen() -> None:
    pods = [pod("one", FULL, on="a", priority=5)]
    pods += [pod("two", HALF, on="b", priority=5), pod("three", HALF, on="b", priority=1)]
    scene = Scene(node("a"), node("b"), *pods)
    assert scene.failed(pod("p", FULL, priority=10)).nominated == "a"


def test_the_node_whose_victims_started_last_is_chosen() -> None:
    pods = [pod("old", FULL, on="a", status=started(1)), pod("new", FULL, on="b", status=started(2))]
    scene = Scene(node("a"), node("b"), *pods)
    assert scene.failed(pod("p", FULL, priority=10)).nominated == "b"


def test_budgets_are_not_broken_where_it_can_be_helped() -> None:
    guarded = pod("guarded", FULL, on="a", labels={"app": "db"})
    scene = Scene(node("a"), node("b"), budget(0, app="db"), guarded, pod("free", FULL, on="b", priority=5))
    assert scene.failed(pod("p", FULL, priority=10)).nominated == "b"
    scene = Scene(node("a"), budget(0, app="db"), guarded)
    assert victims(scene.failed(pod("p", FULL, priority=10))) == ["guarded"]
    pods = [pod("g", HALF, on="a", labels={"app": "db"}), pod("f", HALF, on="a", priority=5)]
    scene = Scene(node("a"), budget(0, app="db"), *pods)
    assert victims(scene.failed(pod("p", HALF, priority=10))) == ["f"]
    scene = Scene(node("a"), budget(1, app="db"), *pods)
    assert victims(scene.failed(pod("p", HALF, priority=10))) == ["g"]


def test_a_changed_budget_changes_who_goes() -> None:
    pods = [pod("g", HALF, on="a", labels={"app": "db"}), pod("f", HALF, on="a", priority=5)]
    scene = Scene(node("a"), budget(1, app="db"), *pods)
    assert victims(scene.failed(pod("p", HALF, priority=10))) == ["g"]
    scene.scheduler.remove(pod("p"))
    scene.scheduler.upsert(budget(0, app="db"))
    assert victims(scene.failed(pod("q", HALF, priority=10))) == ["f"]


def test_pods_go_that_keep_the_pod_away_by_ports_and_affinity() -> None:
    ports = [{"name": "main", "image": "a", "ports": [{"hostPort": 80}]}]
    scene = Scene(node("a"), pod("low", containers=ports, on="a"), pod("other", {"cpu": "1"}, on="a"))
    assert victims(scene.failed(pod("p", containers=ports, priority=10))) == ["low"]
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}
    away = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    scene = Scene(node("a"), pod("db", labels={"app": "db"}, on="a"), pod("other", on="a"))
    assert victims(scene.failed(pod("p", affinity=away, priority=10))) == ["db"]


def test_room_made_is_kept_for_the_pod_and_less_important_ones_do_not_get_it() -> None:
    low = pod("low", FULL, on="n1")
    scene = Scene(node("n1"), low)
    assert scene.failed(pod("high", FULL, priority=10)).nominated == "n1"
    scene.scheduler.remove(low)
    assert "Insufficient cpu" in scene.why(pod("sneaky", HALF, priority=5))
    scene.clock.advance(2)
    scene.scheduler.tick()
    decision = scene.decide()
    assert isinstance(decision, Bind)
    assert (decision.pod.metadata.name, decision.node) == ("high", "n1")


def test_a_more_important_pod_takes_over_the_room_made_for_another() -> None:
    scene = Scene(node("n1"), pod("low", FULL, on="n1"))
    middle = pod("middle", FULL, priority=5)
    assert scene.failed(middle).nominated == "n1"
    failed = scene.failed(pod("high", FULL, priority=10))
    assert failed.nominated == "n1"
    assert [one.metadata.name for one in failed.cleared] == ["middle"]


def test_a_pod_whose_victims_are_still_going_does_not_make_more_go() -> None:
    scene = Scene(node("n1"), pod("low", FULL, on="n1"))
    scene.failed(pod("p", FULL, priority=10))
    target = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    scene.scheduler.upsert(pod("low", FULL, on="n1", deleted=True, status={"conditions": [target]}))
    waiting = pod("p", FULL, priority=10, status={"nominatedNodeName": "n1"})
    scene.scheduler.upsert(waiting)
    scene.scheduler.queue.activate("p")
    failed = scene.failed()
    assert failed.message.endswith("preemption: not eligible due to a terminating pod on the nominated node.")
    assert failed.nominated is None


def test_victims_are_looked_for_on_enough_nodes() -> None:
    args = {"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 1}
    config = configured({"pluginConfig": [{"name": "DefaultPreemption", "args": args}]})
    chosen = set()
    for seed in range(20):
        pods = [pod(f"low{i}", FULL, on=f"n{i}", priority=i) for i in range(3)]
        scene = Scene(*(node(f"n{i}") for i in range(3)), *pods, configuration=config, seed=seed)
        chosen.add(scene.failed(pod("p", FULL, priority=10)).nominated)
    assert chosen == {"n0", "n1", "n2"}


def test_what_was_found_out_for_one_pod_holds_for_the_next_until_the_node_changes() -> None:
    pods = [pod(f"low{i}", FULL, on=f"n{i}", status=started(i)) for i in range(4)]
    scene = Scene(*(node(f"n{i}") for i in range(4)), *pods)
    found = []
    for number in range(4):
        failed = scene.failed(pod(f"p{number}", FULL, priority=10))
        found.append(failed.nominated)
        scene.scheduler.remove(failed.victims[0])
    assert sorted(str(one) for one in found) == ["n0", "n1", "n2", "n3"]
    assert found[0] == "n3"


def test_a_nomination_ends_when_the_pod_is_on_its_node() -> None:
    low = pod("low", FULL, on="n1")
    scene = Scene(node("n1"), low)
    scene.failed(pod("high", HALF, priority=10))
    scene.scheduler.remove(low)
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() == "n1"
    assert scene.where(pod("next", HALF)) == "n1"


def test_pods_of_a_shape_that_was_tried_before_hear_of_room_that_is_kept() -> None:
    scene = Scene(*(node(f"n{number}") for number in range(20)))
    for number in range(19):
        scene.scheduler.upsert(pod(f"busy{number}", FULL, on=f"n{number}", priority=99))
    low = pod("low", {"cpu": "3"}, on="n19")
    scene.scheduler.upsert(low)
    assert scene.where(pod("small1", {"cpu": "100m"}, priority=5)) == "n19"
    assert scene.failed(pod("high", FULL, priority=10)).nominated == "n19"
    scene.scheduler.remove(low)
    assert "20 Insufficient cpu" in scene.why(pod("small2", {"cpu": "100m"}, priority=5))
    # Who is more important need not wait for it.
    assert scene.where(pod("small3", {"cpu": "100m"}, priority=11)) == "n19"


def test_a_pod_for_which_room_is_kept_counts_for_terms_as_if_it_were_there() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "shy"}}}
    away = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    scene = Scene(node("n1"), pod("low", FULL, on="n1"))
    assert scene.failed(pod("shy", {"cpu": "3"}, priority=10, labels={"app": "shy"})).nominated == "n1"
    scene.scheduler.remove(pod("low", FULL, on="n1"))
    why = scene.why(pod("web", {"cpu": "1"}, priority=5, affinity=away))
    assert why == "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
    assert scene.where(pod("other", {"cpu": "1"}, priority=5)) == "n1"
