"""Pacing: at once the first time, then at most once in an interval, for each object by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.operator.pacing import Pacing


def test_the_first_goes_at_once_and_the_next_waits() -> None:
    pacing: Pacing[str] = Pacing(1.0)
    assert pacing.wait("a", 10.0) == 0.0
    assert pacing.wait("a", 10.25) == 0.75
    assert pacing.wait("b", 10.25) == 0.0
    assert pacing.wait("a", 11.0) == 0.0
    assert pacing.wait("a", 11.5) == 0.5


def test_without_an_interval_nothing_waits_and_nothing_is_kept() -> None:
    pacing: Pacing[str] = Pacing(0.0)
    assert [pacing.wait("a", 1.0), pacing.wait("a", 1.0), len(pacing)] == [0.0, 0.0, 0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3)), max_size=40))
def test_two_beginnings_are_an_interval_apart(steps: list[tuple[str, float]]) -> None:
    pacing: Pacing[str] = Pacing(1.0)
    now, begun = 0.0, dict[str, float]()
    for key, later in steps:
        now += later
        wait = pacing.wait(key, now)
        if wait == 0.0:
            assert now >= begun.get(key, -9.0) + 1.0 - 1e-9
            begun[key] = now
        else:
            assert 0.0 < wait <= 1.0 + 1e-9  # sums of floats are rounded
        assert len(pacing) <= 3
