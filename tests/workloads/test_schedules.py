"""Cron schedules are due when those of Kubernetes are: moments that robfig/cron 3.0.1 gave, and odd clock changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import times
from pilothouse.workloads.schedules import ScheduleError, UnknownZone, schedule, zone_of

_RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "cronschedules.json").read_text(encoding="utf-8"))
_NOW = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", sorted({row[0] for row in _RECORDED}))
def test_they_are_due_alike(text: str) -> None:
    for spec, zone, since, *moments in _RECORDED:
        if spec != text:
            continue
        at: datetime | None = times.parse(since)
        for expected in moments:
            assert at is not None
            at = schedule(spec, zone).next(at)
            assert ("" if at is None else times.format_seconds(at)) == expected, (spec, zone, since)


@pytest.mark.parametrize("zone", ["Pacific/Apia", "Asia/Beirut", "Antarctica/Troll"])
@pytest.mark.parametrize("text", ["0 0 31 * *", "30 0 * * 5", "0 0 * 11 0"])
def test_days_without_a_midnight_are_passed(text: str, zone: str) -> None:
    at: datetime | None = datetime(2011, 12, 28, tzinfo=UTC)
    for _ in range(60):
        assert at is not None
        following = schedule(text, zone).next(at)
        assert following is not None
        assert following > at
        at = following


@pytest.mark.parametrize("text", ["", "* * * *", "60 * * * *", "* * * * 7", "@sometimes", "*/0 * * * *", "0 0 L * *"])
def test_what_kubernetes_refuses_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError):
        schedule(text)


def test_zones() -> None:
    with pytest.raises(UnknownZone, match=r"^unknown time zone Mars/Olympus$"):
        schedule("* * * * *", "Mars/Olympus")
    assert zone_of("") is UTC
    noon = schedule("TZ=Asia/Kolkata 0 12 * * *").next(_NOW)
    assert noon == datetime(2025, 1, 1, 6, 30, tzinfo=UTC)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 400_000_000))
def test_a_daily_moment_comes_every_day(minute: int, hour: int, seconds: int) -> None:
    plan = schedule(f"{minute} {hour} * * *")
    since = _NOW + timedelta(seconds=seconds)
    at = plan.next(since)
    assert at is not None
    assert (at.minute, at.hour, at.second) == (minute, hour, 0)
    assert timedelta() < at - since <= timedelta(days=1)
    assert plan.next(at) == at + timedelta(days=1)
