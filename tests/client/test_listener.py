"""Handlers: in order, bounded, never lost in a crash, and merged so that each sees a history that holds together."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client.listener import ADD, DELETE, UPDATE, FilteringHandler, Handlers, Listener, Notification, merge
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.foundation.clock import FakeClock


def note(kind: int, key: str, new: Any = None, old: Any = None, *, initial: bool = False) -> Notification:
    return Notification(kind, key, old, new, initial)


def test_merging_leaves_one_notification_an_object() -> None:
    merged = merge(
        [
            note(ADD, "a", 1, initial=True),
            note(UPDATE, "b", 2, 1),
            note(UPDATE, "a", 2, 1),
            note(DELETE, "c", 7),
            note(ADD, "d", 1),
            note(UPDATE, "b", 3, 2),
            note(DELETE, "d", 1),
            note(ADD, "c", 9),
            note(UPDATE, "e", 2, 1),
            note(DELETE, "e", 2),
        ]
    )
    assert merged == [
        note(ADD, "a", 2, initial=True),
        note(UPDATE, "b", 3, 1),
        note(UPDATE, "c", 9, 7),
        note(DELETE, "e", 2),
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40), st.integers(0, 40))
def test_a_merged_history_holds_together_and_ends_the_same(steps: list[tuple[str, bool]], cut: int) -> None:
    state: dict[str, int] = {}
    history = []
    for version, (key, there) in enumerate(steps):
        old = state.get(key)
        if there:
            history.append(note(UPDATE, key, version, old) if old is not None else note(ADD, key, version))
            state[key] = version
        elif old is not None:
            history.append(note(DELETE, key, state.pop(key)))
    seen: dict[str, int] = {}
    for one in [*history[:cut], *merge(history[cut:])]:
        if one.kind == ADD:
            assert one.key not in seen
            seen[one.key] = one.new
        elif one.kind == UPDATE:
            assert one.key in seen
            seen[one.key] = one.new
        else:
            del seen[one.key]
    assert seen == state
    assert len(merge(history)) <= 3


async def started(handler: Any, **options: Any) -> tuple[Listener[Any], FakeClock]:
    clock = FakeClock()
    listener: Listener[Any] = Listener(handler, "test", clock=clock, **options)
    listener.start()
    return listener, clock


async def test_a_handler_that_raises_is_counted_and_goes_on_after_a_second() -> None:
    seen: list[str] = []

    def on_add(found: str, _: bool) -> None:
        seen.append(found)
        if found == "bad":
            raise ValueError("no")

    listener, clock = await started(Handlers(on_add=on_add))
    for found in ("a", "bad", "b"):
        listener.add(note(ADD, found, found, initial=True))
    listener.upstream_synced()
    await clock.run(0.5)
    assert seen == ["a", "bad"]
    assert listener.has_synced is False
    await clock.run(1.0)
    assert seen == ["a", "bad", "b"]
    await listener.wait_synced()
    assert listener.failures == 1
    listener.stop()


async def test_coroutines_are_waited_for_one_after_the_other() -> None:
    running, most, seen = 0, 0, list[int]()
    clock = FakeClock()

    async def on_update(_: int, new: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await clock.sleep(1.0)
        running -= 1
        seen.append(new)

    listener: Listener[int] = Listener(Handlers(on_update=on_update), "test", clock=clock)
    listener.start()
    for number in range(5):
        listener.add(note(UPDATE, "a", number, number - 1))
    await clock.run(2.5)
    assert seen == [0, 1]
    assert listener.stuck_seconds() == 0.5
    await clock.run(10.0)
    assert seen == [0, 1, 2, 3, 4]
    assert most == 1
    listener.stop()


async def test_what_waits_for_a_slow_handler_is_bounded_by_the_objects() -> None:
    release = asyncio.Event()
    seen: list[Notification] = []

    async def on_add(found: int, initial: bool) -> None:
        await release.wait()
        seen.append(note(ADD, "", found, initial=initial))

    async def on_update(old: int, new: int) -> None:
        seen.append(note(UPDATE, "", new, old))

    listener, _ = await started(Handlers(on_add=on_add, on_update=on_update), bound=10)
    listener.add(note(ADD, "a", 0, initial=True))
    listener.add(note(ADD, "b", 0, initial=True))
    listener.upstream_synced()
    await asyncio.sleep(0)
    for number in range(1, 1_000):
        listener.add(note(UPDATE, "a", number, number - 1))
        listener.add(note(UPDATE, "b", number, number - 1))
    assert listener.pending <= 10
    assert listener.merges
    assert not listener.has_synced
    release.set()
    await listener.wait_synced()
    for _ in range(20):
        await asyncio.sleep(0)
    assert listener.pending == 0
    assert seen[-1].new == 999
    listener.stop()


async def test_an_initial_object_that_goes_before_it_is_told_does_not_hold_up_the_sync() -> None:
    blocked = asyncio.Event()

    async def on_update(*_: object) -> None:
        await blocked.wait()

    listener, _ = await started(Handlers(on_update=on_update), bound=2)
    listener.add(note(UPDATE, "x", 1, 0))
    await asyncio.sleep(0)
    listener.add(note(ADD, "a", 1, initial=True))
    listener.upstream_synced()
    assert listener.has_synced is False
    listener.add(note(DELETE, "a", 1))
    listener.add(note(UPDATE, "x", 2, 1))
    await asyncio.wait_for(listener.wait_synced(), 1)
    listener.stop()


async def test_a_stopped_handler_is_told_nothing_more_at_once() -> None:
    seen: list[int] = []
    removed: list[object] = []
    clock = FakeClock()
    handler: Handlers[int] = Handlers(on_add=lambda found, _: seen.append(found))
    listener: Listener[int] = Listener(handler, "test", clock=clock, removed=removed.append)
    listener.start()
    listener.add(note(ADD, "a", 1))
    listener.remove()
    listener.remove()
    await clock.run(5.0)
    assert seen == []
    assert removed == [listener, listener]
    assert not listener.is_dead


def test_a_filter_turns_changes_into_adds_and_deletes() -> None:
    seen: list[Any] = []
    handler: FilteringHandler[int] = FilteringHandler(
        lambda found: found > 0,
        Handlers(
            on_add=lambda found, initial: seen.append(("add", found, initial)),
            on_update=lambda old, new: seen.append(("update", old, new)),
            on_delete=lambda found: seen.append(("delete", found)),
        ),
    )
    handler.on_add(-1, True)
    handler.on_add(1, True)
    handler.on_update(1, 2)
    handler.on_update(2, -2)
    handler.on_update(-2, -3)
    handler.on_update(-3, 3)
    handler.on_delete(-1)
    handler.on_delete(DeletedFinalStateUnknown("a", 3))
    handler.on_delete(DeletedFinalStateUnknown("a", None))
    assert seen == [
        ("add", 1, True),
        ("update", 1, 2),
        ("delete", 2),
        ("add", 3, False),
        ("delete", DeletedFinalStateUnknown("a", 3)),
    ]


async def test_a_handler_whose_inner_work_was_cancelled_has_failed_and_goes_on() -> None:
    seen: list[int] = []

    async def on_add(found: int, _: bool) -> None:
        if found == 1:
            inner = asyncio.get_running_loop().create_future()
            inner.cancel()
            await inner
        seen.append(found)

    listener, clock = await started(Handlers(on_add=on_add))
    listener.add(note(ADD, "a", 1))
    listener.add(note(ADD, "b", 2))
    await clock.run(2)
    assert seen == [2]
    assert listener.failures == 1
    listener.stop()


async def test_what_was_handed_over_when_the_task_was_killed_is_handed_over_again() -> None:
    seen: list[int] = []
    clock = FakeClock()

    async def on_add(found: int, _: bool) -> None:
        await clock.sleep(1)
        seen.append(found)

    listener: Listener[int] = Listener(Handlers(on_add=on_add), "test", clock=clock)
    listener.start()
    for number in range(3):
        listener.add(note(ADD, str(number), number, initial=True))
    listener.upstream_synced()
    await clock.run(1.5)
    assert listener._task is not None
    listener._task.cancel()
    await clock.run(0)
    assert listener.is_dead
    listener.start()
    await clock.run(5)
    assert seen == [0, 1, 2]
    assert listener.has_synced
    listener.stop()
