from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import times
from pilothouse.kinds.times import TimeError
from support.goldenvalues import cases

moments = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)


@pytest.mark.parametrize(("text", "gave"), cases("time"))
def test_seconds_are_read_and_written_as_kubernetes_does(text: str, gave: dict[str, str]) -> None:
    if "error" in gave:
        with pytest.raises(TimeError) as caught:
            times.canonical_seconds(text)
        assert str(caught.value) == gave["error"]
    else:
        assert json.dumps(times.canonical_seconds(text)) == gave["string"]


@pytest.mark.parametrize(("text", "gave"), cases("microtime"))
def test_microseconds_are_read_and_written_as_kubernetes_does(text: str, gave: dict[str, str]) -> None:
    if "error" in gave:
        with pytest.raises(TimeError) as caught:
            times.canonical_micros(text)
        assert str(caught.value) == gave["error"]
    else:
        assert json.dumps(times.canonical_micros(text)) == gave["string"]


@given(moments)
def test_what_is_written_is_read_again(moment: datetime) -> None:
    assert times.parse_micros(times.format_micros(moment)) == moment
    assert times.parse(times.format_seconds(moment)) == moment.replace(microsecond=0)
    assert times.parse(moment.isoformat()) == moment
    assert times.parse(times.format_micros(moment)).tzinfo is UTC


@given(st.text(alphabet="0123456789-:T.Z+,", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = times.parse(text)
    except TimeError:
        return
    assert read.tzinfo is UTC


@pytest.mark.parametrize("text", ["0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_years_that_cannot_be_kept_are_refused(text: str) -> None:
    with pytest.raises(TimeError, match="year out of range"):
        times.parse(text)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        times.format_seconds(datetime(2024, 1, 1))  # noqa: DTZ001
