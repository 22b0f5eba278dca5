"""Validation of probes and lifecycle hooks."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items

__all__ = ["lifecycle", "probes"]

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_SCHEMES = ("HTTP", "HTTPS")
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def probes(errors: ErrorList, at: Path, container: Object) -> None:
    """Check the three probes of a container."""
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(field)
        if probe is None:
            continue
        place = at.child(field)
        _handler(errors, place, probe)
        checks.non_negative(errors, place, probe, *_NUMBERS)
        grace = probe.get("terminationGracePeriodSeconds")
        if grace is not None and grace <= 0:
            errors.invalid(place.child("terminationGracePeriodSeconds"), grace, "must be greater than 0")
        if field == "readinessProbe":
            if grace is not None:
                text = "must not be set for readinessProbes"
                errors.invalid(place.child("terminationGracePeriodSeconds"), grace, text)
        elif probe.get("successThreshold") != 1:
            errors.invalid(place.child("successThreshold"), probe.get("successThreshold") or 0, "must be 1")


def lifecycle(errors: ErrorList, at: Path, container: Object) -> None:
    """Check the hooks of a container."""
    hooks = container.get("lifecycle")
    if hooks:
        for field in ("postStart", "preStop"):
            if hooks.get(field) is not None:
                _handler(errors, at.child("lifecycle", field), hooks[field])


def _handler(errors: ErrorList, at: Path, handler: Object) -> None:
    given = [field for field in _HANDLERS if handler.get(field) is not None]
    if not given:
        errors.required(at, "must specify a handler type")
        return
    first, *others = given
    _action(errors, at.child(first), first, handler[first])
    for field in others:
        errors.forbidden(at.child(field), "may not specify more than 1 handler type")


def _action(errors: ErrorList, at: Path, kind: str, action: Object) -> None:
    if kind == "exec":
        if not action.get("command"):
            errors.required(at.child("command"))
    elif kind in {"tcpSocket", "grpc"}:
        checks.port(errors, at.child("port"), action.get("port") or 0)
    elif kind == "httpGet":
        checks.required(errors, at, action, "path")
        checks.port(errors, at.child("port"), action.get("port") or 0)
        scheme = action.get("scheme") or ""
        if scheme not in _SCHEMES:
            errors.not_supported(at.child("scheme"), scheme, _SCHEMES)
        for header in items(action, "httpHeaders"):
            checks.name(errors, at.child("httpHeaders"), header.get("name") or "", names.header_name)
