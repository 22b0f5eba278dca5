from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import durations
from pilothouse.kinds.durations import HOUR, MILLISECOND, MINUTE, SECOND, DurationError
from support.goldenvalues import cases


@pytest.mark.parametrize(("text", "gave"), cases("duration"))
def test_it_is_read_and_written_as_go_does(text: str, gave: dict[str, str]) -> None:
    if "error" in gave:
        with pytest.raises(DurationError) as caught:
            durations.parse(text)
        assert str(caught.value) == gave["error"]
    else:
        assert str(durations.parse(text)) == gave["ns"]
        assert durations.format_duration(durations.parse(text)) == gave["string"]


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_what_is_written_is_read_again(nanoseconds: int) -> None:
    assert durations.parse(durations.format_duration(nanoseconds)) == nanoseconds


@given(st.text(alphabet="0123456789.hmsnuµ-+ x", max_size=16))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = durations.parse(text)
    except DurationError:
        return
    assert -(2**63) <= read < 2**63


def test_units() -> None:
    assert durations.parse("1h2m3.004s") == HOUR + 2 * MINUTE + 3 * SECOND + 4 * MILLISECOND
