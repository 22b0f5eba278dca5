"""Validation of Jobs and CronJobs."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object
from pilothouse.kinds.validation.cron import ScheduleError, check_schedule
from pilothouse.kinds.validation.metadata import label_selector, matches, shown_selector
from pilothouse.kinds.validation.pods import pod_template

__all__ = ["cron_job", "cron_job_update", "job", "job_update"]

_NUMBERS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_INDEX_NUMBERS = ("backoffLimitPerIndex", "maxFailedIndexes")
_COMPLETION_MODES = ("NonIndexed", "Indexed")
_REPLACEMENTS = ("Failed", "TerminatingOrFailed")
_CONCURRENCY = ("Allow", "Forbid", "Replace")
_PARALLELISM_MAXIMUM = 100_000
_CRON_NAME_LENGTH = 52
_JOB_IMMUTABLE = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_SCHEDULING = ("affinity", "nodeSelector", "tolerations", "schedulingGates")


def job(errors: ErrorList, obj: Object) -> None:
    """Check a Job, its metadata apart. Its selector may be generated later and is then not there yet."""
    spec: Object = obj.get("spec") or {}
    _job_spec(errors, SPEC, spec)
    selector = spec.get("selector")
    if selector is not None:
        label_selector(errors, SPEC.child("selector"), selector)
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if matches(selector, labels) is False:
            text = "`selector` does not match template `labels`"
            errors.invalid(SPEC.child("template", "metadata", "labels"), labels, text)
    name = (obj.get("metadata") or {}).get("name") or ""
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        host = f"{name}-{spec['completions'] - 1}"
        if names.dns1123_label(host):
            text = f"will not able to create pod with invalid DNS label: {host}"
            errors.invalid(Path("metadata.name"), name, text)


def _job_spec(errors: ErrorList, at: Path, spec: Object) -> None:
    checks.non_negative(errors, at, spec, *_NUMBERS, *_INDEX_NUMBERS)
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.required(at.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified")
    mode = spec.get("completionMode") or "NonIndexed"
    if mode not in _COMPLETION_MODES:
        errors.not_supported(at.child("completionMode"), mode, _COMPLETION_MODES)
    if mode == "Indexed":
        _indexed(errors, at, spec)
    elif mode == "NonIndexed":
        for field in _INDEX_NUMBERS:
            if spec.get(field) is not None:
                errors.invalid(at.child(field), spec[field], "requires indexed completion mode")
    replacement = spec.get("podReplacementPolicy")
    if replacement is not None and replacement not in _REPLACEMENTS:
        errors.not_supported(at.child("podReplacementPolicy"), replacement, _REPLACEMENTS)
    template: Object = spec.get("template") or {}
    pod_template(errors, at.child("template"), template)
    _restart_policy(errors, at.child("template", "spec", "restartPolicy"), spec, template)


def _indexed(errors: ErrorList, at: Path, spec: Object) -> None:
    completions, failed = spec.get("completions"), spec.get("maxFailedIndexes")
    if completions is None:
        errors.required(at.child("completions"), "when completion mode is Indexed")
    parallelism = spec.get("parallelism") or 0
    if parallelism > _PARALLELISM_MAXIMUM:
        text = f"must be less than or equal to {_PARALLELISM_MAXIMUM} when completion mode is Indexed"
        errors.invalid(at.child("parallelism"), parallelism, text)
    if completions is not None and failed is not None and failed > completions:
        errors.invalid(at.child("maxFailedIndexes"), failed, "must be less than or equal to completions")


def _restart_policy(errors: ErrorList, at: Path, spec: Object, template: Object) -> None:
    policy = (template.get("spec") or {}).get("restartPolicy") or ""
    if policy in {"", "Always"}:
        errors.required(at, 'valid values: "OnFailure", "Never"')
    elif policy not in {"OnFailure", "Never"}:
        errors.not_supported(at, policy, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        errors.invalid(at, policy, 'only "Never" is supported when podFailurePolicy is specified')


def job_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a Job that replaces another: how many run may change; the template only where the pods are scheduled.

    Scheduling directives may change while the Job is suspended and has not started.
    """
    job(errors, new)
    spec: Object = new.get("spec") or {}
    before: Object = old.get("spec") or {}
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    if not elastic:
        after = spec.get("completions")
        checks.immutable(errors, SPEC.child("completions"), after, before.get("completions"))
    selector = spec.get("selector")
    checks.immutable(errors, SPEC.child("selector"), selector, before.get("selector"), shown_selector(selector))
    template: Object = spec.get("template") or {}
    previous: Object = before.get("template") or {}
    if before.get("suspend") and not (old.get("status") or {}).get("startTime"):
        template, previous = _without_scheduling(template), _without_scheduling(previous)
    checks.immutable(errors, SPEC.child("template"), template, previous, spec.get("template"))
    for field in _JOB_IMMUTABLE:
        checks.immutable(errors, SPEC.child(field), spec.get(field), before.get(field))


def _without_scheduling(template: Object) -> Object:
    pod = {key: value for key, value in (template.get("spec") or {}).items() if key not in _SCHEDULING}
    return {"spec": pod}


def cron_job(errors: ErrorList, obj: Object) -> None:
    """Check a new CronJob, its metadata apart."""
    _cron_job(errors, obj.get("spec") or {}, zone_allowed=False)
    name = (obj.get("metadata") or {}).get("name") or ""
    if len(name) > _CRON_NAME_LENGTH:
        errors.invalid(Path("metadata.name"), name, f"must be no more than {_CRON_NAME_LENGTH} characters")


def cron_job_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a CronJob that replaces another; a time zone within the schedule may stay where there was one."""
    before = (old.get("spec") or {}).get("schedule") or ""
    _cron_job(errors, new.get("spec") or {}, zone_allowed="TZ" in before)


def _cron_job(errors: ErrorList, spec: Object, *, zone_allowed: bool) -> None:
    schedule = spec.get("schedule") or ""
    if schedule:
        _schedule(errors, schedule, spec.get("timeZone"), zone_allowed=zone_allowed)
    else:
        errors.required(SPEC.child("schedule"))
    checks.non_negative(errors, SPEC, spec, "startingDeadlineSeconds")
    zone = spec.get("timeZone")
    if zone is not None and (not zone or zone.lower() == "local"):
        text = "timeZone must be nil or non-empty string" if not zone else "timeZone must be an explicit time zone "
        text = text if not zone else text + "as defined in https://www.iana.org/time-zones"
        errors.invalid(SPEC.child("timeZone"), zone, text)
    checks.one_of(errors, SPEC, spec, "concurrencyPolicy", _CONCURRENCY)
    at, inner = SPEC.child("jobTemplate", "spec"), (spec.get("jobTemplate") or {}).get("spec") or {}
    _job_spec(errors, at, inner)
    if inner.get("selector") is not None:
        shown = shown_selector(inner["selector"])
        errors.invalid(at.child("selector"), shown, "`selector` will be auto-generated")
    if inner.get("manualSelector"):
        errors.not_supported(at.child("manualSelector"), True, ("nil", "false"))
    checks.non_negative(errors, SPEC, spec, "successfulJobsHistoryLimit", "failedJobsHistoryLimit")


def _schedule(errors: ErrorList, schedule: str, zone: str | None, *, zone_allowed: bool) -> None:
    at = SPEC.child("schedule")
    try:
        check_schedule(schedule)
    except ScheduleError as error:
        errors.invalid(at, schedule, str(error))
    if "TZ" not in schedule:
        return
    if not zone_allowed:
        errors.invalid(at, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
    elif zone is not None:
        errors.invalid(at, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")
