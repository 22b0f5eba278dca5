"""Conditions as the core says them, and how they are put into what a status already has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pilothouse.kinds.conditions import set_condition
from pilothouse.kinds.structs import Resource

from .names import CONTROLLER

__all__ = ["CONTROLLER", "Conditions", "StatusOf", "merged"]


class Conditions:
    """Conditions of one thing; of each type the first that is false stays."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._found: dict[str, dict[str, Any]] = {}

    def set(self, kind: str, status: bool, reason: str, message: str = "") -> None:
        """Say a condition, instead of what was said of it before."""
        self._found[kind] = {
            "type": kind,
            "status": "True" if status else "False",
            "reason": reason,
            "message": message,
            **({"observedGeneration": self._generation} if self._generation else {}),
        }

    def fail(self, kind: str, reason: str, message: str) -> None:
        """Say that a condition is false; what was false before stays, so that the first reason is told."""
        if self._found.get(kind, {}).get("status") != "False":
            self.set(kind, False, reason, message)

    def default(self, kind: str, status: bool, reason: str, message: str = "") -> None:
        """Say a condition unless something was said of it."""
        if kind not in self._found:
            self.set(kind, status, reason, message)

    def is_true(self, kind: str) -> bool:
        """Whether a condition is there and true."""
        return self._found.get(kind, {}).get("status") == "True"

    def is_false(self, kind: str) -> bool:
        """Whether a condition is there and false."""
        return self._found.get(kind, {}).get("status") == "False"

    def reason(self, kind: str) -> str:
        """Return the reason of a condition, empty where there is none."""
        return str(self._found.get(kind, {}).get("reason", ""))

    def listed(self) -> list[dict[str, Any]]:
        """Return the conditions as JSON has them, without moments."""
        return [dict(each) for each in self._found.values()]


@dataclass(frozen=True)
class StatusOf:
    """What the status of an object should say: fields of it whole, and entries of lists that several controllers share.

    shared: the list's field (`parents`, `ancestors`), where others' entries stay.
    """

    kind: type[Resource]
    namespace: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    shared: tuple[str, Sequence[Mapping[str, Any]]] | None = None


def merged(wanted: StatusOf, present: Mapping[str, Any], now: datetime) -> dict[str, Any] | None:
    """Return the fields of a status that have to be written, None where there is nothing to write.

    Moments of transition stay where a condition's status does. present: the status as JSON has it.
    """
    made = {name: _timed(value, present.get(name), now) for name, value in wanted.fields.items()}
    if wanted.shared is not None:
        name, entries = wanted.shared
        before: Sequence[Mapping[str, Any]] = present.get(name) or []
        others = [dict(each) for each in before if each.get("controllerName") != CONTROLLER]
        ours = [each for each in before if each.get("controllerName") == CONTROLLER]
        made[name] = others + [_timed(entry, _same(entry, ours), now) for entry in entries]
    changed = {name: value for name, value in made.items() if value != (present.get(name) or type(value)())}
    return changed or None


def _same(entry: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    for ref in ("parentRef", "ancestorRef"):
        if ref in entry:
            return next((each for each in before if each.get(ref) == entry[ref]), None)
    return None


def _timed(value: Any, before: Any, now: datetime) -> Any:
    """Give conditions, wherever they stand within a value, their moments."""
    if isinstance(value, Mapping):
        old = before if isinstance(before, Mapping) else {}
        return {
            name: _conditions(each, old.get(name), now) if name == "conditions" else _timed(each, old.get(name), now)
            for name, each in value.items()
        }
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        if "lastTransitionTime" in value[0] or {"type", "status", "reason"} <= value[0].keys():
            return _conditions(value, before, now)
        known = {each.get("name"): each for each in before or [] if isinstance(each, Mapping)}
        return [_timed(each, known.get(each.get("name")), now) for each in value]
    return value


def _conditions(value: Sequence[Mapping[str, Any]], before: Any, now: datetime) -> list[Any]:
    wanted = {each["type"] for each in value}
    made: Sequence[Any] = [each for each in before or [] if each.get("type") in wanted]
    for each in value:
        made, _ = set_condition(made, each, now)
    return list(made)
