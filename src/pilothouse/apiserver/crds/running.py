"""Runs the rules of a schema over an object, and words what they refuse."""

from __future__ import annotations

import contextlib
from typing import Any

from pilothouse.apiserver.cel.errors import CelError, CostExceededError
from pilothouse.apiserver.cel.program import Budget, Program
from pilothouse.apiserver.cel.values import NONE, Optional
from pilothouse.apiserver.crds.correlation import Correlated, list_map_key
from pilothouse.apiserver.crds.rules import CompiledRule, RuleNode
from pilothouse.apiserver.crds.structural import Rule
from pilothouse.kinds.fielderrors import OMIT, ErrorList, FieldError, Path

__all__ = ["run_rules"]

_OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
_MAX_MESSAGE = 5 * 1024


class _StoppedError(Exception):
    """No further rules are to be run."""


class _Ratchet:
    """What an object was at a place, or at the nearest place above where that can be told."""

    __slots__ = ("current", "nearest")

    def __init__(self, current: Correlated | None, nearest: Correlated | None = None) -> None:
        self.current = current
        self.nearest = nearest


def run_rules(
    compiled: RuleNode, obj: Any, old: Any = None, *, budget: Budget | None = None, at: Path | None = None
) -> tuple[ErrorList, list[str]]:
    """Run all rules; return what they refuse, and warnings about what they refuse in parts that did not change.

    old: what stood there before; rules that name `oldSelf` run only where there was something. budget: 10,000,000
    units of cost by default.
    """
    run = _Run(Budget() if budget is None else budget)
    correlated = None if old is None else Correlated(obj, old)
    with contextlib.suppress(_StoppedError):
        run.node(compiled, Path() if at is None else at, obj, old, _Ratchet(correlated))
    return run.errors, run.warnings


class _Run:
    def __init__(self, budget: Budget) -> None:
        self.errors = ErrorList()
        self.warnings: list[str] = []
        self._budget = budget

    def node(self, compiled: RuleNode, at: Path, value: Any, old: Any, ratchet: _Ratchet) -> None:
        if value is None:
            return
        if compiled.rules or compiled.error:
            self._rules(compiled, at, value, old, ratchet)
        for nested in compiled.all_of:
            self.node(nested, at, value, old, _Ratchet(None, ratchet.nearest))
        if type(value) is dict:
            self._map(compiled, at, value, old if type(old) is dict else {}, ratchet)
        elif type(value) is list and compiled.items is not None:
            self._list(compiled, compiled.items, at, value, old if type(old) is list else [], ratchet)

    def _map(self, compiled: RuleNode, at: Path, value: dict[str, Any], old: dict[str, Any], ratchet: _Ratchet) -> None:
        if compiled.additional is not None:
            for name, item in value.items():
                self.node(compiled.additional, at.key(name), item, old.get(name), _key(ratchet, name))
        for name, inner in compiled.properties.items():
            if name in value:
                self.node(inner, at.child(name), value[name], old.get(name), _key(ratchet, name))

    def _list(
        self, compiled: RuleNode, items: RuleNode, at: Path, value: list[Any], old: list[Any], ratchet: _Ratchet
    ) -> None:
        before: dict[str, Any] = {}
        keys = compiled.node.list_keys if compiled.node.list_type == "map" else ()
        if keys:
            for item in old:
                if (key := list_map_key(keys, item)) is not None:
                    before.setdefault(key, item)
        for position, item in enumerate(value):
            key = list_map_key(keys, item) if before else None
            previous = before.get(key) if key is not None else None
            inner = ratchet
            if ratchet.current is not None:
                inner = _Ratchet(ratchet.current.index(compiled.node, position), ratchet.current)
            self.node(items, at.index(position), item, previous, inner)

    def _invalid(self, compiled: RuleNode, at: Path, text: str) -> None:
        self.errors.invalid(at, compiled.node.type, text)

    def _rules(self, compiled: RuleNode, at: Path, value: Any, old: Any, ratchet: _Ratchet) -> None:
        if compiled.error:
            self._invalid(compiled, at, f"rule compiler initialization error: {compiled.error}")
            return
        if self._budget.remaining <= 0:
            self._invalid(compiled, at, _OUT_OF_BUDGET)
            raise _StoppedError
        convert = compiled.convert
        try:
            seen = value if convert is None else convert(value)
            seen_old = old if convert is None or old is None else convert(old)
        except CelError as error:
            self._invalid(compiled, at, str(error))
            return
        for each in compiled.rules:
            self._rule(compiled, each, at, value, (seen, seen_old), ratchet)

    def _rule(
        self, compiled: RuleNode, each: CompiledRule, at: Path, value: Any, seen: tuple[Any, Any], ratchet: _Ratchet
    ) -> None:
        if each.error:
            self._invalid(compiled, at, f"rule compile error: {each.error}")
            return
        current, old = seen
        if each.program is None or (each.uses_old and old is None and not each.rule.optional_old_self):
            return
        variables = {"self": current}
        if each.rule.optional_old_self:
            variables["oldSelf"] = NONE if old is None else Optional(old)
        elif old is not None:
            variables["oldSelf"] = old
        try:
            if each.program.value(variables, budget=self._budget) is True:
                self._check_budget(compiled, at)
                return
        except CelError as error:
            self._check_budget(compiled, at)
            self._failed(compiled, each.rule, at, error)
            return
        self._check_budget(compiled, at)
        self._refuse(compiled, each, at, value, variables, ratchet)

    def _check_budget(self, compiled: RuleNode, at: Path) -> None:
        if self._budget.remaining < 0:
            self._invalid(compiled, at, _OUT_OF_BUDGET)
            raise _StoppedError

    def _failed(self, compiled: RuleNode, rule: Rule, at: Path, error: CelError) -> None:
        shown, text = _shown(rule), str(error)
        if isinstance(error, CostExceededError):
            why = "no further validation rules will be run due to call cost exceeds limit for rule"
            self._invalid(compiled, at, f"'{text}': {why}: {shown}")
            raise _StoppedError
        if text.startswith("no such overload"):
            why = "call arguments did not match a supported operator, function or macro signature for rule"
            self._invalid(compiled, at, f"'{text}': {why}: {shown}")
        else:
            self._invalid(compiled, at, f"{text} evaluating rule: {shown}")

    def _refuse(
        self,
        compiled: RuleNode,
        each: CompiledRule,
        at: Path,
        value: Any,
        variables: dict[str, Any],
        ratchet: _Ratchet,
    ) -> None:
        place = at.child(each.field_path) if each.field_path else at
        detail = self._message(compiled, each, place, variables) or _default_message(each.rule)
        shown = OMIT if compiled.node.type in {"object", "array"} else value
        error = _error(each.rule.reason, place, shown, detail)
        nearest = ratchet.current if ratchet.current is not None else ratchet.nearest
        if nearest is not None and not each.uses_old and nearest.unchanged:
            self.warnings.append(str(error))
        else:
            self.errors.append(error)

    def _message(self, compiled: RuleNode, each: CompiledRule, at: Path, variables: dict[str, Any]) -> str:
        program: Program | None = each.message
        if program is None:
            return ""
        source = each.rule.message_expression
        try:
            text = program.value(variables, budget=self._budget)
        except CostExceededError:
            if self._budget.remaining < 0:
                why = "messageExpression evaluation failed due to running out of cost budget"
                self._invalid(compiled, at, f"{why}, no further validation rules will be run")
            else:
                why = "no further validation rules will be run due to call cost exceeds limit for messageExpression"
                self._invalid(compiled, at, f"{why}: {_quoted(source)}")
            raise _StoppedError from None
        except CelError:
            return ""
        text = text.strip() if isinstance(text, str) else ""
        return "" if len(text.encode()) > _MAX_MESSAGE or "\n" in text else text


def _key(ratchet: _Ratchet, name: str) -> _Ratchet:
    if ratchet.current is None:
        return ratchet
    if ratchet.nearest is None and name in {"apiVersion", "kind"}:
        return _Ratchet(None)
    return _Ratchet(ratchet.current.key(name), ratchet.current)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _shown(rule: Rule) -> str:
    return rule.message.strip() or rule.rule.strip()


def _default_message(rule: Rule) -> str:
    return rule.message.strip() if rule.message else f"failed rule: {rule.rule.strip()}"


def _error(reason: str, at: Path, value: Any, detail: str) -> FieldError:
    match reason:
        case "FieldValueForbidden":
            return FieldError("FieldValueForbidden", str(at), "", detail)
        case "FieldValueRequired":
            return FieldError("FieldValueRequired", str(at), "", detail)
        case "FieldValueDuplicate":
            return FieldError("FieldValueDuplicate", str(at), value)
    return FieldError("FieldValueInvalid", str(at), value, detail)
