"""The delta queue: order, tombstones, the end of the initial list, resync, and the older merging by key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client.deltaqueue import Delta, DeltaQueue, KeyedDeltaQueue, Process
from pilothouse.client.indexer import Indexer
from pilothouse.client.objects import DeletedFinalStateUnknown, ObjectKeyError
from support.informerkit import obj

Queue = DeltaQueue[Any] | KeyedDeltaQueue[Any]


def known(*names: str) -> Indexer[Any]:
    cache: Indexer[Any] = Indexer()
    for name in names:
        cache.put(f"ns/{name}", obj(name, 1))
    return cache


def drain(queue: Queue, limit: int = 1_000) -> list[tuple[str, str, bool]]:
    """Process everything; give type, name and whether it was of the initial list."""
    found = []

    def take(deltas: Sequence[Delta], initial: bool) -> None:
        for delta in deltas:
            tombstone = "?" if isinstance(delta.object, DeletedFinalStateUnknown) else ""
            found.append((delta.type + tombstone, delta.key.removeprefix("ns/"), initial))

    while queue.process(take, limit):
        pass
    return found


def test_every_event_comes_out_in_order() -> None:
    queue: DeltaQueue[Any] = DeltaQueue(known())
    queue.add(obj("a", 1))
    queue.update(obj("a", 2))
    queue.add(obj("b", 3))
    queue.delete(obj("a", 4))
    queue.add(obj("a", 5))
    assert [(kind, key) for kind, key, _ in drain(queue)] == [
        ("Added", "a"),
        ("Updated", "a"),
        ("Added", "b"),
        ("Deleted", "a"),
        ("Added", "a"),
    ]


def test_a_new_list_says_first_what_vanished_then_what_is_there() -> None:
    queue: DeltaQueue[Any] = DeltaQueue(known("a", "b", "c"))
    queue.update(obj("c", 2))
    queue.add(obj("d", 3))
    queue.replace([obj("b", 9), obj("e", 9)])
    assert [(kind, key) for kind, key, _ in drain(queue)] == [
        ("Updated", "c"),
        ("Added", "d"),
        ("Deleted?", "c"),
        ("Deleted?", "d"),
        ("Deleted?", "a"),
        ("Replaced", "b"),
        ("Replaced", "e"),
    ]


def test_a_tombstone_has_the_last_state_that_was_queued_or_cached() -> None:
    queue: DeltaQueue[Any] = DeltaQueue(known("a", "b"))
    queue.update(obj("a", 7))
    queue.replace([])
    deltas: list[Delta] = []
    queue.process(lambda batch, _: deltas.extend(batch))
    states = {delta.key: delta.object.object["metadata"]["resourceVersion"] for delta in deltas[1:]}
    assert states == {"ns/a": "7", "ns/b": "1"}


def test_no_second_tombstone_for_what_is_queued_as_deleted() -> None:
    queue: DeltaQueue[Any] = DeltaQueue(known("a"))
    queue.delete(obj("a", 2))
    queue.replace([])
    assert [(kind, key) for kind, key, _ in drain(queue)] == [("Deleted", "a")]


@pytest.mark.parametrize("kind", [DeltaQueue, KeyedDeltaQueue])
def test_synced_only_when_the_whole_first_list_was_processed(kind: type[Queue]) -> None:
    queue = kind(known("gone"))
    assert not queue.has_synced
    queue.replace([obj("a", 1), obj("b", 1)])
    for _ in range(3):
        assert not queue.has_synced
        assert queue.process(lambda *_: None, 1) == 1
    assert queue.has_synced


@pytest.mark.parametrize("kind", [DeltaQueue, KeyedDeltaQueue])
def test_an_empty_first_list_is_synced_at_once(kind: type[Queue]) -> None:
    queue = kind(known())
    queue.replace([])
    assert queue.has_synced


def test_a_batch_ends_with_the_initial_list() -> None:
    queue: DeltaQueue[Any] = DeltaQueue(known())
    queue.replace([obj("a", 1), obj("b", 1)])
    queue.add(obj("c", 2))
    assert drain(queue) == [("Replaced", "a", True), ("Replaced", "b", True), ("Added", "c", False)]


def test_a_processor_that_raises_has_processed() -> None:
    queue: DeltaQueue[Any] = DeltaQueue(known())
    queue.replace([obj("a", 1)])

    def fail(*_: object) -> None:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        queue.process(fail)
    assert queue.has_synced
    assert not len(queue)


@pytest.mark.parametrize("kind", [DeltaQueue, KeyedDeltaQueue])
def test_a_resync_takes_the_cache_and_leaves_out_what_is_queued(kind: type[Queue]) -> None:
    queue = kind(known("a", "b"))
    queue.update(obj("a", 2))
    queue.resync()
    assert [(delta, key) for delta, key, _ in drain(queue)] == [("Updated", "a"), ("Sync", "b")]


def test_the_older_queue_merges_deletions_in_a_row_and_keeps_the_real_object() -> None:
    queue: KeyedDeltaQueue[Any] = KeyedDeltaQueue(known("a", "b", "c"))
    queue.delete(obj("a", 2))
    queue.replace([obj("b", 3)])  # a tombstone for a, on top of the real deletion
    queue.delete(obj("c", 4))  # the real deletion, on top of the tombstone of the list
    assert drain(queue) == [("Deleted", "a", False), ("Deleted", "c", False), ("Replaced", "b", False)]


def test_the_older_queue_merges_nothing_else() -> None:
    queue: KeyedDeltaQueue[Any] = KeyedDeltaQueue(known())
    for version in (1, 2):
        queue.update(obj("a", version))
    queue.add(obj("b", 3))
    queue.delete(obj("a", 4))
    queue.add(obj("a", 5))
    queue.delete(obj("never", 6))
    assert [(kind, key) for kind, key, _ in drain(queue)] == [
        ("Updated", "a"),
        ("Updated", "a"),
        ("Deleted", "a"),
        ("Added", "a"),
        ("Added", "b"),
    ]


def test_transforms_are_applied_once_and_their_failures_told() -> None:
    told: list[str] = []

    def transform(found: Any) -> Any:
        if found["metadata"]["name"] == "bad":
            raise ValueError("no")
        return {**found, "times": found.get("times", 0) + 1}

    queue: DeltaQueue[Any] = DeltaQueue(
        known(), transform=transform, transform_failed=lambda key, error: told.append(f"{key}: {error}")
    )
    queue.replace([queue.transformed(obj("a", 1))], transformed=True)
    queue.add(obj("b", 2))
    queue.add(obj("bad", 3))
    deltas: list[Delta] = []
    while queue.process(lambda batch, _: deltas.extend(batch)):
        pass
    assert [delta.object.get("times") for delta in deltas] == [1, 1, None]
    assert told == ["ns/bad: no"]


@pytest.mark.parametrize("kind", [DeltaQueue, KeyedDeltaQueue])
def test_an_object_without_a_name_queues_nothing(kind: type[Queue]) -> None:
    queue = kind(known("a"))
    with pytest.raises(ObjectKeyError, match=r"metadata\.name"):
        queue.replace([obj("b", 1), {"metadata": {}}])
    with pytest.raises(ObjectKeyError):
        queue.add({})
    assert not len(queue)


def into(cache: Indexer[Any]) -> Process:
    """Return what an informer does with deltas."""

    def apply(deltas: Sequence[Delta], _: bool) -> None:
        for delta in deltas:
            if delta.type == "Deleted":
                cache.remove(delta.key)
            else:
                cache.put(delta.key, delta.object)

    return apply


_steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "update", "delete", "replace", "resync", "process"]), st.sets(st.sampled_from("abcd"))
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", [DeltaQueue, KeyedDeltaQueue])
@given(steps=_steps)
def test_the_cache_ends_as_the_last_word_on_each_object(kind: type[Queue], steps: list[tuple[str, set[str]]]) -> None:
    cache: Indexer[Any] = Indexer()
    queue = kind(cache)
    truth: dict[str, int] = {}

    def event(step: str, name: str, version: int) -> None:
        getattr(queue, step)(obj(name, version))
        if step == "delete":
            truth.pop(name, None)
        else:
            truth[name] = version

    for version, (step, names) in enumerate(steps, 1):
        if step == "replace":
            truth.clear()
            truth |= dict.fromkeys(names, version)
            queue.replace([obj(name, version) for name in sorted(names)])
        elif step == "resync":
            queue.resync()
        elif step == "process":
            queue.process(into(cache), max(len(names), 1))
        else:
            for name in sorted(names):
                event(step, name, version)
    while queue.process(into(cache)):
        pass
    assert {
        key: int(found["metadata"]["resourceVersion"]) for key, found in zip(cache.keys(), cache.list(), strict=True)
    } == {f"ns/{name}": version for name, version in truth.items()}
