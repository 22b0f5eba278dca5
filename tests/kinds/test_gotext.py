"""JSON values in the texts of errors, as Go prints them."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds._gotext import source_text, string_verb, type_name, value_text

VALUES: list[tuple[Any, str, str, str]] = [
    (None, "<nil>", "%!s(<nil>)", "%!s(<nil>)"),
    (True, "true", "%!s(bool=true)", "bool"),
    (False, "false", "%!s(bool=false)", "bool"),
    (-7, "-7", "%!s(int64=-7)", "int64"),
    ("a b", "a b", "a b", "string"),
    (1.0, "1", "%!s(float64=1)", "float64"),
    (-0.0, "-0", "%!s(float64=-0)", "float64"),
    (0.0001, "0.0001", "%!s(float64=0.0001)", "float64"),
    (0.00001, "1e-05", "%!s(float64=1e-05)", "float64"),
    (-1.25e-7, "-1.25e-07", "%!s(float64=-1.25e-07)", "float64"),
    (1e20, "1e+20", "%!s(float64=1e+20)", "float64"),
    (123456.5, "123456.5", "%!s(float64=123456.5)", "float64"),
    (1e6, "1e+06", "%!s(float64=1e+06)", "float64"),
    (1.5e21, "1.5e+21", "%!s(float64=1.5e+21)", "float64"),
    (1e300, "1e+300", "%!s(float64=1e+300)", "float64"),
    ({"b": 1, "a": ["x"]}, "map[a:[x] b:1]", "map[a:[x] b:%!s(int64=1)]", "map[string]interface {}"),
    ([None, {}], "[<nil> map[]]", "[%!s(<nil>) map[]]", "[]interface {}"),
]


@pytest.mark.parametrize(("value", "plain", "as_string", "kind"), VALUES)
def test_a_value_is_printed_as_go_does(value: Any, plain: str, as_string: str, kind: str) -> None:
    assert value_text(value) == plain
    assert string_verb(value) == as_string
    assert type_name(value) == kind


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "interface {}(nil)"),
        (True, "true"),
        ('a"b', r'"a\"b"'),
        (1, "1"),
        (1000000, "1e+06"),
        (10**20, "1e+20"),
        ({"b": ["x", None], "a": 1.5}, 'map[string]interface {}{"a":1.5, "b":[]interface {}{"x", interface {}(nil)}}'),
    ],
)
def test_a_value_is_printed_as_it_stands_in_sources(value: Any, shown: str) -> None:
    assert source_text(value) == shown


def test_integers_beyond_64_bits_are_floats() -> None:
    assert value_text([10**20, 2**63 - 1]) == "[1e+20 9223372036854775807]"
