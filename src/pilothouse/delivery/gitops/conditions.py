"""The conditions of an application, in Argo's shape: a type and a message, there only while something is so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pilothouse.delivery.resources.applications import ApplicationCondition

__all__ = ["conditions_of"]

_MAX: Final = 20
_MAX_TEXT: Final = 4000
_PASSING: Final = re.compile(
    r"after \d+ ms|:\d+->|0x[0-9a-f]+|(?:pilothouse-[a-z]+|pull)-[a-z0-9_]{8}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*"
)
"""What programs say otherwise each time: a status that changed with it would be worked out again at once, for ever."""


def conditions_of(
    found: Iterable[tuple[str, str]], before: Sequence[ApplicationCondition], now: str
) -> list[dict[str, Any]]:
    """Return conditions as a status holds them; those that were so before keep their time, and their words."""
    known = {(each.type, _lasting(each.message)): each for each in before}
    made = []
    for kind, text in dict.fromkeys(found):
        # Names of files may be no text.
        clean = text.encode("utf-8", "backslashreplace").decode()
        message = clean if len(clean) <= _MAX_TEXT else f"{clean[:_MAX_TEXT]}…"
        same = known.get((kind, _lasting(message)))
        since = same.last_transition_time if same is not None else ""
        message = same.message if same is not None else message
        made.append({"type": kind, "message": message, "lastTransitionTime": since or now})
    return made[:_MAX]


def _lasting(message: str) -> str:
    return _PASSING.sub("#", message)
