"""What is wrong with which field: paths, errors with Kubernetes' texts, and lists of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

__all__ = ["OMIT", "ErrorList", "FieldError", "Path", "Raw", "Struct", "json_text", "quote"]

_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_HTML: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_HTML_TABLE: Final = str.maketrans(_HTML)
_PLAIN_EXPONENTS: Final = range(-6, 21)
"""Decimal exponents that Go's JSON encoder writes without an `e`."""
_SHORT_EXPONENTS: Final = range(-4, 6)
"""Decimal exponents that Go's `%v` writes without an `e`."""


class _Omit:
    """The value is left out of the message."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "OMIT"


OMIT: Final = _Omit()
"""Given in place of a value that the message shall not show."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A value whose text is already rendered and is shown as it is."""

    text: str


class Struct(dict[str, Any]):
    """An object whose fields are shown in the order given; those of plain dictionaries are sorted by name."""

    __slots__ = ()


def _quoted_char(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    point = ord(char)
    if 0xD800 <= point <= 0xDFFF:
        return "\ufffd"
    if point < 0x20 or point == 0x7F:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def quote(text: str) -> str:
    """Quote text as Go's `%q` does: double quotes, escapes for what cannot be printed."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quoted_char, text)) + '"'


def _json_string(text: str) -> str:
    return json.dumps(text.encode("utf-8", "replace").decode() if not text.isascii() else text, ensure_ascii=False)


def _float_text(value: float, plain: range) -> str:
    """Write the shortest digits that give the same number, with an exponent outside the range `plain`."""
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    shortest = Decimal(repr(value))
    sign = "-" if shortest.is_signed() else ""
    if value == 0:
        return sign + "0"
    digits = "".join(map(str, shortest.as_tuple().digits)).strip("0")
    power = shortest.adjusted()
    if power in plain:
        return sign + _positional(digits, power)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{power:+03d}"


def _positional(digits: str, power: int) -> str:
    if power < 0:
        return "0." + "0" * (-power - 1) + digits
    whole = digits[: power + 1].ljust(power + 1, "0")
    rest = digits[power + 1 :]
    return f"{whole}.{rest}" if rest else whole


def _json_float(value: float) -> str:
    text = _float_text(value, _PLAIN_EXPONENTS)
    # Go's encoder shortens e-09 to e-9 as JavaScript does
    return text.replace("e-0", "e-") if "e-0" in text else text


def _json(value: Any) -> str:
    match value:
        case None | _Omit():
            return "null"
        case Raw():
            return value.text
        case bool():
            return "true" if value else "false"
        case str():
            return _json_string(value)
        case int():
            return str(value)
        case float():
            return _json_float(value)
        case Mapping():
            items = value.items() if isinstance(value, Struct) else sorted(value.items())
            return "{" + ",".join(f"{_json_string(str(name))}:{_json(item)}" for name, item in items) + "}"
        case _ if isinstance(value, Sequence | set | frozenset):
            return "[" + ",".join(_json(item) for item in value) + "]"
        case _:
            return _json_string(str(value))


def json_text(value: Any) -> str:
    """Encode a value as Go's `json.Marshal` does: no spaces, names sorted (but see `Struct`), `<`, `>`, `&` escaped."""
    return _json(value).translate(_HTML_TABLE)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, float):
        return _float_text(value, _SHORT_EXPONENTS)
    if isinstance(value, Raw):
        return value.text
    return json_text(value)


class Path:
    """A place in an object: `Path("spec").child("containers").index(0).key("x")` is `spec.containers[0][x]`."""

    __slots__ = ("text",)

    def __init__(self, text: str = "") -> None:
        self.text: Final = text

    def child(self, *names: str) -> Path:
        """Go to a named field, or several in turn."""
        joined = ".".join(names)
        return Path(f"{self.text}.{joined}" if self.text else joined)

    def index(self, position: int) -> Path:
        """Go to an item of a list."""
        return Path(f"{self.text}[{position}]")

    def key(self, name: str) -> Path:
        """Go to a value of a map."""
        return Path(f"{self.text}[{name}]")

    def __str__(self) -> str:
        return self.text or "<nil>"

    def __repr__(self) -> str:
        return f"Path({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Path) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)


_LABELS: Final = {
    "FieldValueNotFound": "Not found",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "FieldValueTooFew": "Too few",
    "FieldValueTooShort": "Too short",
    "InternalError": "Internal error",
    "FieldValueTypeInvalid": "Invalid value",
}
_WITHOUT_VALUE: Final = frozenset(
    {"FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong", "FieldValueTooShort", "InternalError"}
)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field.

    reason: `FieldValueInvalid` and its like, as a Status cause gives it. field: the path. value: what stood there.
    """

    reason: str
    field: str
    value: Any = OMIT
    detail: str = ""

    @property
    def body(self) -> str:
        """The message without the path."""
        text = _LABELS[self.reason]
        if self.reason not in _WITHOUT_VALUE and self.value is not OMIT:
            text = f"{text}: {_shown(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def cause(self) -> dict[str, str]:
        """Give it as a cause in the details of a Status."""
        cause = {"reason": self.reason, "message": self.body, "field": self.field}
        return {name: text for name, text in cause.items() if text}

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def _at_most(length: int, unit: str, otherwise: str) -> str:
    if length < 0:
        return otherwise
    return f"may not be more than {length} {unit}{'' if length == 1 else 's'}"


class ErrorList(list[FieldError]):
    """The errors of one object in the order found; its methods add one each. Texts are those of `field.Error` in Go."""

    __slots__ = ()

    def required(self, path: Path, detail: str = "") -> None:
        """Say that a value must be given."""
        self.append(FieldError("FieldValueRequired", str(path), "", detail))

    def invalid(self, path: Path, value: Any, detail: str) -> None:
        """Say that a value is malformed or out of bounds."""
        self.append(FieldError("FieldValueInvalid", str(path), value, detail))

    def invalid_each(self, path: Path, value: Any, details: Iterable[str]) -> None:
        """Say every reason for which a value is malformed."""
        for detail in details:
            self.invalid(path, value, detail)

    def type_invalid(self, path: Path, value: Any, detail: str) -> None:
        """Say that a value is not of the type that the schema wants."""
        self.append(FieldError("FieldValueTypeInvalid", str(path), value, detail))

    def not_supported(self, path: Path, value: Any, supported: Iterable[str]) -> None:
        """Say that a value is not one of those listed, which are shown in the order given."""
        listed = ", ".join(quote(item) for item in supported)
        detail = f"supported values: {listed}" if listed else ""
        self.append(FieldError("FieldValueNotSupported", str(path), value, detail))

    def not_found(self, path: Path, value: Any) -> None:
        """Say that what a value refers to does not exist."""
        self.append(FieldError("FieldValueNotFound", str(path), value))

    def duplicate(self, path: Path, value: Any) -> None:
        """Say that a value must occur only once."""
        self.append(FieldError("FieldValueDuplicate", str(path), value))

    def forbidden(self, path: Path, detail: str) -> None:
        """Say that a value may not be given or changed here."""
        self.append(FieldError("FieldValueForbidden", str(path), "", detail))

    def too_long(self, path: Path, maximum: int) -> None:
        """Say that a value has too many bytes; a negative maximum is not shown."""
        detail = _at_most(maximum, "byte", "value is too long")
        self.append(FieldError("FieldValueTooLong", str(path), OMIT, detail))

    def too_long_characters(self, path: Path, maximum: int) -> None:
        """Say that a value has too many characters; a negative maximum is not shown."""
        detail = _at_most(maximum, "character", "value is too long")
        self.append(FieldError("FieldValueTooLong", str(path), OMIT, detail))

    def too_short(self, path: Path, minimum: int) -> None:
        """Say that a value has too few characters; a negative minimum is not shown."""
        unit = "character" if minimum == 1 else "characters"
        detail = f"must be at least {minimum} {unit}" if minimum >= 0 else "value is too short"
        self.append(FieldError("FieldValueTooShort", str(path), OMIT, detail))

    def too_many(self, path: Path, actual: int, maximum: int) -> None:
        """Say that a list has too many items; a negative count or maximum is not shown."""
        unit = "item" if maximum == 1 else "items"
        detail = f"must have at most {maximum} {unit}" if maximum >= 0 else "has too many items"
        self.append(FieldError("FieldValueTooMany", str(path), actual if actual >= 0 else OMIT, detail))

    def too_few(self, path: Path, actual: int, minimum: int) -> None:
        """Say that a list has too few items; a negative minimum is not shown."""
        unit = "item" if minimum == 1 else "items"
        detail = f"must have at least {minimum} {unit}" if minimum >= 0 else "has too few items"
        self.append(FieldError("FieldValueTooFew", str(path), actual, detail))

    def internal(self, path: Path, detail: str) -> None:
        """Say that a check failed for a reason that is not the user's."""
        self.append(FieldError("InternalError", str(path), OMIT, detail))

    def causes(self) -> list[dict[str, str]]:
        """Give all as causes of a Status, repeated ones too."""
        return [error.cause() for error in self]

    def message(self) -> str:
        """Join all texts: alone as it is, several as `[a, b]`, each text once."""
        texts = list(dict.fromkeys(map(str, self)))
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]" if texts else ""
