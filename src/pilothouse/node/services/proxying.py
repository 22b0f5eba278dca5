"""What carries services out: the interface that both back ends have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from .selection import ServicePortRoute

__all__ = ["Backend", "Changes"]

Changes: TypeAlias = Mapping[str, tuple[tuple[ServicePortRoute, ...], tuple[ServicePortRoute, ...]]]
"""The routes before and after, of each service that changed."""


class Backend(Protocol):
    """Carries the routes of a node's services out."""

    @property
    def name(self) -> str:
        """What it is called in metrics and messages."""

    async def start(self) -> None:
        """Prepare; nothing is carried out yet. Raises what `apply` does."""

    async def apply(self, changes: Changes) -> None:
        """Carry changes out. What raises is tried again, with more changes or none."""

    async def check(self) -> bool:
        """Return whether what was applied is still there."""

    async def stop(self) -> None:
        """Take everything away."""

    def problems(self) -> list[str]:
        """Return what is not carried out, and why."""

    def figures(self) -> Mapping[str, float]:
        """Return figures by name, for metrics."""
