"""When an application is synced by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pilothouse.delivery.gitops.autosync import Situation, decide, heal_pause, retry_pause
from pilothouse.delivery.resources.applications import Application, Backoff, OperationState, Retry
from pilothouse.kinds import times
from pilothouse.kinds.structs import from_dict

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def app(**automated: Any) -> Application:
    return from_dict({"metadata": {"name": "a"}, "spec": {"syncPolicy": {"automated": automated}}}, Application)


def state(phase: str, revision: str = "r", *, ago: float = 0, attempts: int = 0) -> OperationState:
    tree = {
        "phase": phase,
        "finishedAt": times.format_seconds(NOW - timedelta(seconds=ago)),
        "syncResult": {"revision": revision},
        "operation": {"sync": {"selfHealAttemptsCount": attempts}},
    }
    return from_dict(tree, OperationState)


def seen(**more: Any) -> Situation:
    return Situation(**{"now": NOW, "revisions": ("r",), "out_of_sync": True, **more})


def test_a_new_revision_is_synced_once() -> None:
    assert decide(app(), None, seen()).begin
    assert decide(app(), state("Failed", "old"), seen()).begin
    failed = decide(app(), state("Failed"), seen())
    assert not failed.begin
    assert failed.condition is not None
    assert failed.condition[0] == "SyncError"
    assert not decide(app(), state("Succeeded"), seen()).begin
    assert decide(app(), state("Succeeded"), seen(source_changed=True)).begin


def test_nothing_is_begun_where_something_forbids_it() -> None:
    assert not decide(app(enabled=False), None, seen()).begin
    assert not decide(app(), None, seen(out_of_sync=False)).begin
    assert not decide(app(), None, seen(only_prune=True)).begin
    assert decide(app(prune=True), None, seen(only_prune=True)).begin
    assert "allowEmpty" in str(decide(app(prune=True), None, seen(empty=True)).condition)
    assert decide(app(prune=True, allowEmpty=True), None, seen(empty=True)).begin
    assert decide(app(), None, seen(window="closed")).later == 60
    assert not decide(app(), None, seen(waiting_for="base is")).begin
    manual = from_dict({"metadata": {"name": "a"}, "spec": {}}, Application)
    assert not decide(manual, None, seen()).begin


def test_drift_is_healed_with_growing_pauses() -> None:
    healing = app(selfHeal=True)
    first = decide(healing, state("Succeeded"), seen())
    assert (first.begin, first.heal_attempts) == (True, 1)
    second = decide(healing, state("Succeeded", attempts=1), seen())
    assert (second.begin, second.later) == (False, 2)
    assert decide(healing, state("Succeeded", attempts=1, ago=2), seen()).heal_attempts == 2
    assert decide(healing, state("Succeeded", attempts=9, ago=601), seen()).heal_attempts == 1
    assert [heal_pause(count) for count in range(7)] == [0, 2, 6, 18, 54, 162, 300]


def test_retries() -> None:
    retry = Retry(limit=3, backoff=Backoff(duration="5s", factor=2, max_duration="12s"))
    assert [retry_pause(retry, count) for count in range(4)] == [5, 10, 12, None]
    assert retry_pause(Retry(limit=-1), 50) == 180
    assert retry_pause(Retry(), 0) is None
    assert retry_pause(Retry(limit=1, backoff=Backoff(duration="7")), 0) == 7
