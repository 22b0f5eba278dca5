"""Rules of schemas: what they see, what they refuse and in which words, and that they end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pilothouse.apiserver.cel import Budget
from pilothouse.apiserver.crds.rules import compile_rules
from pilothouse.apiserver.crds.running import run_rules
from pilothouse.apiserver.crds.structural import read

Raw = dict[str, Any]


def _object(properties: Raw, *rules: Raw, **more: Any) -> Raw:
    return {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules), **more}


def _run(schema: Raw, obj: Any, old: Any = None, budget: Budget | None = None) -> list[str]:
    compiled = compile_rules(read(schema))
    assert compiled is not None
    return [str(error) for error in run_rules(compiled, obj, old, budget=budget)[0]]


INT = {"type": "integer"}
STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "obj", "said"),
    [
        (
            _object({"a": INT}, {"rule": "self.a > 1", "message": "too small"}),
            {"a": 1},
            ["<nil>: Invalid value: too small"],
        ),
        (_object({"a": INT}, {"rule": "self.a > 1"}), {"a": 1}, ["<nil>: Invalid value: failed rule: self.a > 1"]),
        (
            _object(
                {"s": _object({"a": INT}, {"rule": "self.a > 1", "fieldPath": ".a", "reason": "FieldValueForbidden"})}
            ),
            {"s": {"a": 1}},
            ["s.a: Forbidden: failed rule: self.a > 1"],
        ),
        (
            _object({"a": INT}, {"rule": "self.a > 1", "messageExpression": "'is ' + string(self.a)"}),
            {"a": 1},
            ["<nil>: Invalid value: is 1"],
        ),
        (
            _object(
                {"a": INT}, {"rule": "self.a > 1", "message": "m", "messageExpression": "string(1 / (self.a - 1))"}
            ),
            {"a": 1},
            ["<nil>: Invalid value: m"],
        ),
        (
            {"type": "object", "properties": {"a": {**INT, "x-kubernetes-validations": [{"rule": "self > 1"}]}}},
            {"a": 1},
            ["a: Invalid value: 1: failed rule: self > 1"],
        ),
        (
            _object({"a": INT}, {"rule": "self.a > 1"}),
            {},
            ['<nil>: Invalid value: "object": no such key: a evaluating rule: self.a > 1'],
        ),
        (
            _object({"a": {"x-kubernetes-int-or-string": True}}, {"rule": "self.a > 1", "message": "m"}),
            {"a": "x"},
            [
                (
                    "<nil>: Invalid value: \"object\": 'no such overload': call arguments did not match"
                    " a supported operator,"
                    " function or macro signature for rule: m"
                )
            ],
        ),
        (
            {
                "type": "object",
                "properties": {
                    "l": {"type": "array", "items": _object({"n": STRING}, {"rule": "self.n != 'x'"})},
                },
            },
            {"l": [{"n": "y"}, {"n": "x"}]},
            ["l[1]: Invalid value: failed rule: self.n != 'x'"],
        ),
        (
            {
                "type": "object",
                "properties": {
                    "m": {"type": "object", "additionalProperties": _object({"n": INT}, {"rule": "self.n > 0"})},
                },
            },
            {"m": {"k": {"n": 0}}},
            ["m[k]: Invalid value: failed rule: self.n > 0"],
        ),
        (
            _object({"a": INT}, {"rule": "self.metadata.name.startsWith('x') && self.kind == 'K'"}),
            {"kind": "K", "metadata": {"name": "y"}},
            ["<nil>: Invalid value: failed rule: self.metadata.name.startsWith('x') && self.kind == 'K'"],
        ),
        (_object({"a-b": INT, "c.d": INT, "if": INT, "e__f": INT}, {"rule": "self.a__dash__b > 0"}), {"a-b": 1}, []),
        (_object({"c.d": INT, "if": INT}, {"rule": "self.c__dot__d > 0 && self.__if__ == 2"}), {"c.d": 1, "if": 2}, []),
        (
            _object({"e__f": INT}, {"rule": "has(self.e__underscores__f) && self.e__underscores__f == 1"}),
            {"e__f": 1},
            [],
        ),
        (
            _object(
                {
                    "e": {
                        "type": "object",
                        "x-kubernetes-embedded-resource": True,
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
                {"rule": "self.e.metadata.name == 'a' && self.e.kind == 'Pod' && self.e.apiVersion == 'v1'"},
            ),
            {"e": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}},
            [],
        ),
        (_object({"n": {"type": "number"}}, {"rule": "self.n + 0.5 == 2.5"}), {"n": 2}, []),
        (
            _object({"t": {"type": "string", "format": "date-time"}}, {"rule": "self.t.getFullYear() == 2020"}),
            {"t": "2020-01-01T00:00:00Z"},
            [],
        ),
        (
            _object({"d": {"type": "string", "format": "duration"}}, {"rule": "self.d > duration('1m')"}),
            {"d": "1h"},
            [],
        ),
        (
            _object({"b": {"type": "string", "format": "byte"}}, {"rule": "self.b == b'hi' && size(self.b) == 2"}),
            {"b": "aGk="},
            [],
        ),
        (
            _object(
                {"s": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"}},
                {"rule": "self.s == ['b', 'a'] && size(self.s + ['a', 'c']) == 3"},
            ),
            {"s": ["a", "b"]},
            [],
        ),
        (
            _object(
                {
                    "l": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"k": STRING, "v": INT}},
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                    }
                },
                {"rule": "self.l.exists(e, e.k == 'a' && e.v == 1) && self.l == self.l"},
            ),
            {"l": [{"k": "a", "v": 1}]},
            [],
        ),
        (
            {
                "type": "object",
                "properties": {"a": INT},
                "allOf": [{"x-kubernetes-validations": [{"rule": "self.a > 1", "message": "m"}]}],
            },
            {"a": 1},
            ["<nil>: Invalid value: m"],
        ),
        (
            {"type": "object", "properties": {"a": {**INT, "x-kubernetes-validations": [{"rule": "self > 1"}]}}},
            {"a": None},
            [],
        ),
    ],
)
def test_rules_refuse(schema: Raw, obj: Any, said: list[str]) -> None:
    assert _run(schema, obj) == said


def test_rules_about_changes() -> None:
    schema = _object({"a": INT}, {"rule": "self.a >= oldSelf.a", "message": "shrunk"})
    assert _run(schema, {"a": 1}) == []
    assert _run(schema, {"a": 1}, {"a": 2}) == ["<nil>: Invalid value: shrunk"]
    once = {"rule": "oldSelf.hasValue() || self.a == 1", "optionalOldSelf": True, "message": "begin with 1"}
    assert _run(_object({"a": INT}, once), {"a": 2}) == ["<nil>: Invalid value: begin with 1"]
    assert _run(_object({"a": INT}, once), {"a": 2}, {"a": 1}) == []
    items = _object({"k": STRING, "v": INT}, {"rule": "self.v >= oldSelf.v", "message": "shrunk"})
    listed = {
        "type": "object",
        "properties": {
            "l": {
                "type": "array",
                "items": items,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
            }
        },
    }
    old = {"l": [{"k": "a", "v": 2}, {"k": "b", "v": 1}]}
    assert _run(listed, {"l": [{"k": "b", "v": 1}, {"k": "a", "v": 1}]}, old) == ["l[1]: Invalid value: shrunk"]


def test_what_did_not_change_is_not_refused_again() -> None:
    schema = _object({"s": _object({"a": INT}, {"rule": "self.a > 1", "message": "m"}), "b": INT})
    compiled = compile_rules(read(schema))
    assert compiled is not None
    errors, warnings = run_rules(compiled, {"s": {"a": 1}, "b": 2}, {"s": {"a": 1}, "b": 1})
    assert (list(errors), warnings) == ([], ["s: Invalid value: m"])
    errors, _ = run_rules(compiled, {"s": {"a": 0}}, {"s": {"a": 1}})
    assert [str(error) for error in errors] == ["s: Invalid value: m"]


def test_rules_run_within_a_budget() -> None:
    numbers = {"type": "array", "items": INT}
    schema = _object({"l": numbers}, {"rule": "self.l.all(x, self.l.all(y, x + y >= 0))"})
    obj = {"l": list(range(2000))}
    begun = time.perf_counter()
    said = _run(schema, obj)
    assert time.perf_counter() - begun < 5
    assert said == [
        (
            "<nil>: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no"
            " further validation rules"
            " will be run due to call cost exceeds limit for rule: self.l.all(x, self.l.all(y, x + y >= 0))"
        )
    ]
    assert _run(schema, obj, budget=Budget(5000)) == [
        (
            '<nil>: Invalid value: "object": validation failed due to running out of cost budget, no'
            " further validation rules"
            " will be run"
        )
    ]


def test_a_rule_that_does_not_compile_is_said() -> None:
    said = _run(_object({"a": INT}, {"rule": "self.b > 1"}), {"a": 1})
    assert said == [
        (
            '<nil>: Invalid value: "object": rule compile error: compilation failed: ERROR:'
            " <input>:1:5: undefined field 'b'"
            "\n | self.b > 1\n | ....^"
        )
    ]
