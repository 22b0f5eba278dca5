from __future__ import annotations

import asyncio
from typing import Any

from pilothouse.apiserver.access.aggregation import ClusterRoleAggregation, aggregated, gathered_rules
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import InternalError
from support.accessview import RBAC, MemoryLocal, MemoryView, role, rule

ROLES = f"clusterroles.{RBAC}"


def labelled(name: str, labels: dict[str, str], *rules: dict[str, Any]) -> dict[str, Any]:
    made = role(name, *rules)
    made["metadata"]["labels"] = labels
    return made


def gathering(name: str, *selectors: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {**labelled(name, labels or {}), "aggregationRule": {"clusterRoleSelectors": list(selectors)}}


PODS, NODES = rule("get", "", "pods"), rule("get", "", "nodes")
A = {"matchLabels": {"to": "a"}}


def test_rules_come_in_the_order_of_names_each_once_and_not_from_oneself() -> None:
    roles = [
        labelled("z", {"to": "a"}, PODS),
        labelled("b", {"to": "a", "x": "y"}, NODES, PODS),
        labelled("other", {"to": "b"}, rule("get", "", "secrets")),
        gathering("all", A, {"matchExpressions": [{"key": "x", "operator": "Exists"}]}, labels={"to": "a"}),
    ]
    assert gathered_rules(roles[3], roles) == [NODES, PODS]
    (found,) = aggregated(roles)
    assert found["rules"] == [NODES, PODS]
    assert list(aggregated([*roles[:3], found])) == []


def test_a_wrong_selector_gathers_nothing() -> None:
    wrong = {"matchExpressions": [{"key": "x", "operator": "Near"}]}
    roles = [labelled("a", {"to": "a"}, PODS), gathering("all", wrong, A)]
    assert gathered_rules(roles[1], roles) == [PODS]


def test_an_empty_selector_gathers_all() -> None:
    roles = [labelled("a", {}, PODS), gathering("all", {})]
    assert gathered_rules(roles[1], roles) == [PODS]


async def test_it_follows_changes_through_several_stages_and_tries_again() -> None:
    view, clock = MemoryView(), FakeClock()
    local = MemoryLocal(view)
    view.put(ROLES, gathering("top", {"matchLabels": {"to": "top"}}))
    view.put(ROLES, gathering("middle", A, labels={"to": "top"}))
    task = asyncio.create_task(ClusterRoleAggregation(view, local, clock=clock).run())
    await clock.run(0)
    assert local.calls == []
    view.put(ROLES, labelled("leaf", {"to": "a"}, PODS))
    view.put(ROLES, labelled("leaf2", {"to": "a"}, NODES))
    await clock.run(0)
    top = view.get(ROLES, "", "top")
    assert top is not None
    assert top["rules"] == [PODS, NODES]
    assert len(local.calls) == 2
    local.refuse = InternalError("down")
    view.remove(ROLES, "", "leaf2")
    await clock.run(0.5)
    local.refuse = None
    await clock.run(1)
    top = view.get(ROLES, "", "top")
    assert top is not None
    assert top["rules"] == [PODS]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert view.listeners() == 0
