"""Numbers out of a gateway of this machine, by its admin socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pilothouse.foundation.terminal import CommandError
from pilothouse.traffic.admin.answers import Top
from pilothouse.traffic.admin.asking import ask

from .numbers import Flow, NoNumbers

__all__ = ["GatewayNumbers"]

_WINDOW_SECONDS: Final = 5
"""Over which errors and latencies are judged too."""
_MOST_ROWS: Final = 1_000
_PATIENCE_SECONDS: Final = 2.0


class GatewayNumbers:
    """Asks `/top` of the gateway whose socket is at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def look(self) -> tuple[Sequence[Flow], Sequence[Flow]]:
        """See `Numbers.look`."""
        return await asyncio.to_thread(self._ask, "route,version"), await asyncio.to_thread(
            self._ask, "route,version,region"
        )

    def _ask(self, by: str) -> Sequence[Flow]:
        try:
            top = ask(
                self._path, "top", Top, {"seconds": _WINDOW_SECONDS, "by": by, "most": _MOST_ROWS}, _PATIENCE_SECONDS
            )
        except CommandError as error:
            raise NoNumbers(error.message) from error
        return [
            Flow(
                row.names.get("route", ""),
                row.names.get("version", ""),
                row.names.get("region", ""),
                row.measured.rate,
                row.measured.error_ratio,
                row.measured.p95,
            )
            for row in top.rows
        ]
