"""Questions that many ask at the same moment, put to a program as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

__all__ = ["Batch"]

K = TypeVar("K")
V = TypeVar("V")


class Batch(Generic[K, V]):
    """Gathers the questions of one turn of the event loop. function: answers all of them; keys it leaves out have none.

    limit: questions a run; those beyond are for the next.
    """

    def __init__(self, function: Callable[[list[K]], Awaitable[Mapping[K, V]]], *, limit: int = 4096) -> None:
        self._function = function
        self._limit = limit
        self._open: list[K] = []
        self._task: asyncio.Task[Mapping[K, V]] | None = None

    async def ask(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the answers to these questions. Raises what the function raises."""
        wanted = list(dict.fromkeys(keys))
        found: dict[K, V] = {}
        for start in range(0, len(wanted), self._limit):
            part = wanted[start : start + self._limit]
            answers = await asyncio.shield(self._join(part))
            found.update({key: answers[key] for key in part if key in answers})
        return found

    def _join(self, keys: list[K]) -> asyncio.Task[Mapping[K, V]]:
        if self._task is None or len(self._open) + len(keys) > self._limit:
            self._open = []
            self._task = asyncio.get_running_loop().create_task(self._run(self._open))
        self._open.extend(keys)
        return self._task

    async def _run(self, keys: list[K]) -> Mapping[K, V]:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self._open is keys:
            self._task = None
        return await self._function(list(dict.fromkeys(keys)))
