"""Validation of flow schemas and priority levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items

__all__ = ["flow_schema", "flow_schema_status", "priority_level", "status_conditions"]

_EXEMPT, _CATCH_ALL = "exempt", "catch-all"
_DISTINGUISHERS = ("ByNamespace", "ByUser")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}
_RESPONSES = ("Queue", "Reject")
_LEVEL_TYPES = ("Exempt", "Limited")
_PRECEDENCE_MAXIMUM = 10_000
_QUEUES_MAXIMUM = 10_000_000
_HASH_BITS = 60
_ANYTHING = {
    "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
    ],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}
_FIXED_SCHEMAS: dict[str, Object] = {
    _EXEMPT: {
        "priorityLevelConfiguration": {"name": _EXEMPT},
        "matchingPrecedence": 1,
        "rules": [{"subjects": [{"kind": "Group", "group": {"name": "system:masters"}}], **_ANYTHING}],
    },
    _CATCH_ALL: {
        "priorityLevelConfiguration": {"name": _CATCH_ALL},
        "matchingPrecedence": 10_000,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [
            {
                "subjects": [
                    {"kind": "Group", "group": {"name": f"system:{who}"}}
                    for who in ("unauthenticated", "authenticated")
                ],
                **_ANYTHING,
            }
        ],
    },
}
_FIXED_LEVEL: Object = {
    "type": "Limited",
    "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0},
}


def flow_schema(errors: ErrorList, obj: Object) -> None:
    """Check a FlowSchema, its metadata apart."""
    name, spec = (obj.get("metadata") or {}).get("name") or "", obj.get("spec") or {}
    at, precedence = SPEC.child("matchingPrecedence"), spec.get("matchingPrecedence") or 0
    if precedence <= 0:
        errors.invalid(at, precedence, "must be a positive value")
    if precedence > _PRECEDENCE_MAXIMUM:
        errors.invalid(at, precedence, f"must not be greater than {_PRECEDENCE_MAXIMUM}")
    if precedence == 1 and name != _EXEMPT:
        errors.invalid(at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1")
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _DISTINGUISHERS:
        shown = Struct(Type=method.get("type") or "")
        errors.not_supported(SPEC.child("distinguisherMethod", "type"), shown, _DISTINGUISHERS)
    level, place = (spec.get("priorityLevelConfiguration") or {}).get("name"), SPEC.child("priorityLevelConfiguration")
    if level:
        checks.name(errors, place.child("name"), level, names.dns1123_subdomain)
    else:
        errors.required(place.child("name"), "must reference a priority level")
    for position, rule in enumerate(items(spec, "rules")):
        _rule(errors, SPEC.child("rules").index(position), rule)
    _fixed(errors, name, spec, _FIXED_SCHEMAS.get(name))
    status_conditions(errors, obj)


def _fixed(errors: ErrorList, name: str, spec: Object, wanted: Object | None) -> None:
    """Want that a mandatory object is as every server knows it."""
    if wanted is not None and _filled(spec) != _filled(wanted):
        errors.invalid(SPEC, spec, f"spec of '{name}' must equal the fixed value")


def _filled(part: Any) -> Any:
    """Give a value without what is empty, which means the same as missing."""
    if isinstance(part, dict):
        return {key: found for key, value in part.items() if (found := _filled(value)) not in ({}, [], None, False, "")}
    return [_filled(each) for each in part] if isinstance(part, list) else part


def _rule(errors: ErrorList, at: Path, rule: Object) -> None:
    for position, subject in enumerate(items(rule, "subjects")):
        _subject(errors, at.child("subjects").index(position), subject)
    if not rule.get("subjects"):
        errors.required(at.child("subjects"), "subjects must contain at least one value")
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for position, each in enumerate(items(rule, "resourceRules")):
        _resource_rule(errors, at.child("resourceRules").index(position), each)
    for position, each in enumerate(items(rule, "nonResourceRules")):
        _other_rule(errors, at.child("nonResourceRules").index(position), each)


def _subject(errors: ErrorList, at: Path, subject: Object) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        errors.not_supported(at.child("kind"), kind, _SUBJECTS)
        return
    field = _SUBJECTS[kind]
    given, place = subject.get(field), at.child(field)
    if given is None:
        errors.required(place, f"{field} is required when subject kind is '{kind}'")
    elif not given.get("name"):
        errors.required(place.child("name"))
    elif kind == "ServiceAccount" and given["name"] != "*":
        checks.name(errors, place.child("name"), given["name"], names.dns1123_subdomain)
    if kind == "ServiceAccount" and given is not None:
        if given.get("namespace"):
            checks.name(errors, place.child("namespace"), given["namespace"], names.dns1123_label)
        else:
            errors.required(place.child("namespace"), "must specify namespace for service account")
    for other in ("ServiceAccount", "User", "Group"):
        if other != kind and subject.get(_SUBJECTS[other]) is not None:
            text = f"{_SUBJECTS[other]} is forbidden when subject kind is not '{other}'"
            errors.forbidden(at.child(_SUBJECTS[other]), text)


def _verbs(errors: ErrorList, at: Path, rule: Object) -> None:
    verbs = list(items(rule, "verbs"))
    if not verbs:
        errors.required(at.child("verbs"), "verbs must contain at least one value")
    elif not _alone(errors, at.child("verbs"), verbs, "verbs") and not set(verbs) <= set(_VERBS):
        errors.not_supported(at.child("verbs"), verbs, _VERBS)


def _alone(errors: ErrorList, at: Path, values: Sequence[str], noun: str) -> bool:
    """Say whether the list has `*`, which then must stand alone."""
    if "*" not in values:
        return False
    if len(values) > 1:
        errors.invalid(at, list(values), f"if '*' is present, must not specify other {noun}")
    return True


def _resource_rule(errors: ErrorList, at: Path, rule: Object) -> None:
    _verbs(errors, at, rule)
    for field, noun, one in (("apiGroups", "api groups", "api group"), ("resources", "resources", "resource")):
        if not rule.get(field):
            errors.required(at.child(field), f"resource rules must supply at least one {one}")
        else:
            _alone(errors, at.child(field), rule[field], noun)
    namespaces, place = items(rule, "namespaces"), at.child("namespaces")
    if not namespaces and not rule.get("clusterScope"):
        errors.required(place, "resource rules that are not cluster scoped must supply at least one namespace")
    elif not _alone(errors, place, namespaces, "namespaces"):
        for position, namespace in enumerate(namespaces):
            for message in names.dns1123_label(namespace):
                intro = "each member of this list must be '*' or a DNS-1123 label; "
                errors.invalid(place.index(position), namespace, intro + message)


def _other_rule(errors: ErrorList, at: Path, rule: Object) -> None:
    _verbs(errors, at, rule)
    urls, place = items(rule, "nonResourceURLs"), at.child("nonResourceURLs")
    if not urls:
        errors.required(place, "nonResourceURLs must contain at least one value")
    elif not _alone(errors, place, urls, "non-resource URLs"):
        for position, url in enumerate(urls):
            if problem := _url_problem(url):
                errors.invalid(place.index(position), url, problem)


def _url_problem(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not url.endswith("/*")) else ""


def priority_level(errors: ErrorList, obj: Object) -> None:
    """Check a PriorityLevelConfiguration, its metadata apart."""
    name, spec = (obj.get("metadata") or {}).get("name") or "", obj.get("spec") or {}
    kind = spec.get("type") or ""
    if (name == _EXEMPT) != (kind == "Exempt"):
        errors.invalid(SPEC.child("type"), kind, "type must be 'Exempt' if and only if name is 'exempt'")
    limited, exempt = spec.get("limited"), spec.get("exempt")
    if kind == "Exempt":
        if limited is not None:
            errors.forbidden(SPEC.child("limited"), "must be nil if the type is not Limited")
        if exempt is None:
            errors.required(SPEC.child("exempt"), "must not be empty when type is Exempt")
        else:
            _shares(errors, SPEC.child("exempt"), exempt)
            _percent(errors, SPEC.child("exempt"), exempt, "lendablePercent", 100)
    elif kind == "Limited":
        if exempt is not None:
            errors.forbidden(SPEC.child("exempt"), "must be nil if the type is Limited")
        if limited is None:
            errors.required(SPEC.child("limited"), "must not be empty when type is Limited")
        else:
            _limited(errors, SPEC.child("limited"), limited)
    else:
        errors.not_supported(SPEC.child("type"), kind, _LEVEL_TYPES)
    _fixed(errors, name, spec, _FIXED_LEVEL if name == _CATCH_ALL else None)
    status_conditions(errors, obj)


def _shares(errors: ErrorList, at: Path, part: Object) -> None:
    shares = part.get("nominalConcurrencyShares")
    if shares is not None and shares < 0:
        text = "must be a non-negative integer"
        errors.invalid(at.child("nominalConcurrencyShares"), shares, text)


def _percent(errors: ErrorList, at: Path, part: Object, field: str, highest: int | None) -> None:
    value = part.get(field)
    if value is not None and (value < 0 or (highest is not None and value > highest)):
        text = (
            "must be between 0 and 100, inclusive"
            if highest is not None
            else "if specified, must be a non-negative integer"
        )
        errors.invalid(at.child(field), value, text)


def _limited(errors: ErrorList, at: Path, limited: Object) -> None:
    _shares(errors, at, limited)
    response, place = limited.get("limitResponse") or {}, at.child("limitResponse")
    kind, queuing = response.get("type") or "", response.get("queuing")
    if kind == "Reject":
        if queuing is not None:
            errors.forbidden(place.child("queuing"), "must be nil if limited.limitResponse.type is not Limited")
    elif kind == "Queue":
        if queuing is None:
            text = "must not be empty if limited.limitResponse.type is Limited"
            errors.required(place.child("queuing"), text)
        else:
            _queuing(errors, place.child("queuing"), queuing)
    else:
        errors.not_supported(place.child("type"), kind, _RESPONSES)
    _percent(errors, at, limited, "lendablePercent", 100)
    _percent(errors, at, limited, "borrowingLimitPercent", None)


def _queuing(errors: ErrorList, at: Path, queuing: Object) -> None:
    limit, queues, hand = (queuing.get(field) or 0 for field in ("queueLengthLimit", "queues", "handSize"))
    if limit <= 0:
        errors.invalid(at.child("queueLengthLimit"), limit, "must be positive")
    if queues <= 0:
        errors.invalid(at.child("queues"), queues, "must be positive")
    elif queues > _QUEUES_MAXIMUM:
        errors.invalid(at.child("queues"), queues, f"must not be greater than {_QUEUES_MAXIMUM}")
    if hand <= 0:
        errors.invalid(at.child("handSize"), hand, "must be positive")
    elif hand > queues:
        errors.invalid(at.child("handSize"), hand, f"should not be greater than queues ({queues})")
    elif math.ceil(sum(math.log2(queues - dealt) for dealt in range(hand))) > _HASH_BITS:
        text = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_HASH_BITS}"
        errors.invalid(at.child("handSize"), hand, text)


def status_conditions(errors: ErrorList, obj: Object) -> None:
    """Check the conditions in the status of a flow schema or priority level: each type once."""
    seen: set[str] = set()
    for position, condition in enumerate(items(obj.get("status") or {}, "conditions")):
        at, kind = Path("status.conditions").index(position).child("type"), condition.get("type") or ""
        if kind in seen:
            errors.duplicate(at, kind)
        seen.add(kind)
        if not kind:
            errors.required(at, "must not be empty")


def flow_schema_status(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a FlowSchema or PriorityLevelConfiguration that replaces another."""
    status_conditions(errors, new)
