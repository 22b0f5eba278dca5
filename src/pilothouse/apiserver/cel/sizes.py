"""What calls cost by the sizes of their arguments, as cel-go and Kubernetes count."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.cel.values import Optional

__all__ = [
    "AUTHORIZATION",
    "LIST",
    "MAP",
    "STRUCT",
    "list_cost",
    "pair_cost",
    "regex_cost",
    "search_cost",
    "size_of",
    "text_cost",
    "texts_cost",
    "twice",
    "weight",
]

LIST, MAP, STRUCT = 10, 30, 40
"""What it costs to make a list, a map, an object."""
_NODES = 3
"""Elements compared for one unit of cost; Kubernetes counts ten characters, but only those of the outermost value."""
AUTHORIZATION = 350_000
"""What one question to the authorizer costs, so that an expression has two of them at most."""


def size_of(value: Any) -> int:
    """Return the characters, bytes, elements or entries of a value; 1 for others."""
    if isinstance(value, (str, bytes, list, tuple, dict)):
        return len(value)
    if isinstance(value, Optional) and value.present:
        return size_of(value.value)
    return int(getattr(value, "size", 1))


def text_cost(text: Any, *_: Any) -> int:
    """Return what reading a text once costs: a tenth of its characters, rounded up."""
    return -(-len(text) // 10)


def twice(text: Any, *_: Any) -> int:
    """Return what reading a text and building another costs."""
    return -(-len(text) // 5)


def texts_cost(left: Any, right: Any) -> int:
    """Return what joining two texts costs."""
    return -(-(len(left) + len(right)) // 10)


def pair_cost(left: Any, right: Any) -> int:
    """Return what comparing two values costs: by the smaller one, elements counted deeply."""
    if isinstance(left, (str, bytes)):
        return -(-min(len(left), size_of(right)) // 10)
    if isinstance(left, (list, tuple, dict)) and isinstance(right, (list, tuple, dict)):
        return 1 + min(weight(left), weight(right)) // _NODES
    return 1


def weight(value: Any) -> int:
    """Return how much there is in a value; comparing goes all the way down."""
    if isinstance(value, dict):
        return sum(map(weight, value.values())) + len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(weight, value)) + 1
    return len(value) if isinstance(value, (str, bytes)) else 1


def search_cost(value: Any, found: Any) -> int:
    """Return what looking for a value in a list costs: one for each element, more where values are large."""
    if isinstance(value, (list, tuple, dict)):
        return len(found) * (1 + weight(value) // _NODES)
    return len(found)


def regex_cost(text: str, pattern: str, *_: Any) -> int:
    """Return what matching costs: the text once for every four characters of the pattern."""
    return -(-(1 + len(text)) // 10) * -(-len(pattern) // 4)


def list_cost(found: Any, *_: Any) -> int:
    """Return what going once through a list (or text) costs."""
    if isinstance(found, str):
        return text_cost(found)
    return sum(text_cost(each) if isinstance(each, (str, bytes)) else 1 for each in found)
