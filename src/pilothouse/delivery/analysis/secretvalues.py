"""What is in the secrets that analysis runs name: followed while runs look, so that a look each second asks nobody."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from pilothouse.client import Client
from pilothouse.client.informer import Informer
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.structs import Secret
from pilothouse.operator import Companion

__all__ = ["SecretValues"]

_MOST: Final = 256
_IDLE_SECONDS: Final = 120.0


@dataclass(slots=True)
class _Followed:
    """A secret that is followed. used: when it was asked for last, by the monotonic clock."""

    informer: Informer[Secret]
    used: float


class SecretValues(Companion):
    """Follows each secret that is asked for, until nobody has asked for a while.

    Those that are not followed yet, or may not be, are read: nothing waits for a watch. So are those without what is
    wanted, as a run is judged once and what was just made must count. most: secrets followed at one time; others are
    read each time. idle_seconds: after which one is not followed any more.
    """

    name = "analysis-secrets"

    def __init__(self, client: Client, clock: Clock, *, most: int = _MOST, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._client = client
        self._clock = clock
        self._most = most
        self._idle_seconds = idle_seconds
        self._followed: OrderedDict[tuple[str, str], _Followed] = OrderedDict()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._followed)

    async def value(self, namespace: str, name: str, key: str) -> bytes | None:
        """Return what a secret holds by a key, None where it has no such key. Raises NotFound and what a read does."""
        found = self._cached(namespace, name)
        if found is None or key not in found.data:
            found = await self._client.get(Secret, name, namespace)
        return found.data.get(key)

    def _cached(self, namespace: str, name: str) -> Secret | None:
        place, now = (namespace, name), self._clock.monotonic()
        followed = self._followed.get(place)
        if followed is None:
            self._follow(place, now)
            return None
        followed.used = now
        self._followed.move_to_end(place)
        return followed.informer.indexer.get(f"{namespace}/{name}") if followed.informer.has_synced else None

    def _follow(self, place: tuple[str, str], now: float) -> None:
        if self._is_over or len(self._followed) >= self._most:
            return
        namespace, name = place
        source = self._client.list_watch(Secret, namespace, fields={"metadata.name": name})
        informer: Informer[Secret] = Informer(source, name=f"secret {namespace}/{name} of analyses", clock=self._clock)
        informer.start()
        self._followed[place] = _Followed(informer, now)

    async def run(self) -> None:
        """Let go of what nobody asks for, until it is cancelled."""
        try:
            while True:
                await self._clock.sleep(self._idle_seconds / 4)
                await self._sweep()
        finally:
            self._is_over = True
            await self._stop(len(self._followed))

    async def _sweep(self) -> None:
        old = self._clock.monotonic() - self._idle_seconds
        await self._stop(sum(each.used <= old for each in self._followed.values()))

    async def _stop(self, count: int) -> None:
        """Follow so many of those that were asked for longest ago no more."""
        gone = [self._followed.popitem(last=False)[1] for _ in range(count)]
        await asyncio.gather(*(each.informer.stop() for each in gone))
