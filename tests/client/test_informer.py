"""The shared informer against a server in memory: syncing, handlers that come late, resyncs, faults, and health."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest

from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.listwatch import WatchEvent
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.reflector import Timeouts
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds import status
from support.informerkit import FakeServer

Seen = list[tuple[str, ...]]


class Recorder:
    """A handler that keeps what it was told, in short."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def on_add(self, found: Any, is_in_initial_list: bool) -> None:
        self.seen.append(("add", named(found), "initial" if is_in_initial_list else ""))

    def on_update(self, old: Any, new: Any) -> None:
        self.seen.append(("update", named(old), named(new)))

    def on_delete(self, found: Any) -> None:
        if isinstance(found, DeletedFinalStateUnknown):
            self.seen.append(("delete?", named(found.object)))
        else:
            self.seen.append(("delete", named(found)))

    def take(self) -> Seen:
        seen, self.seen = self.seen, []
        return seen


def named(found: Any) -> str:
    return f"{found['metadata']['name']}@{found['metadata']['resourceVersion']}"


class World:
    """A server, an informer and a clock."""

    def __init__(self, *, streams: bool = True, **options: Any) -> None:
        self.clock = FakeClock()
        self.server = FakeServer(clock=self.clock, streams=streams)
        reflector = ReflectorOptions(stream_initial_list=streams)
        settings = {name: options.pop(name) for name in ("resync_seconds", "timeouts") if name in options}
        self.metrics = Metrics()
        self.informer: Informer[Any] = Informer(
            self.server,
            clock=self.clock,
            options=InformerOptions(reflector=reflector, **settings),
            metrics=self.metrics,
            **options,
        )
        self.recorder = Recorder()

    async def start(self) -> None:
        self.listener = self.informer.add_handler(self.recorder)
        self.informer.start()
        await self.clock.run(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.informer.stop()
        assert self.server.open_watches == 0


@pytest.mark.parametrize("streams", [True, False])
async def test_handlers_are_told_of_the_first_state_and_of_every_change(streams: bool) -> None:
    async with World(streams=streams) as world:
        world.server.put("a")
        world.server.put("b")
        await world.start()
        assert world.informer.has_synced
        assert world.listener.has_synced
        assert world.recorder.take() == [("add", "a@2", "initial"), ("add", "b@3", "initial")]
        world.server.put("a")
        world.server.put("c")
        world.server.remove("b")
        await world.clock.run(0)
        assert world.recorder.take() == [("update", "a@2", "a@4"), ("add", "c@5", ""), ("delete", "b@6")]
        assert world.informer.resource_version == "6"
        assert len(world.server.lists) == (0 if streams else 1)


async def test_a_list_of_thousands_lets_others_have_their_turn() -> None:
    async with World(streams=False) as world:
        for number in range(3_000):
            world.server.put(f"a{number}")
        turns = 0

        async def other() -> None:
            nonlocal turns
            while not world.listener.has_synced:
                turns += 1
                await asyncio.sleep(0)

        world.listener = world.informer.add_handler(world.recorder)
        world.informer.start()
        async with asyncio.timeout(10):
            await other()
        assert len(world.recorder.seen) == 3_000
        assert turns > 10


async def test_a_late_handler_gets_adds_and_its_own_sync() -> None:
    async with World() as world:
        world.server.put("a")
        await world.start()
        world.server.put("b")
        await world.clock.run(0)
        late = Recorder()
        listener = world.informer.add_handler(late)
        assert not listener.has_synced
        await asyncio.wait_for(listener.wait_synced(), 1)
        assert late.take() == [("add", "a@2", "initial"), ("add", "b@3", "initial")]
        world.server.put("b")
        await world.clock.run(0)
        assert late.take() == [("update", "b@3", "b@4")]
        listener.remove()
        world.server.put("b")
        await world.clock.run(0)
        assert late.take() == []
        assert world.recorder.seen[-1] == ("update", "b@4", "b@5")


async def test_a_slow_handler_holds_up_nobody() -> None:
    async with World() as world:
        blocked = asyncio.Event()

        async def slow(*_: object) -> None:
            await blocked.wait()

        slow_one = world.informer.add_handler(on_add=slow)
        await world.start()
        for name in "abc":
            world.server.put(name)
        await world.clock.run(0)
        assert len(world.recorder.take()) == 3
        assert slow_one.pending == 2
        await world.clock.run(100)
        assert [str(problem) for problem in world.informer.problems()] == [
            f"informer things: handler {slow_one.name} does not return; 2 notifications wait for 100 s"
        ]


async def test_what_vanished_unseen_comes_as_a_tombstone_and_first() -> None:
    async with World() as world:
        world.server.put("a")
        world.server.put("b")
        await world.start()
        world.recorder.take()
        world.server.half_open()
        world.server.remove("a")
        world.server.put("b")
        world.server.put("c")
        world.server.compact()
        world.server.cut()
        await world.clock.run(3)
        assert world.recorder.take() == [("delete?", "a@2"), ("update", "b@3", "b@5"), ("add", "c@6", "")]


async def test_deleted_and_made_again_unseen_is_one_update_with_another_uid() -> None:
    uids: list[tuple[str, str]] = []
    async with World() as world:
        world.informer.add_handler(
            on_update=lambda old, new: uids.append((old["metadata"]["uid"], new["metadata"]["uid"]))
        )
        world.server.put("a", uid="first")
        await world.start()
        world.server.half_open()
        world.server.remove("a")
        world.server.put("a", uid="second")
        world.server.compact()
        world.server.cut()
        await world.clock.run(3)
        assert uids == [("first", "second")]


async def test_a_half_open_connection_is_noticed_and_watched_anew_without_a_list() -> None:
    async with World(streams=False, timeouts=Timeouts(silence_seconds=100.0)) as world:
        world.server.put("a")
        await world.start()
        world.server.half_open()
        world.server.put("a")
        await world.clock.run(99)
        assert [seen[0] for seen in world.recorder.take()] == ["add"]
        await world.clock.run(2)
        assert world.recorder.take() == [("update", "a@2", "a@3")]
        assert len(world.server.lists) == 1
        assert len(world.server.asked) == 2
        text = world.metrics.exposition().decode()
        assert 'pilothouse_client_silent_watches_total{cluster="",resource="things"} 1.0' in text


async def test_bookmarks_keep_a_quiet_watch_alive_and_the_version_fresh() -> None:
    async with World(timeouts=Timeouts(silence_seconds=100.0)) as world:
        await world.start()
        for _ in range(4):
            await world.clock.run(60)
            world.server.version += 10
            world.server.bookmark()
        await world.clock.run(0)
        assert world.informer.resource_version == "41"
        assert len(world.server.asked) == 1


async def test_a_list_that_hangs_is_given_up() -> None:
    async with World(streams=False) as world:
        lists = world.server.list
        hung = asyncio.Event()

        async def hang(options: Any) -> Any:
            world.server.list = lists  # type: ignore[method-assign]
            await hung.wait()

        world.server.list = hang  # type: ignore[method-assign]
        await world.start()
        await world.clock.run(119)
        assert len(world.server.lists) == 0
        await world.clock.run(10)
        assert world.informer.has_synced
        assert isinstance(world.informer.core.last_error, TimeoutError)


async def test_a_storm_of_429_is_waited_out_as_the_server_asks() -> None:
    async with World(streams=False) as world:
        world.server.refuse = [status.too_many_requests("busy", 40) for _ in range(4)]
        in_header: Any = status.too_many_requests("busy", 0)
        in_header.retry_header = 40
        world.server.refuse.append(in_header)
        await world.start()
        await world.clock.run(199)
        assert len(world.server.lists) == 5
        await world.clock.run(2)
        assert world.informer.has_synced


async def test_an_unreachable_server_is_a_problem_that_says_why_until_it_is_back() -> None:
    async with World() as world:
        await world.start()
        world.server.refuse = [ConnectionRefusedError("connection refused") for _ in range(8)]
        world.server.cut(ConnectionResetError("gone"))
        assert world.informer.problems() == []
        await world.clock.run(130)
        (problem,) = world.informer.problems()
        assert "list and watch fail" in problem.what
        assert "connection refused" in problem.what
        await world.clock.run(200)
        world.server.put("a")
        await world.clock.run(0)
        assert world.informer.problems() == []
        assert world.recorder.take() == [("add", "a@2", "")]


async def test_a_cache_that_is_not_filled_is_a_problem() -> None:
    async with World(streams=False) as world:
        world.server.refuse = [status.Forbidden("things is forbidden") for _ in range(50)]
        await world.start()
        await world.clock.run(121)
        (problem,) = world.informer.problems()
        assert problem.what == "its cache is not filled: things is forbidden"
        assert problem.seconds == 121


async def test_a_watcher_that_was_killed_is_named_and_begun_anew() -> None:
    async with World() as world:
        await world.start()
        task = next(task for task in asyncio.all_tasks() if task.get_name() == "informer things")
        task.cancel()
        await world.clock.run(0)
        (problem,) = world.informer.problems()
        assert "its watcher had ended (cancelled from outside) and was begun anew" in str(problem)
        world.server.put("a")
        await world.clock.run(1)
        assert world.recorder.take() == [("add", "a@2", "")]
        assert world.informer.problems() == []
        handler = next(task for task in asyncio.all_tasks() if task.get_name().startswith("handler"))
        handler.cancel()
        await world.clock.run(0)
        assert "the task of handler" in str(world.informer.problems()[0])
        world.server.put("a")
        await world.clock.run(1)
        assert world.recorder.take() == [("update", "a@2", "a@3")]
        assert world.informer.restarts == 2


async def test_whatever_a_lister_watcher_raises_does_not_end_it() -> None:
    async with World(streams=False) as world:
        world.server.refuse = [ValueError("Deployment a: spec.replicas: not a number"), RuntimeError("bug")]
        await world.start()
        await world.clock.run(10)
        assert world.informer.has_synced
        assert world.informer.core.counts.failures == 2


async def test_a_wrong_type_is_skipped_and_counted() -> None:
    async with World(accepts=lambda found: "data" not in found) as world:
        await world.start()
        world.server.put("bad", data=1)
        world.server.raw(WatchEvent("MODIFIED", None, "9", error=ValueError("status.phase: not text")))
        world.server.put("good")
        await world.clock.run(0)
        assert [seen[1] for seen in world.recorder.take()] == ["good@3"]
        assert world.informer.core.counts.skipped == 2
        assert "skipped_events_total{" in world.metrics.exposition().decode()


async def test_a_resync_tells_handlers_again_at_their_own_pace_and_asks_no_server() -> None:
    async with World(resync_seconds=30.0) as world:
        fast, never = Recorder(), Recorder()
        world.informer.add_handler(fast, resync_seconds=10.0)
        world.informer.add_handler(never, resync_seconds=0.0)
        world.server.put("a")
        await world.start()
        asked = len(world.server.asked), len(world.server.lists)
        for recorder in (fast, never, world.recorder):
            recorder.take()
        await world.clock.run(60.5)
        assert fast.take() == [("update", "a@2", "a@2")] * 6
        assert world.recorder.take() == [("update", "a@2", "a@2")] * 2
        assert never.take() == []
        assert (len(world.server.asked), len(world.server.lists)) == asked


async def test_resync_is_off_by_default_and_at_least_a_second() -> None:
    async with World() as world:
        world.server.put("a")
        await world.start()
        world.recorder.take()
        await world.clock.run(250)
        assert world.recorder.take() == []
        eager = world.informer.add_handler(Recorder(), resync_seconds=0.001)
        assert eager.resync_seconds == 1.0


async def test_a_resync_of_thousands_reaches_all() -> None:
    async with World(resync_seconds=30.0) as world:
        for number in range(2_500):
            world.server.put(f"a{number}")
        await world.start()
        async with asyncio.timeout(5):
            await world.listener.wait_synced()
        await world.clock.run(0)
        world.recorder.take()
        await world.clock.run(31)
        await world.clock.run(0)
        assert len({seen[1] for seen in world.recorder.take()}) == 2_500


async def test_transforms_make_what_is_cached_and_their_failures_cost_nothing() -> None:
    def slim(found: Any) -> Any:
        if "bad" in found:
            raise ValueError("no")
        return {"metadata": found["metadata"]}

    async with World(transform=slim) as world:
        world.server.put("a", data="much")
        world.server.put("b", bad=True)
        await world.start()
        world.server.put("c", data="much")
        await world.clock.run(0)
        assert [sorted(found) for found in world.informer.indexer.list()] == [
            ["metadata"],
            ["bad", "metadata"],
            ["metadata"],
        ]
        assert world.informer.user_failures == 1


async def test_a_deletion_of_what_nobody_knew_is_not_told() -> None:
    async with World() as world:
        await world.start()
        world.server.raw(WatchEvent("DELETED", {"metadata": {"name": "ghost", "resourceVersion": "5"}}, "5"))
        await world.clock.run(0)
        assert world.recorder.take() == []


async def test_a_stopped_informer_ends_at_once_keeps_its_cache_and_cannot_be_used_again() -> None:
    before = asyncio.all_tasks()
    async with World() as world:
        world.server.put("a")
        await world.start()
        await world.informer.stop()
        assert asyncio.all_tasks() == before
        assert world.informer.is_stopped
        assert len(world.informer.indexer) == 1
        assert world.informer.problems() == []
        with pytest.raises(RuntimeError, match="make a new one"):
            world.informer.start()
        with pytest.raises(RuntimeError, match="would never be called"):
            world.informer.add_handler(world.recorder)


async def test_figures_are_shown() -> None:
    async with World() as world:
        world.server.put("a")
        await world.start()
        text = world.metrics.exposition().decode()
        labels = '{cluster="",resource="things"}'
        for line in (
            f"pilothouse_client_cached_objects{labels} 1.0",
            f"pilothouse_client_watches_total{labels} 1.0",
            f"pilothouse_client_watch_events_total{labels} 2.0",
            f"pilothouse_client_failing_reflectors{labels} 0.0",
            "# TYPE pilothouse_client_list_seconds histogram",
        ):
            assert line in text


async def test_a_handler_may_be_removed_before_the_start_and_may_stop_the_informer_itself() -> None:
    async with World() as world:
        world.server.put("a")
        unwanted = Recorder()
        world.informer.add_handler(unwanted).remove()

        async def stop(*_: object) -> None:
            await world.informer.stop()

        world.informer.add_handler(on_add=stop)
        await world.start()
        await world.clock.run(1)
        assert world.informer.is_stopped
        assert unwanted.take() == []
        assert len(world.informer.listeners) == 2


async def test_a_lister_watcher_whose_inner_work_was_cancelled_has_failed() -> None:
    async with World(streams=False) as world:
        lists = world.server.list

        async def cancelled(options: Any) -> Any:
            world.server.list = lists  # type: ignore[method-assign]
            inner = asyncio.get_running_loop().create_future()
            inner.cancel()
            await inner

        world.server.list = cancelled  # type: ignore[method-assign]
        await world.start()
        await world.clock.run(3)
        assert world.informer.has_synced
        assert world.informer.restarts == 0


async def test_who_waits_for_a_cache_that_is_stopped_is_told_so() -> None:
    async with World(streams=False) as world:
        world.server.refuse = [ConnectionRefusedError("refused") for _ in range(9)]
        await world.start()
        waiting = [asyncio.create_task(world.informer.wait_synced()), asyncio.create_task(world.listener.wait_synced())]
        await world.clock.run(1)
        await world.informer.stop()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError, RuntimeError]
        assert not world.informer.has_synced


async def test_a_failure_that_has_just_begun_is_no_problem_however_rarely_it_is_looked() -> None:
    async with World() as world:
        await world.start()
        for _ in range(100):
            await world.clock.run(60)
            world.server.bookmark()
        world.server.refuse = [ConnectionRefusedError("refused") for _ in range(9)]
        world.server.cut(ConnectionResetError("cut"))
        await world.clock.run(10)
        assert world.informer.problems() == []
