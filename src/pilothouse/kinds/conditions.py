"""Conditions in a status: find, set and remove them; the transition time moves only with the status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pilothouse.kinds.times import format_seconds

__all__ = ["find", "has_status", "is_false", "is_true", "remove", "set_condition"]

Condition = Mapping[str, Any]

_FOLLOWED: Final = ("observedGeneration", "reason", "message")


def find(conditions: Iterable[Condition] | None, kind: str) -> Condition | None:
    """Give the condition of a type, if there is one."""
    return next((condition for condition in conditions or () if condition.get("type") == kind), None)


def has_status(conditions: Iterable[Condition] | None, kind: str, status: str) -> bool:
    """Say whether the condition of a type is there and has a status."""
    found = find(conditions, kind)
    return found is not None and found.get("status") == status


def is_true(conditions: Iterable[Condition] | None, kind: str) -> bool:
    """Say whether the condition of a type is there and true."""
    return has_status(conditions, kind, "True")


def is_false(conditions: Iterable[Condition] | None, kind: str) -> bool:
    """Say whether the condition of a type is there and false."""
    return has_status(conditions, kind, "False")


def set_condition(
    conditions: Sequence[Condition] | None, condition: Condition, now: datetime
) -> tuple[list[Condition], bool]:
    """Give the conditions with one added or brought up to date, and whether that changed anything.

    condition: `type`, `status`, `reason`, `message`, and `observedGeneration` if known; its `lastTransitionTime` counts
    only where the status changes, and is `now` (aware) if not given. Other fields of a present one are kept. Follows
    `meta.SetStatusCondition`.
    """
    listed = list(conditions or ())
    kind = condition["type"]
    position = next((place for place, present in enumerate(listed) if present.get("type") == kind), None)
    moment = condition.get("lastTransitionTime") or format_seconds(now)
    if position is None:
        return [*listed, {**condition, "lastTransitionTime": moment}], True
    present = listed[position]
    updated = dict(present)
    if present.get("status") != condition.get("status"):
        updated.update(status=condition.get("status"), lastTransitionTime=moment)
    for name in _FOLLOWED:
        _follow(updated, name, condition.get(name))
    listed[position] = updated
    return listed, updated != present


def _follow(updated: dict[str, Any], name: str, value: Any) -> None:
    """Take over a field; nothing, zero and empty text are one."""
    if (updated.get(name) or None) == (value or None):
        return
    if value or name != "observedGeneration":
        updated[name] = value or ""
    else:
        updated.pop(name, None)


def remove(conditions: Sequence[Condition] | None, kind: str) -> tuple[list[Condition], bool]:
    """Give the conditions without those of a type, and whether there was one."""
    listed = list(conditions or ())
    kept = [condition for condition in listed if condition.get("type") != kind]
    return kept, len(kept) != len(listed)
