"""Validation of conditions of the common kind (metav1.Condition)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object

__all__ = ["conditions"]

_STATUSES = ("False", "True", "Unknown")
_REASON = r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_IS_REASON = re.compile(_REASON).fullmatch
_REASON_TEXT = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or "
    f"'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{_REASON}')"
)
_REASON_BYTES, _MESSAGE_BYTES = 1024, 32 * 1024


def conditions(errors: ErrorList, at: Path, given: Sequence[Object]) -> None:
    """Check conditions: each type once, with a reason and a time."""
    seen: set[str] = set()
    for position, condition in enumerate(given):
        place, kind = at.index(position), condition.get("type") or ""
        if kind in seen:
            errors.duplicate(place.child("type"), kind)
        seen.add(kind)
        _condition(errors, place, condition)


def _condition(errors: ErrorList, at: Path, condition: Object) -> None:
    checks.name(errors, at.child("type"), condition.get("type") or "", names.label_key)
    status = condition.get("status") or ""
    if status not in _STATUSES:
        errors.not_supported(at.child("status"), status, _STATUSES)
    generation = condition.get("observedGeneration") or 0
    if generation < 0:
        errors.invalid(at.child("observedGeneration"), generation, "must be greater than or equal to zero")
    if not condition.get("lastTransitionTime"):
        errors.required(at.child("lastTransitionTime"), "must be set")
    reason, message = condition.get("reason") or "", condition.get("message") or ""
    if not reason:
        errors.required(at.child("reason"), "must be set")
    else:
        if not _IS_REASON(reason):
            errors.invalid(at.child("reason"), reason, _REASON_TEXT)
        if len(reason.encode()) > _REASON_BYTES:
            errors.too_long(at.child("reason"), _REASON_BYTES)
    if len(message.encode()) > _MESSAGE_BYTES:
        errors.too_long(at.child("message"), _MESSAGE_BYTES)
