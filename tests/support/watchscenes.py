"""What an informer goes through with a server, scene by scene: recorded with the real one, played with every one."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilothouse.client import Client
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.lister import ListWatch
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.client.transport import Transport
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta
from support.servers import Meeting

__all__ = ["SCENES", "Followed", "Scene", "follow", "play", "truth", "until"]

QUICK = Backoff(base=0.2, factor=2.0, jitter=0.5, cap=0.4, attempts=None)
FUTURE = "900000000"


class Half(random.Random):
    """Chance that is always in the middle, so that a replayed informer asks for what was recorded."""

    def random(self) -> float:
        return 0.5


@dataclass
class Followed:
    """An informer and what its handler was told, in short."""

    informer: Informer[Any]
    told: list[str] = field(default_factory=list)

    def cache(self) -> dict[str, Any]:
        """Return the cached objects as they would be sent."""
        return {key_of(found): _tree(found) for found in self.informer.indexer.list()}

    def outcome(self) -> dict[str, str]:
        """Return what came of it: the versions in the cache, and what the handler was told."""
        cached = sorted(
            f"{key.partition('/')[2]}@{found['metadata']['resourceVersion']}" for key, found in self.cache().items()
        )
        return {"cache": " ".join(cached), "told": " ".join(self.told)}


Act = Callable[[Meeting, Followed, str], Awaitable[object]]


@dataclass(frozen=True)
class Scene:
    """What is there before, how an informer begins, and what happens then. asked: parts of queries that must occur."""

    name: str
    act: Act
    asked: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "typed"
    begins_at: str = ""


async def follow(scene: Scene, transport: Transport, namespace: str) -> Followed:
    """Make the informer of a scene; it is not started."""
    client = Client.for_transport(transport, backoff=None)
    watched: Any = client.list_watch(ConfigMap, namespace)
    if scene.kind == "metadata":
        resource = client.metadata_of(ConfigMap)
        watched = ListWatch(resource._caller, *await resource._resource(), namespace)
    options = ReflectorOptions(backoff=QUICK, min_watch_seconds=300, max_watch_seconds=300)
    chosen: dict[str, Any] = {name: getattr(options, name) for name in options.__slots__} | {**scene.options}
    informer: Informer[Any] = Informer(
        watched, options=InformerOptions(reflector=ReflectorOptions(**chosen)), source=Half(), metrics=Metrics()
    )
    informer.core.resource_version = scene.begins_at
    made = Followed(informer)
    told = made.told
    informer.add_handler(
        on_add=lambda found, _: told.append(f"+{named(found)}"),
        on_update=lambda _, found: told.append(f"~{named(found)}"),
        on_delete=lambda found: told.append(f"-{named(found)}"),
    )
    return made


def named(found: Any) -> str:
    if isinstance(found, DeletedFinalStateUnknown):
        return f"{found.key.partition('/')[2]}?"
    return str(key_of(found).partition("/")[2])


async def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.01)


async def truth(scene: Scene, direct: Client, namespace: str) -> dict[str, Any]:
    """Return what the server has now, as the informer of a scene ought to have it."""
    labels = scene.options.get("label_selector", "")
    if scene.kind == "metadata":
        listed: Any = [one async for one in direct.metadata_of(ConfigMap).list(namespace, labels=labels)]
    else:
        listed = [one async for one in direct.list(ConfigMap, namespace, labels=labels)]
    return {key_of(found): _tree(found) for found in listed}


async def play(scene: Scene, meeting: Meeting, transport: Transport, namespace: str) -> Followed:
    """Go through a scene; in the end the cache is what the server has."""
    direct = meeting.direct
    await direct.create(Namespace(metadata=ObjectMeta(name=namespace)))
    for name in ("a", "b", "c"):
        await direct.create(config_map(namespace, name, size="1"))
    followed = await follow(scene, transport, namespace)
    async with followed.informer as informer:
        async with asyncio.timeout(20):
            await informer.wait_synced()
        await scene.act(meeting, followed, namespace)
        async with asyncio.timeout(20):
            while followed.cache() != await truth(scene, direct, namespace):  # noqa: ASYNC110  the server is asked
                await asyncio.sleep(0.02)
        await until(lambda: not informer.listeners[0].pending)
    return followed


def config_map(namespace: str, name: str, size: str = "", **labels: str) -> ConfigMap:
    metadata = ObjectMeta(name=name, namespace=namespace, labels={"app": "web", **labels})
    return ConfigMap(metadata=metadata, data={"size": size})


def _tree(found: Any) -> Any:
    return json.loads(msgspec.json.encode(found))


async def _change(meeting: Meeting, followed: Followed, namespace: str) -> None:
    """An object comes, one changes twice, one goes; each is seen before the next."""
    direct = meeting.direct
    await direct.create(config_map(namespace, "d", "1"))
    await until(lambda: "+d" in followed.told)
    for size in ("2", "3"):
        before = len(followed.told)
        await direct.patch(ConfigMap, "a", {"data": {"size": size}}, namespace)
        await until(lambda before=before: len(followed.told) > before)  # type: ignore[misc]
    await direct.delete(ConfigMap, "b", namespace)
    await until(lambda: "-b" in followed.told)


async def _outlive_a_watch(meeting: Meeting, followed: Followed, namespace: str) -> None:
    """The server ends the watch at its time, with a bookmark before; it goes on from there."""
    await _change(meeting, followed, namespace)
    core = followed.informer.core
    watches, lists = core.counts.watches, core.counts.replaced
    await until(lambda: core.counts.watches > watches)
    await meeting.direct.patch(ConfigMap, "c", {"data": {"size": "9"}}, namespace)
    await until(lambda: "~c" in followed.told)
    assert core.counts.replaced == lists
    assert core.counts.bookmarks > 1


async def _miss_what_is_forgotten(meeting: Meeting, followed: Followed, namespace: str) -> None:
    """Cut off, it misses changes whose versions are gone when it is back: 410, and the state anew."""

    async def missed(direct: Client) -> None:
        await direct.delete(ConfigMap, "a", namespace)
        await direct.patch(ConfigMap, "b", {"data": {"size": "2"}}, namespace)
        await direct.create(config_map(namespace, "d", "1"))

    await meeting.forget(missed)
    await until(lambda: "-a?" in followed.told)
    assert followed.informer.core.counts.replaced == 2


async def _come_and_go_by_labels(meeting: Meeting, followed: Followed, namespace: str) -> None:
    """An object that ceases to fit the selector is deleted for who watches by it, and comes again."""
    await meeting.direct.patch(ConfigMap, "a", {"metadata": {"labels": {"app": "db"}}}, namespace)
    await until(lambda: "-a" in followed.told)
    await meeting.direct.patch(ConfigMap, "a", {"metadata": {"labels": {"app": "web"}}}, namespace)
    await until(lambda: followed.told.count("+a") == 2)


SCENES = {
    scene.name: scene
    for scene in (
        Scene("streamed", _change, ("sendInitialEvents=true",)),
        Scene("listed", _change, ("resourceVersion=0&limit=2",), {"stream_initial_list": False, "page_size": 2}),
        Scene(
            "ended",
            _outlive_a_watch,
            ("sendInitialEvents=true",),
            {"min_watch_seconds": 4, "max_watch_seconds": 4},
        ),
        Scene("expired-streamed", _miss_what_is_forgotten, ("sendInitialEvents=true",)),
        Scene("expired-listed", _miss_what_is_forgotten, ("resourceVersion=0",), {"stream_initial_list": False}),
        Scene("selected", _come_and_go_by_labels, ("labelSelector=app%3Dweb",), {"label_selector": "app=web"}),
        Scene("metadata", _change, ("sendInitialEvents=true",), kind="metadata"),
        Scene("future-streamed", _change, (f"resourceVersion={FUTURE}",), begins_at=FUTURE),
        Scene(
            "future-listed",
            _change,
            (f"resourceVersion={FUTURE}",),
            {"stream_initial_list": False},
            begins_at=FUTURE,
        ),
    )
}
