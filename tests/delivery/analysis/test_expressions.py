"""Conditions as Argo's examples write them."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.analysis.expressions import ExpressionError, compiled

RESULT = {"result": [0.97, 0.5], "x": {"successPercent": 0.96, "codes": {"200": 3}}, "none": None, "nan": [math.nan]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("result[0] >= 0.95", True),
        ("result[0] >= 0.95 && result[1] < 0.4", False),
        ("len(result) == 0 || result[0] > 0.9", True),
        ("!isNaN(result[0]) and not (result[1] == 0.5)", False),
        ("isNaN(nan[0]) || nan[0] < 1", True),
        ("default(nan[0], 0) == 0", True),
        ("default(none, 7) == 7", True),
        ("none ?? 3", 3),
        ("x.successPercent > 0.95", True),
        ('x["successPercent"] > 0.95', True),
        ("x.codes['200'] == 3", True),
        ("x?.missing == nil", True),
        ("asInt('12') == 12 && asFloat('1.5') == 1.5", True),
        ("all(result, # > 0.4)", True),
        ("any(result, {# > 0.98})", False),
        ("none(result, # > 1) && count(result, # > 0.6) == 1", True),
        ("filter(result, # > 0.6)[0]", 0.97),
        ("result[0] > 0.5 ? 'good' : 'bad'", "good"),
        ("'a' in ['a', 'b'] && 'c' not in ['a']", True),
        ("'latency' startsWith 'lat' && 'latency' contains 'ten'", True),
        ("1 + 2 * 3 ^ 2 - 4 / 2", 17),
        ("-2 ^ 2", -4),
        ("(1 + 2) * 3 % 4", 1),
        ("1 / 0 > 1e9", True),
        ("isInf(1 / 0) && isNaN(0 / 0)", True),
        ("true == 1", False),
        ("1_000 == 1000", True),
        ("'\\'a\\n' + \"b\" == '\\'a\\nb'", True),
        ("max(1, 2) + min([3, 4])", 5),
        ("false || false && true", False),
        ("true || nothere", True),
    ],
)
def test_what_conditions_say(source: str, expected: object) -> None:
    assert compiled(source)(RESULT) == expected


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("now()", NOON),
        ('now() - duration("5m")', NOON - 5 * MINUTE),
        ('now() - duration("1m30s") * 2', NOON - 3 * MINUTE),
        ('2 * duration("30s") - -duration("0.5m") + duration("30s")', 2 * MINUTE),
        ('now() - date("2026-03-01")', 720 * MINUTE),
        ('date("2023-08-14 00:00:00", "2006-01-02 15:04:05", "UTC") - duration("1h")', "2023-08-13T23:00:00"),
        ('date("2026-03-01T12:00:00+02:00")', "2026-03-01T10:00:00"),
        ('date("2026-03-01T12:00:00.25Z")', "2026-03-01T12:00:00"),
        ('date("1 March 26 at 3PM", "2 January 06 at 3PM")', "2026-03-01T15:00:00"),
        ('date("2026-03-01 12:00:00", "2006-01-02 15:04:05", "Europe/Berlin")', "2026-03-01T11:00:00"),
        ('now() > date("2026-01-01") && duration("90s") == duration("1.5m")', True),
    ],
)
def test_times_and_spans(source: str, expected: object) -> None:
    wanted = datetime.fromisoformat(f"{expected}+00:00") if isinstance(expected, str) else expected
    assert compiled(source)({"now()": NOON}) == wanted


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("now() + now()", "unsupported operand"),
        ('duration("5m") - now()', "unsupported operand"),
        ("now() * 2", "is no number"),
        ("now() + 5", "is no number"),
        ("now(1)", "')' is expected"),
        ('duration("soon")', "invalid duration"),
        ('date("soon")', "'soon' is no time in any layout that is known"),
        ('date("2026", "Monday")', "'2026' is no time in the layout 'Monday'"),
        ('date("2026-01-01", "2006-01-02", "Atlantis/West")', "there is no time zone 'Atlantis/West'"),
        ('date("2026-01-01", "2006-01-02", "../../etc/passwd")', "there is no time zone"),
        ('now() - duration("2000000h") * 20', "out of range"),
    ],
)
def test_what_is_no_time_is_said(source: str, why: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compiled(source)({"now()": NOON})
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "it ends too early"),
        ("result[0", "']' is expected, not the end"),
        ("result @ 3", "character 7"),
        ("1 2", "'2' is not expected"),
        ("open('x')", "there is no function 'open'"),
        ("nothere > 1", "there is no 'nothere'"),
        ("result > 1", "not supported between"),
        ("result[9] > 1", "index out of range"),
        ("true > false", "a truth value has no order"),
        ("1 && true", "1 is no truth value"),
        ("'a' * 1000000000", "'a' is no number"),
        ("9 ** 9 ** 9", "math range error"),
        ("(" * 60 + "1" + ")" * 60, "nested more than 50 deep"),
        ("!" * 2000 + "true", "nested more than 50 deep"),
        ("1" * 5000, "4096 is the most"),
        ("result[0].__class__", "has no '__class__'"),
    ],
)
def test_what_is_wrong_is_said(source: str, why: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compiled(source)(RESULT)
    assert why in str(caught.value)


@given(st.text(alphabet="ab01.()[]{}#!&|<>=+-*/%^?:,'\" result", max_size=40))
def test_anything_is_a_value_or_a_clear_error(source: str) -> None:
    with contextlib.suppress(ExpressionError):
        compiled(source)({"result": [1], "a": 1, "b": "x"})


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 50))
def test_precedence_is_that_of_arithmetic(one: int, two: int, three: int) -> None:
    assert compiled(f"{one} + {two} * {three}")({}) == one + two * three
    assert compiled(f"{one} - {two} - {three}")({}) == one - two - three
    assert compiled(f"({one} + {two}) * {three} < {one} || {one} == {one}")({}) is True
