"""Whatever the server and the network do, the cache ends as the server's state and handlers see a true history."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.listwatch import WatchEvent
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.client.reflector import Timeouts
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.client.workqueue import QueueShutDownError, WorkQueue
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds import status
from support.informerkit import FakeServer, Object

NAMES = st.sampled_from("abcd")
ERRORS = st.sampled_from(
    [
        ConnectionRefusedError("refused"),
        ConnectionResetError("cut"),
        TimeoutError("slow"),
        status.Expired("too old"),
        status.too_many_requests("busy", 3),
        status.internal_error("oops"),
        status.forbidden("", "things", "", "no"),
        ValueError("an object that fits no type"),
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES),
    st.tuples(st.just("put"), NAMES),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("recreate"), NAMES),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.3, 2.0, 40.0, 700.0])),
    st.tuples(st.just("compact"), st.none()),
    st.tuples(st.just("cut"), st.one_of(st.none(), ERRORS)),
    st.tuples(st.just("half-open"), st.just(True)),
    st.tuples(st.just("refuse"), ERRORS),
    st.tuples(st.just("bookmark"), st.none()),
    st.tuples(st.just("duplicate"), st.integers(0, 3)),
    st.tuples(st.just("strange"), st.none()),
    st.tuples(st.just("late handler"), st.none()),
    st.tuples(st.just("resync"), st.none()),
)


class History:
    """A handler that checks that what it is told holds together."""

    def __init__(self, *, slow: FakeClock | None = None) -> None:
        self.seen: dict[str, Object] = {}
        self.slow = slow

    async def on_add(self, found: Object, _: bool) -> None:
        await self.pause()
        assert key_of(found) not in self.seen
        self.seen[key_of(found)] = found

    async def on_update(self, old: Object, new: Object) -> None:
        await self.pause()
        key = key_of(new)
        assert key in self.seen
        assert key_of(old) == key
        self.seen[key] = new

    async def on_delete(self, found: Any) -> None:
        await self.pause()
        assert isinstance(found, DeletedFinalStateUnknown | dict)
        del self.seen[key_of(found)]

    async def pause(self) -> None:
        if self.slow is not None:
            await self.slow.sleep(0.5)


class World:
    """A server that is treated badly, an informer, handlers, a queue and workers."""

    def __init__(self, streams: bool, supports: bool, seed: int) -> None:
        self.clock = FakeClock()
        self.server = FakeServer(clock=self.clock, streams=supports)
        self.informer: Informer[Object] = Informer(
            self.server,
            clock=self.clock,
            source=random.Random(seed),
            options=InformerOptions(
                reflector=ReflectorOptions(stream_initial_list=streams, page_size=2, always_paged=seed % 2 == 0),
                timeouts=Timeouts(silence_seconds=100, list_seconds=30),
            ),
            accepts=lambda found: "strange" not in found,
            metrics=Metrics(),
        )
        self.histories: list[History] = []
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock)
        self.reconciled: dict[str, Object | None] = {}
        self.working: set[str] = set()

    def watch(self, history: History) -> None:
        self.histories.append(history)
        listener = self.informer.add_handler(history, name="history")
        listener._bound = listener._limit = 2

    def start(self) -> list[asyncio.Task[None]]:
        self.watch(History())
        self.watch(History(slow=self.clock))
        self.informer.add_handler(
            on_add=lambda found, _: self.queue.add(key_of(found)),
            on_update=lambda _, found: self.queue.add(key_of(found)),
            on_delete=lambda found: self.queue.add(key_of(found)),
        )
        self.informer.start()
        return [asyncio.create_task(self.work()) for _ in range(3)]

    async def work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDownError:
                return
            assert key not in self.working
            self.working.add(key)
            await self.clock.sleep(0.05)
            self.reconciled[key] = self.informer.indexer.get(key)
            self.working.discard(key)
            self.queue.done(key)

    async def step(self, name: str, what: Any) -> None:
        server = self.server
        if name == "put":
            server.put(what)
        elif name in {"remove", "recreate"}:
            if f"ns/{what}" in server.items:
                server.remove(what)
                if name == "recreate":
                    server.put(what, uid=f"uid-{server.version}")
        elif name == "wait":
            await self.clock.run(what)
        elif name == "compact":
            server.compact()
        elif name == "refuse":
            server.refuse.append(what)
        elif name in {"cut", "half-open", "bookmark"}:
            act = {"cut": lambda: server.cut(what), "half-open": server.half_open, "bookmark": server.bookmark}
            act[name]()
        else:
            self.rarer(name, what)

    def rarer(self, name: str, what: Any) -> None:
        if name == "duplicate":
            for event in self.server.history[-what:] if what else []:
                self.server.raw(event)
        elif name == "strange":
            self.server.raw(WatchEvent("ADDED", {"metadata": {"name": "z"}, "strange": 1}, ""))
        elif name == "late handler":
            if len(self.histories) < 5:
                self.watch(History())
        elif self.informer.has_synced:
            self.informer._queue.resync()
            self.informer._pump()

    async def settle(self) -> None:
        """Let the network be well again, for longer than any wait."""
        self.server.refuse.clear()
        await self.clock.run(1_500)


@settings(max_examples=120, deadline=None)
@given(st.booleans(), st.booleans(), st.integers(0, 99), st.lists(STEPS, max_size=40))
def test_the_cache_converges(streams: bool, supports: bool, seed: int, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(converges(World(streams, supports, seed), steps))


async def converges(world: World, steps: list[tuple[str, Any]]) -> None:
    world.server.put("a")
    workers = world.start()
    try:
        for name, what in steps:
            await world.step(name, what)
        await world.settle()
        truth = world.server.items
        cache = world.informer.indexer
        assert {key: cache.get(key) for key in cache.keys()} == truth  # noqa: SIM118  it is no dictionary
        assert world.informer.problems() == []
        for history in world.histories:
            assert history.seen == truth
        assert {key: found for key, found in world.reconciled.items() if found is not None} == truth
        assert all(not listener.failures for listener in world.informer.listeners)
        assert all(listener.has_synced for listener in world.informer.listeners)
        assert world.server.open_watches == 1
    finally:
        world.queue.shut_down()
        await world.informer.stop()
        await asyncio.gather(*workers)
    assert world.server.open_watches == 0


def test_half_open_connections_do_not_keep_the_cache_from_converging() -> None:
    steps: list[tuple[str, Any]] = [("wait", 1.0), ("half-open", True), ("put", "a"), ("remove", "a"), ("put", "b")]
    for streams in (True, False):
        asyncio.run(converges(World(streams, True, 1), steps))
