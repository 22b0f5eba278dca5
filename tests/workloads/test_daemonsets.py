"""Daemon sets: one pod a node, rolling out, failed pods, and what the status says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import DaemonSet, Pod, from_dict, replace
from pilothouse.workloads.daemonsets import Plan, by_node, new_pods, next_check, plan, status_of
from pilothouse.workloads.daemonsets_backoff import FailedPodsBackoff
from pilothouse.workloads.daemonsets_nodes import Fit, target_node

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNS = Fit(should_run=True, should_continue=True)
STAYS = Fit(should_run=False, should_continue=True)
NEVER = Fit(should_run=False, should_continue=False)
FITS = {"+": RUNS, "~": STAYS, "-": NEVER}


def daemon(**spec: Any) -> DaemonSet:
    metadata = {
        "name": "d",
        "namespace": "n",
        "uid": "set",
        "generation": 3,
        "annotations": {"deprecated.daemonset.template.generation": "3"},
    }
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c"}]}}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    return from_dict(
        {"metadata": metadata, "spec": {"template": template, "updateStrategy": strategy, **spec}}, DaemonSet
    )


def surging(surge: Any = 1, **spec: Any) -> DaemonSet:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": surge}}
    return daemon(updateStrategy=strategy, **spec)


def pod(name: str, state: str = "ready", *, age: float = 60, bound: bool = True) -> Pod:
    """Return a pod: `new-a` is of the present revision on node a, `old-a` of another."""
    of, _, rest = name.partition("-")
    node = rest.rstrip("0123456789")
    at = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {"controller-revision-hash": of, "pod-template-generation": "3" if of == "new" else "2"}
    made = replace(new_pods(daemon(), [node], of)[0], metadata__labels=labels)
    phase = {"pending": "Pending", "failed": "Failed", "succeeded": "Succeeded", "gone": "Failed"}.get(state, "Running")
    ready = str(state in ("ready", "ending"))
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": at}]}
    made = replace(
        made,
        metadata__name=name,
        metadata__creation_timestamp=at,
        spec__node_name=node if bound else "",
        status=from_dict({"status": status}, Pod).status,
    )
    return replace(made, metadata__deletion_timestamp=at) if state in ("ending", "gone") else made


def planned(obj: DaemonSet, nodes: str, pods: Sequence[Pod], waits: Mapping[str, float] | None = None) -> Plan:
    """Plan for nodes, of which each is a letter and how it fits: `a+b~c-`."""
    fits = {name: FITS[sign] for name, sign in zip(nodes[::2], nodes[1::2], strict=True)}
    found = waits or {}
    return plan(obj, fits, by_node(pods, "new"), "new", lambda key: found.get(key.rpartition("/")[2], 0.0), NOW)


def done(made: Plan) -> tuple[list[str], list[str]]:
    return made.create, [each.metadata.name for each in made.delete]


@pytest.mark.parametrize(
    ("nodes", "pods", "expected"),
    [
        ("a+b+c-", [], (["a", "b"], [])),
        ("a+b~c-", [pod("new-a"), pod("new-b"), pod("new-c")], ([], ["new-c"])),
        ("a+", [pod("new-a", "ending")], ([], [])),
        ("a+", [pod("new-a", "gone")], (["a"], [])),
        ("a+", [pod("new-a", "failed")], ([], ["new-a"])),
        ("a+", [pod("new-a", "succeeded")], ([], ["new-a"])),
        ("a+", [pod("new-a1", age=9), pod("new-a2", age=30), pod("new-a3")], ([], ["new-a2", "new-a1"])),
        ("a+", [pod("new-a1", age=90, bound=False), pod("new-a2")], ([], ["new-a1"])),
        ("a-", [pod("new-a", "ending")], ([], [])),
        ("a+", [pod("new-a"), pod("new-b", bound=False), pod("new-c")], ([], ["new-b"])),
    ],
)
def test_one_pod_a_node(nodes: str, pods: list[Pod], expected: tuple[list[str], list[str]]) -> None:
    assert done(planned(daemon(), nodes, pods)) == expected


@pytest.mark.parametrize(
    ("most", "pods", "gone"),
    [
        (1, ["old-a", "old-b", "old-c"], ["old-a"]),
        (2, ["old-a", "old-b", "old-c"], ["old-a", "old-b"]),
        ("67%", ["old-a", "old-b", "old-c"], ["old-a", "old-b", "old-c"]),
        (1, ["new-a", "old-b", "old-c"], ["old-b"]),
        (1, ["new-a!", "old-b", "old-c"], []),
        (2, ["new-a!", "old-b", "old-c"], ["old-b"]),
        (1, ["old-a!", "old-b!", "old-c"], ["old-a", "old-b"]),
        (0, ["old-a", "old-b", "old-c"], ["old-a"]),
        (1, ["new-a", "new-b", "new-c"], []),
    ],
)
def test_a_rollout_deletes_as_many_as_may_be_missing(most: Any, pods: list[str], gone: list[str]) -> None:
    obj = daemon(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": most, "maxSurge": 0}})
    found = [pod(name.rstrip("!"), "running" if name.endswith("!") else "ready") for name in pods]
    assert done(planned(obj, "a+b+c+", found)) == ([], gone)


@pytest.mark.parametrize(
    ("surge", "nodes", "pods", "created", "gone"),
    [
        (1, "a+b+", ["old-a", "old-b"], ["a"], []),
        ("100%", "a+b+", ["old-a", "old-b"], ["a", "b"], []),
        (1, "a+b+", ["old-a", "new-a!", "old-b"], [], []),
        (2, "a+b+", ["old-a", "new-a!", "old-b"], ["b"], []),
        (1, "a+b+", ["old-a", "new-a", "old-b"], [], ["old-a"]),
        (1, "a+b+", ["old-a!", "new-a!", "old-b"], [], ["old-a"]),
        (1, "a+b+", ["old-a!", "old-b!"], ["a", "b"], []),
        (1, "a+", ["old-a1", "old-a2", "new-a1", "new-a2"], [], ["new-a2", "old-a2", "old-a1"]),
        (1, "a+b~", ["new-a", "old-b"], [], ["old-b"]),
        (1, "a+b~", ["new-a!", "old-b"], [], []),
        (1, "a+b~", ["new-a!", "old-b!"], [], ["old-b"]),
    ],
)
def test_a_surge_makes_pods_beside_old_ones(
    surge: Any, nodes: str, pods: list[str], created: list[str], gone: list[str]
) -> None:
    found = [pod(name.rstrip("!"), "running" if name.endswith("!") else "ready") for name in pods]
    assert done(planned(surging(surge), nodes, found)) == (created, gone)


def test_a_surging_set_does_not_wait_for_a_pod_that_goes() -> None:
    assert done(planned(surging(), "a+", [pod("new-a", "ending")])) == (["a"], [])
    assert done(planned(surging(), "a~", [pod("new-a", "ending")])) == ([], [])


def test_on_delete_leaves_old_pods_alone() -> None:
    assert not planned(daemon(updateStrategy={"type": "OnDelete"}), "a+", [pod("old-a")])


def test_a_failed_pod_is_told_counted_and_waited_for() -> None:
    made = planned(daemon(), "a+b+", [pod("new-a", "failed"), pod("new-b", "failed")], {"b": 8.0})
    assert done(made) == ([], ["new-a"])
    assert [(each.reason, each.warning) for each in made.events] == [("FailedDaemonPod", True)]
    assert made.events[0].message == "Found failed daemon pod n/new-a on node a, will try to kill it"
    assert (made.failed, made.again) == (["set/0/a"], 8.0)
    ended = planned(daemon(), "a+", [pod("new-a", "succeeded")]).events[0]
    assert (ended.reason, ended.warning) == ("SucceededDaemonPod", False)
    assert ended.message == "Found succeeded daemon pod n/new-a on node a, will try to delete it"


def test_pods_of_the_generation_are_of_the_revision() -> None:
    one = replace(pod("old-a"), metadata__labels={"pod-template-generation": "3"})
    assert not planned(daemon(), "a+", [one])


def test_the_status_counts_nodes() -> None:
    pods = [pod("new-a"), pod("old-b"), pod("new-c", "running"), pod("new-e"), pod("new-f", age=5)]
    signs = {"a": RUNS, "b": RUNS, "c": RUNS, "d": RUNS, "e": STAYS, "f": RUNS}
    status = status_of(daemon(minReadySeconds=10), signs, by_node(pods, "new"), "new", NOW)
    assert (status.desired_number_scheduled, status.current_number_scheduled) == (5, 4)
    assert (status.number_misscheduled, status.number_ready, status.number_available) == (1, 3, 2)
    assert (status.number_unavailable, status.updated_number_scheduled, status.observed_generation) == (3, 3, 3)


def test_of_two_pods_of_a_node_the_older_counts() -> None:
    placed = by_node([pod("new-a"), pod("old-a", "running")], "new")
    assert [each.metadata.name for each in placed["a"]] == ["old-a", "new-a"]
    assert status_of(daemon(), {"a": RUNS}, placed, "new", NOW).number_ready == 0


def test_pods_become_available_later() -> None:
    assert next_check(daemon(minReadySeconds=30), [pod("new-a", age=10), pod("new-b", age=25)], NOW) == 5
    assert next_check(daemon(minReadySeconds=30), [pod("new-a", age=31)], NOW) is None
    assert next_check(daemon(), [pod("new-a", age=0)], NOW) is None


def test_new_pods_say_of_what_they_are_and_where_they_belong() -> None:
    one, other = new_pods(daemon(), ["a", "b"], "hash")
    labels = {"app": "d", "controller-revision-hash": "hash", "pod-template-generation": "3"}
    assert one.metadata.labels == other.metadata.labels == labels
    assert (one.metadata.generate_name, target_node(one), target_node(other)) == ("d-", "a", "b")
    assert len(one.spec.tolerations) == 6
    bare = replace(daemon(), metadata__annotations={"deprecated.daemonset.template.generation": "x"})
    assert "pod-template-generation" not in new_pods(bare, ["a"], "hash")[0].metadata.labels


def test_waits_double_and_are_forgotten() -> None:
    backoff = FailedPodsBackoff(max_keys=2)
    now = NOW
    for seconds in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900):
        assert backoff.wait("k", now) == 0
        backoff.tried("k", now)
        assert backoff.wait("k", now) == seconds
        now += timedelta(seconds=seconds)
    now += timedelta(seconds=1801)
    backoff.tried("k", now)
    assert backoff.wait("k", now) == 1
    backoff.tried("l", now)
    backoff.tried("m", now)
    assert len(backoff) == 2
    assert backoff.wait("k", now) == 0


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("+~-")),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["new", "old"])),
    st.sampled_from([0, 1, 2, "50%"]),
    st.sampled_from([0, 1, 2, "50%"]),
)
def test_step_by_step_each_node_gets_its_pod(
    nodes: dict[str, str], there: dict[str, str], surge: Any, unavailable: Any
) -> None:
    obj = daemon(
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}
    )
    pods = {f"{of}-{node}": pod(f"{of}-{node}") for node, of in there.items() if node in nodes}
    shape = "".join(node + sign for node, sign in nodes.items())
    for _ in range(30):
        made = planned(obj, shape, [*pods.values()])
        if not made:
            break
        for each in made.delete:
            del pods[each.metadata.name]
        for node in made.create:
            assert f"new-{node}" not in pods
            pods[f"new-{node}"] = pod(f"new-{node}")
    wanted = {f"new-{node}" for node, sign in nodes.items() if sign == "+"}
    assert wanted <= pods.keys()
    assert all(nodes[name[-1]] == "~" for name in pods.keys() - wanted)
