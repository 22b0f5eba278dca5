"""Status helpers: conditions of typed objects, where the transition time moves only with the status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from pilothouse.kinds import conditions as plain
from pilothouse.kinds.structs import from_dict, to_dict
from pilothouse.kinds.structs.meta import Condition

__all__ = ["condition_of", "is_true", "set_condition"]


def condition_of(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type, None where there is none."""
    return next((found for found in conditions if found.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether the condition of a type is there and true."""
    found = condition_of(conditions, kind)
    return found is not None and found.status == "True"


def set_condition(
    conditions: Sequence[Condition],
    kind: str,
    status: bool | Literal["True", "False", "Unknown"],
    *,
    reason: str,
    message: str = "",
    observed_generation: int = 0,
    now: datetime,
) -> Sequence[Condition]:
    """Return the conditions with one added or brought up to date; the same object where nothing changes.

    reason: a word in CamelCase, which Kubernetes wants; ValueError without one. now: aware.
    """
    if not reason:
        raise ValueError(f"condition {kind}: reason is empty; give a word in CamelCase, such as Progressing")
    wanted = {"type": kind, "status": str(status), "reason": reason, "message": message}
    if observed_generation:
        wanted |= {"observedGeneration": observed_generation}  # type: ignore[dict-item]
    made, changed = plain.set_condition([to_dict(found) for found in conditions], wanted, now)
    return [from_dict(found, Condition) for found in made] if changed else conditions
