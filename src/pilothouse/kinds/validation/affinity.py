"""Validation of node selectors with expressions, and of the affinity of pods."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items
from pilothouse.kinds.validation.metadata import label_selector

__all__ = ["affinity", "node_selector"]

_SET, _EXISTENCE, _ORDER = ("In", "NotIn"), ("Exists", "DoesNotExist"), ("Gt", "Lt")
_OPERATOR = "not a valid selector operator"
_WEIGHT = "must be in the range 1-100"
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)


def node_selector(errors: ErrorList, at: Path, selector: Object) -> None:
    """Check a NodeSelector: terms of which one must hold."""
    terms, place = items(selector, "nodeSelectorTerms"), at.child("nodeSelectorTerms")
    if not terms:
        errors.required(place, "must have at least one node selector term")
    for position, term in enumerate(terms):
        _node_term(errors, place.index(position), term)


def _node_term(errors: ErrorList, at: Path, term: Object) -> None:
    for position, expression in enumerate(items(term, "matchExpressions")):
        _node_expression(errors, at.child("matchExpressions").index(position), expression)
    for position, expression in enumerate(items(term, "matchFields")):
        _node_field(errors, at.child("matchFields").index(position), expression)


def _node_expression(errors: ErrorList, at: Path, expression: Object) -> None:
    operator, values = expression.get("operator") or "", items(expression, "values")
    if operator in _SET:
        if not values:
            errors.required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in _EXISTENCE:
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.forbidden(at.child("values"), text)
    elif operator in _ORDER:
        if len(values) != 1:
            errors.required(at.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        errors.invalid(at.child("operator"), operator, _OPERATOR)
    checks.name(errors, at.child("key"), expression.get("key") or "", names.label_key)
    for position, value in enumerate(values):
        checks.name(errors, at.child("values").index(position), value, names.label_value)


def _node_field(errors: ErrorList, at: Path, expression: Object) -> None:
    operator, key = expression.get("operator") or "", expression.get("key") or ""
    values = items(expression, "values")
    if operator not in _SET:
        errors.invalid(at.child("operator"), operator, _OPERATOR)
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        errors.required(at.child("values"), text)
    if key != "metadata.name":
        errors.invalid(at.child("key"), key, "not a valid field selector key")
        return
    for position, value in enumerate(values):
        checks.name(errors, at.child("values").index(position), value, names.dns1123_subdomain)


def affinity(errors: ErrorList, at: Path, given: Object) -> None:
    """Check the affinity of a pod."""
    if node := given.get("nodeAffinity"):
        place = at.child("nodeAffinity")
        if node.get(_REQUIRED) is not None:
            node_selector(errors, place.child(_REQUIRED), node[_REQUIRED])
        for position, term in enumerate(items(node, _PREFERRED)):
            where = place.child(_PREFERRED).index(position)
            _weight(errors, where, term)
            _node_term(errors, where.child("preference"), term.get("preference") or {})
    for field in ("podAffinity", "podAntiAffinity"):
        if found := given.get(field):
            _pod_affinity(errors, at.child(field), found)


def _weight(errors: ErrorList, at: Path, term: Object) -> None:
    weight = term.get("weight") or 0
    if not 1 <= weight <= 100:
        errors.invalid(at.child("weight"), weight, _WEIGHT)


def _pod_affinity(errors: ErrorList, at: Path, found: Object) -> None:
    for position, term in enumerate(items(found, _REQUIRED)):
        _pod_term(errors, at.child(_REQUIRED).index(position), term)
    for position, weighted in enumerate(items(found, _PREFERRED)):
        place = at.child(_PREFERRED).index(position)
        _weight(errors, place, weighted)
        _pod_term(errors, place.child("podAffinityTerm"), weighted.get("podAffinityTerm") or {})


def _pod_term(errors: ErrorList, at: Path, term: Object) -> None:
    for field in ("labelSelector", "namespaceSelector"):
        label_selector(errors, at.child(field), term.get(field))
    for name in _strings(term, "namespaces"):
        # Kubernetes does not say which of them is meant.
        for message in names.dns1123_label(name):
            errors.invalid(at.child("namespace"), name, message)
    key = term.get("topologyKey") or ""
    if not key:
        errors.required(at.child("topologyKey"), "can not be empty")
    checks.name(errors, at.child("topologyKey"), key, names.label_key)


def _strings(part: Object, field: str) -> Sequence[str]:
    return part.get(field) or ()
