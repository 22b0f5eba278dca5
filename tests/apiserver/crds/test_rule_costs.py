"""Estimated costs of rules are those that Kubernetes computes, which decide whether a definition is taken."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.apiserver.cel.costs import estimate
from pilothouse.apiserver.cel.program import Environment
from pilothouse.apiserver.crds.celtypes import declared
from pilothouse.apiserver.crds.structural import read

Raw = dict[str, Any]


def _scalar(kind: str) -> Raw:
    if kind == "int-or-string":
        return {"x-kubernetes-int-or-string": True}
    if kind in {"duration", "date", "date-time", "byte"}:
        return {"type": "string", "format": kind}
    return {"type": kind}


def _array(items: Raw, most: int | None) -> Raw:
    return {"type": "array", "items": items, **({} if most is None else {"maxItems": most})}


def _map(values: Raw, most: int | None) -> Raw:
    made = {"type": "object", "additionalProperties": values}
    return made if most is None else {**made, "maxProperties": most}


def _string(most: int | None, **more: Any) -> Raw:
    return {"type": "string", **more, **({} if most is None else {"maxLength": most})}


_OBJECT = {
    "type": "object",
    "required": ["required"],
    "properties": {"required": {"type": "string"}, "optional": {"type": "string"}},
}
_KINDS: dict[str, Any] = {
    "array of arrays": lambda most: _array(_array({"type": "number"}, None), most),
    "array of maps": lambda most: _array(_map({"type": "number"}, most), most),
    "array of objects": lambda most: _array(_OBJECT, most),
    "string": _string,
    "bytes": lambda most: _string(most, format="byte"),
    "enum": lambda most: _string(most, enum=["A", "B", "C", "LongValue"]),
    "array of strings": lambda most: _array(_string(most), most),
    "map of maps": lambda most: _map(_map({"type": "number"}, None), most),
    "map of arrays": lambda most: _map(_array({"type": "number"}, None), most),
    "int-or-string": lambda most: _scalar("int-or-string") | ({} if most is None else {"maxLength": most}),
    "strings": lambda most: {
        "type": "object",
        "properties": {
            "str": _string(most),
            "separator": _string(most),
            "before": _string(2),
            "after": _string(4),
        },
    },
}


def _schema(kind: str, most: int | None) -> Raw:
    if kind in _KINDS:
        return dict(_KINDS[kind](most))
    holder, _, inner = kind.partition(":")
    return (_array if holder == "array" else _map)(_scalar(inner), most)


CASES = [
    ("array:number", "self.all(x, true)", 4718591, 10, 32),
    ("array:string", "self.all(x, true)", 3145727, 20, 62),
    ("array:boolean", "self.all(x, true)", 1887437, 5, 17),
    ("array of arrays", "self.all(x, true)", 3145727, 100, 302),
    ("map:number", "self.all(x, true)", 1348169, 10, 32),
    ("map:string", "self.all(x, true)", 1179647, 3, 11),
    ("map:boolean", "self.all(x, true)", 943718, 100, 302),
    ("string", "self.contains('test')", 314574, 10, 5),
    ("string", "self.startsWith('test')", 2, 15, 2),
    ("string", "size(self + 'hello') > size('hello')", 314578, 4, 7),
    ("array:number", "self[1] == 0.0", 2, 5000, 2),
    ("array:string", "self[1] == self[1]", 314577, 8, 314577),
    ("array:number", "self.all(x, self.all(y, true))", None, 10, 352),
    ("array:number", "self.all(x, self.all(y, self.all(z, true)))", None, 10, 3552),
    ("string", "self.matches('x')", 314574, 50, 22),
    ("string", "''.matches('(((((((((())))))))))[0-9]')", 7, 10, 7),
    ("string", "self.matches('')", 1, 100, 1),
    ("map:number", "self['x'] == 0.0", 2, 0, 2),
    ("array of objects", "self[0] == null", 2, 422, 2),
    ("array of objects", "self.all(x, true)", 555128, 50, 152),
    ("string", "self == 'x'", 2, 0, 1),
    ("bytes", "self == b'x'", 2, 0, 1),
    ("array:number", "self.all(x, x == 0.0)", 6291454, 3 * 1024 * 2048, 25165826),
    ("array:int-or-string", "self.all(x, true)", 4718591, 10, 32),
    ("array:int-or-string", "self[0] == 5", 3, 10, 3),
    ("array of arrays", "self[0][0] == -1.0", 3, 51, 3),
    ("array of maps", "self.all(x, x.y == 25.2)", 6291452, 12, 74),
    ("array of maps", "self[0].x > 2.0", 4, 3000, 4),
    ("array:duration", "self.all(x, true)", 2359295, 5, 17),
    ("array:duration", "self[0].getHours() == 2", 4, 525, 4),
    ("array:date", "self.all(x, true)", 725936, 15, 47),
    ("array:date-time", "self.all(x, true)", 428963, 25, 77),
    ("array:date-time", "self[2].getMinutes() == 45", 4, 99, 4),
    ("map:int-or-string", "self.all(x, true)", 1348169, 15, 47),
    ("map of maps", "self.all(x, true)", 1179647, 10, 32),
    ("map of arrays", "self.all(x, true)", 1179647, 25, 77),
    ("map:duration", "self.all(x, true)", 1048577, 5, 17),
    ("map:date", "self.all(x, true)", 524288, 10, 32),
    ("map:date-time", "self.all(x, true)", 349526, 25, 77),
    ("string", "self.find('[0-9]+') == ''", 629147, 10, 11),
    ("array of strings", "self.join(' ') == 'aa bb'", 329853068905, 10, 43),
    ("array of strings", "self.isSorted() == true", 329854432052, 10, 52),
    ("strings", "self.str.replace(self.before, self.after) == 'does not matter'", 629154, 4, 12),
    ("strings", "self.str.split(self.separator) == []", 629160, 10, 22),
    ("string", "self.lowerAscii() == 'lower!'", 314575, 10, 6),
    ("map:integer", "oldSelf.size() == self.size()", 5, 10, 5),
    ("map:date-time", "self['a'] == self['b']", 8, 7, 8),
    ("map:duration", "self['c'] == self['d']", 8, 42, 8),
    ("enum", "self.contains('A')", 2, 1000, 401),
    ("int-or-string", "isQuantity(self)", 314574, 20, 9),
]


@pytest.mark.parametrize(("kind", "rule", "open_cost", "most", "bound_cost"), CASES)
def test_a_rule_costs(kind: str, rule: str, open_cost: int | None, most: int, bound_cost: int) -> None:
    for bound, cost in ((None, open_cost), (most, bound_cost)):
        self_type = declared(read(_schema(kind, bound)), root=False)
        assert self_type is not None
        found = estimate(Environment({"self": self_type, "oldSelf": self_type}).compile(rule, result="bool").root)
        if cost is None:
            assert found > 10_000_000
        else:
            assert found == cost, bound
