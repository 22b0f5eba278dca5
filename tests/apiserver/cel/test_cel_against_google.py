"""Expressions give what Google's own CEL gives for them, whatever they are made of."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.cel import CelCompileError, CelError, Environment

cel = pytest.importorskip("cel_expr_python.cel")
ext_optional = pytest.importorskip("cel_expr_python.ext.ext_optional")
ext_strings = pytest.importorskip("cel_expr_python.ext.ext_strings")

DATA: dict[str, Any] = {"d": {"a": 1, "s": "abc", "l": [3, 1, 2], "m": {"x": 1.5}, "n": None, "t": True}}
OURS = Environment(["d"])
THEIRS = cel.NewEnv(variables={"d": cel.Type.DYN}, extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()])

INTS = st.sampled_from(["0", "1", "-1", "7", "d.a", "size(d.s)", "9223372036854775807", "int('12')", "d.l[1]"])
DOUBLES = st.sampled_from(["0.0", "1.5", "-2.25", "1e3", "d.m.x", "double('2.5')", "double(3)"])
TEXTS = st.sampled_from(["''", "'abc'", '"b\\n"', "d.s", "string(12)", "'é'", "r'\\d'", "d.missing", "'a,b'"])
BOOLS = st.sampled_from(["true", "false", "d.t", "has(d.a)", "has(d.nope)", "d.a == 1", "'b' in d", "2 in d.l"])


def _two(operators: list[str], parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda a, operator, b: f"({a} {operator} {b})", parts, st.sampled_from(operators), parts)


NUMBERS = st.recursive(INTS, lambda inner: _two(["+", "-", "*", "/", "%"], inner), max_leaves=4)
FLOATS = st.recursive(DOUBLES, lambda inner: _two(["+", "-", "*", "/"], inner), max_leaves=4)
CALLS = st.builds(
    str.format,
    st.sampled_from(
        [
            *("({0} + {1})", "{0}.contains({1})", "{0}.startsWith({1})", "{0}.endsWith({1})", "{0}.matches('[a-c]+')"),
            *(
                "size({0})",
                "{0} < {1}",
                "{0} == {1}",
                "{0}.indexOf({1})",
                "{0}.lastIndexOf({1})",
                "{0}.replace({1}, 'z')",
            ),
            *("{0}.split({1})", "{0}.upperAscii()", "{0}.charAt(1)", "{0}.substring(1)", "[{0}, {1}].join('-')"),
            *("bytes({0}).size()", "int({0})", "duration({0})", "{0}.trim()"),
        ]
    ),
    TEXTS,
    TEXTS,
)
LOGIC = st.recursive(
    BOOLS | _two(["<", "<=", ">", ">=", "==", "!="], NUMBERS) | _two(["<", ">=", "=="], FLOATS),
    lambda inner: (
        _two(["&&", "||"], inner)
        | st.builds("(!{0})".format, inner)
        | st.builds("({0} ? {1} : {0})".format, inner, inner)
    ),
    max_leaves=5,
)
LISTS = st.builds(
    str.format,
    st.sampled_from(
        [
            *("d.l.map(x, x + {0})", "d.l.filter(x, x > {0})", "d.l.all(x, x >= {0})", "d.l.exists(x, x == {0})"),
            *("d.l.exists_one(x, x > {0})", "d.l[{0}]", "[1, {0}] + d.l", "{0} in [1, 2]", "size([{0}]) == 1"),
            *("d.?nope.orValue({0})", "d.?a.hasValue()", "d.l[?{0}].orValue(9)", "{{'k': {0}}}.k", "{{'k': {0}}}['j']"),
            *("d.m.exists(k, k == 'x' && {0} > 0)", "type({0}) == int", "string({0})", "double({0})", "-({0})"),
        ]
    ),
    NUMBERS,
)
EXPRESSIONS = NUMBERS | FLOATS | CALLS | LOGIC | LISTS


def _plain(value: Any) -> Any:
    if isinstance(value, dt.timedelta):
        return "duration"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if not isinstance(value, dict) else {key: _plain(item) for key, item in value.items()}


def _ours(text: str) -> Any:
    try:
        value = OURS.compile(text).evaluate(DATA)
    except (CelError, CelCompileError):
        return "failed"
    return "duration" if text.startswith("duration(") else _plain(value)


def _theirs(text: str) -> Any:
    try:
        value = THEIRS.compile(text).eval(data=DATA)
    except Exception:  # noqa: BLE001 - whatever it raises
        return "failed"
    if value.type() == cel.Type.ERROR:
        return "failed"
    return _plain(value.plain_value())


@given(EXPRESSIONS)
@settings(max_examples=150)
def test_both_give_the_same(text: str) -> None:
    # Go splits nothing into nothing, C++ into one empty text.
    assume(not text.startswith("''.split"))
    ours, theirs = _ours(text), _theirs(text)
    assert ours == theirs, text
    assert type(ours) is type(theirs), text
