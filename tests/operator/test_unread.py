"""Events that keys and metadata are enough for: no object is read for them, and one that cannot be is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pilothouse.client import Answer, Client
from pilothouse.client.informer import InformerOptions
from pilothouse.client.packed import Packed, of_head, reads_head
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ConfigMap, Pod, Secret
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.handlers import itself, owner_of
from pilothouse.operator.predicates import (
    annotations_changed,
    deletion_began,
    generation_changed,
    ignore_creation,
    ignore_deletion,
    labels_changed,
    matches,
    where,
)


@pytest.mark.parametrize(
    ("function", "enough"),
    [
        (itself, True),
        (owner_of(ConfigMap), True),
        (lambda obj: [Request.of(obj)], False),
        (generation_changed & labels_changed, True),
        (deletion_began | ~matches("a=b"), True),
        (ignore_creation & ignore_deletion, True),
        (annotations_changed, False),
        (labels_changed & annotations_changed, False),
        (where(lambda obj: obj.metadata.name == "a"), False),
        (where(of_head(lambda obj: obj.metadata.name == "a")), True),
    ],
)
def test_what_looks_at_metadata_alone(function: object, enough: bool) -> None:
    assert reads_head(function) is enough


class Lines:
    """A transport: each kind's watch gives its lines, and then nothing more."""

    def __init__(self, **lines: list[tuple[str, dict[str, Any]]]) -> None:
        self.lines = lines

    async def request(self, method: str, target: str, *_: Any, **__: Any) -> Answer:
        plural = target.partition("?")[0].rpartition("/")[2]
        return Answer(200, (("content-type", "application/json"),), stream=_Stream(self.lines.pop(plural, [])))

    async def aclose(self) -> None:
        return None


class _Stream:
    def __init__(self, events: list[tuple[str, dict[str, Any]]]) -> None:
        self.pieces = [
            json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n" for kind, obj in events
        ]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self.pieces:
            await asyncio.Event().wait()
        await asyncio.sleep(0.001)
        return self.pieces.pop(0)

    async def aclose(self) -> None:
        return None


def some(name: str, version: int, *, owner: str = "", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    if owner:
        one = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": f"uid-{owner}", "controller": True}
        metadata["ownerReferences"] = [one]
    return {"metadata": metadata, **more}


END = ("BOOKMARK", {"metadata": {"resourceVersion": "5", "annotations": {"k8s.io/initial-events-end": "true"}}})


class Notes(Reconciler[ConfigMap]):
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gone: list[str] = []

    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        self.seen.append(obj.metadata.name)
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        self.gone.append(request.name)
        return None


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.001)


async def test_only_what_is_reconciled_is_read() -> None:
    transport = Lines(
        configmaps=[("ADDED", some("a", 1)), ("ADDED", some("b", 2)), END],
        pods=[
            ("ADDED", some("p", 3, owner="a")),
            END,
            ("MODIFIED", some("p", 6, owner="b")),
            ("DELETED", some("x", 7)),
        ],
        secrets=[("ADDED", some("s", 4)), END],
    )
    notes, looked = Notes(), [""][:0]

    def by_name(obj: Secret) -> list[Request]:
        looked.append(type(obj).__name__)
        return [Request("ns", "a")]

    manager = Manager(Client.for_transport(transport), metrics=Metrics())
    made = controller(manager).for_(ConfigMap).owns(Pod, generation_changed | labels_changed | ~generation_changed)
    built = made.watches(Secret, by_name).build(notes)
    async with manager:
        await until(
            lambda: {"a", "b"} <= {*notes.seen} and built.is_idle and manager.cached(Pod).resource_version == "7"
        )
        pods = manager.cached(Pod).indexer.entries
        assert [type(pod) for pod in pods.values()] == [Packed]
        assert all(pod.value is None for pod in pods.values() if isinstance(pod, Packed))
        assert [one.metadata.name for one in manager.controlled(Pod, "uid-b")] == ["p"]
    assert looked == ["Secret"]
    assert notes.gone == []


async def test_an_object_that_does_not_fit_is_a_failure_with_its_reason_and_not_gone() -> None:
    transport = Lines(configmaps=[("ADDED", some("good", 1)), ("ADDED", some("bad", 2, data=5)), END])
    notes = Notes()
    manager = Manager(Client.for_transport(transport), metrics=Metrics(), informers=InformerOptions(recent_bytes=0))
    built = controller(manager).for_(ConfigMap).build(notes)
    async with manager:
        await until(lambda: notes.seen and built.core.failing())
        (failing,) = built.core.failing()
    assert "ns/bad: does not fit the type ConfigMap" in str(failing)
    assert (notes.seen, notes.gone) == (["good"], [])
