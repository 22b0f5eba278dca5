"""The texts that a class has for its readers: its docstring, and the strings below its fields."""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
from collections.abc import Iterator
from functools import cache
from typing import Final

__all__ = ["class_text", "field_texts"]

_WITHOUT: Final = frozenset({"builtins", "msgspec", "pilothouse", "typing"})
"""Packages whose bases have no fields to be told of."""


def class_text(kind: type) -> str:
    """Return the docstring of the class itself, not of one that it is made from."""
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "")


def field_texts(kind: type) -> dict[str, str]:
    """Return by attribute the strings that stand below fields; none where the source cannot be read."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.partition(".")[0] not in _WITHOUT:
            found |= _texts_of(each.__module__).get(each.__qualname__, {})
    return found


@cache
def _texts_of(module: str) -> dict[str, dict[str, str]]:
    """Return the texts of all classes of a module, by their qualified names."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return {}  # made at run time, or its file is gone
    return dict(_classes(tree, ""))


def _classes(tree: ast.AST, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield f"{prefix}{node.name}", dict(_texts(node.body))
            yield from _classes(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _classes(node, f"{prefix}{node.name}.<locals>.")
        elif isinstance(node, ast.stmt):
            yield from _classes(node, prefix)


def _texts(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            yield field.target.id, inspect.cleandoc(text.value.value)
