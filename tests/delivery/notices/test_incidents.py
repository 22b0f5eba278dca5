"""Incidents out of objects: decisions, revisions, evidence, the first bad second, moments, and what is let go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.notices.decisions import (
    application_of,
    bad_revisions,
    decision_of,
    incident_of,
    known,
    superfluous,
)
from pilothouse.delivery.notices.incidents import evidence_of, first_bad, first_failure, followed, timeline
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import GitReturn, Incident, IncidentSpec, IncidentStatus
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds import times
from pilothouse.kinds.structs import Event, ObjectMeta, ReplicaSet, from_dict, replace

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WHY = "Background analysis phase error/failed: Metric 'errors': 2.10% errors"


def at(seconds: float) -> str:
    return times.format_micros(NOW + timedelta(seconds=seconds))


def rollout(said: str | None = f"Rollout aborted update to revision 3: {WHY}", **status: Any) -> Rollout:
    when = at(60)
    condition = {"type": "Progressing", "status": "False", "reason": "RolloutAborted", "message": said}
    conditions = [{**condition, "lastUpdateTime": when, "lastTransitionTime": when}] if said is not None else []
    tree = {
        "metadata": {
            "name": "shop",
            "namespace": "default",
            "uid": "u1",
            "annotations": {"pilothouse.dev/people": "ada, bo"},
        },
        "spec": {"strategy": {"canary": {"trafficRouting": {}}}},
        "status": {
            "abort": True,
            "abortedAt": at(60),
            "currentPodHash": "v3",
            "stableRS": "v2",
            "conditions": conditions,
            "duration": {"rolloutStartedAt": at(0)},
            **status,
        },
    }  # fmt: skip
    return from_dict(tree, Rollout)


def application(*history: tuple[float, str], state: tuple[float, str] | None = None, **metadata: Any) -> Application:
    listed = [
        {"id": number, "revision": revision, "deployStartedAt": at(seconds), "deployedAt": at(seconds + 1)}
        for number, (seconds, revision) in enumerate(history)
    ]
    status: dict[str, Any] = {"history": listed}
    if state is not None:
        result = {"revision": state[1], "source": {"repoURL": "https://x/y"}}
        status["operationState"] = {
            "operation": {},
            "phase": "Running",
            "startedAt": at(state[0]),
            "syncResult": result,
        }
    meta = {"name": "shop", "namespace": "argocd", **metadata}
    spec = {"project": "default", "source": {"repoURL": "https://x/y"}, "destination": {}}
    return from_dict({"metadata": meta, "spec": spec, "status": status}, Application)


# Decisions


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        (WHY, "Analysis"),
        ("Step-based analysis phase error/failed", "Analysis"),
        ('ReplicaSet "v3" has timed out progressing', "Deadline"),
        ("Experiment shop-1 failed", "Experiment"),
    ],
)
def test_a_rollback_that_was_decided_by_itself_has_a_cause(why: str, cause: str) -> None:
    found = decision_of(rollout(f"Rollout aborted update to revision 3: {why}"))
    assert found is not None
    assert (found.cause, found.message, found.revision, found.version) == (cause, why, "3", "v3")


def test_who_aborts_by_hand_makes_no_incident() -> None:
    assert decision_of(rollout("Rollout aborted update to revision 3")) is None
    assert decision_of(rollout(None)) is None
    assert decision_of(rollout(abort=None)) is None


def test_an_incident_is_made_once_for_each_rollback() -> None:
    obj = rollout()
    decision = decision_of(obj)
    assert decision is not None
    made = incident_of(obj, decision, [], application((-500, "a"), (-5, "b")))
    assert made is not None
    assert made.metadata.name == "shop-v3"
    spec = made.spec
    assert (spec.git_revisions, spec.good_revision, spec.application) == (("b",), "a", "argocd/shop")
    assert (spec.people, spec.started_at) == (("ada", "bo"), at(0))
    assert incident_of(obj, decision, [made]) is None
    again = incident_of(obj, replace_at(decision, at(900)), [made])
    assert again is not None
    assert again.metadata.name == "shop-v3-2"
    other = replace(made, spec__rollout="other")
    assert incident_of(obj, decision, [other]) is not None


def replace_at(decision: Any, moment: str) -> Any:
    return type(decision)(decision.version, moment, decision.cause, decision.message, decision.revision)


# Revisions


@pytest.mark.parametrize(
    ("app", "bad", "good"),
    [
        (application((-500, "a"), (-5, "b")), ("b",), "a"),
        (application((-500, "a"), (-5, "b"), (20, "c")), ("b", "c"), "a"),
        (application((-500, "a"), state=(-5, "b")), ("b",), "a"),
        (application((-500, "a"), (-5, "b"), state=(20, "c")), ("b", "c"), "a"),
        (application((-500, "a"), (-5, "b"), state=(-5, "b")), ("b",), "a"),
        (application((-500, "a"), (-300, "b"), (-5, "b")), ("b",), "a"),
        (application((-5, "b")), ("b",), ""),
        (application(), (), ""),
    ],
)
def test_the_commit_that_brought_a_version_is_the_last_one_synced_before_it_began(
    app: Application, bad: tuple[str, ...], good: str
) -> None:
    found = bad_revisions(app, at(0))
    assert (found.bad, found.good) == (bad, good)


@given(st.lists(st.tuples(st.integers(-100, 100), st.sampled_from("abcdef")), max_size=12))
def test_bad_revisions_are_synced_ones_and_never_the_good_one(syncs: list[tuple[int, str]]) -> None:
    history = sorted(syncs)
    found = bad_revisions(application(*history), at(0))
    assert set(found.bad) <= {revision for _, revision in history}
    assert found.good not in found.bad
    assert bool(found.bad) == bool(history)
    assert all(revision in found.bad for seconds, revision in history if seconds > 0)


def test_whose_a_rollout_is_is_said_by_argos_marks() -> None:
    obj = rollout()
    mark = "argocd.argoproj.io/tracking-id"
    own = "team_shop:argoproj.io/Rollout:default/shop"
    assert application_of(obj, "argocd") is None
    assert application_of(replace(obj, metadata__annotations={mark: own}), "argocd") == ("team", "shop")
    copied = "shop:argoproj.io/Rollout:default/another"
    assert application_of(replace(obj, metadata__annotations={mark: copied}), "argocd") is None
    labelled = replace(obj, metadata__labels={"app.kubernetes.io/instance": "shop"})
    assert application_of(labelled, "argocd") == ("argocd", "shop")
    app = application()
    assert not known(app, obj)
    resource = {"kind": "Rollout", "namespace": "default", "name": "shop"}
    assert known(from_dict({"metadata": {}, "spec": {}, "status": {"resources": [resource]}}, Application), obj)


# Evidence


def analysis(name: str, phase: str, version: str, *results: dict[str, Any]) -> AnalysisRun:
    metadata = {"name": name, "labels": {"rollouts-pod-template-hash": version}}
    return from_dict(
        {"metadata": metadata, "spec": {"metrics": []}, "status": {"phase": phase, "metricResults": results}},
        AnalysisRun,
    )


def result(name: str, phase: str, *measured: tuple[str, str], **more: Any) -> dict[str, Any]:
    measurements = [
        {"phase": each, "value": value, "startedAt": at(number), "message": f"{value[:5]}"}
        for number, (each, value) in enumerate(measured)
    ]
    return {"name": name, "phase": phase, "measurements": measurements, **more}


JUDGED = {
    "requests": 700,
    "errors": 14,
    "errorRatio": 0.02,
    "p95": 0.0812,
    "stableErrorRatio": 0.001,
    "stableP95": 0.08,
}


def test_evidence_has_the_numbers_of_canary_and_stable_side_by_side() -> None:
    runs = [
        analysis("r1", "Failed", "v3", result("well", "Successful", ("Successful", "1")),
                 result("traffic", "Failed", ("Failed", json.dumps(JUDGED))),
                 result("dry", "Failed", ("Failed", "9"), dryRun=True)),
        analysis("r2", "Successful", "v3", result("well", "Successful", ("Successful", "1"))),
        analysis("r0", "Failed", "v1", result("old", "Failed", ("Failed", "1"))),
    ]  # fmt: skip
    found = evidence_of(runs, "v3", at(-5))
    assert [(each.run, each.metric, each.phase) for each in found] == [
        ("r1", "traffic", "Failed"),
        ("r1", "well", "Successful"),
    ]
    assert found[0].canary == {"requests": "700", "errors": "14", "errorRatio": "2.00%", "p95": "81ms"}
    assert found[0].stable == {"errorRatio": "0.10%", "p95": "80ms"}
    assert found[1].canary == {}


def test_runs_of_an_earlier_try_are_no_evidence() -> None:
    run = analysis("r1", "Failed", "v3", result("web", "Failed", ("Failed", "2")))
    run = replace(run, status__completed_at=at(-0.5))
    assert evidence_of([run], "v3", at(-1)) != []
    assert evidence_of([run], "v3", at(0)) == []


def test_the_first_measurement_that_failed_is_the_first_bad_moment() -> None:
    run = analysis("r1", "Failed", "v3", result("web", "Failed", ("Successful", "1"), ("Failed", "2"), ("Failed", "3")))
    assert first_failure([run], evidence_of([run], "v3", None)) == at(1)


@dataclass
class Second:
    requests: int = 100
    errors: int = 0
    slow: int = 0
    p95: float = 0.1

    def slower(self, seconds: float) -> int:
        return self.slow


@given(st.integers(1, 40), st.integers(0, 50), st.booleans())
def test_the_first_bad_second_is_found_behind_the_verdict(length: int, before: int, slow: bool) -> None:
    """length: seconds that are bad until the verdict; before: a stray error so many seconds earlier."""
    decided = NOW + timedelta(seconds=100.4)
    first = 100 - length
    bad = Second(slow=50) if slow else Second(errors=2)

    def look(end: float) -> Second:
        second = round(end - NOW.timestamp()) - 1
        if first <= second < 100:
            return bad
        return Second(errors=1) if before > 5 and second == first - before else Second()

    assert first_bad(look, decided, NOW, 0.8) == at(first)


def test_without_bad_seconds_there_is_no_first_one() -> None:
    assert first_bad(lambda _: Second(), NOW, None, 0.8) is None
    assert first_bad(lambda _: Second(errors=1), NOW, NOW - timedelta(seconds=10), 0.8) == at(-10)


# What becomes of it


def incident(**status: Any) -> Incident:
    spec = IncidentSpec(
        rollout="shop", version="v3", decided_at=at(60), cause="Analysis", message=WHY, started_at=at(0)
    )
    return Incident(
        metadata=ObjectMeta(name="shop-v3", namespace="default"), spec=spec, status=IncidentStatus(**status)
    )


def sets(replicas: int) -> Sequence[ReplicaSet]:
    metadata = {"name": "shop-v3", "labels": {"rollouts-pod-template-hash": "v3"}}
    tree = {"metadata": metadata, "spec": {"replicas": replicas}, "status": {"replicas": replicas}}
    return [from_dict(tree, ReplicaSet)]


def weights(canary: int) -> dict[str, Any]:
    return {"weights": {"canary": {"weight": canary, "podTemplateHash": "v3"}, "stable": {"weight": 100 - canary}}}


def test_it_is_closed_when_traffic_is_back_replicas_are_down_and_git_is_done() -> None:
    one = incident()
    seen = followed(one, rollout(canary=weights(20)), sets(2), NOW)
    assert (seen.phase, seen.traffic_back_at, seen.replicas_down_at) == ("Open", None, None)
    seen = followed(replace(one, status=seen), rollout(canary=weights(0)), sets(2), NOW)
    assert (seen.phase, seen.traffic_back_at, seen.replicas_down_at) == ("Open", at(0), None)
    later = NOW + timedelta(seconds=30)
    seen = followed(replace(one, status=seen), rollout(canary=weights(0)), sets(0), later)
    assert (seen.phase, seen.traffic_back_at, seen.replicas_down_at) == ("Open", at(0), at(30))
    done = replace(seen, git=GitReturn(state="Reverted"))
    assert followed(replace(one, status=done), rollout(canary=weights(0)), sets(0), later).phase == "Closed"


@pytest.mark.parametrize("after", [None, rollout(abort=None, canary=weights(20))])
def test_it_does_not_stay_open_when_the_rollout_goes_or_tries_again(after: Rollout | None) -> None:
    one = incident(git=GitReturn(state="Off"))
    assert followed(one, after, sets(2), NOW).phase == "Closed"


def test_moments_are_in_order_and_of_this_rollback_alone() -> None:
    def event(seconds: float, reason: str, last: float | None = None) -> Event:
        tree = {"metadata": {"name": f"e{seconds}"}, "reason": reason, "message": f"at {seconds}",
                "firstTimestamp": at(seconds), "lastTimestamp": at(seconds if last is None else last)}  # fmt: skip
        return from_dict(tree, Event)

    events = [
        event(30, "RolloutStepCompleted"),
        event(-400, "RolloutStepCompleted"),
        event(-300, "TrafficWeightUpdated", last=10),
        event(5, "ScalingReplicaSet"),
        event(900, "RolloutPaused"),
    ]
    git = GitReturn(state="Reverted", message="commit 1", ended_at=at(70), rejected=["abc"], rejected_at=at(62))
    status = IncidentStatus(first_bad_at=at(56), traffic_back_at=at(60.1), replicas_down_at=at(91), git=git)
    found = timeline(incident(), status, events)
    assert [each.what for each in found] == [
        "Started", "TrafficWeight", "StepCompleted", "FirstBad", "Decided", "TrafficBack", "Rejected", "Git",
        "ReplicasDown",
    ]  # fmt: skip
    many = timeline(incident(), replace(status, replicas_down_at=None), [event(n, "RolloutPaused") for n in range(200)])
    assert len(many) <= 60
    assert "Decided" in [each.what for each in many]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**6), st.booleans()), max_size=300))
def test_old_incidents_go_but_open_ones_stay(listed: list[tuple[str, int, bool]]) -> None:
    there = [
        replace(
            incident(phase="Closed" if closed else "Open"),
            metadata__name=f"i{number}", spec__rollout=name, spec__decided_at=at(seconds),
        )
        for number, (name, seconds, closed) in enumerate(listed)
    ]  # fmt: skip
    gone = superfluous(there, "a")
    assert all(each.status.phase == "Closed" for each in gone)
    left = [each for each in there if each not in gone and each.status.phase == "Closed"]
    assert len([each for each in left if each.spec.rollout == "a"]) <= 20
    assert len(left) <= 200
    newest = sorted(there, key=lambda each: each.spec.decided_at, reverse=True)[:1]
    assert not any(each in gone for each in newest if len(there) < 200)
