"""What the pages of delivery are drawn with: marks of statuses, trees, bars, lines of days. Pure text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilothouse.foundation.terminal import printable

__all__ = ["Node", "aligned", "bar", "marked", "sparkline", "tree_lines"]

_MARKS: Final = {
    "◌": ("Progressing", "Running", "ContainerCreating", "Init", "PodInitializing"),
    "◷": ("Pending", "Waiting", "Terminating"),
    "✔": ("Healthy", "Successful", "Succeeded", "Completed", "Synced", "Active"),
    "॥": ("Paused", "Suspended"),
    "✖": ("Degraded", "Failed", "ReplicaFailure", "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "RolledBack"),
    "⚠": ("Error", "InvalidSpec", "OutOfSync", "Missing"),
    "?": ("Unknown", "Inconclusive"),
    "•": ("ScaledDown",),
}
_MARK: Final = {name: mark for mark, names in _MARKS.items() for name in names}
_EIGHTHS: Final = "▁▂▃▄▅▆▇█"
_NOTHING: Final = "·"


@dataclass(frozen=True, slots=True)
class Node:
    """A line of a tree: its first cell, which is indented, the other cells, and what is below it."""

    name: str
    cells: Sequence[str] = ()
    below: Sequence[Node] = field(default_factory=tuple)


def marked(status: str, mark: str = "") -> str:
    """Return a status with its mark, as Argo's plugin has them; mark: instead of the usual one."""
    found = mark or _MARK.get(status, "")
    return f"{found} {status}" if found else status


def tree_lines(root: Node, titles: Sequence[str]) -> list[str]:
    """Return a tree as aligned lines below a line of titles."""
    return aligned([[*titles], *_rows(root, "", "")])


def _rows(node: Node, lead: str, below: str) -> Iterable[list[str]]:
    yield [f"{lead}{printable(node.name)}", *(printable(cell) for cell in node.cells)]
    for place, each in enumerate(node.below):
        is_last = place == len(node.below) - 1
        yield from _rows(each, f"{below}{'└──' if is_last else '├──'}", f"{below}{'   ' if is_last else '│  '}")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines; rows may be shorter than others."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[place]) for row in rows if place < len(row)) for place in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def bar(share: float | None, width: int = 10) -> str:
    """Return a share (0 to 1) as a bar; what is below 0 is empty, and None is no bar."""
    if share is None:
        return ""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def sparkline(values: Iterable[float | None]) -> str:
    """Return shares (0 to 1) as a line of bars, one character each; `·` where there is none."""
    return "".join(_NOTHING if one is None else _EIGHTHS[min(max(int(one * 8), 0), 7)] for one in values)
