"""Validation of the apps group and of replication controllers."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.claims import claim_spec
from pilothouse.kinds.validation.metadata import label_selector, matches, shown_selector
from pilothouse.kinds.validation.pods import pod_template

__all__ = [
    "daemon_set",
    "daemon_set_update",
    "deployment",
    "deployment_update",
    "pod_template_object",
    "replica_set",
    "replica_set_update",
    "replication_controller",
    "stateful_set",
    "stateful_set_update",
]

_TEMPLATE = SPEC.child("template")
_MISMATCH = "`selector` does not match template `labels`"
_RETENTION = ("Retain", "Delete")
_STATEFUL_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_STATEFUL_FORBIDDEN = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def _selector(errors: ErrorList, spec: Object, kind: str) -> None:
    selector = spec.get("selector")
    if selector is None:
        errors.required(SPEC.child("selector"))
        return
    label_selector(errors, SPEC.child("selector"), selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        text = f"empty selector is invalid for {kind}"
        errors.invalid(SPEC.child("selector"), shown_selector(selector), text)


def _template(errors: ErrorList, spec: Object, kind: str, extra_volumes: list[Object] | None = None) -> None:
    template: Object = spec.get("template") or {}
    selected = matches(spec.get("selector"), _labels(template))
    if selected is None:
        text = "" if kind == "StatefulSet" else "invalid label selector"
        errors.invalid(SPEC.child("selector"), shown_selector(spec.get("selector")), text)
        return
    if not selected:
        errors.invalid(_TEMPLATE.child("metadata", "labels"), _labels(template), _MISMATCH)
    pod_template(errors, _TEMPLATE, template, extra_volumes or ())
    _long_running(errors, template, kind)


def _labels(template: Object) -> Object | None:
    found: Object | None = (template.get("metadata") or {}).get("labels")
    return found


def _long_running(errors: ErrorList, template: Object, kind: str) -> None:
    pod: Object = template.get("spec") or {}
    if pod.get("restartPolicy") != "Always":
        errors.not_supported(_TEMPLATE.child("spec", "restartPolicy"), pod.get("restartPolicy") or "", ("Always",))
    if pod.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {kind} is not Supported"
        errors.forbidden(_TEMPLATE.child("spec", "activeDeadlineSeconds"), text)


def deployment(errors: ErrorList, obj: Object) -> None:
    """Check a Deployment, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    checks.non_negative(errors, SPEC, spec, "replicas")
    _selector(errors, spec, "deployment")
    _template(errors, spec, "ReplicaSet")
    _deployment_strategy(errors, SPEC.child("strategy"), spec.get("strategy") or {})
    checks.non_negative(errors, SPEC, spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        errors.invalid(SPEC.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds")


def _deployment_strategy(errors: ErrorList, at: Path, strategy: Object) -> None:
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            text = "may not be specified when strategy `type` is 'Recreate'"
            errors.forbidden(at.child("rollingUpdate"), text)
    elif kind == "RollingUpdate":
        if rolling is None:
            errors.required(at.child("rollingUpdate"), "this should be defaulted and never be nil")
            return
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        place = at.child("rollingUpdate")
        checks.int_or_percent(errors, place.child("maxUnavailable"), unavailable)
        checks.int_or_percent(errors, place.child("maxSurge"), surge)
        if checks.percent_or_number(unavailable) == 0 and checks.percent_or_number(surge) == 0:
            errors.invalid(place.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0")
        checks.not_above_100_percent(errors, place.child("maxUnavailable"), unavailable)
    else:
        errors.not_supported(at, _shown_strategy(strategy), ("Recreate", "RollingUpdate"))


def _shown_strategy(strategy: Object) -> Struct:
    rolling = strategy.get("rollingUpdate")
    shown = rolling and Struct({name[0].upper() + name[1:]: value for name, value in sorted(rolling.items())})
    return Struct(Type=strategy.get("type") or "", RollingUpdate=shown or None)


def _selector_update(errors: ErrorList, new: Object, old: Object) -> None:
    after, before = (part.get("spec") or {} for part in (new, old))
    selector = after.get("selector")
    checks.immutable(errors, SPEC.child("selector"), selector, before.get("selector"), shown_selector(selector))


def deployment_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a Deployment that replaces another: the selector stays."""
    deployment(errors, new)
    _selector_update(errors, new, old)


def replica_set(errors: ErrorList, obj: Object) -> None:
    """Check a ReplicaSet, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    checks.non_negative(errors, SPEC, spec, "replicas", "minReadySeconds")
    _selector(errors, spec, "deployment")
    _template(errors, spec, "ReplicaSet")


def replica_set_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ReplicaSet that replaces another: the selector stays."""
    replica_set(errors, new)
    _selector_update(errors, new, old)


def daemon_set(errors: ErrorList, obj: Object) -> None:
    """Check a DaemonSet, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    template: Object = spec.get("template") or {}
    selector = spec.get("selector")
    label_selector(errors, SPEC.child("selector"), selector)
    if matches(selector, _labels(template)) is False:
        errors.invalid(_TEMPLATE.child("metadata", "labels"), _labels(template), _MISMATCH)
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        text = "empty selector is invalid for daemonset"
        errors.invalid(SPEC.child("selector"), shown_selector(selector), text)
    pod_template(errors, _TEMPLATE, template)
    _long_running(errors, template, "DaemonSet")
    checks.non_negative(errors, SPEC, spec, "minReadySeconds")
    _daemon_strategy(errors, SPEC.child("updateStrategy"), spec.get("updateStrategy") or {})
    checks.non_negative(errors, SPEC, spec, "revisionHistoryLimit")


def _daemon_strategy(errors: ErrorList, at: Path, strategy: Object) -> None:
    kind = strategy.get("type") or ""
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        errors.not_supported(at, _shown_strategy(strategy), ("RollingUpdate", "OnDelete"))
        return
    rolling = strategy.get("rollingUpdate")
    if rolling is None:
        errors.required(at.child("rollingUpdate"))
        return
    place = at.child("rollingUpdate")
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    for field, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        checks.int_or_percent(errors, place.child(field), value)
        checks.not_above_100_percent(errors, place.child(field), value)
    if checks.percent_or_number(unavailable) and checks.percent_or_number(surge):
        errors.invalid(place.child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero")
    elif not checks.percent_or_number(unavailable) and not checks.percent_or_number(surge):
        errors.required(place.child("maxUnavailable"), "cannot be 0 when maxSurge is 0")


def daemon_set_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a DaemonSet that replaces another: the selector stays."""
    daemon_set(errors, new)
    _selector_update(errors, new, old)


def stateful_set(errors: ErrorList, obj: Object) -> None:
    """Check a StatefulSet, its metadata apart."""
    _stateful_set(errors, obj.get("spec") or {}, new=True)


def _stateful_set(errors: ErrorList, spec: Object, *, new: bool) -> None:
    policy = spec.get("podManagementPolicy") or ""
    if not policy:
        errors.required(SPEC.child("podManagementPolicy"))
    elif policy not in {"OrderedReady", "Parallel"}:
        errors.invalid(SPEC.child("podManagementPolicy"), policy, "must be 'OrderedReady' or 'Parallel'")
    _stateful_strategy(errors, SPEC.child("updateStrategy"), spec.get("updateStrategy") or {})
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field, value in retention.items():
        if value not in _RETENTION:
            errors.not_supported(SPEC.child("persistentVolumeClaimRetentionPolicy", field), value, _RETENTION)
    templates = items(spec, "volumeClaimTemplates")
    if new:
        for position, template in enumerate(templates):
            place = SPEC.child("volumeClaimTemplates").index(position).child("spec")
            claim_spec(errors, place, template.get("spec") or {})
    checks.non_negative(errors, SPEC, spec, "replicas", "minReadySeconds")
    checks.non_negative(errors, Path("spec.ordinals"), spec.get("ordinals") or {}, "start")
    if new and (service := spec.get("serviceName")):
        checks.name(errors, SPEC.child("serviceName"), service, names.dns1123_label)
    _selector(errors, spec, "statefulset")
    claimed = dict.fromkeys((template.get("metadata") or {}).get("name") or "" for template in templates)
    _template(
        errors,
        spec,
        "StatefulSet",
        [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claimed],
    )


def _stateful_strategy(errors: ErrorList, at: Path, strategy: Object) -> None:
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if not kind:
        errors.required(at)
    elif kind == "OnDelete":
        if rolling is not None:
            shown = Struct(Partition=rolling.get("partition") or 0, MaxUnavailable=rolling.get("maxUnavailable"))
            errors.invalid(at.child("rollingUpdate"), shown, "only allowed for updateStrategy 'RollingUpdate'")
    elif kind != "RollingUpdate":
        errors.invalid(at, _shown_strategy(strategy), "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None:
        checks.non_negative(errors, at.child("rollingUpdate"), rolling, "partition")
        unavailable = rolling.get("maxUnavailable")
        if unavailable is not None:
            place = at.child("rollingUpdate", "maxUnavailable")
            checks.int_or_percent(errors, place, unavailable)
            if checks.percent_or_number(unavailable) == 0:
                errors.invalid(place, unavailable, "cannot be 0")
            checks.not_above_100_percent(errors, place, unavailable)


def stateful_set_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a StatefulSet that replaces another: few fields may change."""
    spec: Object = new.get("spec") or {}
    before: Object = old.get("spec") or {}
    _stateful_set(errors, spec, new=False)
    kept = ({key: value for key, value in part.items() if key not in _STATEFUL_MUTABLE} for part in (spec, before))
    after, previous = kept
    if after != previous:
        errors.forbidden(SPEC, _STATEFUL_FORBIDDEN)


def replication_controller(errors: ErrorList, obj: Object) -> None:
    """Check a ReplicationController, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    checks.non_negative(errors, SPEC, spec, "minReadySeconds")
    selector = spec.get("selector")
    if not selector:
        errors.required(SPEC.child("selector"))
    checks.non_negative(errors, SPEC, spec, "replicas")
    template = spec.get("template")
    if template is None:
        errors.required(_TEMPLATE)
        return
    if selector and not matches({"matchLabels": selector}, _labels(template)):
        errors.invalid(_TEMPLATE.child("metadata", "labels"), _labels(template), _MISMATCH)
    pod_template(errors, _TEMPLATE, template)
    _long_running(errors, template, "ReplicationController")


def pod_template_object(errors: ErrorList, obj: Object) -> None:
    """Check a PodTemplate, its metadata apart."""
    pod_template(errors, Path("template"), obj.get("template") or {})
