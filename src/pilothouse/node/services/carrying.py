"""All connections that this program carries, and their limits: how many, how long idle, how long to gone endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from .selection import Target
from .splicing import Splice

__all__ = ["Carried", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the user-space proxy.

    connections: at a time, of all services; further ones are reset. idle_seconds: until a connection without bytes is
    ended. drain_seconds: until one is ended whose endpoint is gone. connect_seconds: for each try, of at most three.
    flows: UDP clients at a time, of each service; udp_idle_seconds: until one without datagrams is forgotten.
    pipes: transfers in bulk at a time; others go by memory.
    """

    connections: int = 4_096
    idle_seconds: float = 3_600.0
    drain_seconds: float = 60.0
    connect_seconds: float = 3.0
    flows: int = 1_024
    udp_idle_seconds: float = 60.0
    pipes: int = 512


class Carried:
    """The connections at a time."""

    def __init__(self) -> None:
        self.refused = 0
        self.opening = 0
        self._splices: dict[Splice, tuple[Target, float]] = {}

    @property
    def connections(self) -> int:
        """How many there are, with those that are being made."""
        return len(self._splices) + self.opening

    def add(self, splice: Splice, target: Target) -> None:
        """Take a connection to an endpoint."""
        self._splices[splice] = target, 0.0

    def remove(self, splice: Splice) -> None:
        """Forget a connection that ended."""
        self._splices.pop(splice, None)

    def tidy(self, live: Collection[Target], limits: Limits) -> None:
        """End connections that are idle for too long, or whose endpoint is not among the live ones for too long."""
        now = asyncio.get_running_loop().time()
        for splice, (target, since) in list(self._splices.items()):
            if target in live:
                if since:
                    self._splices[splice] = target, 0.0
            elif not since:
                self._splices[splice] = target, now
            if (since and now - since > limits.drain_seconds) or now - splice.moved_at > limits.idle_seconds:
                splice.abort()

    def close(self) -> None:
        """End all."""
        for splice in list(self._splices):
            splice.abort()
