"""Validation of admission policies and of what binds them; expressions are compiled elsewhere."""

from __future__ import annotations

import re

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.admission import match_resources
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.conditions import conditions
from pilothouse.kinds.validation.metadata import label_selector

__all__ = [
    "mutating_binding",
    "mutating_policy",
    "validating_binding",
    "validating_policy",
    "validating_policy_status",
]

_FAILURES = ("Fail", "Ignore")
_ACTIONS = ("Audit", "Deny", "Warn")
_NOT_FOUND = ("Deny", "Allow")
_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_REINVOCATIONS = ("IfNeeded", "Never")
_MUTATED = ("CREATE", "UPDATE")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_CONDITIONS, _ANNOTATION_BYTES = 64, 5 * 1024
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*").fullmatch
_RESERVED = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
)
_BOTH = (
    "must not contain both Deny and Warn (repeating the same validation failure information in the API response and "
    "headers serves no purpose)"
)
_EXCLUSIVE = "name and selector are mutually exclusive"


def _common(errors: ErrorList, spec: Object) -> None:
    policy = spec.get("failurePolicy")
    if policy is None:
        errors.required(SPEC.child("failurePolicy"))
    elif policy not in _FAILURES:
        errors.not_supported(SPEC.child("failurePolicy"), policy, _FAILURES)
    if (kind := spec.get("paramKind")) is not None:
        _param_kind(errors, SPEC.child("paramKind"), kind)
    match, at = spec.get("matchConstraints"), SPEC.child("matchConstraints")
    if match is None:
        errors.required(at)
    else:
        match_resources(errors, at, match)
        if not match.get("resourceRules"):
            errors.required(at.child("resourceRules"))


def _param_kind(errors: ErrorList, at: Path, given: Object) -> None:
    version, kind = given.get("apiVersion") or "", given.get("kind") or ""
    group, _, number = version.rpartition("/")
    if not version:
        errors.required(at.child("apiVersion"))
    elif "/" in group:
        errors.invalid(at.child("apiVersion"), version, f"unexpected GroupVersion string: {version}")
    else:
        if group and (messages := names.dns1123_subdomain(group)):
            errors.invalid(at.child("apiVersion"), group, ",".join(messages))
        if not number:
            errors.invalid(at.child("apiVersion"), version, "version must be specified")
        elif messages := names.dns1035_label(number):
            errors.invalid(at.child("apiVersion"), number, ",".join(messages))
    if not kind:
        errors.required(at.child("kind"))
    elif messages := names.dns1035_label(kind.lower()):
        text = f"may have mixed case, but should otherwise match: {','.join(messages)}"
        errors.invalid(at.child("kind"), kind, text)


def _match_conditions(errors: ErrorList, spec: Object) -> None:
    given, at = items(spec, "matchConditions"), SPEC.child("matchConditions")
    if len(given) > _CONDITIONS:
        errors.too_many(at, len(given), _CONDITIONS)
    seen: set[str] = set()
    for position, condition in enumerate(given):
        place, name = at.index(position), condition.get("name") or ""
        if not (condition.get("expression") or "").strip():
            errors.required(place.child("expression"))
        if not name:
            errors.required(place.child("name"))
            continue
        checks.name(errors, place.child("name"), name, names.qualified_name)
        if name in seen:
            errors.duplicate(place.child("name"), name)
        seen.add(name)


def _variables(errors: ErrorList, spec: Object) -> None:
    for position, variable in enumerate(items(spec, "variables")):
        at, name = SPEC.child("variables").index(position), variable.get("name") or ""
        if not name.strip():
            errors.required(at.child("name"), "name is not specified")
        elif not _IDENTIFIER(name) or name in _RESERVED:
            errors.invalid(at.child("name"), name, "must be a valid CEL identifier")
        if not (variable.get("expression") or "").strip():
            errors.required(at.child("expression"), "expression is not specified")


def validating_policy(errors: ErrorList, obj: Object) -> None:
    """Check a ValidatingAdmissionPolicy, its metadata and expressions apart."""
    spec: Object = obj.get("spec") or {}
    _common(errors, spec)
    _match_conditions(errors, spec)
    _variables(errors, spec)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for field in ("validations", "auditAnnotations"):
            errors.required(SPEC.child(field), "validations or auditAnnotations must contain at least one item")
    for position, rule in enumerate(items(spec, "validations")):
        _validation(errors, SPEC.child("validations").index(position), rule)
    _audit_annotations(errors, spec, (obj.get("metadata") or {}).get("name") or "")


def _validation(errors: ErrorList, at: Path, rule: Object) -> None:
    message, expression = rule.get("message") or "", rule.get("messageExpression") or ""
    if not (rule.get("expression") or "").strip():
        errors.required(at.child("expression"), "expression is not specified")
    if expression and not expression.strip():
        errors.invalid(at.child("messageExpression"), expression, "must be non-empty if specified")
    if message and not message.strip():
        errors.invalid(at.child("message"), message, "must be non-empty if specified")
    elif "\n" in message.strip() or "\r" in message.strip():
        errors.invalid(at.child("message"), message, "must not contain line breaks")
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.not_supported(at.child("reason"), reason, _REASONS)


def _audit_annotations(errors: ErrorList, spec: Object, name: str) -> None:
    seen: set[str] = set()
    for position, annotation in enumerate(items(spec, "auditAnnotations")):
        at, key = SPEC.child("auditAnnotations").index(position), annotation.get("key") or ""
        checks.name(errors, at.child("key"), f"{name}/{key}", names.qualified_name)
        expression = (annotation.get("valueExpression") or "").strip()
        if not expression:
            errors.required(at.child("valueExpression"), "valueExpression is not specified")
        elif len(expression.encode()) > _ANNOTATION_BYTES:
            errors.required(at.child("valueExpression"), f"must not exceed {_ANNOTATION_BYTES} bytes in length")
        if key in seen:
            errors.duplicate(at.child("key"), key)
        seen.add(key)


def validating_policy_status(errors: ErrorList, new: Object, _old: Object) -> None:
    """Check the status of a ValidatingAdmissionPolicy that replaces another."""
    status: Object = new.get("status") or {}
    at = Path("status.typeChecking.expressionWarnings")
    for position, warning in enumerate(items(status.get("typeChecking") or {}, "expressionWarnings")):
        for field in ("warning", "fieldRef"):
            if not (warning.get(field) or "").strip():
                errors.required(at.index(position).child(field))
    conditions(errors, Path("status.conditions"), items(status, "conditions"))


def mutating_policy(errors: ErrorList, obj: Object) -> None:
    """Check a MutatingAdmissionPolicy, its metadata and expressions apart."""
    spec: Object = obj.get("spec") or {}
    _common(errors, spec)
    _operations(errors, SPEC.child("matchConstraints"), spec.get("matchConstraints"))
    _match_conditions(errors, spec)
    _variables(errors, spec)
    if not spec.get("mutations"):
        errors.required(SPEC.child("mutations"), "mutations must contain at least one item")
    for position, mutation in enumerate(items(spec, "mutations")):
        _mutation(errors, SPEC.child("mutations").index(position), mutation)
    checks.one_of(errors, SPEC, spec, "reinvocationPolicy", _REINVOCATIONS)


def _operations(errors: ErrorList, at: Path, match: Object | None) -> None:
    """Want operations that bring an object to change."""
    for rule in items(match or {}, "resourceRules"):
        for operation in items(rule, "operations"):
            if operation not in _MUTATED:
                errors.not_supported(at.child("resourceRules", "operations"), operation, _MUTATED)


def _mutation(errors: ErrorList, at: Path, mutation: Object) -> None:
    kind = mutation.get("patchType") or ""
    if not kind:
        errors.required(at.child("patchType"))
    elif kind not in _PATCHES:
        errors.not_supported(at.child("patchType"), kind, _PATCHES)
    else:
        field = _PATCHES[kind]
        patch = mutation.get(field)
        if patch is None:
            errors.required(at.child(field), f"must be specified when patchType is {kind}")
        elif not (patch.get("expression") or "").strip():
            errors.required(at.child(field, "expression"))
        for other in _PATCHES.values():
            if other != field and mutation.get(other) is not None:
                text = f"must not be specified when patchType is {kind}"
                errors.invalid(at.child(other), f"{{{other}}}", text)


def _binding(errors: ErrorList, spec: Object) -> None:
    name = spec.get("policyName") or ""
    if not name:
        errors.required(SPEC.child("policyName"))
    else:
        checks.name(errors, SPEC.child("policyName"), name, names.dns1123_subdomain)
    if (reference := spec.get("paramRef")) is not None:
        _param_reference(errors, SPEC.child("paramRef"), reference)
    if (match := spec.get("matchResources")) is not None:
        match_resources(errors, SPEC.child("matchResources"), match)


def _param_reference(errors: ErrorList, at: Path, reference: Object) -> None:
    name, selector = reference.get("name") or "", reference.get("selector")
    if name:
        checks.name(errors, at.child("name"), name, names.path_segment)
    if name and selector is not None:
        errors.forbidden(at.child("name"), _EXCLUSIVE)
    label_selector(errors, at.child("selector"), selector)
    if name and selector is not None:
        errors.forbidden(at.child("selector"), _EXCLUSIVE)
    if not name and selector is None:
        errors.required(at, "one of name or selector must be specified")
    checks.one_of(errors, at, reference, "parameterNotFoundAction", _NOT_FOUND)


def validating_binding(errors: ErrorList, obj: Object) -> None:
    """Check a ValidatingAdmissionPolicyBinding, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    _binding(errors, spec)
    actions, at = list(items(spec, "validationActions")), SPEC.child("validationActions")
    for position, action in enumerate(actions):
        if action not in _ACTIONS:
            errors.not_supported(at.index(position), action, _ACTIONS)
        if action in actions[:position]:
            errors.duplicate(at.index(position), action)
    if "Deny" in actions and "Warn" in actions:
        errors.invalid(at, actions, _BOTH)
    if not actions:
        errors.required(at, "at least one validation action is required")


def mutating_binding(errors: ErrorList, obj: Object) -> None:
    """Check a MutatingAdmissionPolicyBinding, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    _binding(errors, spec)
    _operations(errors, SPEC.child("matchResources"), spec.get("matchResources"))
