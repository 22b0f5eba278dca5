"""The texts that a class has for its readers: its docstring, and the strings below its fields."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from functools import cache

__all__ = ["class_text", "field_texts"]


def class_text(kind: type) -> str:
    """Return the docstring of the class itself, not of one that it is made from."""
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "")


@cache
def field_texts(kind: type) -> dict[str, str]:
    """Return by attribute the strings that stand below fields; none where the source cannot be read."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.partition(".")[0] not in {"builtins", "msgspec", "pilothouse", "typing"}:
            found |= _own_texts(each)
    return found


def _own_texts(kind: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}  # made at run time, or its file is gone
    body = tree.body[0].body if tree.body and isinstance(tree.body[0], ast.ClassDef) else []
    found: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(text.value.value)
    return found
