"""Which labels a selector takes: read from text or from a LabelSelector, compiled once, matched often."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, quote

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Operator",
    "Requirement",
    "Selector",
    "SelectorError",
    "from_label_selector",
    "from_labels",
    "parse",
    "validate_label_selector",
    "validate_labels",
]

Operator = Literal["=", "==", "!=", "in", "notin", "exists", "!", "gt", "lt"]
Match = Callable[[Mapping[str, str]], bool]

_BINARY: Final = "in, notin, =, ==, !=, gt, lt"
_OPERATORS: Final[Mapping[str, Operator]] = {
    "in": "in",
    "notin": "notin",
    "=": "=",
    "==": "==",
    "!=": "!=",
    ">": "gt",
    "<": "lt",
}
_STRUCT_OPERATORS: Final[Mapping[str, Operator]] = {
    "In": "in",
    "NotIn": "notin",
    "Exists": "exists",
    "DoesNotExist": "!",
}
_SIGN: Final[Mapping[Operator, str]] = {"gt": ">", "lt": "<"}
_INTEGER: Final = re.compile("[+-]?[0-9]{1,4000}").fullmatch
_INT64: Final = range(-(2**63), 2**63)
_MEMO: Final = 2048
_MEMO_LENGTH: Final = 512
"""Characters of the longest text remembered, so that hostile ones do not fill memory."""
_END: Final = ""
_NOT: Final = "!"
_COMMA: Final = ","
_OPEN: Final = "("
_CLOSE: Final = ")"
_ROOT: Final = Path()


class SelectorError(ValueError):
    """A selector cannot be read. The message is Kubernetes' own."""


def _int64(text: str) -> int | None:
    if _INTEGER(text) and (number := int(text)) in _INT64:
        return number
    return None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. `values` are as many as the operator takes."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
            case _:
                return f"{self.key}{_SIGN.get(self.operator, self.operator)}{','.join(sorted(self.values))}"

    def check(self, path: Path = _ROOT) -> ErrorList:
        """Give what is wrong with key, values and their number, as the server says it."""
        errors = ErrorList()
        if found := names.label_key(self.key):
            errors.invalid(path.child("key"), self.key, "; ".join(found))
        place, count, listed = path.child("values"), len(self.values), list(self.values) or None
        if self.operator in {"in", "notin"}:
            if not count:
                errors.invalid(place, listed, "for 'in', 'notin' operators, values set can't be empty")
        elif self.operator in {"exists", "!"}:
            if count:
                errors.invalid(place, listed, "values set must be empty for exists and does not exist")
        elif self.operator in {"gt", "lt"}:
            self._check_number(errors, place)
        elif count != 1:
            errors.invalid(place, listed, "exact-match compatibility requires one single value")
        for position, value in enumerate(self.values):
            if found := names.label_value(value):
                errors.invalid(place.index(position).key(self.key), value, "; ".join(found))
        return errors

    def _check_number(self, errors: ErrorList, place: Path) -> None:
        if len(self.values) != 1:
            errors.invalid(place, list(self.values), "for 'Gt', 'Lt' operators, exactly one value is required")
        for position, value in enumerate(self.values):
            if _int64(value) is None:
                errors.invalid(place.index(position), value, "for 'Gt', 'Lt' operators, the value must be an integer")

    def compile(self) -> Match:
        """Give a function that says whether labels meet it."""
        key = self.key
        match self.operator:
            case "exists":
                return lambda labels: key in labels
            case "!":
                return lambda labels: key not in labels
            case "gt" | "lt":
                return self._compile_number()
            case "=" | "==" | "in" if len(self.values) == 1:
                value = self.values[0]
                return lambda labels: labels.get(key) == value
            case "!=" if len(self.values) == 1:
                value = self.values[0]
                return lambda labels: labels.get(key) != value
            case "=" | "==" | "in":
                wanted = frozenset(self.values)
                return lambda labels: labels.get(key) in wanted
            case _:
                unwanted = frozenset(self.values)
                return lambda labels: labels.get(key) not in unwanted

    def _compile_number(self) -> Match:
        bound, key = _int64(self.values[0]), self.key
        sign = 1 if self.operator == "gt" else -1

        def match(labels: Mapping[str, str]) -> bool:
            text = labels.get(key)
            number = None if text is None else _int64(text)
            return number is not None and bound is not None and sign * number > sign * bound

        return match


def _all(matches: tuple[Match, ...]) -> Match:
    if not matches:
        return lambda labels: True
    if len(matches) == 1:
        return matches[0]

    def match(labels: Mapping[str, str]) -> bool:
        for one in matches:  # noqa: SIM110
            if not one(labels):
                return False
        return True

    return match


class Selector:
    """Requirements that must all be met, sorted by key. Immutable; equal if its requirements are.

    matches: a function of labels, a mapping of text to text. selectable: false for the selector that takes nothing.
    """

    __slots__ = ("matches", "requirements", "selectable")

    def __init__(self, requirements: Iterable[Requirement] = (), *, selectable: bool = True) -> None:
        self.requirements: Final = tuple(sorted(requirements, key=lambda requirement: requirement.key))
        self.selectable: Final = selectable
        self.matches: Final[Match] = (
            _all(tuple(requirement.compile() for requirement in self.requirements)) if selectable else _never
        )

    @property
    def empty(self) -> bool:
        """Whether it takes everything."""
        return self.selectable and not self.requirements

    def exact(self, key: str) -> str | None:
        """Give the one value that it wants of a label, if it wants one."""
        for requirement in self.requirements:
            if requirement.key == key:
                single = requirement.operator in {"=", "==", "in"} and len(requirement.values) == 1
                return requirement.values[0] if single else None
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __repr__(self) -> str:
        return f"Selector({str(self)!r})" if self.selectable else "NOTHING"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selector):
            return NotImplemented
        return self.requirements == other.requirements and self.selectable == other.selectable

    def __hash__(self) -> int:
        return hash((self.requirements, self.selectable))


def _never(labels: Mapping[str, str]) -> bool:
    return False


EVERYTHING: Final = Selector()
"""Takes all labels."""
NOTHING: Final = Selector(selectable=False)
"""Takes no labels."""

_SPECIAL: Final = frozenset("=!(),><")
_TOKEN: Final = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!(),><])|([^=!(),>< \t\r\n\0]+))?\0?")


def _tokens(text: str) -> list[str]:
    """Split a selector into signs and words; an empty one ends the list. A NUL parts words and ends the text."""
    tokens: list[str] = []
    position = 0
    while True:
        found = _TOKEN.match(text, position)
        token = (found[1] or found[2] or _END) if found else _END
        tokens.append(token)
        if not token or found is None:
            return tokens
        position = found.end()


class _Parser:
    """Reads requirements token by token, as the grammar of `labels.Parse` wants them."""

    def __init__(self, text: str) -> None:
        self.tokens: Final = _tokens(text)
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position]

    def take(self) -> str:
        self.position += 1
        return self.tokens[self.position - 1]

    @staticmethod
    def is_word(token: str) -> bool:
        return bool(token) and token[0] not in _SPECIAL

    def selector(self) -> list[Requirement]:
        found: list[Requirement] = []
        while (token := self.peek()) != _END:
            if not self.is_word(token) and token != _NOT:
                raise SelectorError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self.requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            token = self.take()
            if token == _END:
                break
            if token != _COMMA:
                raise SelectorError(f"found '{token}', expected: ',' or 'end of string'")
            token = self.peek()
            if not self.is_word(token) and token != _NOT:
                raise SelectorError(f"found '{token}', expected: identifier after ','")
        return found

    def requirement(self) -> Requirement:
        token = self.take()
        absent = token == _NOT
        key = self.take() if absent else token
        if not self.is_word(key):
            raise SelectorError(f"found '{key}', expected: identifier")
        if wrong := names.label_key(key):
            raise SelectorError(f"<nil>: Invalid value: {quote(key)}: {'; '.join(wrong)}")
        if absent:
            return Requirement(key, "!")
        if self.peek() in {_END, ","}:
            return Requirement(key, "exists")
        sign = self.take()
        operator = _OPERATORS.get(sign)
        if operator is None:
            raise SelectorError(f"found '{sign}', expected: {_BINARY}")
        values = self.values() if operator in {"in", "notin"} else self.value()
        requirement = Requirement(key, operator, tuple(sorted(values)))
        if errors := requirement.check():
            raise SelectorError(errors.message())
        return requirement

    def value(self) -> set[str]:
        if self.peek() in {_END, ","}:
            return {""}
        token = self.take()
        if not self.is_word(token):
            raise SelectorError(f"found '{token}', expected: identifier")
        return {token}

    def values(self) -> set[str]:
        token = self.take()
        if token != _OPEN:
            raise SelectorError(f"found '{token}' expected: '('")
        token = self.peek()
        if token == _CLOSE:
            self.take()
            return {""}
        if not self.is_word(token) and token != _COMMA:
            raise SelectorError(f"found '{token}', expected: ',', ')' or identifier")
        found = self.listed()
        self.take()
        return found

    def listed(self) -> set[str]:
        """Read values up to the closing parenthesis; between two commas stands the empty one."""
        found: set[str] = set()
        while True:
            token = self.take()
            if self.is_word(token):
                found.add(token)
                if self.peek() == ")":
                    return found
                if self.peek() != ",":
                    raise SelectorError(f"found '{self.peek()}', expected: ',' or ')'")
            elif token == _COMMA:
                if not found or self.peek() in {",", ")"}:
                    found.add("")
                if self.peek() == ")":
                    return found
            else:
                raise SelectorError(f"found '{token}', expected: ',', or identifier")


def _read(text: str) -> Selector:
    return Selector(_Parser(text).selector())


_remembered: Final = lru_cache(maxsize=_MEMO)(_read)


def parse(text: str) -> Selector:
    """Read a selector such as `a=b,c!=d,e in (x,y),!h,x>1`; the result is shared, being immutable.

    Raises SelectorError with the server's message. Empty text gives a selector of everything.
    """
    return _remembered(text) if len(text) <= _MEMO_LENGTH else _read(text)


def from_labels(labels: Mapping[str, str]) -> Selector:
    """Make a selector of exactly these labels, not checked; of everything if there are none."""
    return Selector(Requirement(key, "=", (value,)) for key, value in labels.items())


def from_label_selector(selector: Mapping[str, Any] | None) -> Selector:
    """Compile a LabelSelector (`matchLabels`, `matchExpressions`): none takes nothing, an empty one everything.

    Raises SelectorError with the server's message.
    """
    if selector is None:
        return NOTHING
    found = []
    for requirement in _requirements(selector):
        if errors := requirement.check():
            raise SelectorError(errors.message())
        found.append(requirement)
    return Selector(found)


def _requirements(selector: Mapping[str, Any]) -> Iterator[Requirement]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield Requirement(key, "=", (value,))
    for expression in selector.get("matchExpressions") or ():
        name = expression.get("operator") or ""
        if name not in _STRUCT_OPERATORS:
            raise SelectorError(f"{quote(name)} is not a valid label selector operator")
        values = tuple(expression.get("values") or ())
        yield Requirement(expression.get("key") or "", _STRUCT_OPERATORS[name], values)


def validate_labels(labels: Mapping[str, str] | None, path: Path, errors: ErrorList) -> None:
    """Add what is wrong with the labels of an object."""
    for key, value in (labels or {}).items():
        if found := names.label_key(key):
            errors.invalid_each(path, key, found)
        if found := names.label_value(value):
            errors.invalid_each(path, value, found)


def validate_label_selector(selector: Mapping[str, Any] | None, path: Path, errors: ErrorList) -> None:
    """Add what is wrong with a LabelSelector."""
    if selector is None:
        return
    validate_labels(selector.get("matchLabels"), path.child("matchLabels"), errors)
    for position, expression in enumerate(selector.get("matchExpressions") or ()):
        _validate_expression(expression, path.child("matchExpressions").index(position), errors)


def _validate_expression(expression: Mapping[str, Any], path: Path, errors: ErrorList) -> None:
    operator, key, values = expression.get("operator") or "", expression.get("key") or "", expression.get("values")
    if operator in {"In", "NotIn"}:
        if not values:
            errors.required(path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in {"Exists", "DoesNotExist"}:
        if values:
            errors.forbidden(path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    else:
        errors.invalid(path.child("operator"), operator, "not a valid selector operator")
    errors.invalid_each(path.child("key"), key, names.label_key(key))
    for position, value in enumerate(values or ()):
        errors.invalid_each(path.child("values").index(position), value, names.label_value(value))
