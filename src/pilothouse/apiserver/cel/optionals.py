"""Optional values: `optional.of`, `orValue` and the like."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.standard import index
from pilothouse.apiserver.cel.values import NONE, Duration, Optional, Timestamp

__all__ = ["OPTIONALS", "optional_index"]

OPTIONALS = Functions()


def _is_zero(value: Any) -> bool:
    if value is None or isinstance(value, Timestamp):
        return value is None or value.ns == -62135596800 * 1_000_000_000
    if isinstance(value, Duration):
        return value.ns == 0
    return isinstance(value, (str, bytes, int, float, list, tuple, dict)) and not value


def _value(found: Optional) -> Any:
    if not found.present:
        raise CelError("optional.none() dereference")
    return found.value


def optional_index(found: Any, key: Any) -> Optional:
    """Return what `found[?key]` gives: the element if there is one."""
    if isinstance(found, Optional):
        return optional_index(found.value, key) if found.present else NONE
    try:
        return Optional(index(found, key))
    except CelError as error:
        if str(error).startswith(("no such key", "index out of bounds")):
            return NONE
        raise


OPTIONALS.add("optional.of", Optional, "A -> optional(A)")
OPTIONALS.add("optional.ofNonZeroValue", lambda a: NONE if _is_zero(a) else Optional(a), "A -> optional(A)")
OPTIONALS.add("optional.none", lambda: NONE, "-> optional(A)")
OPTIONALS.add("value", _value, "optional(A) @ -> A")
OPTIONALS.add("hasValue", lambda found: found.present, "optional(A) @ -> bool")
OPTIONALS.add(
    "_[?_]",
    optional_index,
    "list(A), int -> optional(A)",
    "optional(list(A)), int -> optional(A)",
    "map(A, B), A -> optional(B)",
    "optional(map(A, B)), A -> optional(B)",
)
OPTIONALS.add(
    "_[_]",
    optional_index,
    "optional(list(A)), int -> optional(A)",
    "optional(map(A, B)), A -> optional(B)",
)
