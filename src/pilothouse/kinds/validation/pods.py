"""Validation of pods, pod templates and what an update of a pod may change."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.affinity import affinity
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.containers import containers, init_containers
from pilothouse.kinds.validation.metadata import check_annotations, label_selector, labels
from pilothouse.kinds.validation.podlayout import spec_difference
from pilothouse.kinds.validation.volumes import pod_volumes

__all__ = ["pod_create", "pod_spec", "pod_template", "pod_update", "tolerations"]

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_PREEMPTION = ("PreemptLowerPriority", "Never")
_UNSATISFIABLE = ("DoNotSchedule", "ScheduleAnyway")
_SECONDS_MAXIMUM = 2**31 - 1
_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_NAMED = (
    ("serviceAccountName", names.dns1123_subdomain),
    ("nodeName", names.dns1123_subdomain),
    ("hostname", names.dns1123_label),
    ("subdomain", names.dns1123_label),
    ("priorityClassName", names.dns1123_subdomain),
    ("runtimeClassName", names.dns1123_subdomain),
)


def pod_create(errors: ErrorList, obj: Object) -> None:
    """Check a new Pod, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    pod_spec(errors, SPEC, spec, is_pod=True)
    for field in ("containers", "initContainers"):
        for position, container in enumerate(items(spec, field)):
            image = container.get("image") or ""
            if image != image.strip():
                place = SPEC.child(field).index(position).child("image")
                errors.invalid(place, image, "must not have leading or trailing whitespace")
    if spec.get("ephemeralContainers"):
        errors.forbidden(SPEC.child("ephemeralContainers"), "cannot be set on create")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        errors.forbidden(SPEC.child("nodeName"), "cannot be set until all schedulingGates have been cleared")


def pod_template(errors: ErrorList, at: Path, template: Object, extra_volumes: Sequence[Object] = ()) -> None:
    """Check a pod template; `extra_volumes` are there besides those it lists."""
    meta = template.get("metadata") or {}
    if found := meta.get("labels"):
        labels(errors, at.child("labels"), found)
    if found := meta.get("annotations"):
        check_annotations(errors, at.child("annotations"), found)
    spec: Object = template.get("spec") or {}
    if extra_volumes:
        taken = {volume["name"] for volume in extra_volumes}
        own = [volume for volume in items(spec, "volumes") if volume.get("name") not in taken]
        spec = {**spec, "volumes": [*extra_volumes, *own]}
    pod_spec(errors, at.child("spec"), spec)
    if spec.get("ephemeralContainers"):
        errors.forbidden(at.child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template")


def pod_spec(errors: ErrorList, at: Path, spec: Object, *, is_pod: bool = False) -> None:
    """Check the spec of a pod or pod template. Defaults must have been filled in."""
    volumes = pod_volumes(errors, at.child("volumes"), items(spec, "volumes"))
    claims = frozenset(claim.get("name", "") for claim in items(spec, "resourceClaims"))
    containers(errors, at.child("containers"), items(spec, "containers"), volumes, claims)
    if spec.get("initContainers"):
        init_containers(errors, at.child("initContainers"), spec, volumes, claims)
    if spec.get("hostNetwork"):
        _host_network(errors, at.child("containers"), spec, is_pod=is_pod)
    checks.one_of(errors, at, spec, "restartPolicy", _RESTART_POLICIES)
    checks.one_of(errors, at, spec, "dnsPolicy", _DNS_POLICIES)
    if security := spec.get("securityContext"):
        _pod_security(errors, at.child("securityContext"), security)
    if spec.get("dnsConfig") is not None or spec.get("dnsPolicy") == "None":
        _dns(errors, at.child("dnsConfig"), spec)
    _scheduling(errors, at, spec)
    _scalars(errors, at, spec)


def _scalars(errors: ErrorList, at: Path, spec: Object) -> None:
    for position, secret in enumerate(items(spec, "imagePullSecrets")):
        checks.required(errors, at.child("imagePullSecrets").index(position), secret, "name")
    for field, rule in _NAMED:
        if value := spec.get(field):
            for message in rule(value):
                errors.invalid(at.child(field), value, message)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _SECONDS_MAXIMUM:
        text = names.in_range(deadline, 1, _SECONDS_MAXIMUM)[0]
        errors.invalid(at.child("activeDeadlineSeconds"), deadline, text)
    preemption = spec.get("preemptionPolicy")
    if preemption is not None and preemption not in _PREEMPTION:
        errors.not_supported(at.child("preemptionPolicy"), preemption, _PREEMPTION)


def _scheduling(errors: ErrorList, at: Path, spec: Object) -> None:
    if selector := spec.get("nodeSelector"):
        labels(errors, at.child("nodeSelector"), selector)
    for position, gate in enumerate(items(spec, "schedulingGates")):
        place = at.child("schedulingGates").index(position)
        checks.name(errors, place, gate.get("name") or "", names.qualified_name)
    if constraints := spec.get("topologySpreadConstraints"):
        _spread(errors, at.child("topologySpreadConstraints"), constraints)
    if found := spec.get("affinity"):
        affinity(errors, at.child("affinity"), found)
    if given := spec.get("tolerations"):
        tolerations(errors, at.child("tolerations"), given)


def _host_network(errors: ErrorList, at: Path, spec: Object, *, is_pod: bool) -> None:
    for position, container in enumerate(items(spec, "containers")):
        for index, port in enumerate(items(container, "ports")):
            host = port.get("hostPort") or 0
            if (is_pod or host) and host != port.get("containerPort"):
                place = at.index(position).child("ports").index(index).child("hostPort")
                errors.invalid(place, host, "must match `containerPort` when `hostNetwork` is true")


def _pod_security(errors: ErrorList, at: Path, security: Object) -> None:
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        value = security.get(field)
        if value is not None:
            for message in names.user_or_group_id(value):
                errors.invalid(at.child(field), value, message)
    for position, value in enumerate(items(security, "supplementalGroups")):
        for message in names.user_or_group_id(value):
            errors.invalid(at.child("supplementalGroups").index(position), value, message)


def _dns(errors: ErrorList, at: Path, spec: Object) -> None:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            errors.required(at, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not config.get("nameservers"):
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            errors.required(at.child("nameservers"), text)
            return
    if config is None:
        return
    servers = items(config, "nameservers")
    if len(servers) > 3:
        errors.invalid(at.child("nameservers"), servers, "must not have more than 3 nameservers")
    for position, server in enumerate(servers):
        checks.name(errors, at.child("nameservers").index(position), server, names.legacy_ip)
    searches = items(config, "searches")
    if len(searches) > 32:
        errors.invalid(at.child("searches"), searches, "must not have more than 32 search paths")
    for position, option in enumerate(items(config, "options")):
        if not option.get("name"):
            errors.required(at.child("options").index(position), "must not be empty")


def _spread(errors: ErrorList, at: Path, constraints: Sequence[Object]) -> None:
    seen: set[tuple[str, str]] = set()
    for position, constraint in enumerate(constraints):
        place = at.index(position)
        checks.positive(errors, place.child("maxSkew"), constraint.get("maxSkew") or 0)
        key, unsatisfiable = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if not key:
            errors.required(place.child("topologyKey"), "can not be empty")
        else:
            checks.name(errors, place.child("topologyKey"), key, names.label_key)
        if unsatisfiable not in _UNSATISFIABLE:
            errors.not_supported(place.child("whenUnsatisfiable"), unsatisfiable, _UNSATISFIABLE)
        if (key, unsatisfiable) in seen:
            errors.duplicate(place.child("{topologyKey, whenUnsatisfiable}"), f"{{{key}, {unsatisfiable}}}")
        seen.add((key, unsatisfiable))
        label_selector(errors, place.child("labelSelector"), constraint.get("labelSelector"))


def tolerations(errors: ErrorList, at: Path, given: Sequence[Object]) -> None:
    """Check tolerations of taints."""
    for position, toleration in enumerate(given):
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        effect, value = toleration.get("effect") or "", toleration.get("value") or ""
        place = at.index(position)
        if key:
            checks.name(errors, place.child("key"), key, names.label_key)
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.invalid(place.child("operator"), operator, text)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            errors.invalid(place.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
        if operator in {"", "Equal"}:
            if messages := names.label_value(value):
                errors.invalid(place.child("operator"), value, ";".join(messages))
        elif operator == "Exists":
            if value:
                errors.invalid(place.child("operator"), value, "value must be empty when `operator` is 'Exists'")
        else:
            errors.not_supported(place.child("operator"), operator, ("Equal", "Exists"))
        if effect and effect not in _EFFECTS:
            errors.not_supported(place.child("effect"), effect, _EFFECTS)


def pod_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check what an update of a Pod changes, its metadata apart: images, deadline, tolerations and gates may."""
    spec: Object = new.get("spec") or {}
    before: Object = old.get("spec") or {}
    pod_spec(errors, SPEC, spec, is_pod=True)
    for field in ("containers", "initContainers"):
        if len(items(spec, field)) != len(items(before, field)):
            errors.forbidden(SPEC.child(field), "pod updates may not add or remove containers")
            return
        for position, container in enumerate(items(spec, field)):
            image = container.get("image") or ""
            if image != image.strip():
                place = SPEC.child(field).index(position).child("image")
                errors.invalid(place, image, "must not have leading or trailing whitespace")
    if not _deadline_update(errors, spec, before):
        return
    _tolerations_update(errors, spec, before)
    _gates_update(errors, spec, before)
    wanted = _with_old_parts(spec, before)
    if wanted != before:
        difference = spec_difference(before, wanted, "PodSpec")
        errors.forbidden(SPEC, f"pod updates may not change fields other than {_UPDATABLE}\n{difference}")


def _deadline_update(errors: ErrorList, spec: Object, before: Object) -> bool:
    at = SPEC.child("activeDeadlineSeconds")
    new, old = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if new is None:
        if old is not None:
            errors.invalid(at, None, "must not update from a positive integer to nil value")
        return True
    if not 0 <= new <= _SECONDS_MAXIMUM:
        errors.invalid(at, new, names.in_range(new, 0, _SECONDS_MAXIMUM)[0])
        return False
    if old is not None and old < new:
        errors.invalid(at, new, "must be less than or equal to previous value")
        return False
    return True


def _without(part: Object, field: str) -> Object:
    return {name: value for name, value in part.items() if name != field}


def _tolerations_update(errors: ErrorList, spec: Object, before: Object) -> None:
    kept = [_without(toleration, "tolerationSeconds") for toleration in items(spec, "tolerations")]
    for old in items(before, "tolerations"):
        if _without(old, "tolerationSeconds") not in kept:
            text = "existing toleration can not be modified except its tolerationSeconds"
            errors.forbidden(SPEC.child("tolerations"), text)
            return


def _gates_update(errors: ErrorList, spec: Object, before: Object) -> None:
    old = {gate.get("name") for gate in items(before, "schedulingGates")}
    for position, gate in enumerate(items(spec, "schedulingGates")):
        if gate.get("name") not in old:
            place = SPEC.child("schedulingGates").index(position)
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            errors.forbidden(place, text)


def _with_old_parts(spec: Object, before: Object) -> Object:
    """Give the new spec with the old values of all that may change, so that what differs is what may not."""
    wanted = dict(spec)
    for field in ("containers", "initContainers"):
        if field in spec:
            pairs = zip(items(spec, field), items(before, field), strict=True)
            wanted[field] = [{**container, "image": old.get("image")} for container, old in pairs]
    kept = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        kept.append("terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        kept.append("nodeSelector")
    for field in kept:
        wanted.pop(field, None)
        if field in before:
            wanted[field] = before[field]
    return wanted
