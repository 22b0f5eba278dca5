"""Jobs without a server: which pods to make and delete, how a job ends, and that no pod is lost or counted twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import times
from pilothouse.kinds.structs import Job, Pod, from_dict, replace
from pilothouse.workloads.jobs import FINALIZER, Seen, end_of, is_complete, is_tracked, look, plan, seconds_left
from pilothouse.workloads.jobs_backoff import NO_FAILURES, Failures, wait
from pilothouse.workloads.jobs_indexes import FAILURES, IGNORED_FAILURES, INDEX
from pilothouse.workloads.jobs_pods import pods_for
from pilothouse.workloads.jobs_status import Counts, begun, counted, finished, suspended_or_resumed
from pilothouse.workloads.jobs_tracking import track

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)


def job(status: dict[str, Any] | None = None, **spec: Any) -> Job:
    wanted = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "template": _template(), **spec}
    metadata = {"name": "j", "namespace": "n", "uid": "job-uid"}
    return from_dict({"metadata": metadata, "spec": wanted, "status": status or {}}, Job)


def _template() -> dict[str, Any]:
    return {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}


def pod(name: str, phase: str = "Running", *, index: int | None = None, **more: Any) -> Pod:
    """Make a pod. more: tracked, deleting, ended (seconds ago), code, failures, node, ready."""
    ended = times.format_seconds(NOW - timedelta(seconds=more.get("ended", 5)))
    state: dict[str, Any] = {"running": {}}
    if phase in ("Succeeded", "Failed"):
        code = more.get("code", 0 if phase == "Succeeded" else 1)
        state = {"terminated": {"exitCode": code, "finishedAt": ended}}
    notes = {} if index is None else {INDEX: str(index), FAILURES: str(more.get("failures", 0))}
    return from_dict(
        {
            "metadata": {
                "name": name,
                "namespace": "n",
                "uid": name,
                "annotations": notes,
                "finalizers": [FINALIZER] if more.get("tracked", True) else [],
                "creationTimestamp": ended,
                "deletionTimestamp": ended if more.get("deleting") else None,
            },
            "spec": {"nodeName": more.get("node", "a"), "containers": [{"name": "c", "image": "i"}]},
            "status": {
                "phase": phase,
                "conditions": [*more.get("conditions", ()), {"type": "Ready", "status": str(bool(more.get("ready")))}],
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": False, "state": state}],
            },
        },
        Pod,
    )


def seen(of: Job, pods: Sequence[Pod] = (), failures: Failures = NO_FAILURES) -> Seen:
    return look(begun(of, NOW), pods, failures)


@pytest.mark.parametrize(
    ("spec", "status", "pods", "made"),
    [
        ({"parallelism": 3, "completions": 5}, {}, [], 3),
        ({"parallelism": 3, "completions": 5}, {"succeeded": 4}, [], 1),
        ({"parallelism": 3, "completions": 5}, {}, [pod("a"), pod("b")], 1),
        ({"parallelism": 3, "completions": None}, {}, [pod("a")], 2),
        ({"parallelism": 3, "completions": None}, {}, [pod("a"), pod("b", "Succeeded")], 0),
        ({"parallelism": 0}, {}, [], 0),
        ({"suspend": True}, {}, [], 0),
        ({}, {}, [pod("a", deleting=True)], 0),  # counts as failed, so it waits
        ({"podReplacementPolicy": "Failed"}, {}, [pod("a", deleting=True)], 0),
        ({"parallelism": 1000, "completions": 1000}, {}, [], 500),
    ],
)
def test_as_many_pods_as_wanted(spec: dict[str, Any], status: dict[str, Any], pods: list[Pod], made: int) -> None:
    assert len(plan(seen(job(status, **spec), pods), NOW).create) == made


def test_what_is_too_much_goes_in_order() -> None:
    pods = [pod("ready", ready=True), pod("running"), pod("pending", "Pending"), pod("nowhere", "Pending", node="")]
    found = plan(seen(job(parallelism=1, completions=9), pods), NOW)
    assert [one.metadata.name for one in found.delete] == ["nowhere", "pending", "running"]
    suspended = plan(seen(job(parallelism=4, completions=9, suspend=True), pods), NOW)
    assert len(suspended.delete) == 4


def test_indexes_that_are_free_get_pods() -> None:
    wanted = job({"completedIndexes": "0,3"}, parallelism=4, completions=6, completionMode="Indexed")
    assert plan(seen(wanted, [pod("a", index=1)]), NOW).create == [2, 4, 5]


def test_double_and_foreign_indexes_go() -> None:
    pods = [pod("a", index=0, ready=True), pod("b", index=0), pod("c", index=9), pod("d")]
    found = plan(seen(job(parallelism=2, completions=2, completionMode="Indexed"), pods), NOW)
    assert {one.metadata.name for one in found.delete} == {"b", "c", "d"}


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [
        (NO_FAILURES, 0.0),
        (Failures(1, NOW), 10.0),
        (Failures(2, NOW), 20.0),
        (Failures(3, NOW - timedelta(seconds=15)), 25.0),
        (Failures(7, NOW), 600.0),
        (Failures(100, NOW), 600.0),
        (Failures(1, NOW - timedelta(seconds=11)), 0.0),
    ],
)
def test_the_pause_doubles(failures: Failures, seconds: float) -> None:
    assert wait(failures, NOW) == seconds


def test_a_success_ends_the_pauses() -> None:
    before = Failures(3, NOW)
    assert before.after([pod("a", "Succeeded", ended=1)], [pod("b", "Failed", ended=5)]) == NO_FAILURES
    later = before.after([pod("a", "Succeeded", ended=5)], [pod("b", "Failed", ended=1)])
    assert later == Failures(1, NOW - timedelta(seconds=1))
    assert before.after([], []) is before
    assert before.after([], [pod("b", "Failed", ended=1)]).number == 4


def test_a_failed_pod_is_replaced_after_a_pause() -> None:
    found = seen(job(), [pod("a", "Failed", ended=4)])
    assert plan(found, NOW).wait == 6.0
    assert plan(found, NOW + timedelta(seconds=7)).create == [None]


def _end(of: Job, pods: Sequence[Pod] = ()) -> tuple[str, str] | None:
    found = end_of(seen(of, pods), NOW)
    return None if found is None else (found.type, found.reason)


_RULE = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}
_INDEXED = {"completionMode": "Indexed", "parallelism": 3, "completions": 3}
_TARGET = [{"type": "FailureTarget", "status": "True", "reason": "R"}]
_MET = [{"type": "SuccessCriteriaMet", "status": "True", "reason": "S"}]


@pytest.mark.parametrize(
    ("of", "pods", "end"),
    [
        (job(), [pod("a")], None),
        (job(backoffLimit=0), [pod("a", "Failed")], ("FailureTarget", "BackoffLimitExceeded")),
        (job({"failed": 6}), [pod("a", "Failed")], ("FailureTarget", "BackoffLimitExceeded")),
        (job({"failed": 6}), [pod("a", "Failed", tracked=False)], None),
        (job(podFailurePolicy=_RULE), [pod("a", "Failed", code=42)], ("FailureTarget", "PodFailurePolicy")),
        (job(podFailurePolicy=_RULE), [pod("a", "Failed", code=41)], None),
        (
            job({"startTime": "2025-01-01T11:59:50Z"}, activeDeadlineSeconds=10),
            [],
            ("FailureTarget", "DeadlineExceeded"),
        ),
        (job({"startTime": "2025-01-01T11:59:51Z"}, activeDeadlineSeconds=10), [], None),
        (job({"startTime": "2025-01-01T11:59:50Z"}, activeDeadlineSeconds=10, suspend=True), [], None),
        (
            job({}, **_INDEXED, backoffLimitPerIndex=0, maxFailedIndexes=0),
            [pod("a", "Failed", index=1)],
            ("FailureTarget", "MaxFailedIndexesExceeded"),
        ),
        (
            job({"completedIndexes": "0,2"}, **_INDEXED, backoffLimitPerIndex=0),
            [pod("a", "Failed", index=1)],
            ("FailureTarget", "FailedIndexes"),
        ),
        (job({}, **_INDEXED, backoffLimitPerIndex=1), [pod("a", "Failed", index=1)], None),
        (
            job({}, **_INDEXED, successPolicy={"rules": [{"succeededIndexes": "1"}]}),
            [pod("a", "Succeeded", index=1)],
            ("SuccessCriteriaMet", "SuccessPolicy"),
        ),
        (
            job({}, **_INDEXED, successPolicy={"rules": [{"succeededIndexes": "0-1", "succeededCount": 2}]}),
            [pod("a", "Succeeded", index=1)],
            None,
        ),
        (job({"conditions": _TARGET}), [], ("Failed", "R")),
        (job({"conditions": _MET}), [pod("a", "Failed")], ("SuccessCriteriaMet", "S")),
    ],
)
def test_how_a_job_ends(of: Job, pods: list[Pod], end: tuple[str, str] | None) -> None:
    assert _end(of, pods) == end


def test_restarts_within_pods_count() -> None:
    of = job(backoffLimit=2, template={"spec": {"restartPolicy": "OnFailure", "containers": []}})
    restarted = [replace(status, restart_count=2) for status in pod("a").status.container_statuses]
    assert _end(of, [replace(pod("a"), status__container_statuses=restarted)]) is not None
    assert _end(of, [pod("a")]) is None


@pytest.mark.parametrize(
    ("action", "conditions", "told"),
    [
        ("FailJob", True, "Pod n/a has condition DisruptionTarget matching FailJob rule at index 0"),
        ("FailJob", False, None),
        ("Ignore", True, None),
    ],
)
def test_conditions_are_judged(action: str, conditions: bool, told: str | None) -> None:
    pattern = {"type": "DisruptionTarget", "status": "True"}
    of = job(podFailurePolicy={"rules": [{"action": action, "onPodConditions": [pattern]}]}, backoffLimit=1)
    found = end_of(seen(of, [pod("a", "Failed", conditions=[pattern] if conditions else [])]), NOW)
    assert (found and found.message) == told


def test_a_pod_of_an_index_knows_it() -> None:
    of = job({}, **_INDEXED, backoffLimitPerIndex=3)
    (made,) = pods_for(of, [2], {2: pod("a", "Failed", index=2, failures=1)})
    assert made.metadata.generate_name == "j-2-"
    assert made.spec.hostname == "j-2"
    assert made.metadata.labels[INDEX] == made.metadata.annotations[INDEX] == "2"
    assert made.metadata.annotations[FAILURES] == "2"
    assert IGNORED_FAILURES not in made.metadata.annotations
    assert made.metadata.finalizers == [FINALIZER]
    (variable,) = made.spec.containers[0].env
    assert variable.name == "JOB_COMPLETION_INDEX"
    (long,) = pods_for(replace(of, metadata__name="x" * 70), [1234], {})
    assert len(long.metadata.generate_name) == 58
    assert long.metadata.generate_name.endswith("x-1234-")


def test_a_failed_pod_stays_until_its_index_has_another() -> None:
    of = job({}, **_INDEXED, backoffLimitPerIndex=3)
    failed = pod("a", "Failed", index=1)
    waiting = seen(of, [failed])
    counts = Counts(0, 0, 0)
    assert track(waiting, waiting.job.status, counts, None, NOW).release == []
    replaced = seen(of, [failed, pod("b", index=1, failures=1)])
    assert [one.metadata.name for one in track(replaced, replaced.job.status, counts, None, NOW).release] == ["a"]


def test_suspending_and_resuming() -> None:
    running = begun(job({"startTime": "2025-01-01T11:00:00Z"}), NOW)
    assert suspended_or_resumed(running, NOW) is running.status
    suspended = suspended_or_resumed(replace(running, spec__suspend=True), NOW)
    assert suspended.start_time is None
    again = suspended_or_resumed(replace(running, status=suspended), NOW)
    assert again.start_time == "2025-01-01T12:00:00Z"
    assert [(one.type, one.status, one.reason) for one in again.conditions] == [("Suspended", "False", "JobResumed")]
    assert seconds_left(replace(running, spec__active_deadline_seconds=3601), NOW) == 1.0


def test_a_job_does_not_end_before_its_pods_are_gone() -> None:
    found = seen(job(), [pod("a", "Succeeded")])
    assert is_complete(found, 0)
    assert not is_complete(found, 1)
    end = end_of(seen(job({"conditions": _MET})), NOW)
    tracking = track(found, found.job.status, Counts(0, 0, 1), end, NOW)
    assert finished(tracking.status, tracking.end) is None
    done = counted(tracking.status, set())
    assert finished(done, tracking.end) is None
    assert finished(replace(done, terminating=0), tracking.end) is not None


_STEPS = st.lists(st.sampled_from(["Succeeded", "Failed", "flush", "release", "count", "lost"]), max_size=40)


@given(_STEPS)
def test_no_pod_is_lost_or_counted_twice(steps: list[str]) -> None:
    """Play the protocol with an end at any step: what is written is kept, what was only meant to be written is not."""
    of = begun(job(parallelism=50, completions=50, backoffLimit=50), NOW)
    pods: list[Pod] = []
    meant = None
    ended = {"Succeeded": 0, "Failed": 0}
    for number, step in enumerate([*steps, "flush", "release", "flush"]):
        if step in ended:
            pods.append(pod(str(number), step))
            ended[step] += 1
        elif step == "lost":
            meant = None  # the process ended
        elif step == "flush":
            found = look(of, pods, NO_FAILURES)
            meant = track(found, of.status, Counts(0, 0, 0), None, NOW)
            of = replace(of, status=meant.status)
        elif step == "release" and meant is not None:
            gone = {one.metadata.uid for one in meant.release}
            pods = [replace(one, metadata__finalizers=[]) if one.metadata.uid in gone else one for one in pods]
        elif step == "count" and meant is not None:
            still = {one.metadata.uid for one in pods if is_tracked(one)}
            of = replace(of, status=counted(of.status, still))
    assert of.status.succeeded == ended["Succeeded"]
    assert of.status.failed == ended["Failed"]
    uncounted = of.status.uncounted_terminated_pods
    assert uncounted is not None
    assert not uncounted.succeeded
    assert not uncounted.failed
