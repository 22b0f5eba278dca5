"""Errors of schema validation, in go-openapi's words, as Kubernetes turns them into causes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pilothouse.kinds.fielderrors import FieldError, json_text, quote

__all__ = ["Result", "go_number"]


def go_number(value: float) -> str:
    """Write a number as Go's `%v` writes a float64."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e21):
        text = str(int(value))
        return text if abs(value) < 1e21 else f"{value:e}"
    if math.isinf(value) or math.isnan(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    mantissa, mark, exponent = repr(float(value)).partition("e")
    if not mark:
        return mantissa
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+03d}"


class Result:
    """What checking one value found. `matched` counts checks made, by which the best of several schemas is chosen."""

    __slots__ = ("_texts", "errors", "matched")

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.matched = 0
        self._texts: set[str] = set()

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def merge(self, other: Result) -> None:
        """Take over what another found; what is already said is not said again."""
        self.matched += other.matched
        for error in other.errors:
            self._add(error)

    def _add(self, error: FieldError) -> None:
        text = str(error)
        if text not in self._texts:
            self._texts.add(text)
            self.errors.append(error)

    def _say(self, reason: str, path: str, value: Any, detail: str) -> None:
        self._add(FieldError(reason, path.removeprefix(".") or "<nil>", value, detail))

    def plain(self, text: str) -> None:
        """Say something about the whole that names no field."""
        self._say("FieldValueInvalid", "", "", text)

    def type(self, path: str, wanted: str, found: Any) -> None:
        """Say that a value is of another type; `found` is its type, or for formats the text."""
        shown = f": {quote(found)}" if isinstance(found, str) else ""
        self._say("FieldValueTypeInvalid", path, found, f"{path} in body must be of type {wanted}{shown}")

    def required(self, path: str) -> None:
        """Say that a field is missing."""
        self._say("FieldValueRequired", path, "", "")

    def enum(self, path: str, value: Any, allowed: Sequence[Any]) -> None:
        """Say that a value is not one of those allowed."""
        listed = ", ".join(quote(each if isinstance(each, str) else json_text(each)) for each in allowed)
        self._say("FieldValueNotSupported", path, value, f"supported values: {listed}" if listed else "")

    def invalid(self, path: str, value: Any, text: str) -> None:
        """Say what is wrong with a value; the text follows `<path> in body `."""
        self._say("FieldValueInvalid", path, value, f"{path} in body {text}")

    def too_long(self, path: str, most: int) -> None:
        """Say that a text is too long."""
        unit = "byte" if most == 1 else "bytes"
        self._say("FieldValueTooLong", path, "", f"may not be more than {most} {unit}")

    def too_many(self, path: str, count: int, most: int) -> None:
        """Say that there are too many items or properties."""
        unit = "item" if most == 1 else "items"
        self._say("FieldValueTooMany", path, count, f"must have at most {most} {unit}")

    def invalid_factor(self, path: str, factor: float) -> None:
        """Say that a schema wants multiples of what is not above zero."""
        text = f"factor MultipleOf declared for {path} must be positive: {go_number(factor)}"
        self._say("FieldValueInvalid", path, factor, text)

    def forbidden_property(self, path: str, name: str) -> None:
        """Say that a property may not be there."""
        self._say("FieldValueInvalid", path, name, f"{path}.{name} in body is a forbidden property")
