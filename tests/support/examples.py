"""The programs of `examples/` as modules."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Container
from pathlib import Path
from types import ModuleType

__all__ = ["EXAMPLES", "example", "lines_of"]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    """Load an example without running it."""
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of(name: str, without: Container[str] = ()) -> int:
    """Count an example's lines of code: no blank ones, comments, docstrings, and none of the statements left out.

    without: names of functions, classes and values at the module's level; what a `__name__` guard has is never counted.
    """
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    lines, counted = text.splitlines(), set[int]()
    tree = ast.parse(text)
    for statement in tree.body:
        if isinstance(statement, ast.If) or _name_of(statement) in without:
            continue
        first = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
        counted |= set(range(first, (statement.end_lineno or first) + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            counted -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(1 for number in counted if (line := lines[number - 1].strip()) and not line.startswith("#"))


def _name_of(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        return ast.unparse(target)
    return str(getattr(statement, "name", ""))
