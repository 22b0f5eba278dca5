"""Environments and programs: what other parts use of expressions.

environment = Environment(["object", "oldObject", "params"])
program = environment.compile("object.spec.replicas <= params.max", result="bool")
program.evaluate({"object": {...}, "params": {...}})
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pilothouse.apiserver.cel.authorization import Authorizer, ResourceCheck
from pilothouse.apiserver.cel.checker import Checker
from pilothouse.apiserver.cel.errors import CelCompileError, CelError, Issue, render
from pilothouse.apiserver.cel.evaluator import Meter, build
from pilothouse.apiserver.cel.library import functions
from pilothouse.apiserver.cel.parser import parse
from pilothouse.apiserver.cel.regex import PatternError, compile_pattern
from pilothouse.apiserver.cel.syntax import Call, Const, Node, children
from pilothouse.apiserver.cel.types import DYN, Type, opaque
from pilothouse.apiserver.cel.values import plain

__all__ = ["PER_CALL_LIMIT", "RUNTIME_BUDGET", "Budget", "Environment", "Program", "Result"]

Result = Literal["bool", "string", "any"]

PER_CALL_LIMIT = 1_000_000
"""What one evaluation may cost."""
RUNTIME_BUDGET = 3_000_000
"""What all evaluations for one request may cost. Kubernetes allows 10,000,000, which would hold a loop for seconds."""
_KEPT = 512
_RESULTS = {"bool": ("bool", "dyn"), "string": ("string", "dyn")}
_WELL_KNOWN = {
    "authorizer": opaque(Authorizer.type_name),
    "authorizer.requestResource": opaque(ResourceCheck.type_name),
}


class Budget:
    """What the evaluations of one request may cost together; each takes from it what it cost."""

    __slots__ = ("remaining",)

    def __init__(self, limit: int = RUNTIME_BUDGET) -> None:
        self.remaining = limit

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""
        return self.remaining < 0


class Program:
    """A compiled expression. Immutable; may be evaluated by several threads at once.

    text: as written. type: of the result. root: the checked nodes. variables: those that it names.
    """

    __slots__ = ("_run", "_slots", "root", "text", "type", "variables")

    def __init__(self, text: str, root: Node, variables: Iterable[str]) -> None:
        self.text = text
        self.root = root
        self.type = root.type
        self._run, self._slots = build(root, frozenset(variables))
        self.variables = frozenset(self._slots)

    def evaluate(self, variables: Mapping[str, Any], *, budget: Budget | None = None) -> Any:
        """Evaluate and return plain Python. Variables are JSON values, or callables that give one when first needed.

        An Authorizer goes in as it is. Raises CelError for what fails (the message is Kubernetes'), and
        CostExceededError for an evaluation that costs more than `PER_CALL_LIMIT` or than the budget has left.
        """
        value = self.value(variables, budget=budget)
        return value if value is True or value is False else plain(value)

    def value(self, variables: Mapping[str, Any], *, budget: Budget | None = None) -> Any:
        """Evaluate and return the value as expressions have it (Timestamp, Optional, ...)."""
        meter = Meter(PER_CALL_LIMIT if budget is None else min(PER_CALL_LIMIT, max(budget.remaining, 0)))
        try:
            return self._run(variables, meter)
        except CelError:
            raise
        except RecursionError:
            raise CelError("evaluation nests too deeply") from None
        except (ValueError, ArithmeticError) as error:
            raise CelError(str(error)) from None
        except (TypeError, AttributeError, KeyError, IndexError):
            # A value that is not of the type which its schema promised.
            raise CelError("no such overload") from None
        finally:
            if budget is not None:
                budget.remaining -= meter.spent


class Environment:
    """The variables that expressions may use, and their compilation, which is remembered (512 texts).

    variables: names, of any type (`authorizer` and `authorizer.requestResource` have theirs), or names with types.
    objects: whether `Object{...}` and `JSONPatch{...}` may be made, as mutating policies do. Thread-safe.
    version: of Kubernetes; functions of newer ones are not known to it. Only 1.36 is.
    """

    def __init__(
        self, variables: Iterable[str] | Mapping[str, Type], *, version: str = "1.36", objects: bool = False
    ) -> None:
        if version != "1.36":
            raise ValueError(f"version {version!r}: expressions are those of Kubernetes 1.36")
        if isinstance(variables, Mapping):
            self.variables: Mapping[str, Type] = dict(variables)
        else:
            self.variables = {name: _WELL_KNOWN.get(name, DYN) for name in variables}
        self._objects = objects
        self._kept: OrderedDict[tuple[str, Result], Program] = OrderedDict()
        self._lock = threading.Lock()

    def extended(self, variables: Mapping[str, Type] | Iterable[str]) -> Environment:
        """Return an environment with further variables (those of a policy)."""
        added = variables if isinstance(variables, Mapping) else dict.fromkeys(variables, DYN)
        return Environment({**self.variables, **added}, objects=self._objects)

    def compile(self, text: str, *, result: Result = "any") -> Program:
        """Compile an expression that gives a `bool`, a `string` or `any`thing. Raises CelCompileError."""
        key = (text, result)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = self._compile(text, result)
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _compile(self, text: str, result: Result) -> Program:
        issues: list[Issue] = []
        root: Node | None = None
        try:
            root = parse(text)
            checker = Checker(self.variables, functions(patches=self._objects), objects=self._objects)
            checker.check(root)
            issues = checker.issues
        except Issue as issue:
            issues = [issue]
        except RecursionError:
            issues = [Issue(0, "expression recursion limit exceeded: 250")]
        if issues or root is None:
            raise CelCompileError(f"compilation failed: {render(text, issues)}", tuple(issues))
        _check_patterns(root)
        if result != "any" and root.type.kind not in _RESULTS[result]:
            raise CelCompileError(f"must evaluate to {result}")
        return Program(text, root, self.variables)


def _check_patterns(root: Node) -> None:
    """Refuse literal patterns of `find` and `findAll` that are none, which Kubernetes finds when it makes a program."""
    pending = [root]
    while pending:
        node = pending.pop()
        pending.extend(children(node))
        if isinstance(node, Call) and node.function in {"find", "findAll"} and node.args:
            pattern = node.args[0]
            if isinstance(pattern, Const) and isinstance(pattern.value, str):
                try:
                    compile_pattern(pattern.value)
                except PatternError as error:
                    raise CelCompileError(f"program instantiation failed: {error}") from None
