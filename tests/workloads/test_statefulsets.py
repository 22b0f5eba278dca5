"""Stateful sets: which pods are made, deleted and put right, in which order, and what the status says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import ControllerRevision, Pod, StatefulSet, from_dict, replace
from pilothouse.workloads.revisions import data_of
from pilothouse.workloads.statefulsets import Plan, history_surplus, is_told, plan
from pilothouse.workloads.statefulsets_pods import (
    has_identity,
    has_storage,
    is_member,
    needs_claim,
    new_pod,
    ordinal_of,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD, NEW = "db-old", "db-new"


def stateful(replicas: int = 3, **spec: Any) -> StatefulSet:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}}
    tree = {
        "metadata": {"name": "db", "namespace": "n", "uid": "set", "generation": 4},
        "spec": {
            "replicas": replicas,
            "serviceName": "svc",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "podManagementPolicy": "OrderedReady",
            "revisionHistoryLimit": 10,
            **spec,
        },
        "status": {"replicas": 0},
    }
    return from_dict(tree, StatefulSet)


def revision(obj: StatefulSet, name: str, image: str, number: int = 1) -> ControllerRevision:
    template = replace(obj.spec.template, spec__containers=[replace(obj.spec.template.spec.containers[0], image=image)])
    tree = {"metadata": {"name": name}, "data": data_of(template), "revision": number}
    return from_dict(tree, ControllerRevision)


def pod(obj: StatefulSet, ordinal: int, state: str = "ready", of: str = NEW, *, ready_for: float = 60) -> Pod:
    since = (NOW - timedelta(seconds=ready_for)).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = new_pod(obj, obj.spec.template, of, ordinal)
    phase = {"pending": "Pending", "failed": "Failed", "succeeded": "Succeeded"}.get(state, "Running")
    status = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": str(state in ("ready", "ending")), "lastTransitionTime": since}],
    }
    made = replace(made, metadata__uid=f"uid-{ordinal}", status=from_dict({"status": status}, Pod).status)
    return replace(made, metadata__deletion_timestamp=since) if state == "ending" else made


def planned(obj: StatefulSet, pods: Sequence[Pod], *, rolling: bool = False) -> Plan:
    new = revision(obj, NEW, "new", 2)
    old = revision(obj, OLD, "old") if rolling else new
    return plan(obj, pods, old, new, lambda name: None, NOW)


def done(made: Plan) -> list[list[str]]:
    return [[f"{work.action} {work.pod.metadata.name}" for work in batch.works] for batch in made.batches]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], [["create db-0"]]),
        (["ready"], [["create db-1"]]),
        (["pending"], []),
        (["running"], []),
        (["ending"], []),
        (["failed"], [["delete db-0"]]),
        (["succeeded"], [["delete db-0"]]),
        (["ready", "running", "ready"], []),
        (["ready", "ready", "ready"], []),
        (["ready", "ready", "ready", "ready", "ready"], [["delete db-4"]]),
        (["ready", "ready", "ready", "ready", "ending"], []),
        (["ready", "ready", "ready", "ready", "running"], [["delete db-4"]]),
        (["ready", "ready", "ready", "running", "running"], []),
        (["ready", "running", "ready", "ready"], []),
    ],
)
def test_ordered_pods_come_and_go_one_by_one(states: list[str], expected: list[list[str]]) -> None:
    obj = stateful()
    assert done(planned(obj, [pod(obj, ordinal, state) for ordinal, state in enumerate(states)])) == expected


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], [["create db-0", "create db-1", "create db-2"]]),
        (["pending", "failed"], [["delete db-1", "create db-2"]]),
        (["ready", "ending", "ready", "running", "ready"], [["delete db-4", "delete db-3"]]),
        (["ready", "pending", "pending"], []),
    ],
)
def test_parallel_pods_come_and_go_together(states: list[str], expected: list[list[str]]) -> None:
    obj = stateful(podManagementPolicy="Parallel")
    made = planned(obj, [pod(obj, ordinal, state) for ordinal, state in enumerate(states)])
    assert done(made) == expected
    assert all(batch.together for batch in made.batches)


@pytest.mark.parametrize(
    ("strategy", "revisions", "states", "expected"),
    [
        ({}, "ooo", "rrr", ["db-2"]),
        ({}, "oon", "rrr", ["db-1"]),
        ({}, "oon", "rrx", []),
        ({}, "nnn", "rrr", []),
        ({"partition": 2}, "ooo", "rrr", ["db-2"]),
        ({"partition": 2}, "oon", "rrr", []),
        ({"partition": 9}, "ooo", "rrr", []),
        ({"maxUnavailable": 2}, "ooo", "rrr", ["db-2", "db-1"]),
        ({"maxUnavailable": "67%"}, "ooo", "rrr", ["db-2", "db-1"]),
        ({"maxUnavailable": "1%"}, "ooo", "rrr", ["db-2"]),
        ({"maxUnavailable": 3, "partition": 1}, "ooo", "rrr", ["db-2", "db-1"]),
    ],
)
def test_a_rolling_update_deletes_from_the_last_pod_on(
    strategy: dict[str, Any], revisions: str, states: str, expected: list[str]
) -> None:
    obj = stateful(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0, **strategy}})
    pods = [
        pod(obj, ordinal, "ready" if state == "r" else "running", OLD if one == "o" else NEW)
        for ordinal, (one, state) in enumerate(zip(revisions, states, strict=True))
    ]
    made = planned(obj, pods, rolling=True)
    assert done(made) == ([[f"delete {name}" for name in expected]] if expected else [])
    assert made.status.current_replicas == (revisions.count("o") - len(expected) if "o" in revisions else 3)


def test_several_may_be_missing_in_parallel() -> None:
    rolling = {"partition": 0, "maxUnavailable": 2}
    obj = stateful(podManagementPolicy="Parallel", updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    pods = [pod(obj, 0, of=OLD), pod(obj, 1, of=OLD), pod(obj, 2, "running", NEW)]
    assert done(planned(obj, pods, rolling=True)) == [["delete db-1"]]


def test_a_failed_pod_is_deleted_once() -> None:
    obj = stateful(1, podManagementPolicy="Parallel")
    assert done(planned(obj, [pod(obj, 0, "failed", OLD)], rolling=True)) == [["delete db-0"]]


def test_on_delete_leaves_old_pods_alone() -> None:
    obj = stateful(updateStrategy={"type": "OnDelete"})
    made = planned(obj, [pod(obj, 0, of=OLD), pod(obj, 1, of=OLD), pod(obj, 2)], rolling=True)
    assert made.batches == []
    assert (made.status.current_revision, made.status.update_revision) == (OLD, NEW)


def test_below_the_partition_pods_are_made_of_the_old_template() -> None:
    obj = stateful(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
    first = planned(obj, [], rolling=True).batches[0].works[0].pod
    assert (first.metadata.labels["controller-revision-hash"], first.spec.containers[0].image) == (OLD, "old")
    second = planned(obj, [pod(obj, 0, of=OLD)], rolling=True).batches[0].works[0].pod
    assert (second.metadata.labels["controller-revision-hash"], second.spec.containers[0].image) == (NEW, "new")


def test_ordinals_may_begin_elsewhere() -> None:
    obj = stateful(2, ordinals={"start": 7})
    assert done(planned(obj, [])) == [["create db-7"]]
    assert done(planned(obj, [pod(obj, 0), pod(obj, 7), pod(obj, 8)])) == [["delete db-0"]]


def test_pods_are_available_after_a_while() -> None:
    obj = stateful(2, minReadySeconds=30)
    made = planned(obj, [pod(obj, 0, ready_for=10)])
    assert done(made) == []
    assert (made.status.ready_replicas, made.status.available_replicas, made.again) == (1, 0, 20)
    assert done(planned(obj, [pod(obj, 0, ready_for=30)])) == [["create db-1"]]


def test_a_set_that_is_deleted_is_left_alone() -> None:
    obj = replace(stateful(), metadata__deletion_timestamp="2026-01-01T00:00:00Z")
    made = planned(obj, [pod(obj, 0, "failed")])
    assert (made.batches, made.status.replicas) == ([], 1)


def test_the_status_counts_and_completes() -> None:
    obj = stateful()
    pods = [pod(obj, 0, of=OLD), pod(obj, 1, "ending"), pod(obj, 2, "running")]
    status = planned(obj, pods, rolling=True).status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (3, 2, 2)
    assert (status.current_replicas, status.updated_replicas, status.observed_generation) == (1, 1, 4)
    assert (status.collision_count, status.current_revision) == (0, OLD)
    complete = planned(obj, [pod(obj, ordinal) for ordinal in range(3)], rolling=True).status
    assert (complete.current_revision, complete.current_replicas) == (NEW, 3)
    assert not is_told(obj, complete)
    assert is_told(replace(obj, status=complete), complete)


def test_a_pod_without_its_labels_or_volumes_is_put_right() -> None:
    templates = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
    obj = stateful(1, volumeClaimTemplates=templates)
    bare = replace(pod(obj, 0), metadata__labels={"app": "db"}, spec__volumes=[])
    assert not has_identity(obj, bare)
    assert not has_storage(obj, bare)
    batch = planned(obj, [bare]).batches[0]
    work = batch.works[0]
    assert (work.action, [each.metadata.name for each in work.claims.create]) == ("update", ["data-db-0"])
    assert has_identity(obj, work.pod)
    assert has_storage(obj, work.pod)


def test_a_new_pod_has_name_labels_host_name_and_claims() -> None:
    templates = [{"metadata": {"name": "data"}}, {"metadata": {"name": "logs"}}]
    obj = stateful(volumeClaimTemplates=templates)
    volumes = [{"name": "logs", "emptyDir": {}}, {"name": "cfg", "emptyDir": {}}]
    template = from_dict({"metadata": {"labels": {"app": "db"}}, "spec": {"volumes": volumes}}, type(obj.spec.template))
    made = new_pod(obj, template, NEW, 4)
    assert made.metadata.labels == {
        "app": "db",
        "controller-revision-hash": NEW,
        "statefulset.kubernetes.io/pod-name": "db-4",
        "apps.kubernetes.io/pod-index": "4",
    }
    assert (made.metadata.name, made.spec.hostname, made.spec.subdomain) == ("db-4", "db-4", "svc")
    claims = {one.name: getattr(one.persistent_volume_claim, "claim_name", "") for one in made.spec.volumes}
    assert claims == {"data": "data-db-4", "logs": "logs-db-4", "cfg": ""}


@pytest.mark.parametrize(
    ("name", "member", "ordinal"),
    [
        ("db-0", True, 0),
        ("db-12", True, 12),
        ("db-x", False, -1),
        ("db", False, -1),
        ("my-db-1", False, 1),
        ("db-99999999999", True, -1),
        ("db-2147483647", True, 2147483647),
    ],
)
def test_names_tell_members_and_ordinals(name: str, member: bool, ordinal: int) -> None:
    found = from_dict({"metadata": {"name": name}}, Pod)
    assert (is_member(stateful(), found), ordinal_of(found)) == (member, ordinal)


def test_claims_tell_their_set() -> None:
    obj = stateful(volumeClaimTemplates=[{"metadata": {"name": "data"}}])
    assert needs_claim(obj, "data-db-3")
    assert not needs_claim(obj, "data-other-3")
    assert not needs_claim(stateful(), "data-db-3")


def test_history_keeps_what_is_in_use() -> None:
    obj = stateful(revisionHistoryLimit=1)
    found = [revision(obj, f"r{number}", "i", number) for number in range(1, 6)]
    gone = history_surplus(obj, [pod(obj, 0, of="r1")], found, (found[4], found[4]))
    assert [each.metadata.name for each in gone] == ["r2", "r3"]


STATES = ("pending", "running", "ready", "ending", "failed", "succeeded")


@given(
    st.dictionaries(st.integers(0, 6), st.tuples(st.sampled_from(STATES), st.booleans()), max_size=7),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 5),
)
def test_no_pod_is_worked_on_twice_and_an_ordered_set_does_one_thing(
    found: dict[int, tuple[str, bool]], replicas: int, ordered: bool, partition: int
) -> None:
    obj = stateful(
        replicas,
        podManagementPolicy="OrderedReady" if ordered else "Parallel",
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
    )
    pods = [pod(obj, ordinal, state, NEW if new else OLD) for ordinal, (state, new) in found.items()]
    made = planned(obj, pods, rolling=True)
    names = [work.pod.metadata.name for batch in made.batches for work in batch.works]
    assert len(names) == len(set(names))
    assert not ordered or len(names) <= 1
    for batch in made.batches:
        for work in batch.works:
            assert (work.action == "create") == (ordinal_of(work.pod) not in found)
            assert work.action != "delete" or work.pod.metadata.deletion_timestamp is None


@pytest.mark.parametrize("ordered", [True, False])
@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_step_by_step_a_set_becomes_what_it_is_to_be(ordered: bool, before: int, replicas: int, partition: int) -> None:
    obj = stateful(
        replicas,
        podManagementPolicy="OrderedReady" if ordered else "Parallel",
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
    )
    pods = {ordinal: pod(obj, ordinal, of=OLD) for ordinal in range(before)}
    for _ in range(40):
        made = planned(obj, [*pods.values()], rolling=True)
        if not made.batches:
            break
        for batch in made.batches:
            for work in batch.works:
                ordinal = ordinal_of(work.pod)
                if work.action == "create":
                    pods[ordinal] = pod(obj, ordinal, of=work.pod.metadata.labels["controller-revision-hash"])
                else:
                    del pods[ordinal]
    of = {ordinal: one.metadata.labels["controller-revision-hash"] for ordinal, one in pods.items()}
    assert of == {ordinal: OLD if ordinal < partition else NEW for ordinal in range(replicas)}
