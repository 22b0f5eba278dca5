"""The front door: a gateway that forwards without copying, splits traffic exactly, and counts every answer.

`config` is what it is told, pushed to its workers; everything else is imported when it is first named.
"""

from __future__ import annotations

__all__: list[str] = []
