"""The columns of custom resources: what their JSON paths find, as the column's type has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pilothouse.apiserver.tables.cells import Object, Printer
from pilothouse.apiserver.tables.jsonpath import JsonPath, JsonPathError, compile_path
from pilothouse.kinds.ages import INVALID, UNKNOWN, Ages
from pilothouse.kinds.registry import Column
from pilothouse.kinds.times import TimeError, parse

__all__ = ["AGE", "custom_columns", "custom_printer"]

Cell: TypeAlias = Callable[[Any, Ages], Any]

AGE: Final = Column("Age", "date", "", 0, "When it was created", ".metadata.creationTimestamp")
"""The column of custom resources that define none."""
_MEMO: Final = 256
_PLAIN_EXPONENT: Final = 21


def custom_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns that follow the name."""
    return tuple(column for column in columns if column.json_path) or (AGE,)


@lru_cache(maxsize=_MEMO)
def custom_printer(columns: tuple[Column, ...]) -> Printer:
    """Return what gives the cells of a custom resource with these columns after its name."""
    compiled = [(_compiled(column.json_path), _CELLS.get(column.type, _nothing)) for column in columns]

    def cells(obj: Object, ages: Ages) -> list[Any]:
        return [obj["metadata"].get("name", ""), *(_cell(obj, path, cell, ages) for path, cell in compiled)]

    return cells


def _compiled(text: str) -> JsonPath | None:
    try:
        return compile_path(text)
    except JsonPathError:
        return None


def _cell(obj: Object, path: JsonPath | None, cell: Cell, ages: Ages) -> Any:
    if path is None:
        return None
    try:
        found = path.find(obj)
    except JsonPathError:
        return None
    return cell(found[0], ages) if found and found[0] is not None else None


def _nothing(value: Any, ages: Ages) -> Any:
    return None


def _integer(value: Any, ages: Ages) -> Any:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _number(value: Any, ages: Ages) -> Any:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _boolean(value: Any, ages: Ages) -> Any:
    return value if isinstance(value, bool) else None


def _float_text(value: float) -> str:
    """Write a number as Go's `%v` does."""
    text = repr(value)
    digits, _, exponent = text.partition("e")
    if exponent and 0 < int(exponent) < _PLAIN_EXPONENT:
        return format(value, ".0f")
    if exponent:
        power = int(exponent)
        return f"{digits.removesuffix('.0')}e{'-' if power < 0 else '+'}{abs(power):02}"
    return text.removesuffix(".0")


def _string(value: Any, ages: Ages) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, int):
        return str(value)
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    # as Go writes JSON, safe inside of HTML
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _date(value: Any, ages: Ages) -> Any:
    if not isinstance(value, str):
        return None
    if not value:
        return UNKNOWN
    try:
        parse(value)
    except TimeError:
        return INVALID
    return ages.since(value)


_CELLS: Final[dict[str, Cell]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
    "date": _date,
}
