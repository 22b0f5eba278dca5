"""Which endpoint each client had last, as `sessionAffinity: ClientIP` wants it kept."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import Final

from .selection import Target

__all__ = ["Affinity"]

_MOST: Final = 65_536


class Affinity:
    """Clients and their endpoints, for `seconds` since each came last; beyond 65,536 the oldest is forgotten."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._now = now
        self._known: OrderedDict[str, tuple[Target, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, client: str, among: Container[Target]) -> Target | None:
        """Return the endpoint that a client had, None where that is too long ago or the endpoint is gone."""
        found = self._known.get(client)
        if found is None:
            return None
        target, at = found
        if self._now() - at > self.seconds or target not in among:
            del self._known[client]
            return None
        return target

    def remember(self, client: str, target: Target) -> None:
        """Note which endpoint a client has now."""
        self._known[client] = target, self._now()
        self._known.move_to_end(client)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
