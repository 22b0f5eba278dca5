"""What rows of the node table are made of: pods on nodes, taints, and the log of changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from pilothouse.kinds.structs import Pod

from .shapes import PodShape

__all__ = ["ChangeLog", "NodeTaint", "Placed"]

_LOG: Final = 4096
"""Changes that are remembered; who is behind by more looks at all rows."""


@dataclass(slots=True, eq=False)
class Placed:
    """A pod on a node, bound or about to be."""

    uid: str
    pod: Pod
    shape: PodShape
    node: str
    row: int
    terminating: bool
    assumed: bool = False


class NodeTaint(NamedTuple):
    """A taint without the time it was put there."""

    key: str
    value: str
    effect: str


class ChangeLog:
    """The rows that changed, in order. Positions only grow; what is older than `base` is forgotten."""

    __slots__ = ("base", "entries")

    def __init__(self) -> None:
        self.base = 0
        self.entries: list[tuple[int, bool]] = []

    @property
    def position(self) -> int:
        """How many changes there were."""
        return self.base + len(self.entries)

    def note(self, row: int, node: bool) -> None:
        """Add a change: of the node itself, or of the pods on it."""
        if len(self.entries) >= _LOG:
            self.base += len(self.entries)
            self.entries.clear()
        self.entries.append((row, node))

    def since(self, position: int) -> list[tuple[int, bool]] | None:
        """Give the changes from a position on; None where they are forgotten."""
        return None if position < self.base else self.entries[position - self.base :]
