"""A candidate's decisions, replayed from traces."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pilothouse.client.election_core import (
    Create,
    ElectionAction,
    ElectionCore,
    ElectionOptions,
    LeaseRecord,
    Lost,
    Pause,
    Read,
    Update,
)
from support.traces import replay, traces_in

START = datetime(2025, 1, 1, tzinfo=UTC)


class Half(random.Random):
    def random(self) -> float:
        return 0.5


class Script:
    """Answers a trace's commands; times are seconds since the start."""

    def __init__(self) -> None:
        self.now = 100.0
        self.core = ElectionCore("me", source=Half())

    @property
    def wall(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def command(self, name: str, words: list[str]) -> list[str]:
        answer = getattr(self, f"do_{name.replace('-', '_')}")(*words)
        return [answer if isinstance(answer, str) else shown(answer)] if answer is not None else []

    def do_new(self, *words: str) -> None:
        assert not words
        self.core = ElectionCore("me", source=Half())

    def do_time(self, seconds: str) -> None:
        self.now += float(seconds)

    def do_begin(self) -> ElectionAction:
        return self.core.begin(self.now, self.wall)

    def do_waited(self) -> ElectionAction:
        return self.core.waited(self.now, self.wall)

    def do_written(self) -> ElectionAction:
        return self.core.written(self.now)

    def do_failed(self) -> ElectionAction:
        return self.core.failed(self.now, self.wall)

    def do_read(self, *words: str) -> ElectionAction:
        if words == ("none",):
            return self.core.read(None, self.now, self.wall)
        return self.core.read(record_of(words), self.now, self.wall)

    def do_release(self, *words: str) -> str:
        found = self.core.release(record_of(words), self.wall)
        self.core.released()
        return "nothing" if found is None else shown(found)

    def do_state(self) -> str:
        core, now = self.core, self.now
        return f"leader={core.leader or 'nobody'} leads={core.holds(now)} overdue={core.overdue(now)}"


def record_of(words: tuple[str, ...]) -> LeaseRecord:
    """Read `holder=x renewed=5 transitions=2 [duration=15]`; whatever clock the holder has."""
    found = dict(word.split("=") for word in words)
    renewed = START + timedelta(seconds=float(found.get("renewed", 0)))
    return LeaseRecord(
        found.get("holder", ""), int(found.get("duration", 15)), renewed, renewed, int(found.get("transitions", 0))
    )


def shown(action: ElectionAction | LeaseRecord) -> str:
    if isinstance(action, Pause):
        return f"pause {action.seconds:g} s"
    if isinstance(action, Read):
        return "read"
    if isinstance(action, Lost):
        return "lost"
    record = action if isinstance(action, LeaseRecord) else action.record
    verb = "create" if isinstance(action, Create) else "update" if isinstance(action, Update) else "release"
    acquired, renewed = (
        f"{(time - START).total_seconds():g}" if time else "-" for time in (record.acquire_time, record.renew_time)
    )
    return (
        f"{verb} holder={record.holder or 'nobody'} duration={record.duration_seconds} acquired={acquired} "
        f"renewed={renewed} transitions={record.transitions}"
    )


@pytest.mark.parametrize("path", traces_in("client", "election-"), ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    replay(path, Script().command)


def test_times_by_which_two_could_lead_are_refused() -> None:
    with pytest.raises(ValueError, match="lease_seconds: 10 must be greater than renew_seconds"):
        ElectionOptions(lease_seconds=10, renew_seconds=10)
    with pytest.raises(ValueError, match=r"renew_seconds: 2 must be greater than 1\.2 times retry_seconds"):
        ElectionOptions(renew_seconds=2, retry_seconds=2)
    with pytest.raises(ValueError, match="1 or more"):
        ElectionOptions(lease_seconds=0.9, renew_seconds=0.5, retry_seconds=0.1)
    with pytest.raises(ValueError, match="identity: it is empty"):
        ElectionCore("")
