"""Validation of roles and their bindings."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items
from pilothouse.kinds.validation.metadata import label_selector

__all__ = [
    "cluster_role",
    "cluster_role_binding",
    "cluster_role_binding_update",
    "role",
    "role_binding",
    "role_binding_update",
]

_GROUP = "rbac.authorization.k8s.io"
_REFERENCE = Path("roleRef")


def role(errors: ErrorList, obj: Object) -> None:
    """Check a Role, its metadata apart."""
    _rules(errors, obj, namespaced=True)


def cluster_role(errors: ErrorList, obj: Object) -> None:
    """Check a ClusterRole, its metadata apart."""
    _rules(errors, obj, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is None:
        return
    at, selectors = Path("aggregationRule.clusterRoleSelectors"), items(aggregation, "clusterRoleSelectors")
    if not selectors:
        errors.required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil")
    for position, selector in enumerate(selectors):
        label_selector(errors, at.index(position), selector)


def _rules(errors: ErrorList, obj: Object, *, namespaced: bool) -> None:
    for position, rule in enumerate(items(obj, "rules")):
        at = Path("rules").index(position)
        if not rule.get("verbs"):
            errors.required(at.child("verbs"), "verbs must contain at least one value")
        if paths := rule.get("nonResourceURLs"):
            place = at.child("nonResourceURLs")
            if namespaced:
                errors.invalid(place, paths, "namespaced rules cannot apply to non-resource URLs")
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                errors.invalid(place, paths, "rules cannot apply to both regular resources and non-resource URLs")
            continue
        if not rule.get("apiGroups"):
            errors.required(at.child("apiGroups"), "resource rules must supply at least one api group")
        if not rule.get("resources"):
            errors.required(at.child("resources"), "resource rules must supply at least one resource")


def role_binding(errors: ErrorList, obj: Object) -> None:
    """Check a RoleBinding, its metadata apart."""
    _binding(errors, obj, ("Role", "ClusterRole"))


def cluster_role_binding(errors: ErrorList, obj: Object) -> None:
    """Check a ClusterRoleBinding, its metadata apart."""
    _binding(errors, obj, ("ClusterRole",))


def role_binding_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a RoleBinding that replaces another: the role stays."""
    role_binding(errors, new)
    _same_role(errors, new, old)


def cluster_role_binding_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ClusterRoleBinding that replaces another: the role stays."""
    cluster_role_binding(errors, new)
    _same_role(errors, new, old)


def _same_role(errors: ErrorList, new: Object, old: Object) -> None:
    reference: Object = new.get("roleRef") or {}
    if reference != (old.get("roleRef") or {}):
        shown = Struct({field[0].upper() + field[1:]: reference.get(field) or "" for field in ("kind", "name")})
        errors.invalid(_REFERENCE, Struct(APIGroup=reference.get("apiGroup") or "", **shown), "cannot change roleRef")


def _binding(errors: ErrorList, obj: Object, kinds: tuple[str, ...]) -> None:
    reference: Object = obj.get("roleRef") or {}
    group, kind = reference.get("apiGroup") or "", reference.get("kind") or ""
    if group != _GROUP:
        errors.not_supported(_REFERENCE.child("apiGroup"), group, (_GROUP,))
    if kind not in kinds:
        errors.not_supported(_REFERENCE.child("kind"), kind, kinds)
    if checks.required(errors, _REFERENCE, reference, "name"):
        checks.name(errors, _REFERENCE.child("name"), reference["name"], names.path_segment)
    for position, subject in enumerate(items(obj, "subjects")):
        _subject(errors, Path("subjects").index(position), subject, namespaced="Role" in kinds)


def _subject(errors: ErrorList, at: Path, subject: Object, *, namespaced: bool) -> None:
    kind, group, name = (subject.get(field) or "" for field in ("kind", "apiGroup", "name"))
    if not name:
        errors.required(at.child("name"))
    if kind == "ServiceAccount":
        if name:
            checks.name(errors, at.child("name"), name, names.dns1123_subdomain)
        if group:
            errors.not_supported(at.child("apiGroup"), group, ("",))
        if not namespaced and not subject.get("namespace"):
            errors.required(at.child("namespace"))
    elif kind in {"User", "Group"}:
        if group != _GROUP:
            errors.not_supported(at.child("apiGroup"), group, (_GROUP,))
    else:
        errors.not_supported(at.child("kind"), kind, ("ServiceAccount", "User", "Group"))
