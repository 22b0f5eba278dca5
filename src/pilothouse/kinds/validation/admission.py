"""Validation of admission webhook configurations, and of what webhooks and policies match."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items
from pilothouse.kinds.validation.metadata import label_selector

__all__ = ["match_resources", "mutating_webhooks", "validating_webhooks"]

_FAILURES = ("Fail", "Ignore")
_MATCHES = ("Equivalent", "Exact")
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REINVOCATIONS = ("IfNeeded", "Never")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_TIMEOUT_MAXIMUM = 30


def validating_webhooks(errors: ErrorList, obj: Object) -> None:
    """Check a ValidatingWebhookConfiguration, its metadata apart."""
    seen: set[str] = set()
    for position, hook in enumerate(items(obj, "webhooks")):
        at = Path("webhooks").index(position)
        _webhook(errors, at, hook)
        _review_versions(errors, at.child("admissionReviewVersions"), list(items(hook, "admissionReviewVersions")))
        name = hook.get("name")
        if name in seen:
            errors.duplicate(at.child("name"), name)
        elif name:
            seen.add(name)


def mutating_webhooks(errors: ErrorList, obj: Object) -> None:
    """Check a MutatingWebhookConfiguration, its metadata apart."""
    validating_webhooks(errors, obj)
    for position, hook in enumerate(items(obj, "webhooks")):
        _choice(errors, Path("webhooks").index(position), hook, "reinvocationPolicy", _REINVOCATIONS)


def _choice(errors: ErrorList, at: Path, part: Object, field: str, values: tuple[str, ...]) -> None:
    value = part.get(field)
    if value is not None and value not in values:
        errors.not_supported(at.child(field), value, values)


def _webhook(errors: ErrorList, at: Path, hook: Object) -> None:
    _name(errors, at.child("name"), hook.get("name") or "")
    for position, rule in enumerate(items(hook, "rules")):
        _rule(errors, at.child("rules").index(position), rule)
    _choice(errors, at, hook, "failurePolicy", _FAILURES)
    _choice(errors, at, hook, "matchPolicy", _MATCHES)
    if hook.get("sideEffects") is None:
        errors.required(at.child("sideEffects"), f"must specify one of {', '.join(_SIDE_EFFECTS)}")
    _choice(errors, at, hook, "sideEffects", _SIDE_EFFECTS)
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= _TIMEOUT_MAXIMUM:
        errors.invalid(at.child("timeoutSeconds"), timeout, "the timeout value must be between 1 and 30 seconds")
    for field in ("namespaceSelector", "objectSelector"):
        label_selector(errors, at.child(field), hook.get(field))
    client: Object = hook.get("clientConfig") or {}
    if (client.get("url") is None) == (client.get("service") is None):
        errors.required(at.child("clientConfig"), "exactly one of url or service is required")
    elif client.get("service") is not None:
        _service(errors, at.child("clientConfig", "service"), client["service"])


def _name(errors: ErrorList, at: Path, name: str) -> None:
    if not name:
        errors.required(at)
    elif messages := names.dns1123_subdomain(name):
        errors.invalid(at, name, ",".join(messages))
    elif name.count(".") < 2:
        errors.invalid(at, name, "should be a domain with at least three segments separated by dots")


def _service(errors: ErrorList, at: Path, service: Object) -> None:
    # Kubernetes gives each of the two the other's fault.
    for field, told in (("namespace", "name"), ("name", "namespace")):
        if not service.get(field):
            errors.required(at.child(told))
    port = service.get("port") or 0
    if messages := names.port_number(port):
        errors.invalid(at.child("port"), port, f"port is not valid: {', '.join(messages)}")


def _rule(errors: ErrorList, at: Path, rule: Object) -> None:
    operations = list(items(rule, "operations"))
    if not operations:
        errors.required(at.child("operations"))
    if len(operations) > 1 and "*" in operations:
        errors.invalid(at.child("operations"), operations, "if '*' is present, must not specify other operations")
    for position, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            errors.not_supported(at.child("operations").index(position), operation, _OPERATIONS)
    for field, noun in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values = list(items(rule, field))
        if not values:
            errors.required(at.child(field))
        if len(values) > 1 and "*" in values:
            errors.invalid(at.child(field), values, f"if '*' is present, must not specify other {noun}")
    for position, version in enumerate(items(rule, "apiVersions")):
        if not version:
            errors.required(at.child("apiVersions").index(position))
    _resources(errors, at.child("resources"), list(items(rule, "resources")))
    _choice(errors, at, rule, "scope", _SCOPES)


def _resources(errors: ErrorList, at: Path, given: list[str]) -> None:
    if not given:
        errors.required(at)
    every, everywhere, plain = set(), set(), False
    for position, text in enumerate(given):
        resource, slash, subresource = text.partition("/")
        if not text:
            errors.required(at.index(position))
        elif not slash:
            plain = text != "*"
        else:
            if resource in every:
                text_of = f"if '{resource}/*' is present, must not specify {text}"
                errors.invalid(at.index(position), text, text_of)
            if subresource in everywhere:
                text_of = f"if '*/{subresource}' is present, must not specify {text}"
                errors.invalid(at.index(position), text, text_of)
            every |= {resource} if subresource == "*" else set()
            everywhere |= {subresource} if resource == "*" else set()
    if len(given) > 1 and "*/*" in given:
        errors.invalid(at, given, "if '*/*' is present, must not specify other resources")
    if "*" in given and plain:
        errors.invalid(at, given, "if '*' is present, must not specify other resources without subresources")


def _review_versions(errors: ErrorList, at: Path, versions: list[str]) -> None:
    listed = ", ".join(_REVIEW_VERSIONS)
    if not versions:
        errors.required(at, f"must specify one of {listed}")
        return
    for position, version in enumerate(versions):
        if version in versions[:position]:
            errors.invalid(at.index(position), version, "duplicate version")
        else:
            checks.name(errors, at.index(position), version, names.dns1035_label)
    if not set(versions) & set(_REVIEW_VERSIONS):
        errors.invalid(at, versions, f"must include at least one of {listed}")


def match_resources(errors: ErrorList, at: Path, match: Object) -> None:
    """Check what a policy or binding matches; defaults must have been filled in."""
    if match.get("matchPolicy") is None:
        errors.required(at.child("matchPolicy"))
    _choice(errors, at, match, "matchPolicy", _MATCHES)
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field) is None:
            errors.required(at.child(field))
        label_selector(errors, at.child(field), match.get(field))
    for field in ("resourceRules", "excludeResourceRules"):
        for position, rule in enumerate(items(match, field)):
            place = at.child(field).index(position)
            _names(errors, place.child("resourceNames"), items(rule, "resourceNames"))
            _rule(errors, place, rule)


def _names(errors: ErrorList, at: Path, given: Sequence[str]) -> None:
    for position, name in enumerate(given):
        checks.name(errors, at.index(position), name, names.path_segment)
        if name in given[:position]:
            errors.duplicate(at.index(position), name)
