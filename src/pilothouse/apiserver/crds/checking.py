"""Checks a value against a schema and says all that is wrong; what is unchanged since the last write passes.

This is the careful way, taken only for values that the quick one (`quick`) does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pilothouse.apiserver.cel.regex import PatternError, found
from pilothouse.apiserver.crds.correlation import Correlated
from pilothouse.apiserver.crds.formats import string_format
from pilothouse.apiserver.crds.openapi_errors import Result, go_number
from pilothouse.apiserver.crds.structural import Node
from pilothouse.apiserver.crds.values import INT32, INT64, is_whole, json_type, matches_enum
from pilothouse.kinds.fielderrors import quote

__all__ = ["check"]


def check(node: Node, value: Any, path: str = "", correlated: Correlated | None = None) -> Result:
    """Check a value. correlated: what stood there before, on updates, where that can be told."""
    result = Result()
    if value is None:
        _type(node, value, path, result)
        _enum(node, value, path, result)
        return result
    for applies, run in _STEPS:
        if applies(node, value):
            run(node, value, path, result, correlated)
            result.matched += 1
    result.matched += 1
    if not result.valid and correlated is not None and correlated.unchanged:
        passed = Result()
        passed.matched = result.matched
        return passed
    return result


def _type(node: Node, value: Any, path: str, result: Result, _: Correlated | None = None) -> None:
    result.matched += 1
    kind, wanted = json_type(value), ",".join(node.types)
    if value is None:
        if node.types and not node.nullable:
            result.type(path, wanted, "null")
        return
    fits = _fits(node, value, kind)
    if node.format and kind not in {"string", "array"} and not fits:
        result.type(path, node.format, {"integer": "int64", "number": "float64"}.get(kind, ""))
        return
    numeric = "number" in node.types or "integer" in node.types
    if not numeric and node.format and kind in {"string", "array"}:
        return
    if not fits:
        result.type(path, wanted, kind)


def _fits(node: Node, value: Any, kind: str) -> bool:
    if kind in node.types:
        return True
    if kind == "integer":
        return "number" in node.types
    return kind == "number" and "integer" in node.types and is_whole(value)


def _enum(node: Node, value: Any, path: str, result: Result, _: Correlated | None = None) -> None:
    if node.enum and not matches_enum(node.enum, value):
        result.enum(path, value, node.enum)


def _junctors(node: Node, value: Any, path: str, result: Result, correlated: Correlated | None) -> None:
    if node.any_of:
        _any_of(node, value, path, result, correlated)
    if node.one_of:
        _one_of(node, value, path, result, correlated)
    if node.all_of:
        results = [check(part, value, path, correlated) for part in node.all_of]
        for each in results:
            result.merge(each)
        passed = sum(each.valid for each in results)
        if passed != len(results):
            none = "" if passed else ". None validated"
            result.plain(f"{quote(path)} must validate all the schemas (allOf){none}")
    if node.negated is not None and check(node.negated, value, path, correlated).valid:
        result.plain(f"{quote(path)} must not validate the schema (not)")
    result.matched += 1


def _any_of(node: Node, value: Any, path: str, result: Result, correlated: Correlated | None) -> None:
    best: Result | None = None
    for part in node.any_of:
        found = check(part, value, path, correlated)
        if found.valid:
            result.merge(found)
            return
        if best is None or found.matched > best.matched:
            best = found
    result.plain(f"{quote(path)} must validate at least one schema (anyOf)")
    if best is not None:
        result.merge(best)


def _one_of(node: Node, value: Any, path: str, result: Result, correlated: Correlated | None) -> None:
    best: Result | None = None
    passed: list[Result] = []
    for part in node.one_of:
        found = check(part, value, path, correlated)
        if found.valid:
            passed.append(found)
            best = None
        elif not passed and (best is None or found.matched > best.matched):
            best = found
    if len(passed) == 1:
        result.merge(passed[0])
        return
    found_text = f"Found {len(passed)} valid alternatives" if passed else "Found none valid"
    result.plain(f"{quote(path)} must validate one and only one schema (oneOf). {found_text}")
    if best is not None:
        result.merge(best)


def _string(node: Node, value: str, path: str, result: Result, _: Correlated | None) -> None:
    most, least, pattern = node.get("maxLength"), node.get("minLength"), node.get("pattern")
    if most is not None and len(value) > most:
        result.too_long(path, most)
    elif least is not None and len(value) < least:
        result.invalid(path, value, f"should be at least {least} chars long")
    elif pattern:
        try:
            if not found(pattern, value):
                result.invalid(path, value, f"should match '{pattern}'")
        except PatternError as error:
            result.invalid(path, value, f"should match '{pattern}, but pattern is invalid: {error}'")


def _format(node: Node, value: str, path: str, result: Result, _: Correlated | None) -> None:
    rule = string_format(node.format)
    if rule is not None and not rule(value):
        result.type(path, node.format, value)


def _number(node: Node, value: float, path: str, result: Result, _: Correlated | None) -> None:
    result.matched += 1
    _range(node, value, path, result)
    factor, most, least = node.get("multipleOf"), node.get("maximum"), node.get("minimum")
    if factor is not None:
        _multiple(value, factor, path, result)
    whole = isinstance(value, int)
    if least is not None:
        bound = int(least) if whole else least
        if value < bound or (node.get("exclusiveMinimum") and value <= bound):
            word = "greater than" if node.get("exclusiveMinimum") else "greater than or equal to"
            result.invalid(path, value, f"should be {word} {go_number(bound)}")
    if most is not None:
        bound = int(most) if whole else most
        if value > bound or (node.get("exclusiveMaximum") and value >= bound):
            word = "less than" if node.get("exclusiveMaximum") else "less than or equal to"
            result.invalid(path, value, f"should be {word} {go_number(bound)}")


def _range(node: Node, value: float, path: str, result: Result) -> None:
    if node.types != ("integer",):
        return
    low, high = INT32 if node.format == "int32" else INT64
    if is_whole(value) and low <= value <= high:
        return
    told = f"with format {node.format}" if node.format else "(default format)"
    result.plain(f"Checked value must be of type integer {told} in {path}")


def _multiple(value: float, factor: float, path: str, result: Result) -> None:
    if isinstance(value, int):
        factor = int(factor)
    if factor <= 0:
        result.invalid_factor(path, factor)
        return
    if isinstance(value, int):
        good = value % factor == 0
    else:
        quotient = 1 / factor * value if factor < 1 else value / factor
        good = math.isfinite(quotient) and abs(quotient - round(quotient)) < 1e-9
    if not good:
        result.invalid(path, value, f"should be a multiple of {go_number(factor)}")


def _list(node: Node, value: list[Any], path: str, result: Result, correlated: Correlated | None) -> None:
    if node.items is not None:
        for at, item in enumerate(value):
            inner = correlated.index(node, at) if correlated is not None else None
            result.merge(check(node.items, item, f"{path}[{at}]", inner))
    least, most = node.get("minItems"), node.get("maxItems")
    if least is not None and len(value) < least:
        result.invalid(path, len(value), f"should have at least {least} items")
    if most is not None and len(value) > most:
        result.too_many(path, len(value), most)
    result.matched += 1


def _object(node: Node, value: dict[str, Any], path: str, result: Result, correlated: Correlated | None) -> None:
    least, most = node.get("minProperties"), node.get("maxProperties")
    if least is not None and len(value) < least:
        result.invalid(path, len(value), f"should have at least {least} properties")
    if most is not None and len(value) > most:
        result.too_many(path, len(value), most)
    _further(node, value, path, result, correlated)
    for name, part in node.properties.items():
        if name in value:
            place = f"{path}.{name}" if path else name
            result.merge(check(part, value[name], place, _inner(path, name, correlated)))
    for name in node.required:
        if name not in value:
            result.required(f"{path}.{name}")


def _further(node: Node, value: dict[str, Any], path: str, result: Result, correlated: Correlated | None) -> None:
    """Check properties that the schema does not name."""
    if node.additional is None or node.additional is True:
        return
    for name, item in value.items():
        if name in node.properties:
            continue
        if isinstance(node.additional, Node):
            result.merge(check(node.additional, item, f"{path}.{name}", _inner(path, name, correlated)))
        else:
            result.forbidden_property(path, name)


def _inner(path: str, name: str, correlated: Correlated | None) -> Correlated | None:
    # Both objects are converted to one version, so that changes of these two cannot be seen.
    if correlated is None or (not path and name in {"apiVersion", "kind"}):
        return None
    return correlated.key(name)


_Applies = Callable[[Node, Any], bool]
_Run = Callable[[Node, Any, str, Result, Correlated | None], None]
_STEPS: tuple[tuple[_Applies, _Run], ...] = (
    (lambda node, value: bool(node.types or node.format), _type),
    (lambda node, value: True, _junctors),
    (lambda node, value: type(value) is str, _string),
    (lambda node, value: type(value) is str and bool(node.format), _format),
    (lambda node, value: type(value) is int or type(value) is float, _number),
    (lambda node, value: type(value) is list, _list),
    (lambda node, value: True, _enum),
    (lambda node, value: type(value) is dict, _object),
)
