"""Paths into custom resources: those of rules and selectable fields, and the plain ones of the scale subresource."""

from __future__ import annotations

import re
from typing import Any

from pilothouse.apiserver.crds.structural import Node

__all__ = ["FieldPathError", "find_at", "plain_path", "resolve"]

_TOKEN = re.compile(r"[.\[\]]|'(?:[^'\\]|\\.)*'|[^.\[\]]+", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


class FieldPathError(ValueError):
    """A path that leads nowhere; worded as Kubernetes does."""


def _unquoted(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise FieldPathError(f"invalid string literal: invalid escape char {match[0]}")
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.)", one, text, flags=re.DOTALL)


def resolve(path: str, node: Node, *, brackets: bool = True) -> tuple[str, Node]:
    """Follow a path (`.spec.x`, `.labels['a/b']`) in a schema; return it as errors show it, and the schema there.

    brackets: whether `['x']` may be used. Raises FieldPathError.
    """
    tokens = _TOKEN.findall(path)
    shown, place = "", 0

    def take() -> str:
        nonlocal place
        if place >= len(tokens):
            raise FieldPathError("unexpected end of JSON path")
        place += 1
        return str(tokens[place - 1])

    while place < len(tokens):
        part = take()
        if part == "[":
            if not brackets:
                raise FieldPathError("array notation is not allowed")
            quoted = take()
            if len(quoted) < 2 or quoted[0] != "'" or quoted[-1] != "'":
                raise FieldPathError(f"expected single quoted string but got {quoted}")
            name = _unquoted(quoted[1:-1])
        elif part == ".":
            name = take()
        else:
            raise FieldPathError(f"expected [ or . but got: {part}")
        shown, node = _step(shown, node, name)
        if part == "[" and (closing := take()) != "]":
            raise FieldPathError(f"expected ] but got {closing}")
    return shown, node


def _step(shown: str, node: Node, name: str) -> tuple[str, Node]:
    if node.properties:
        if name not in node.properties:
            raise FieldPathError("does not refer to a valid field")
        return (f"{shown}.{name}" if shown else name), node.properties[name]
    if isinstance(node.additional, Node):
        return f"{shown}[{name}]", node.additional
    raise FieldPathError("does not refer to a valid field")


def plain_path(path: str) -> tuple[str, ...]:
    """Return the names of a plain path (`.spec.replicas`)."""
    return tuple(path.removeprefix(".").split("."))


def find_at(obj: Any, path: tuple[str, ...]) -> Any:
    """Return what stands at a plain path; None where something is missing on the way."""
    for name in path:
        if not isinstance(obj, dict) or name not in obj:
            return None
        obj = obj[name]
    return obj
