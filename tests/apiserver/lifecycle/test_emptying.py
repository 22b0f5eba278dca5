"""The conditions of a namespace that is being emptied, and how long pods are waited for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pilothouse.apiserver.lifecycle.emptying import Emptying, grace_left

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def told(found: Emptying, old: list[dict[str, Any]] | None = None, now: str = NOW) -> dict[str, dict[str, Any]]:
    return {each["type"]: each for each in found.conditions(old or [], now)}


def test_all_is_well() -> None:
    found = Emptying()
    assert found.done
    made = told(found)
    assert {each["status"] for each in made.values()} == {"False"}
    assert made["NamespaceDeletionDiscoveryFailure"]["message"] == "All resources successfully discovered"
    assert made["NamespaceDeletionGroupVersionParsingFailure"]["reason"] == "ParsedGroupVersions"


def test_what_remains_is_listed_in_order() -> None:
    remaining = Counter({("pods", ""): 3, ("deployments", "apps"): 1})
    found = Emptying(remaining, Counter({"b": 1, "a": 2}), ["second", "first"])
    assert not found.done
    made = told(found)
    assert made["NamespaceContentRemaining"]["message"] == (
        "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 3 resource instances"
    )
    assert made["NamespaceFinalizersRemaining"]["message"] == (
        "Some content in the namespace has finalizers remaining: a in 2 resource instances, b in 1 resource instances"
    )
    assert made["NamespaceDeletionContentFailure"]["message"] == (
        "Failed to delete all resource types, 2 remaining: first, second"
    )


def test_times_change_with_the_status_alone() -> None:
    first = Emptying(Counter({("pods", ""): 3})).conditions([], THEN)
    second = Emptying(Counter({("pods", ""): 2})).conditions(first, NOW)
    remaining = next(each for each in second if each["type"] == "NamespaceContentRemaining")
    assert "has 2" in remaining["message"]
    assert remaining["lastTransitionTime"] == THEN
    third = told(Emptying(), second)
    assert third["NamespaceContentRemaining"]["lastTransitionTime"] == NOW
    assert third["NamespaceFinalizersRemaining"]["lastTransitionTime"] == THEN


def test_conditions_of_others_stay_and_nothing_new_is_nothing() -> None:
    other = {"type": "Mine", "status": "True"}
    first = Emptying().conditions([other], THEN)
    assert first[0] == other
    assert Emptying().conditions(first, NOW) == first


@pytest.mark.parametrize(
    ("pods", "passed", "wanted"),
    [
        ([], 0, 0),
        ([30], 0, 30),
        ([30, 60, 5], 10, 60),
        ([30], 30, 0),
        ([None], 0, 0),
    ],
)
def test_pods_are_given_their_time(pods: list[int | None], passed: float, wanted: float) -> None:
    listed = [{"spec": {"terminationGracePeriodSeconds": grace}} for grace in pods]
    assert grace_left(listed, passed) == wanted


def test_pods_that_are_over_need_no_time() -> None:
    over = {"spec": {"terminationGracePeriodSeconds": 30}, "status": {"phase": "Succeeded"}}
    assert grace_left([over], 0) == 0
