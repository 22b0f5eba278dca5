"""The conditions of an application, in Argo's shape: a type and a message, there only while something is so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pilothouse.delivery.resources.applications import ApplicationCondition

__all__ = ["conditions_of"]

_MAX: Final = 20
_MAX_TEXT: Final = 4000


def conditions_of(
    found: Iterable[tuple[str, str]], before: Sequence[ApplicationCondition], now: str
) -> list[dict[str, Any]]:
    """Return conditions as a status holds them; those that were so before keep their time."""
    known: Mapping[tuple[str, str], str] = {(each.type, each.message): each.last_transition_time for each in before}
    made = []
    for kind, text in dict.fromkeys(found):
        message = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
        made.append({"type": kind, "message": message, "lastTransitionTime": known.get((kind, message)) or now})
    return made[:_MAX]
