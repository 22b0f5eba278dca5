"""The reflector's decisions, replayed from traces: one for each rule of client-go."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client.errors import ConnectFailed, TransportTimeout
from pilothouse.client.listwatch import ListResult, WatchEvent
from pilothouse.client.objects import key_of
from pilothouse.client.reflector_core import (
    Action,
    ListRequest,
    ReflectorCore,
    ReflectorOptions,
    Wait,
    WatchRequest,
    is_expired,
    is_too_large_resource_version,
)
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds import status
from support.traces import replay, traces_in


class Half(random.Random):
    """Chance that is always in the middle."""

    def random(self) -> float:
        return 0.5


ERRORS: dict[str, Exception] = {
    "410": status.Expired("too old resource version"),
    "gone": status.Gone("gone"),
    "too-large": status.too_large_resource_version(9, 5),
    "429": status.too_many_requests("busy", 0),
    "429-wait-20": status.too_many_requests("busy", 20),
    "refused": ConnectionRefusedError("refused"),
    "no-way": ConnectFailed("no way to the server"),
    "no-answer": TransportTimeout("no answer within 60 s"),
    "reset": ConnectionResetError("reset"),
    "silent": TimeoutError("silent"),
    "invalid": status.Invalid("sendInitialEvents: Forbidden"),
    "forbidden": status.Forbidden("no"),
    "internal": status.InternalError("oops"),
    "cut": ConnectionResetError("cut"),
}


def thing(text: str) -> dict[str, Any]:
    name, _, version = text.partition("@")
    return {"metadata": {"name": name, "resourceVersion": version}}


class Script:
    """Answers a trace's commands with what the core does."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[str] = []
        self.core: ReflectorCore[Any] = self.make(ReflectorOptions())

    def make(self, options: ReflectorOptions) -> ReflectorCore[Any]:
        return ReflectorCore(
            "things",
            self,
            options,
            source=Half(),
            accepts=lambda found: "kind" not in found,
            on_skip=lambda event, error: self.lines.append(f"  skipped {event.type}: {error or 'wrong type'}"),
        )

    def add(self, obj: Any) -> None:
        self.lines.append(f"  store add {key_of(obj)}")

    def update(self, obj: Any) -> None:
        self.lines.append(f"  store update {key_of(obj)}")

    def delete(self, obj: Any) -> None:
        self.lines.append(f"  store delete {key_of(obj)}")

    def replace(self, items: Iterable[Any], *, transformed: bool = False) -> None:
        self.lines.append(f"  store replace [{' '.join(key_of(item) for item in items)}]")

    def command(self, name: str, words: list[str]) -> list[str]:
        self.lines = []
        action = getattr(self, f"do_{name.replace('-', '_')}")(*words)
        if action is not None:
            self.lines.append(shown(action))
        return self.lines

    def do_new(self, *words: str) -> None:
        options: dict[str, Any] = {}
        for word in words:
            name, _, value = word.partition("=")
            options[name] = (
                value if name.endswith("selector") else value == "yes" if value in {"yes", "no"} else int(value)
            )
        self.core = self.make(ReflectorOptions(**options))

    def do_time(self, seconds: str) -> None:
        self.now += float(seconds)

    def do_begin(self) -> Action:
        return self.core.begin(self.now)

    def do_waited(self) -> Action:
        return self.core.waited(self.now)

    def do_listed(self, version: str, *names: str) -> Action:
        names, continued = (names[:-1], names[-1][9:]) if names and names[-1].startswith("continue=") else (names, "")
        return self.core.listed(ListResult([thing(name) for name in names], version, continued), self.now)

    def do_list_fails(self, error: str) -> Action:
        return self.core.list_failed(ERRORS[error], self.now)

    def do_event(self, kind: Any, name: str) -> None:
        found = thing(name)
        self.core.watched(WatchEvent(kind, found, found["metadata"]["resourceVersion"]))

    def do_wrong(self, kind: Any, name: str) -> None:
        found = {**thing(name), "kind": "Other"}
        self.core.watched(WatchEvent(kind, found, found["metadata"]["resourceVersion"]))

    def do_unreadable(self, kind: Any, version: str) -> None:
        self.core.watched(WatchEvent(kind, None, version, error=ValueError("spec.replicas: not a number")))

    def do_nameless(self, kind: Any, version: str) -> None:
        self.core.watched(WatchEvent(kind, {"metadata": {}}, version))

    def do_bookmark(self, version: str, end: str = "") -> None:
        self.core.watched(WatchEvent("BOOKMARK", None, version, end == "initial-events-end"))

    def do_ends(self, error: str = "") -> Action:
        return self.core.watch_ended(ERRORS[error] if error else None, self.now)

    def do_crashes(self) -> Action:
        return self.core.crashed(RuntimeError("bug"), self.now)

    def do_version(self) -> None:
        self.lines.append(f"  version {self.core.resource_version or 'none'}")

    def do_health(self) -> None:
        core = self.core
        self.lines.append(f"  {core.phase} failing={core.failing} last={core.last_error}")


def shown(action: Action) -> str:
    if isinstance(action, Wait):
        return f"wait {action.seconds:g} s"
    if isinstance(action, ListRequest):
        listing = action.options
        limit = f" limit={listing.limit}" if listing.limit else ""
        page = f" continue={listing.continue_}" if listing.continue_ else ""
        return f'list rv="{listing.resource_version or ""}"{limit}{page}{selectors(listing)}'
    assert isinstance(action, WatchRequest)
    watch = action.options
    initial = f" initial-events match={watch.resource_version_match}" if watch.send_initial_events else ""
    marks = " bookmarks" if watch.allow_bookmarks else ""
    return (
        f'watch rv="{watch.resource_version or ""}"{initial}{marks} timeout={watch.timeout_seconds}{selectors(watch)}'
    )


def selectors(options: Any) -> str:
    labels = f" labels={options.label_selector}" if options.label_selector else ""
    return labels + (f" fields={options.field_selector}" if options.field_selector else "")


@pytest.mark.parametrize("path", traces_in("client", "reflector-"), ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    replay(path, Script().command)


def test_watch_timeouts_are_random_between_five_and_ten_minutes() -> None:
    core: ReflectorCore[Any] = ReflectorCore(
        "things", Script(), ReflectorOptions(stream_initial_list=False), source=random.Random(7)
    )
    core.begin(0.0)
    seconds = []
    action: Action = core.listed(ListResult([], "1"), 0.0)
    for turn in range(300):
        assert isinstance(action, WatchRequest)
        seconds.append(action.options.timeout_seconds)
        action = core.watch_ended(None, 10.0 * (turn + 1))
    assert 300 <= min(seconds) < 310
    assert 590 < max(seconds) < 600


def test_waits_lie_between_the_base_and_twice_that_up_to_thirty_and_sixty_seconds() -> None:
    core: ReflectorCore[Any] = ReflectorCore("things", Script(), source=random.Random(3))
    core.begin(0.0)
    for number in range(12):
        action = core.watch_ended(ERRORS["refused"], 1.0 + number)
        assert isinstance(action, Wait)
        base = min(0.8 * 2**number, 30.0)
        assert base <= action.seconds <= 2 * base
        core.waited(1.0 + number)


def test_an_impossible_backoff_is_refused() -> None:
    with pytest.raises(ValueError, match="never gives up"):
        ReflectorOptions(backoff=Backoff(attempts=3))
    with pytest.raises(ValueError, match="min_watch_seconds"):
        ReflectorOptions(min_watch_seconds=700)
    with pytest.raises(ValueError, match="page_size"):
        ReflectorOptions(page_size=0)


def test_errors_are_told_apart() -> None:
    assert is_expired(status.Expired("x"))
    assert is_expired(status.Gone("x"))
    assert not is_expired(status.NotFound("x"))
    assert is_too_large_resource_version(status.Timeout("Timeout: Too large resource version: 3, current: 2"))
    assert is_too_large_resource_version(ERRORS["too-large"])
    assert not is_too_large_resource_version(status.Timeout("slow"))
    assert not is_too_large_resource_version(OSError("x"))
