"""Validation of object metadata, labels and label selectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items

__all__ = [
    "check_annotations",
    "known_finalizers",
    "label_selector",
    "labels",
    "matches",
    "metadata_create",
    "metadata_update",
    "name_rule",
    "shown_selector",
]

NameRule = Callable[[str], Sequence[str]]

_AT = Path("metadata")
_ANNOTATIONS_BYTES = 256 * 1024
_NOT_EMPTY = "must not be empty"
_UNCHANGED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_OWN_FINALIZERS = frozenset({"kubernetes", _ORPHAN, _FOREGROUND})
_SET_OPERATORS = ("In", "NotIn")
_EXISTENCE_OPERATORS = ("Exists", "DoesNotExist")

_RBAC = "rbac.authorization.k8s.io"
_NAME_RULES: dict[tuple[str, str], NameRule] = {
    ("", "Event"): names.path_segment,
    ("", "Namespace"): names.dns1123_label,
    ("", "Service"): names.dns1123_label,
    ("apps", "StatefulSet"): names.dns1123_label,
    ("events.k8s.io", "Event"): names.path_segment,
    ("policy", "PodDisruptionBudget"): names.path_segment,
    (_RBAC, "Role"): names.path_segment,
    (_RBAC, "ClusterRole"): names.path_segment,
    (_RBAC, "RoleBinding"): names.path_segment,
    (_RBAC, "ClusterRoleBinding"): names.path_segment,
    ("apiregistration.k8s.io", "APIService"): names.path_segment,
    ("certificates.k8s.io", "CertificateSigningRequest"): lambda _: (),
    ("certificates.k8s.io", "ClusterTrustBundle"): names.path_segment,
    ("networking.k8s.io", "IPAddress"): names.ip,
}


def name_rule(group: str, kind: str) -> NameRule:
    """Return the rule for the names of a kind: a DNS subdomain unless it has one of its own."""
    return _NAME_RULES.get((group, kind), names.dns1123_subdomain)


def metadata_create(errors: ErrorList, obj: Object, rule: NameRule, *, generic: bool = False) -> None:
    """Check the metadata of a new object, whose name is generated already.

    generic: for kinds whose finalizers need not have a domain.
    """
    meta: Object = obj.get("metadata") or {}
    prefix = meta.get("generateName")
    if prefix:
        for message in rule(names.mask_trailing_dash(prefix)):
            errors.invalid(_AT.child("generateName"), prefix, message)
    if name := meta.get("name"):
        for message in rule(name):
            errors.invalid(_AT.child("name"), name, message)
    else:
        errors.required(_AT.child("name"), "name or generateName is required")
    checks.non_negative(errors, _AT, meta, "generation")
    _common(errors, meta)
    if found := meta.get("finalizers"):
        _finalizers(errors, found)
        if not generic:
            known_finalizers(errors, obj)


def metadata_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check the metadata of an object that replaces another."""
    meta: Object = new.get("metadata") or {}
    before: Object = old.get("metadata") or {}
    if before.get("deletionTimestamp") is not None:
        added = sorted(set(items(meta, "finalizers")) - set(items(before, "finalizers")))
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            text = "no new finalizers can be added if the object is being deleted, found new finalizers"
            errors.forbidden(_AT.child("finalizers"), f"{text} []string{{{listed}}}")
    if not meta.get("resourceVersion"):
        errors.invalid(_AT.child("resourceVersion"), "", "must be specified for an update")
    if (meta.get("generation") or 0) < (before.get("generation") or 0):
        errors.invalid(_AT.child("generation"), meta.get("generation") or 0, "must not be decremented")
    for field in _UNCHANGED:
        if meta.get(field) != before.get(field):
            errors.invalid(_AT.child(field), meta.get(field), checks.IMMUTABLE)
    _common(errors, meta)


def _common(errors: ErrorList, meta: Object) -> None:
    if found := meta.get("labels"):
        labels(errors, _AT.child("labels"), found)
    if found := meta.get("annotations"):
        check_annotations(errors, _AT.child("annotations"), found)
    if found := meta.get("ownerReferences"):
        _owners(errors, _AT.child("ownerReferences"), found)


def labels(errors: ErrorList, at: Path, values: Mapping[str, str]) -> None:
    """Check the keys and values of labels."""
    for key, value in values.items():
        for message in names.label_key(key):
            errors.invalid(at, key, message)
        for message in names.label_value(value):
            errors.invalid(at, value, message)


def check_annotations(errors: ErrorList, at: Path, values: Mapping[str, str]) -> None:
    """Check the keys of annotations, and their size: 256 KiB with all values."""
    size = 0
    for key, value in values.items():
        for message in names.label_key(key.lower()):
            errors.invalid(at, key, message)
        size += len(key) + (len(value) if value.isascii() else len(value.encode()))
    if size > _ANNOTATIONS_BYTES:
        errors.too_long(at, _ANNOTATIONS_BYTES)


def _owners(errors: ErrorList, at: Path, owners: Sequence[Object]) -> None:
    controller = ""
    for owner in owners:
        version = owner.get("apiVersion") or ""
        if not version.rpartition("/")[2]:
            errors.invalid(at.child("apiVersion"), version, "version must not be empty")
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                errors.invalid(at.child(field), "", _NOT_EMPTY)
        if (version, owner.get("kind")) == ("v1", "Event"):
            errors.invalid(at, _shown_owner(owner), "/v1, Kind=Event is disallowed from being an owner")
        if owner.get("controller"):
            current = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                text = 'Only one reference can have Controller set to true. Found "true" in references for'
                errors.invalid(at, [_shown_owner(each) for each in owners], f"{text} {controller} and {current}")
            controller = controller or current


def _shown_owner(owner: Object) -> Struct:
    fields = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
    return Struct({field: owner[field] for field in fields if field in owner})


def _finalizers(errors: ErrorList, finalizers: Sequence[str]) -> None:
    at = _AT.child("finalizers")
    for finalizer in finalizers:
        for message in names.qualified_name(finalizer):
            errors.invalid(at, finalizer, message)
    if _ORPHAN in finalizers and _FOREGROUND in finalizers:
        errors.invalid(at, list(finalizers), f"finalizer {_ORPHAN} and {_FOREGROUND} cannot be both set")


def known_finalizers(errors: ErrorList, obj: Object) -> None:
    """Want finalizers without a domain to be those of Kubernetes itself."""
    for position, finalizer in enumerate(items(obj.get("metadata") or {}, "finalizers")):
        if "/" not in finalizer and finalizer not in _OWN_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            errors.invalid(_AT.child("finalizers").index(position), finalizer, text)


def label_selector(errors: ErrorList, at: Path, selector: Object | None) -> None:
    """Check a label selector; none at all passes."""
    if not selector:
        return
    if found := selector.get("matchLabels"):
        labels(errors, at.child("matchLabels"), found)
    for position, expression in enumerate(items(selector, "matchExpressions")):
        _expression(errors, at.child("matchExpressions").index(position), expression)


def _expression(errors: ErrorList, at: Path, expression: Object) -> None:
    operator, values = expression.get("operator") or "", items(expression, "values")
    if operator in _SET_OPERATORS:
        if not values:
            errors.required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in _EXISTENCE_OPERATORS:
        if values:
            errors.forbidden(at.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    else:
        errors.invalid(at.child("operator"), operator, "not a valid selector operator")
    checks.name(errors, at.child("key"), expression.get("key") or "", names.label_key)
    for position, value in enumerate(values):
        for message in names.label_value(value):
            errors.invalid(at.child("values").index(position), value, message)


def matches(selector: Object | None, values: Mapping[str, str] | None) -> bool | None:
    """Say whether a selector selects labels. None selects nothing; a malformed one has no answer (None)."""
    if selector is None:
        return False
    values = values or {}
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(names.label_key(key) or names.label_value(value) for key, value in wanted.items()):
        return None
    results = [values.get(key) == value for key, value in wanted.items()]
    for expression in items(selector, "matchExpressions"):
        found = _expression_matches(expression, values)
        if found is None:
            return None
        results.append(found)
    return all(results)


def _expression_matches(expression: Object, values: Mapping[str, str]) -> bool | None:
    key, operator, wanted = expression.get("key", ""), expression.get("operator"), items(expression, "values")
    if operator in _SET_OPERATORS:
        return ((key in values and values[key] in wanted) == (operator == "In")) if wanted else None
    if operator in _EXISTENCE_OPERATORS:
        return (key in values) == (operator == "Exists") if not wanted else None
    return None


def shown_selector(selector: Object | None) -> Any:
    """Give a selector as errors show it: its fields in the order of their declaration."""
    if selector is None:
        return None
    return Struct({field: selector[field] for field in ("matchLabels", "matchExpressions") if selector.get(field)})
