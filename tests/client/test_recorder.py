"""Events: correlated as client-go does (a trace), written in the background, tried again, dropped when too many."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.client.event_correlation import CorrelationOptions, EventCorrelator
from pilothouse.client.recorder import ClientEventSink, EventBroadcaster, reference
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds import status
from pilothouse.kinds.structs import ObjectMeta, Pod
from pilothouse.testing import ControlPlane
from support.traces import replay, traces_in

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "uid": "u1"}}


class Script:
    """Answers a trace with what is written."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.correlator = EventCorrelator(self.clock)
        self.number = 0

    def command(self, name: str, words: list[str]) -> list[str]:
        if name == "time":
            self.clock.advance(float(words[0]))
            return []
        if name == "new":
            self.correlator = EventCorrelator(self.clock, CorrelationOptions(**{
                key: int(value) for key, value in (word.split("=") for word in words)
            }))  # fmt: skip
            return []
        times = int(words[2].removeprefix("x")) if len(words) > 2 else 1
        lines = [self.event(words[0], words[1].replace("%", str(turn))) for turn in range(times)]
        return [line for place, line in enumerate(lines) if place in {0, len(lines) - 1} or line != lines[place - 1]]

    def event(self, about: str, reason_and_message: str) -> str:
        reason, _, message = reason_and_message.partition(":")
        self.number += 1
        correlated = self.correlator.correlate(
            {
                "metadata": {"name": f"{about}.{self.number}", "namespace": "ns"},
                "involvedObject": {"kind": "Pod", "name": about},
                "reason": reason,
                "message": message,
                "source": {"component": "test"},
                "firstTimestamp": "2025-01-01T00:00:00Z",
                "lastTimestamp": "2025-01-01T00:00:00Z",
                "count": 1,
                "type": "Normal",
            }
        )
        if correlated is None:
            return "dropped as spam"
        event = correlated.event
        self.correlator.written({**event, "metadata": {**event["metadata"], "resourceVersion": "7"}})
        verb = "create" if correlated.patch is None else "patch"
        name = event["metadata"]["name"] if event["metadata"]["name"].startswith(f"{about}.") else "?"
        shown = name if len(name) < 12 else f"{about}.<time>"
        return f"{verb} {shown} count={event['count']} {event['message']}"


@pytest.mark.parametrize("path", traces_in("client", "events"), ids=lambda path: path.stem)
def test_trace(path: Path) -> None:
    replay(path, Script().command)


def test_what_is_remembered_is_bounded() -> None:
    script = Script()
    script.command("new", ["remembered=3"])
    for number in range(10):
        script.event(f"pod{number}", "Reason:text")
    for memory in (script.correlator._similar, script.correlator._seen, script.correlator._buckets):
        assert len(memory._values) == 3


class Sink:
    def __init__(self) -> None:
        self.written: list[tuple[str, int, str]] = []
        self.errors: list[Exception] = []

    async def create(self, event: dict[str, Any]) -> dict[str, Any]:
        return self._write("create", event)

    async def patch(self, event: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        assert set(patch) == {"count", "lastTimestamp", "message"}
        return self._write("patch", event)

    def _write(self, verb: str, event: dict[str, Any]) -> dict[str, Any]:
        if self.errors:
            raise self.errors.pop(0)
        self.written.append((verb, event["count"], event["message"]))
        return {**event, "metadata": {**event["metadata"], "resourceVersion": "1"}}


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.sink = Sink()
        self.metrics = Metrics()
        self.broadcaster = EventBroadcaster(
            self.sink, clock=self.clock, source=random.Random(1), metrics=self.metrics, **options
        )
        self.recorder = self.broadcaster.recorder("tester", "node-1")


async def test_events_are_written_in_the_background_and_counted_on_the_same_one() -> None:
    world = World()
    async with world.broadcaster:
        assert world.recorder.normal(POD, "Pulled", "image pulled")
        assert world.recorder.normal(POD, "Pulled", "image pulled")
        assert world.sink.written == []
        await world.clock.run(0)
        assert world.sink.written == [("create", 1, "image pulled"), ("patch", 2, "image pulled")]
    assert 'pilothouse_client_events_total{outcome="written"} 2.0' in world.metrics.exposition().decode()


async def test_an_event_that_is_gone_is_made_anew() -> None:
    world = World()
    async with world.broadcaster:
        world.recorder.normal(POD, "Pulled", "image pulled")
        await world.clock.run(0)
        world.sink.errors = [status.not_found("", "events", "x")]
        world.recorder.normal(POD, "Pulled", "image pulled")
        await world.clock.run(0)
        assert world.sink.written[-1] == ("create", 2, "image pulled")


async def test_what_the_server_refuses_is_not_tried_again_and_what_breaks_is_twelve_times() -> None:
    world = World()
    async with world.broadcaster:
        world.sink.errors = [status.forbidden("", "events", "x", "no"), *[ConnectionResetError("cut")] * 3]
        world.recorder.warning(POD, "A", "refused")
        world.recorder.warning(POD, "B", "late")
        await world.clock.run(9)
        assert world.sink.written == []
        await world.clock.run(21)
        assert world.sink.written == [("create", 1, "late")]
        assert world.broadcaster.failed == 1
        world.sink.errors = [ConnectionResetError("cut")] * 12
        world.recorder.warning(POD, "C", "lost")
        world.recorder.warning(POD, "D", "after")
        await world.clock.run(130)
        assert world.broadcaster.failed == 2
        assert world.sink.written[-1] == ("create", 1, "after")


async def test_too_many_that_wait_are_dropped_and_the_caller_is_told() -> None:
    world = World(max_queued=2)
    taken = [world.recorder.normal(POD, "A", f"text {number}") for number in range(4)]
    assert taken == [True, True, False, False]
    world.broadcaster.start()
    world.broadcaster.start()
    await world.broadcaster.stop(flush_seconds=5)
    assert len(world.sink.written) == 2
    assert world.broadcaster.dropped == 2


async def test_a_flush_ends_in_time_and_what_is_left_is_counted() -> None:
    world = World()
    world.broadcaster.start()
    world.sink.errors = [ConnectionResetError("cut")] * 20
    for number in range(3):
        world.recorder.normal(POD, f"R{number}", "text")
    stopping = asyncio.create_task(world.broadcaster.stop(flush_seconds=5))
    await world.clock.run(4.9)
    assert not stopping.done()
    await world.clock.run(0.2)
    assert stopping.done()
    assert world.broadcaster.dropped == 2


async def test_a_sink_that_fails_otherwise_costs_one_event() -> None:
    world = World()
    async with world.broadcaster:
        world.sink.errors = [RuntimeError("bug")]
        world.recorder.normal(POD, "A", "lost")
        world.recorder.normal(POD, "B", "kept")
        await world.clock.run(0)
        assert [text for _, _, text in world.sink.written] == ["kept"]


def test_wrong_events_are_refused_with_the_way_out() -> None:
    world = World()
    with pytest.raises(ValueError, match="want Normal or Warning"):
        world.recorder.event(POD, "Error", "A", "text")  # type: ignore[arg-type]  # it is the point
    with pytest.raises(ValueError, match="event reason"):
        world.recorder.normal(POD, "", "text")
    with pytest.raises(ValueError, match="apiVersion and kind"):
        world.recorder.normal({"metadata": {"name": "x"}}, "A", "text")
    with pytest.raises(ValueError, match="component"):
        world.broadcaster.recorder("")
    typed = Pod(metadata=ObjectMeta(name="web", namespace="shop", uid="u1"))
    assert reference(typed) == reference(POD)


async def test_events_of_a_real_api() -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        broadcaster = EventBroadcaster(ClientEventSink(client), metrics=Metrics())
        recorder = broadcaster.recorder("tester")
        pod = {**POD, "metadata": {**POD["metadata"], "namespace": "default"}}  # type: ignore[dict-item]
        broadcaster.start()
        for _ in range(3):
            recorder.warning(pod, "BackOff", "restarting", annotations={"a": "b"})
        await broadcaster.stop(flush_seconds=5)
        (event,) = (await plane.call("GET", "/api/v1/namespaces/default/events"))["items"]
        assert event["count"] == 3
        assert event["message"] == "restarting"
        assert event["type"] == "Warning"
        assert event["source"] == {"component": "tester"}
        assert event["involvedObject"]["name"] == "web"
