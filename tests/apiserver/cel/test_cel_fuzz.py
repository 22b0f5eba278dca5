"""Whatever text comes as an expression: it is refused or evaluated, soon, with the errors that are promised."""

from __future__ import annotations

import contextlib
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.cel import Budget, CelCompileError, CelError, Environment

ENVIRONMENT = Environment(["self", "authorizer"], objects=True)
DATA = {"self": {"a": 1, "b": ["x", 2, None, {"c": 1.5}], "d": {"e": True}, "s": "text"}, "authorizer": None}
# fmt: off
TOKENS = st.sampled_from(
    [
        "self", ".", "a", "b", "[", "]", "(", ")", "{", "}", ",", ":", "?", "!", "-", "+", "*", "/", "%", "<",
        ">", "=", "==", "!=", "<=", ">=", "&&", "||", "in", "1", "2u", "0.5", "'x'", "b'y'", "null", "true",
        "false", "has", "all", "exists", "map", "filter", "size", "matches", "find", "format", "sort", "sortBy",
        "sum", "flatten", "optional.of", "optMap", "orValue", "transformMap", "quantity", "ip", "cidr", "url",
        "semver", "duration", "timestamp", "type", "string", "int", "dyn", "Object", "JSONPatch", "authorizer",
        "i", "x", ".?", "[?", "k", "v", "lists.range", "sets.contains", "replace", "join", "split", "substring",
        "charAt", "r'['", "'\\u00e9'", "9999999999999999999",
    ]
)
# fmt: on


def _run(text: str) -> None:
    begun = time.perf_counter()
    with contextlib.suppress(CelCompileError, CelError):
        ENVIRONMENT.compile(text).evaluate(DATA, budget=Budget(100_000))
    assert time.perf_counter() - begun < 2


@given(st.lists(TOKENS, max_size=25))
def test_tokens_in_any_order(tokens: list[str]) -> None:
    _run(" ".join(tokens))
    _run("".join(tokens))


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    _run(text)
    _run(f"'{text}'")


CALLS = st.sampled_from(
    [
        *(
            "size({0})",
            "{0}.all(i, {1})",
            "{0}.map(i, {1})",
            "{0}.filter(i, {1})",
            "{0} + {1}",
            "{0} == {1}",
            "{0}[{1}]",
        ),
        *(
            "{0}.sort()",
            "{0}.sum()",
            "{0}.flatten(3)",
            "{0}.distinct()",
            "{0}.join(',')",
            "{0}.sortBy(i, {1})",
            "{0}.min()",
        ),
        *("'%s %d %x'.format([dyn({0}), dyn({1}), dyn(i)])", "{0}.?a.orValue({1})", "{0} in {1}", "quantity({0})"),
        *("{0}.replace({1}, 'zz')", "{0}.split({1})", "{0}.find({1})", "{0}.transformMap(k, v, {1})", "string({0})"),
        *("{0}.transformMapEntry(k, v, {{v: k}})", "type({0})", "dyn({0}) ? {1} : i", "sets.contains({0}, {1})"),
        *(
            "lists.range({0})",
            "{0}.reverse()",
            "{0}.slice(0, {1})",
            "ip({0})",
            "cidr({0}).containsIP({1})",
            "-dyn({0})",
        ),
    ]
)
NESTED = st.recursive(
    st.sampled_from(
        ["self", "self.b", "self.d", "self.s", "self.a", "i", "[1, 2]", "{'k': 1}", "'a'", "3", "b'z'", "0.5"]
    ),
    lambda inner: st.builds(lambda call, one, two: call.format(one, two), CALLS, inner, inner),
    max_leaves=8,
)


@given(NESTED)
@settings(max_examples=150)
def test_calls_with_values_of_any_type(text: str) -> None:
    _run(f"[self].map(i, {text})")
