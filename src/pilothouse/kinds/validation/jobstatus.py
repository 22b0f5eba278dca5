"""Validation of the status of a job: what is finished stays so, and its counts and times fit together.

Kubernetes tolerates what was wrong before, so each rule applies where what it looks at has changed.
"""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.fielderrors import OMIT, ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items

__all__ = ["job_status"]

_STATUS = Path("status")
_CONDITIONS = _STATUS.child("conditions")
_COUNTS = ("active", "succeeded", "failed", "ready", "terminating")
_TERMINAL = ("Failed", "Complete", "FailureTarget")
_FINISHED = ("Complete", "Failed")
_EXCLUSIVE = (
    ("Complete", "Failed"),
    ("Complete", "FailureTarget"),
    ("SuccessCriteriaMet", "Failed"),
    ("SuccessCriteriaMet", "FailureTarget"),
)
_WANTED = (("Failed", "FailureTarget"), ("Complete", "SuccessCriteriaMet"))


def job_status(errors: ErrorList, new: Object, old: Object) -> None:
    """Check the status of a Job that replaces another."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    held, former = _true(status), _true(before)
    checks.non_negative(errors, _STATUS, status, *_COUNTS)
    _uncounted(errors, status)
    if held != former:
        _conditions(errors, held)
    _times(errors, status, before, finished=(held, former))
    _pods(errors, status, before, finished=bool(held & set(_FINISHED)), changed=held != former)
    _indexes(errors, spec, status, before)
    for kind in (*_TERMINAL, "SuccessCriteriaMet"):
        if kind in former and kind not in held:
            adjective = "" if kind == "SuccessCriteriaMet" else "terminal "
            errors.invalid(_CONDITIONS, OMIT, f"cannot disable the {adjective}{kind}=True condition")
    for field in ("failed", "succeeded"):
        value = status.get(field) or 0
        if value < (before.get(field) or 0):
            errors.invalid(_STATUS.child(field), value, f"cannot decrease the {field} counter")
    started = before.get("startTime")
    if started and status.get("startTime") != started and not spec.get("suspend"):
        errors.required(_STATUS.child("startTime"), "startTime cannot be removed for unsuspended job")


def _true(status: Object) -> set[Any]:
    return {each.get("type") for each in items(status, "conditions") if each.get("status") == "True"}


def _uncounted(errors: ErrorList, status: Object) -> None:
    seen: set[str] = set()
    for field in ("succeeded", "failed"):
        for position, uid in enumerate(items(status.get("uncountedTerminatedPods") or {}, field)):
            at = _STATUS.child("uncountedTerminatedPods", field).index(position)
            if not uid:
                errors.invalid(at, uid, "must not be empty")
            elif uid in seen:
                errors.duplicate(at, uid)
            seen.add(uid)


def _conditions(errors: ErrorList, held: set[Any]) -> None:
    for kind, other in _EXCLUSIVE:
        if kind in held and other in held:
            errors.invalid(_CONDITIONS, OMIT, f"cannot set {kind}=True and {other}=true conditions")
    for kind, needed in _WANTED:
        if kind in held and needed not in held:
            errors.invalid(_CONDITIONS, OMIT, f"cannot set {kind}=True condition without the {needed}=true condition")


def _times(errors: ErrorList, status: Object, before: Object, *, finished: tuple[set[Any], set[Any]]) -> None:
    (held, former), changed = finished, finished[0] != finished[1]
    start, completion = status.get("startTime"), status.get("completionTime")
    at = _STATUS.child("completionTime")
    if changed or completion != before.get("completionTime"):
        if "Complete" in held and not completion:
            errors.required(at, "completionTime is required for Complete jobs")
        if "Complete" not in held and completion:
            errors.invalid(at, completion, "cannot set completionTime when there is no Complete=True condition")
    if completion and before.get("completionTime") and completion != before["completionTime"]:
        errors.invalid(at, completion, "completionTime cannot be mutated")
    if completion and start and completion < start and before.get("completionTime") != completion:
        errors.invalid(at, completion, "completionTime cannot be set before startTime")
    if held & set(_FINISHED) and not start and not former & set(_FINISHED):
        errors.required(_STATUS.child("startTime"), "startTime is required for finished job")


def _pods(errors: ErrorList, status: Object, before: Object, *, finished: bool, changed: bool) -> None:
    for field in ("active", "terminating"):
        value = status.get(field) or 0
        if finished and value > 0 and (changed or value != before.get(field)):
            errors.invalid(_STATUS.child(field), value, f"{field}>0 is invalid for finished job")
    uncounted: Object = status.get("uncountedTerminatedPods") or {}
    if finished and (changed or uncounted != before.get("uncountedTerminatedPods")) and any(uncounted.values()):
        text = "uncountedTerminatedPods needs to be empty for finished job"
        errors.invalid(_STATUS.child("uncountedTerminatedPods"), uncounted, text)
    ready, active = status.get("ready") or 0, status.get("active") or 0
    if ready > active and (ready, active) != (before.get("ready") or 0, before.get("active") or 0):
        errors.invalid(_STATUS.child("ready"), ready, "cannot set more ready pods than active")


def _indexes(errors: ErrorList, spec: Object, status: Object, before: Object) -> None:
    completed, failed = status.get("completedIndexes") or "", status.get("failedIndexes")
    if completed and completed != before.get("completedIndexes") and spec.get("completionMode") != "Indexed":
        text = "cannot set non-empty completedIndexes when non-indexed completion mode"
        errors.invalid(_STATUS.child("completedIndexes"), completed, text)
    if failed is not None and failed != before.get("failedIndexes") and spec.get("backoffLimitPerIndex") is None:
        text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        errors.invalid(_STATUS.child("failedIndexes"), failed, text)
