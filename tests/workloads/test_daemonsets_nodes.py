"""On which nodes daemons belong: selectors, affinity, taints, and what their pods tolerate."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.structs import DaemonSet, Node, Pod, from_dict, to_dict
from pilothouse.workloads.daemonsets_nodes import Placement, Site, bound_to, target_node, with_tolerations


def site(taints: list[str] | None = None, **labels: str) -> Site:
    found = [dict(zip(("key", "value", "effect"), each.split(":"), strict=True)) for each in taints or []]
    return Site.of(from_dict({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": found}}, Node))


def daemon(**spec: Any) -> DaemonSet:
    return from_dict({"metadata": {"name": "d"}, "spec": {"template": {"spec": spec}}}, DaemonSet)


def fits(where: Site, **spec: Any) -> tuple[bool, bool]:
    found = Placement(daemon(**spec)).fit(where)
    return found.should_run, found.should_continue


def required(*terms: Any) -> dict[str, Any]:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [*terms]}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": [*values]}]}


def field(operator: str, *values: str, key: str = "metadata.name") -> dict[str, Any]:
    return {"matchFields": [{"key": key, "operator": operator, "values": [*values]}]}


YES, STAYS, NO = (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("taint", "tolerations", "expected"),
    [
        ("k:v:NoSchedule", [], STAYS),
        ("k:v:NoExecute", [], NO),
        ("k:v:PreferNoSchedule", [], YES),
        ("k:v:NoExecute", [{"key": "k", "operator": "Exists"}], YES),
        ("k:v:NoExecute", [{"key": "k", "value": "v"}], YES),
        ("k:v:NoExecute", [{"key": "k", "operator": "Equal", "value": "w"}], NO),
        ("k:v:NoExecute", [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}], NO),
        ("k:v:NoExecute", [{"operator": "Exists"}], YES),
        ("node.kubernetes.io/not-ready::NoExecute", [], YES),
        ("node.kubernetes.io/unreachable::NoExecute", [], YES),
        ("node.kubernetes.io/unschedulable::NoSchedule", [], YES),
        ("node.kubernetes.io/memory-pressure::NoSchedule", [], YES),
        ("node.kubernetes.io/disk-pressure::NoSchedule", [], YES),
        ("node.kubernetes.io/pid-pressure::NoSchedule", [], YES),
        ("node.kubernetes.io/network-unavailable::NoSchedule", [], STAYS),
        ("node.kubernetes.io/not-ready::NoSchedule", [], STAYS),
    ],
)
def test_taints(taint: str, tolerations: list[Any], expected: tuple[bool, bool]) -> None:
    assert fits(site([taint]), tolerations=tolerations) == expected


def test_pods_in_the_network_of_the_host_do_not_wait_for_one() -> None:
    assert fits(site(["node.kubernetes.io/network-unavailable::NoSchedule"]), hostNetwork=True) == YES


def test_the_worst_taint_counts() -> None:
    assert fits(site(["a:v:NoSchedule", "b:v:NoExecute"])) == NO


@pytest.mark.parametrize(
    ("terms", "taken"),
    [
        ([expression("a", "In", "1", "2")], True),
        ([expression("a", "In", "3")], False),
        ([expression("a", "NotIn", "3")], True),
        ([expression("b", "NotIn", "3")], True),
        ([expression("a", "Exists")], True),
        ([expression("b", "DoesNotExist")], True),
        ([expression("a", "Gt", "1")], True),
        ([expression("a", "Lt", "2")], False),
        ([expression("a", "Gt", "x")], False),
        ([expression("a", "What", "x")], False),
        ([expression("b", "Exists"), expression("a", "Exists")], True),
        ([{**expression("a", "Exists"), **field("In", "n2")}], False),
        ([field("In", "n1")], True),
        ([field("NotIn", "n1")], False),
        ([field("In", "n1", "n2")], False),
        ([field("In", "n1", key="spec.x")], False),
        ([{}], False),
        ([], False),
    ],
)
def test_affinity(terms: list[Any], taken: bool) -> None:
    assert fits(site(a="2"), affinity=required(*terms)) == (YES if taken else NO)


def test_selectors_and_names() -> None:
    assert fits(site(a="2"), nodeSelector={"a": "2"}) == YES
    assert fits(site(a="2"), nodeSelector={"a": "1"}) == NO
    assert fits(site(), nodeName="n1") == YES
    assert fits(site(), nodeName="n2") == NO


def test_what_was_found_is_remembered_for_the_same_object_only() -> None:
    placement = Placement(daemon(nodeSelector={"a": "2"}))
    there, changed = site(a="2"), site(a="1")
    assert placement.fits({"n1": there})["n1"] is placement.fit(there)
    assert not placement.fit(changed).should_run
    assert placement.fits({}) == {}


def test_tolerations_are_added_once_and_lose_their_seconds() -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    found = with_tolerations(daemon(tolerations=[own, {"key": "x"}]).spec.template.spec)
    assert [each.key.removeprefix("node.kubernetes.io/") for each in found.tolerations] == [
        "not-ready",
        "x",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
    ]
    assert found.tolerations[0].toleration_seconds is None
    assert with_tolerations(found) == found


def test_a_pod_is_bound_to_its_node_and_keeps_its_preferences() -> None:
    preferred = [{"weight": 1, "preference": expression("a", "Exists")}]
    affinity = {"podAntiAffinity": {}, **required(expression("b", "Exists"))}
    affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    made = bound_to(daemon(affinity=affinity).spec.template.spec.affinity, "n1")
    tree = to_dict(made)
    assert tree["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [field("In", "n1")]
    }
    assert tree["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == preferred
    assert tree["podAntiAffinity"] == {}
    assert target_node(from_dict({"spec": {"affinity": tree}}, Pod)) == "n1"
    assert to_dict(bound_to(None, "n1")) == required(field("In", "n1"))


def test_the_node_of_a_pod() -> None:
    assert target_node(from_dict({"spec": {"nodeName": "n2", "affinity": required(field("In", "n1"))}}, Pod)) == "n2"
    assert target_node(from_dict({"spec": {"affinity": required(field("In", "n1", "n2"))}}, Pod)) == ""
    assert target_node(Pod()) == ""
