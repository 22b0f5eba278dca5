"""Config maps and secrets that pods of this node use, and no others: each is read and watched by its name.

A node may see only what its own pods refer to; so there is one watch an object, held while a pod needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final

from pilothouse.client import Client, ClientError
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, NotFound
from pilothouse.kinds.structs.core_config import ConfigMap, Secret

from .environment import Known, Reference

__all__ = ["Objects"]

_log = get_logger(__name__)
_AGAIN_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 30.0
_MAX: Final = 8_192
"""Objects held at a time; a node's pods have a few hundred."""


class _Held:
    def __init__(self) -> None:
        self.users: set[str] = set()
        self.value: ConfigMap | Secret | None = None
        self.fresh = False
        self.task: asyncio.Task[None] | None = None


class Objects:
    """The objects that pods refer to. `changed(uid)` is called for each pod that holds one that is another now."""

    def __init__(self, client: Client, changed: Callable[[str], object], *, clock: Clock | None = None) -> None:
        self._client = client
        self._changed = changed
        self._clock = clock or SystemClock()
        self._held: dict[tuple[str, Reference], _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def get(self, user: str, namespace: str, wanted: Iterable[Reference]) -> Known:
        """Return objects for a pod (its UID), and hold them from now on. Raises ApiStatus, ClientError, OSError."""
        found: dict[Reference, ConfigMap | Secret | None] = {}
        for reference in dict.fromkeys(wanted):
            found[reference] = await self._one(user, namespace, reference)
        return found

    async def _one(self, user: str, namespace: str, reference: Reference) -> ConfigMap | Secret | None:
        key = (namespace, reference)
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= _MAX:
                raise OSError(f"this node's pods refer to more than {_MAX:,} config maps and secrets")
            held = self._held[key] = _Held()
        held.users.add(user)
        # What is not there may be made at any moment: asked for anew until it is watched and was seen.
        if not held.fresh or held.value is None:
            value = await self._read(namespace, reference)
            if not held.fresh or held.value is None:
                held.value, held.fresh = value, True
        if held.task is None and self._held.get(key) is held:
            held.task = asyncio.create_task(self._follow(key, held))
        return held.value

    async def _read(self, namespace: str, reference: Reference) -> ConfigMap | Secret | None:
        kind, name = reference
        try:
            if kind == "configmap":
                return await self._client.get(ConfigMap, name, namespace)
            return await self._client.get(Secret, name, namespace)
        except NotFound:
            return None

    def release(self, user: str) -> None:
        """Let go what a pod has held."""
        for key, held in list(self._held.items()):
            held.users.discard(user)
            if not held.users:
                del self._held[key]
                if held.task is not None:
                    held.task.cancel()

    async def close(self) -> None:
        """End all watches."""
        tasks = [held.task for held in self._held.values() if held.task is not None]
        self._held.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, held: _Held, value: ConfigMap | Secret | None) -> None:
        before = held.value
        held.value = value
        same = before is value or (
            before is not None
            and value is not None
            and before.metadata.uid == value.metadata.uid
            and before.metadata.resource_version == value.metadata.resource_version
        )
        if not same:
            for user in list(held.users):
                self._changed(user)

    async def _events(self, namespace: str, kind: str, name: str) -> AsyncGenerator[ConfigMap | Secret | None, None]:
        fields = f"metadata.name={name}"
        if kind == "configmap":
            async with contextlib.aclosing(self._client.watch(ConfigMap, namespace, fields=fields)) as maps:
                async for one in maps:
                    yield None if one.type == "DELETED" else one.object
            return
        async with contextlib.aclosing(self._client.watch(Secret, namespace, fields=fields)) as secrets:
            async for other in secrets:
                yield None if other.type == "DELETED" else other.object

    async def _follow(self, key: tuple[str, Reference], held: _Held) -> None:
        """Watch one object until nobody holds it; whatever goes wrong is tried again."""
        namespace, (kind, name) = key
        wait = _AGAIN_SECONDS
        while True:
            if held.value is not None and held.value.immutable:
                return
            try:
                # Looked at again each time, for what happened while nothing was watched.
                async with contextlib.aclosing(self._events(namespace, kind, name)) as events:
                    async for value in events:
                        wait = _AGAIN_SECONDS
                        self._tell(held, value)
                self._tell(held, await self._read(namespace, key[1]))
            except (ApiStatus, ClientError, OSError) as error:
                _log.info("a watch is begun again", kind=kind, namespace=namespace, name=name, reason=str(error))
            await self._clock.sleep(wait)
            wait = min(wait * 2, _MOST_SECONDS)
