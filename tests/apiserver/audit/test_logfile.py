"""The audit log on disk: lines, rotation, bounds, and what a full disk does."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.audit import AuditLog, Event, LogSettings
from pilothouse.foundation.clock import FakeClock

NOON = datetime(2026, 5, 6, 12, tzinfo=UTC)


def event(number: int, size: int = 0) -> Event:
    return Event({"kind": "Event", "auditID": f"{number}", "verb": "x" * size})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_events_are_lines_of_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.log"
    log = AuditLog(str(path), FakeClock(NOON))
    assert all(log.write(event(number)) for number in range(1000))
    assert log.close()
    assert [line["auditID"] for line in lines(path)] == [f"{number}" for number in range(1000)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not log.write(event(1))
    again = AuditLog(str(path), FakeClock(NOON))
    again.write(event(1000))
    again.close()
    assert len(lines(path)) == 1001


def test_a_file_is_rotated_before_it_grows_too_large(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path), FakeClock(NOON), LogSettings(max_size=1, max_backups=2, batch=7))
    for number in range(50):
        log.write(event(number, 100_000))
    assert log.close()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert len(names) == 3
    assert names[-1] == "audit.log"
    assert all(each.stat().st_size <= 1024 * 1024 for each in tmp_path.iterdir())
    assert lines(path)[-1]["auditID"] == "49"
    kept = [line["auditID"] for name in names for line in lines(tmp_path / name)]
    assert kept == [f"{number}" for number in range(50 - len(kept), 50)]


def test_old_files_go_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for name in ("audit-2026-01-01T00-00-00.000.log", "audit-2026-05-05T00-00-00.000.log", "audit-mine.log"):
        (tmp_path / name).write_text("")
    log = AuditLog(str(path), FakeClock(NOON), LogSettings(max_size=1, max_age=30, max_backups=0))
    for number in range(12):
        log.write(event(number, 100_000))
    log.close()
    names = {each.name for each in tmp_path.iterdir()}
    assert "audit-2026-01-01T00-00-00.000.log" not in names
    assert {"audit-2026-05-05T00-00-00.000.log", "audit-mine.log", "audit.log"} <= names


@pytest.mark.parametrize("settings", [LogSettings(buffer=10), LogSettings(buffer_bytes=10)])
def test_the_buffer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: LogSettings) -> None:
    go = threading.Event()
    real = Event.encode

    def slow(self: Event, limit: int) -> bytes:
        go.wait(5)
        return real(self, limit)

    monkeypatch.setattr(Event, "encode", slow)
    log = AuditLog(str(tmp_path / "audit.log"), FakeClock(NOON), settings)
    taken = [log.write(Event({"auditID": "1"}, request=b"{}")) for _ in range(500)]
    go.set()
    assert log.close()
    assert taken.count(False) == log.lost > 400
    assert len(lines(tmp_path / "audit.log")) == taken.count(True)


def test_a_disk_that_refuses_loses_events_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(str(path), FakeClock(NOON), LogSettings(batch=1))
    real, calls = os.write, iter(range(100))

    def full(fd: int, data: Any) -> int:
        call = next(calls)
        if call == 0:
            return real(fd, bytes(data)[:5])
        if call == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("pilothouse.apiserver.audit.logfile.os.write", full)
    for number in range(3):
        log.write(event(number))
    assert log.close()
    assert log.lost == 1
    assert [json.loads(line)["auditID"] for line in path.read_bytes().splitlines()[1:]] == ["1", "2"]
