"""Claims of stateful sets: which are made, who owns them, and when a pod waits for one to go."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.structs import PersistentVolumeClaim, Pod, StatefulSet, from_dict
from pilothouse.workloads.statefulsets_claims import are_kept, is_stale, work_for

SET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "set", "controller": True}
POD = {"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "pod", "controller": True}
OTHER = {"apiVersion": "x/v1", "kind": "Other", "name": "o", "uid": "other", "controller": True}


def stateful(deleted: str = "Retain", scaled: str = "Retain", replicas: int = 1) -> StatefulSet:
    template = {
        "metadata": {"name": "data", "labels": {"tier": "x", "app": "no"}, "annotations": {"a": "b"}},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    }
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "db"}},
        "volumeClaimTemplates": [template],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
    }
    return from_dict({"metadata": {"name": "db", "namespace": "n", "uid": "set"}, "spec": spec}, StatefulSet)


def pod(uid: str = "pod") -> Pod:
    return from_dict({"metadata": {"name": "db-0", "namespace": "n", "uid": uid}}, Pod)


def claim(*owners: dict[str, Any], deleting: bool = False) -> PersistentVolumeClaim:
    metadata: dict[str, Any] = {"name": "data-db-0", "namespace": "n", "ownerReferences": [*owners]}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return from_dict({"metadata": metadata}, PersistentVolumeClaim)


def owners(found: PersistentVolumeClaim) -> list[str]:
    return [each.uid for each in found.metadata.owner_references]


POLICIES = [
    ("Retain", "Retain", 1, []),
    ("Retain", "Retain", 0, []),
    ("Delete", "Retain", 1, ["set"]),
    ("Delete", "Retain", 0, ["set"]),
    ("Retain", "Delete", 1, []),
    ("Retain", "Delete", 0, ["pod"]),
    ("Delete", "Delete", 1, ["set"]),
    ("Delete", "Delete", 0, ["pod"]),
]


@pytest.mark.parametrize("present", [[], [SET], [POD], [SET, POD]])
@pytest.mark.parametrize(("deleted", "scaled", "replicas", "wanted"), POLICIES)
def test_the_policy_says_who_owns_a_claim(
    deleted: str, scaled: str, replicas: int, wanted: list[str], present: list[dict[str, Any]]
) -> None:
    obj = stateful(deleted, scaled, replicas)
    work = work_for(obj, pod(), lambda name: claim(*present))
    if [each["uid"] for each in present] == wanted:
        assert not work
    else:
        assert [owners(each) for each in work.update] == [wanted]
        changed = work.update[0]
        assert are_kept(obj, pod(), lambda name: changed)


def test_a_claim_that_is_missing_is_made_with_its_owner() -> None:
    work = work_for(stateful("Delete"), pod(""), lambda name: None)
    made = work.create[0]
    assert (made.metadata.name, made.metadata.namespace, owners(made)) == ("data-db-0", "n", ["set"])
    assert made.metadata.labels == {"tier": "x", "app": "db"}
    assert made.metadata.annotations == {"a": "b"}
    assert made.spec.access_modes == ("ReadWriteOnce",) or [*made.spec.access_modes] == ["ReadWriteOnce"]
    assert not work_for(stateful(), pod(), lambda name: None, create=False)


def test_a_claim_that_goes_holds_up_its_pod() -> None:
    work = work_for(stateful(), pod(), lambda name: claim(deleting=True))
    assert work.deleting == ["data-db-0"]
    assert work


@pytest.mark.parametrize(
    ("scaled", "uid", "stale"), [("Delete", "before", True), ("Delete", "", False), ("Retain", "before", False)]
)
def test_a_claim_of_the_pod_before_is_stale(scaled: str, uid: str, stale: bool) -> None:
    present = [{**POD, "uid": uid}] if uid else []
    assert is_stale(stateful(scaled=scaled), pod(""), lambda name: claim(*present)) is stale


@pytest.mark.parametrize("owner", [{**SET, "uid": "before"}, {**POD, "uid": "before"}])
def test_what_belonged_to_another_of_the_name_is_left_alone(owner: dict[str, Any]) -> None:
    assert not work_for(stateful("Delete", "Delete"), pod(), lambda name: claim(owner))


def test_the_claim_of_another_controller_is_let_go_and_told() -> None:
    obj = stateful("Delete")
    alone = work_for(obj, pod(), lambda name: claim(OTHER))
    assert (alone.conflicting, alone.update) == (["data-db-0"], [])
    both = work_for(obj, pod(), lambda name: claim(OTHER, SET))
    assert [owners(each) for each in both.update] == [["other"]]
    assert not work_for(stateful(), pod(), lambda name: claim(OTHER)).conflicting


def test_an_owner_that_does_not_control_is_made_to() -> None:
    weak = {**SET, "controller": False}
    work = work_for(stateful("Delete"), pod(), lambda name: claim(weak))
    assert [(each.uid, each.controller) for each in work.update[0].metadata.owner_references] == [("set", True)]
