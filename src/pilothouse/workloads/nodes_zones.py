"""How fast nodes of a zone may lose their pods: the more are lost the slower, for it may be us who are cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["Zones"]

_State = Literal["Normal", "PartialDisruption", "FullDisruption"]

_RATE: Final = 0.1
"""Nodes of a zone that may be tainted in a second."""
_SLOW_RATE: Final = 0.01
_LARGE: Final = 50
"""Nodes of a zone beyond which some are tainted, slowly, though many are lost; in a smaller one none is."""
_THRESHOLD: Final = 0.55
"""The part of a zone's nodes that are lost from which many are."""
_FEW: Final = 2


@dataclass(slots=True)
class _Zone:
    ready: int = 0
    lost: int = 0
    next_at: float = 0.0

    @property
    def state(self) -> _State:
        if not self.ready and self.lost:
            return "FullDisruption"
        if self.lost > _FEW and self.lost / (self.lost + self.ready) >= _THRESHOLD:
            return "PartialDisruption"
        return "Normal"

    @property
    def rate(self) -> float:
        if self.state != "PartialDisruption":
            return _RATE
        return _SLOW_RATE if self.ready + self.lost > _LARGE else 0.0


@dataclass(slots=True)
class Zones:
    """Counts the nodes of each zone that are ready and lost."""

    _zones: dict[str, _Zone] = field(default_factory=dict)
    _nodes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    _seen_ready: bool = False

    def observe(self, node: str, zone: str, ready: bool) -> None:
        """Note how a node is, and where."""
        if self._nodes.get(node) == (zone, ready):
            return
        self.forget(node)
        self._nodes[node] = zone, ready
        found = self._zones.setdefault(zone, _Zone())
        if ready:
            found.ready += 1
            self._seen_ready = True
        else:
            found.lost += 1

    def forget(self, node: str) -> None:
        """Note that a node is gone, or does not count."""
        before = self._nodes.pop(node, None)
        if before is None:
            return
        zone = self._zones[before[0]]
        if before[1]:
            zone.ready -= 1
        else:
            zone.lost -= 1

    @property
    def are_all_lost(self) -> bool:
        """Whether no node is ready: more likely it is us who are cut off, so that nothing is to be evicted."""
        return bool(self._nodes) and all(not zone.ready for zone in self._zones.values())

    def state(self, zone: str) -> _State:
        """Return how a zone is."""
        found = self._zones.get(zone)
        return "Normal" if found is None else found.state

    def wait(self, zone: str, now: float) -> float:
        """Take the right to taint one node; return 0 if it is given, else in how many seconds to ask again."""
        if self.are_all_lost:
            return math.inf
        found = self._zones.setdefault(zone, _Zone())
        rate = found.rate
        if not rate:
            return math.inf
        if now < found.next_at:
            return min(found.next_at - now, 1 / rate)
        found.next_at = now + 1 / rate
        return 0.0
