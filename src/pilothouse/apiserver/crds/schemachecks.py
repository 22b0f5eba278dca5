"""What a schema of a definition may say: supported keywords, list types, and rules that compile and cost little."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pilothouse.apiserver.cel.costs import UNBOUNDED
from pilothouse.apiserver.cel.types import Type
from pilothouse.apiserver.crds.celtypes import MAX_REQUEST, declared, escape
from pilothouse.apiserver.crds.fieldpaths import FieldPathError, resolve
from pilothouse.apiserver.crds.rules import CompiledRule, compile_rule
from pilothouse.apiserver.crds.structural import META_FIELDS, Node, Rule
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct

__all__ = ["EXPRESSION_LIMIT", "SCHEMA_LIMIT", "check_schema"]

EXPRESSION_LIMIT = 10_000_000
"""What one rule may cost at most for one object, as estimated."""
SCHEMA_LIMIT = 100_000_000
"""What all rules of a schema may cost at most together."""
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_UNSUPPORTED = (
    ("id", "id is not supported"),
    ("additionalItems", "additionalItems is not supported"),
    ("patternProperties", "patternProperties is not supported"),
    ("definitions", "definitions is not supported"),
    ("dependencies", "dependencies is not supported"),
    ("$ref", "$ref is not supported"),
)
_ADVICE = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are"
    " declared)"
)
_QUADRATIC = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
_LINES = re.compile(r"[\n\r]")


@dataclass(slots=True)
class _Place:
    """Where the walk is. cardinality: how many values there may be, None without bound."""

    at: Path
    root: bool = False
    inside_meta: bool = False
    no_defaults: str = ""
    uncorrelated: Path | None = None
    cardinality: int | None = 1
    type: Type | None = None
    rules: bool = True
    """Whether rules here are compiled; not in conditions."""


@dataclass(slots=True)
class _Walk:
    errors: ErrorList = field(default_factory=ErrorList)
    rule_errors: ErrorList = field(default_factory=ErrorList)
    costs: list[tuple[int, Path]] = field(default_factory=list)
    with_rules: bool = True
    unchanged: bool = False


def check_schema(errors: ErrorList, node: Node, at: Path, *, with_rules: bool, unchanged: bool) -> None:
    """Check a schema. with_rules: compile its rules too. unchanged: their costs were accepted before."""
    walk = _Walk(with_rules=with_rules, unchanged=unchanged)
    self_type = declared(node, root=True) if with_rules else None
    _check(walk, node, _Place(at, root=True, type=self_type))
    errors.extend(walk.errors)
    errors.extend(walk.rule_errors)
    total = min(sum(cost for cost, _ in walk.costs), UNBOUNDED)
    if total > SCHEMA_LIMIT:
        expensive = sorted(walk.costs, key=lambda each: -each[0])[:4]
        for _, place in expensive:
            text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            errors.forbidden(place, text)
        name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        errors.forbidden(at, _too_costly(name, total, SCHEMA_LIMIT))


def _too_costly(name: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:.6f}x" if factor < 1.5 else f"{factor:.1f}x"
    return f"{name} exceeds budget by factor of {shown} {_ADVICE}"


def _check(walk: _Walk, node: Node, place: _Place) -> None:
    before = len(walk.errors)
    _keywords(walk.errors, node, place)
    _children(walk, node, place)
    _merging(walk.errors, node, place.at)
    for position, rule in enumerate(node.rules):
        _rule_form(walk.errors, node, rule, place.at.child("x-kubernetes-validations").index(position))
    if walk.with_rules and place.rules and node.rules and len(walk.errors) == before:
        _rules(walk, node, place)


def _keywords(errors: ErrorList, node: Node, place: _Place) -> None:
    raw, at = node.raw, place.at
    kind = node.type
    if kind and kind not in _TYPES:
        errors.not_supported(at.child("type"), kind, _TYPES)
    if node.default is not None and place.no_defaults:
        errors.forbidden(at.child("default"), f"must not be set {place.no_defaults}")
    for name, text in _UNSUPPORTED:
        if raw.get(name):
            errors.forbidden(at.child(name), text)
    if kind == "null":
        errors.forbidden(at.child("type"), "type cannot be set to null, use nullable as an alternative")
    if isinstance(raw.get("items"), list):
        errors.forbidden(at.child("items"), "items must be a schema object and not an array")
    _extensions(errors, node, place)


def _extensions(errors: ErrorList, node: Node, place: _Place) -> None:
    raw, at = node.raw, place.at
    if place.inside_meta and node.embedded:
        errors.forbidden(at.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta")
    if raw.get("uniqueItems"):
        errors.forbidden(at.child("uniqueItems"), _QUADRATIC)
    if node.properties and (node.additional is False or isinstance(node.additional, Node)):
        text = "additionalProperties and properties are mutual exclusive"
        errors.forbidden(at.child("additionalProperties"), text)
    if raw.get("x-kubernetes-preserve-unknown-fields") is False:
        errors.invalid(at.child("x-kubernetes-preserve-unknown-fields"), False, "must be true or undefined")


def _children(walk: _Walk, node: Node, place: _Place) -> None:
    self_type = place.type
    if isinstance(node.additional, Node):
        reason = "inside additionalProperties applying to object metadata" if place.inside_meta else place.no_defaults
        inner = self_type.params[1] if self_type is not None and self_type.kind == "map" else None
        most = _product(place.cardinality, node.get("maxProperties"))
        at = place.at.child("additionalProperties")
        _check(walk, node.additional, _below(place, at, inner, most, no_defaults=reason))
    for name, part in node.properties.items():
        _property(walk, node, name, part, place)
    for name, parts in (("allOf", node.all_of), ("oneOf", node.one_of), ("anyOf", node.any_of)):
        for position, part in enumerate(parts):
            _check(walk, part, replace(place, at=place.at.child(name).index(position), root=False, rules=False))
    if node.negated is not None:
        _check(walk, node.negated, replace(place, at=place.at.child("not"), root=False, rules=False))
    if node.items is not None:
        inner = self_type.params[0] if self_type is not None and self_type.kind == "list" else None
        most = _product(place.cardinality, node.get("maxItems"))
        below = _below(place, place.at.child("items"), inner, most)
        if node.list_type != "map" and below.uncorrelated is None:
            below.uncorrelated = place.at
        _check(walk, node.items, below)


def _product(cardinality: int | None, most: int | None) -> int | None:
    return None if cardinality is None or most is None else min(cardinality * max(most, 0), UNBOUNDED)


def _below(place: _Place, at: Path, self_type: Type | None, most: int | None, no_defaults: str | None = None) -> _Place:
    reason = place.no_defaults if no_defaults is None else no_defaults
    return replace(place, at=at, root=False, type=self_type, cardinality=most, no_defaults=reason)


def _property(walk: _Walk, node: Node, name: str, part: Node, place: _Place) -> None:
    escaped = escape(name)
    inner: Type | None = None
    if escaped is not None and place.type is not None and place.type.kind == "object":
        found = place.type.fields.get(escaped)
        inner = None if found is None else found.type
    below = _below(place, place.at.child("properties").key(name), inner, place.cardinality)
    if (place.root or node.embedded) and name in META_FIELDS:
        below.inside_meta = True
        if place.root:
            below.no_defaults = f"in top-level {name}"
    _check(walk, part, below)


def _merging(errors: ErrorList, node: Node, at: Path) -> None:
    kind = node.type
    if node.map_type and kind != "object":
        _wrong_type(errors, at, kind, "must be object if x-kubernetes-map-type is specified")
    if node.map_type and node.map_type not in {"atomic", "granular"}:
        errors.not_supported(at.child("x-kubernetes-map-type"), node.map_type, ("atomic", "granular"))
    if node.list_type and kind != "array":
        _wrong_type(errors, at, kind, "must be array if x-kubernetes-list-type is specified")
    elif node.list_type == "set" and node.items is not None:
        _set_items(errors, node.items, at.child("items"))
    if node.list_type and node.list_type not in {"atomic", "set", "map"}:
        errors.not_supported(at.child("x-kubernetes-list-type"), node.list_type, ("atomic", "set", "map"))
    if node.list_keys and node.list_type != "map":
        text, place = "must be map if x-kubernetes-list-map-keys is non-empty", at.child("x-kubernetes-list-type")
        if node.list_type:
            errors.invalid(place, node.list_type, text)
        else:
            errors.required(place, text)
    if node.list_type == "map":
        _map_items(errors, node, at)
    if node.list_type in {"set", "map"} and node.items is not None and node.items.nullable:
        text = f"cannot be nullable when x-kubernetes-list-type is {node.list_type}"
        errors.forbidden(at.child("items", "nullable"), text)


def _wrong_type(errors: ErrorList, at: Path, kind: str, text: str) -> None:
    if kind:
        errors.invalid(at.child("type"), kind, text)
    else:
        errors.required(at.child("type"), text)


def _set_items(errors: ErrorList, items: Node, at: Path) -> None:
    text = "must be atomic as item of a list with x-kubernetes-list-type=set"
    if items.type == "array" and items.list_type not in {"", "atomic"}:
        errors.invalid(at.child("x-kubernetes-list-type"), items.list_type, text)
    if items.type == "object" and items.map_type != "atomic":
        errors.invalid(at.child("x-kubernetes-map-type"), items.list_type or None, text)


def _map_items(errors: ErrorList, node: Node, at: Path) -> None:
    keys_at, items = at.child("x-kubernetes-list-map-keys"), node.items
    if not node.list_keys:
        errors.required(keys_at, "must not be empty if x-kubernetes-list-type is map")
    if items is None:
        errors.required(at.child("items"), "must have a schema if x-kubernetes-list-type is map")
        return
    if items.type != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        errors.invalid(at.child("items", "type"), items.type, text)
        return
    seen: set[str] = set()
    for name in node.list_keys:
        part, place = items.properties.get(name), at.child("items", "properties").key(name)
        if part is None:
            errors.invalid(keys_at, list(node.list_keys), "entries must all be names of item properties")
        elif part.type in {"array", "object"}:
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.invalid(place.child("type"), items.type, text)
        if name in seen:
            errors.invalid(keys_at, list(node.list_keys), "must not contain duplicate entries")
        seen.add(name)
        if part is not None:
            _map_key(errors, name, part, items, place)


def _map_key(errors: ErrorList, name: str, part: Node, items: Node, at: Path) -> None:
    why = "this property is in x-kubernetes-list-map-keys, so it"
    if name not in items.required and part.default is None:
        errors.required(at.child("default"), f"{why} must have a default or be a required property")
    if part.nullable:
        errors.forbidden(at.child("nullable"), f"{why} cannot be nullable")


def _rule_form(errors: ErrorList, node: Node, rule: Rule, at: Path) -> None:
    message = rule.message.strip()
    if not rule.rule.strip():
        errors.required(at.child("rule"), "rule is not specified")
    elif rule.message and not message:
        errors.invalid(at.child("message"), rule.message, "must be non-empty if specified")
    elif _LINES.search(message):
        errors.invalid(at.child("message"), rule.message, "must not contain line breaks")
    elif _LINES.search(rule.rule.strip()) and not message:
        errors.required(at.child("message"), "message must be specified if rule contains line breaks")
    if rule.message_expression and not rule.message_expression.strip():
        errors.required(at.child("messageExpression"), "messageExpression must be non-empty if specified")
    if rule.reason and rule.reason not in _REASONS:
        errors.not_supported(at.child("reason"), rule.reason, _REASONS)
    if rule.field_path:
        _rule_path(errors, node, rule, at)


def _rule_path(errors: ErrorList, node: Node, rule: Rule, at: Path) -> None:
    if not rule.field_path.strip():
        errors.invalid(at.child("fieldPath"), rule.field_path, "must be non-empty if specified")
    if _LINES.search(rule.field_path):
        errors.invalid(at.child("fieldPath"), rule.field_path, "must not contain line breaks")
    try:
        resolve(rule.field_path, node)
    except FieldPathError:
        errors.invalid(at.child("fieldPath"), rule.field_path, "must be a valid path")


def _rules(walk: _Walk, node: Node, place: _Place) -> None:
    errors, at = walk.rule_errors, place.at.child("x-kubernetes-validations")
    self_type = place.type if place.type is not None else declared(node, root=place.root or node.embedded)
    if self_type is None:
        text = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to"
        errors.internal(at, f"{text} convert structural schema to CEL declarations")
        return
    often = place.cardinality
    if often is None:
        often = MAX_REQUEST // (self_type.min_bytes + 1)
    for position, rule in enumerate(node.rules):
        made = compile_rule(rule, node, self_type)
        _rule(walk, made, node.raw["x-kubernetes-validations"][position], at.index(position), often, place)


def _rule(walk: _Walk, made: CompiledRule, raw: Mapping[str, Any], at: Path, often: int, place: _Place) -> None:
    errors = walk.rule_errors
    cost = min(made.cost * often, UNBOUNDED)
    if cost > EXPRESSION_LIMIT and not walk.unchanged:
        errors.forbidden(at.child("rule"), _too_costly("estimated rule cost", cost, EXPRESSION_LIMIT))
    walk.costs.append((cost, at.child("rule")))
    if made.error:
        errors.invalid(at.child("rule"), _shown(raw), made.error)
    if made.message_error:
        errors.invalid(at.child("messageExpression"), _shown(raw), made.message_error)
    elif made.message is not None:
        if made.message_cost > EXPRESSION_LIMIT and not walk.unchanged:
            text = _too_costly("estimated messageExpression cost", made.message_cost, EXPRESSION_LIMIT)
            errors.forbidden(at.child("messageExpression"), text)
        walk.costs.append((made.message_cost, at.child("messageExpression")))
    if made.uses_old:
        if place.uncorrelated is not None:
            text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.uncorrelated}"
            errors.invalid(at.child("rule"), made.rule.rule, text)
    elif "optionalOldSelf" in raw:
        text = "may not be set if oldSelf is not used in rule"
        errors.invalid(at.child("optionalOldSelf"), bool(raw["optionalOldSelf"]), text)


def _shown(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule as errors show it: with the fields that Kubernetes' own type has, in its order."""
    names = (
        ("Rule", "rule", ""),
        ("Message", "message", ""),
        ("MessageExpression", "messageExpression", ""),
        ("Reason", "reason", None),
        ("FieldPath", "fieldPath", ""),
        ("OptionalOldSelf", "optionalOldSelf", None),
    )
    return Struct({shown: raw.get(name, otherwise) for shown, name, otherwise in names})
