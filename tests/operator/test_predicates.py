"""Predicates and handlers: which events pass, and whose requests they become."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable

import pytest

from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.workqueue import WorkQueue
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Resource, from_dict, replace
from pilothouse.operator import Request
from pilothouse.operator.handlers import Enqueue, itself, owner_of
from pilothouse.operator.predicates import (
    Predicate,
    annotations_changed,
    deletion_began,
    generation_changed,
    ignore_creation,
    ignore_deletion,
    labels_changed,
    matches,
    where,
)
from support.operatorkit import Site


def thing(name: str = "a", *, version: str = "1", **metadata: object) -> ConfigMap:
    return from_dict(
        {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": version, **metadata}},
        ConfigMap,
    )


OLD = thing(generation=1, labels={"a": "1"})


@pytest.mark.parametrize(
    ("predicate", "new", "passes"),
    [
        (generation_changed, replace(OLD, metadata__generation=2), True),
        (generation_changed, replace(OLD, metadata__labels={}), False),
        (generation_changed, replace(OLD, metadata__uid="other"), True),
        (generation_changed, replace(OLD, metadata__deletion_timestamp="2025-01-01T00:00:00Z"), True),
        (labels_changed, replace(OLD, metadata__labels={}), True),
        (labels_changed, replace(OLD, metadata__generation=2), False),
        (annotations_changed, replace(OLD, metadata__annotations={"x": "y"}), True),
        (annotations_changed, replace(OLD, metadata__labels={}), False),
        (deletion_began, replace(OLD, metadata__deletion_timestamp="2025-01-01T00:00:00Z"), True),
        (deletion_began, replace(OLD, metadata__labels={}), False),
        (matches("a in (1, 2)"), replace(OLD, metadata__labels={"a": "2"}), True),
        (matches("a in (1, 2)"), replace(OLD, metadata__labels={"a": "3"}), False),
        (where(lambda found: found.metadata.name == "a"), OLD, True),
        (generation_changed & labels_changed, replace(OLD, metadata__labels={}), False),
        (generation_changed | labels_changed, replace(OLD, metadata__labels={}), True),
        (~labels_changed, replace(OLD, metadata__labels={}), False),
        (~labels_changed, OLD, True),
    ],
)
def test_updates(predicate: Predicate[Resource], new: ConfigMap, passes: bool) -> None:
    assert predicate.update(OLD, new) is passes


@pytest.mark.parametrize(
    ("predicate", "create", "delete"),
    [
        (generation_changed, True, True),
        (ignore_deletion, True, False),
        (ignore_creation, False, True),
        (ignore_creation & ignore_deletion, False, False),
        (ignore_creation | ignore_deletion, True, True),
        (~ignore_deletion, False, True),
        (where(lambda _: False), False, False),
        (Predicate[Resource](), True, True),
    ],
)
def test_creations_and_deletions(predicate: Predicate[Resource], create: bool, delete: bool) -> None:
    assert (predicate.create(OLD), predicate.delete(OLD)) == (create, delete)


def owned(*owners: dict[str, object], name: str = "child") -> ConfigMap:
    return thing(name, ownerReferences=list(owners))


def owner(
    name: str, *, kind: str = "Site", group: str = "operator.example.com", controller: bool = True
) -> dict[str, object]:
    return {"apiVersion": f"{group}/v1beta7", "kind": kind, "name": name, "uid": name, "controller": controller}


def test_owners_are_found_by_group_and_kind_whatever_the_version() -> None:
    mapped = owner_of(Site)
    assert [*mapped(owned(owner("web")))] == [Request("ns", "web")]
    assert [*mapped(owned(owner("web", kind="Other")))] == []
    assert [*mapped(owned(owner("web", group="other.example.com")))] == []
    assert [*mapped(owned(owner("web", controller=False)))] == []
    every = owner_of(Site, controller=False)
    assert [*every(owned(owner("one", controller=False), owner("two")))] == [Request("ns", "one"), Request("ns", "two")]


def taken(queue: WorkQueue[Request]) -> list[str]:
    found = []
    while (request := queue.get_nowait()) is not None:
        found.append(str(request))
        queue.done(request)
    return found


def by_label(found: ConfigMap) -> Iterable[Request]:
    return [Request("ns", found.metadata.labels["to"])]


def test_an_update_is_told_to_who_lost_the_object_too() -> None:
    queue: WorkQueue[Request] = WorkQueue()
    handler = Enqueue(queue, by_label, None, FakeClock())
    handler.on_update(thing(labels={"to": "one"}), thing(version="2", labels={"to": "two"}))
    assert sorted(taken(queue)) == ["ns/one", "ns/two"]
    handler.on_update(thing(labels={"to": "one"}), thing(version="2", labels={"to": "one"}))
    assert taken(queue) == ["ns/one"]


def test_what_was_there_at_the_start_comes_after_what_changes() -> None:
    queue: WorkQueue[Request] = WorkQueue()
    handler = Enqueue(queue, itself, None, FakeClock())
    handler.on_add(thing("old"), True)
    resynced = thing("resynced")
    handler.on_update(resynced, resynced)
    handler.on_add(thing("new"), False)
    assert taken(queue) == ["ns/new", "ns/old", "ns/resynced"]


def test_tombstones() -> None:
    queue: WorkQueue[Request] = WorkQueue()
    Enqueue(queue, itself, None, FakeClock(), by_key=True).on_delete(DeletedFinalStateUnknown("ns/gone", None))
    assert taken(queue) == ["ns/gone"]
    mapping = Enqueue(queue, by_label, None, FakeClock())
    mapping.on_delete(DeletedFinalStateUnknown("ns/gone", None))
    assert taken(queue) == []
    mapping.on_delete(DeletedFinalStateUnknown("ns/gone", thing(labels={"to": "one"})))
    assert taken(queue) == ["ns/one"]


def test_predicates_are_asked() -> None:
    queue: WorkQueue[Request] = WorkQueue()
    handler = Enqueue(queue, itself, matches("a=1"), FakeClock())
    other = thing("other")
    handler.on_add(other, False)
    handler.on_update(other, thing("other", version="2"))
    handler.on_delete(other)
    assert taken(queue) == []


async def test_a_full_queue_holds_up_the_handler_and_loses_nothing() -> None:
    clock = FakeClock()
    queue: WorkQueue[Request] = WorkQueue(clock=clock, max_keys=2)

    def many(_: ConfigMap) -> Iterable[Request]:
        return [Request("", str(number)) for number in range(5)]

    waiting = Enqueue(queue, many, None, clock).on_add(ConfigMap(metadata=ObjectMeta(name="x")), False)
    assert inspect.iscoroutine(waiting)
    task = asyncio.ensure_future(waiting)
    found = taken(queue)
    for _ in range(3):
        await clock.run(1)
        found += taken(queue)
    await task
    assert sorted(found) == ["0", "1", "2", "3", "4"]
