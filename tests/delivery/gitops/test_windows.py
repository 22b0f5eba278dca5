"""Sync windows by a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.cron import due_within
from pilothouse.delivery.gitops.windows import Windowed, WindowError, is_active, may_sync
from pilothouse.delivery.resources.applications import SyncWindow

NOON = datetime(2025, 1, 1, 12, 0, tzinfo=UTC)  # a Wednesday
SHOP = Windowed("shop-prod", "shop", "in-cluster")


def window(kind: str, schedule: str, duration: str = "1h", **more: object) -> SyncWindow:
    return SyncWindow(kind=kind, schedule=schedule, duration=duration, **{"applications": ["*"], **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "duration", "now", "open_"),
    [
        ("0 12 * * *", "1h", NOON, True),
        ("0 12 * * *", "1h", NOON + timedelta(minutes=59), True),
        ("0 12 * * *", "1h", NOON + timedelta(hours=1), False),
        ("30 11 * * 3", "1h", NOON, True),
        ("30 11 * * mon-tue", "1h", NOON, False),
        ("0 22 * * *", "24h", NOON, True),
        ("0 0 1 1 *", "13h", NOON, True),
        ("*/30 * * * *", "10m", NOON + timedelta(minutes=35), True),
        ("*/30 * * * *", "5m", NOON + timedelta(minutes=36), False),
        ("0 0 1 * 5", "24h", NOON, True),
        ("@daily", "12h1m", NOON, True),
    ],
)
def test_a_window_is_open(schedule: str, duration: str, now: datetime, open_: bool) -> None:
    assert is_active(window("allow", schedule, duration), now) is open_


def test_time_zones() -> None:
    assert is_active(window("allow", "0 20 * * *", time_zone="Asia/Shanghai"), NOON)
    assert not is_active(window("allow", "0 12 * * *", time_zone="Asia/Shanghai"), NOON)


@pytest.mark.parametrize(
    ("schedule", "duration", "now", "open_"),
    [
        # Clocks of Berlin were put forward at 01:00 UTC of March 30th, 2025, from 02:00 to 03:00.
        ("0 1 * * *", "3h", "2025-03-30T02:59:00", True),
        ("0 1 * * *", "3h", "2025-03-30T03:01:00", False),
        ("30 2 * * *", "1h", "2025-03-30T01:15:00", False),
        # They were put back at 01:00 UTC of October 26th, 2025, from 03:00 to 02:00: half past two is there twice.
        ("0 1 * * *", "3h", "2025-10-26T01:59:00", True),
        ("0 1 * * *", "3h", "2025-10-26T02:01:00", False),
        ("30 2 * * *", "10m", "2025-10-26T00:35:00", True),
        ("30 2 * * *", "10m", "2025-10-26T01:35:00", True),
        ("30 2 * * *", "10m", "2025-10-26T01:45:00", False),
    ],
)
def test_time_zones_whose_clocks_change(schedule: str, duration: str, now: str, open_: bool) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert is_active(window("allow", schedule, duration, time_zone="Europe/Berlin"), moment) is open_


@pytest.mark.parametrize("more", [{"schedule": "x"}, {"duration": "long"}, {"time_zone": "No/Where"}])
def test_a_wrong_window_is_named(more: dict[str, str]) -> None:
    with pytest.raises(WindowError, match="sync window"):
        is_active(window(**{"kind": "allow", "schedule": "0 12 * * *", **more}), NOON)


def test_who_may_sync() -> None:
    allow, deny = window("allow", "0 12 * * *"), window("deny", "0 12 * * *")
    closed = window("allow", "0 1 * * *")
    assert may_sync([], SHOP, NOON, manual=False) == ""
    assert may_sync([allow], SHOP, NOON, manual=False) == ""
    assert may_sync([allow, closed], SHOP, NOON, manual=False) == ""
    assert "no allow window" in may_sync([closed], SHOP, NOON, manual=False)
    assert "deny window" in may_sync([allow, deny], SHOP, NOON, manual=True)
    assert may_sync([window("deny", "0 12 * * *", manual_sync=True)], SHOP, NOON, manual=True) == ""
    assert "deny" in may_sync([window("deny", "0 12 * * *", manual_sync=True)], SHOP, NOON, manual=False)
    other = window("deny", "0 12 * * *", applications=["*-test"])
    assert may_sync([other], SHOP, NOON, manual=False) == ""
    both = window("deny", "0 12 * * *", namespaces=["other"], use_and_operator=True)
    assert may_sync([both], SHOP, NOON, manual=False) == ""


@given(st.integers(0, 59), st.integers(0, 23), st.integers(1, 3000), st.integers(0, 200_000))
def test_a_daily_window_is_open_for_its_duration(minute: int, hour: int, minutes: int, after: int) -> None:
    now = NOON + timedelta(minutes=after)
    begin = now.replace(hour=hour, minute=minute)
    if begin > now:
        begin -= timedelta(days=1)
    assert due_within(f"{minute} {hour} * * *", now, timedelta(minutes=minutes)) is (
        now - begin < timedelta(minutes=minutes)
    )
