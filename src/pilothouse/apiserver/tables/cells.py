"""What the cells of several kinds have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from pilothouse.kinds.ages import Ages
from pilothouse.kinds.labels import SelectorError, from_label_selector
from pilothouse.kinds.quantity import QuantityError, parse_json

__all__ = [
    "NONE",
    "UNSET",
    "Object",
    "Printer",
    "age",
    "containers",
    "format_labels",
    "format_selector",
    "limited",
    "quantity",
    "selector_text",
    "true_condition",
]

Object: TypeAlias = Mapping[str, Any]

Printer: TypeAlias = Callable[[Object, Ages], list[Any]]
"""Gives the cells of an object, in the order of its kind's columns."""

NONE: Final = "<none>"
UNSET: Final = "<unset>"
_SHOWN: Final = 3
_EMPTY: Final[Mapping[str, Any]] = {}


def age(obj: Object, ages: Ages) -> str:
    """Return how long ago an object was created."""
    return ages.since(obj["metadata"].get("creationTimestamp"))


def format_labels(labels: Mapping[str, str] | None) -> str:
    """Write labels as an equality selector, `<none>` without any."""
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels)) if labels else NONE


def selector_text(selector: Mapping[str, Any] | None, invalid: str) -> str:
    """Write a label selector in the short notation; `invalid` where it is none."""
    if selector is not None and not selector.get("matchExpressions"):
        labels = selector.get("matchLabels") or _EMPTY
        return ",".join(f"{name}={labels[name]}" for name in sorted(labels))
    try:
        return str(from_label_selector(selector))
    except SelectorError:
        return invalid


def format_selector(selector: Mapping[str, Any] | None) -> str:
    """Write a label selector, `<none>` where it selects nothing or everything."""
    return selector_text(selector, "<error>") or NONE


def containers(template: Object | None) -> tuple[str, str]:
    """Return names and images of the containers of a pod template."""
    listed = ((template or _EMPTY).get("spec") or _EMPTY).get("containers") or ()
    return ",".join(one.get("name", "") for one in listed), ",".join(one.get("image", "") for one in listed)


def quantity(value: Any) -> str:
    """Write a quantity in canonical form, `0` where there is none."""
    if value is None:
        return "0"
    try:
        return str(parse_json(value))
    except QuantityError:
        return str(value)


def limited(items: Iterable[str], empty: str = UNSET) -> str:
    """List a few items and say how many more there are."""
    listed = list(items)
    text = ",".join(listed[:_SHOWN])
    if len(listed) > _SHOWN:
        return f"{text} + {len(listed) - _SHOWN} more..."
    return text or empty


def true_condition(status: Object, kind: str) -> bool:
    """Whether the first condition of this type is true."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            return bool(condition.get("status") == "True")
    return False
