"""What the clients of the demo saw, one request a row, in twenty bytes; in memory and as the file that grows."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["REGIONS", "SLOW_SECONDS", "Row", "pack", "read_rows", "rows_of"]

REGIONS: Final = ("cn-east", "cn-north", "us-west")
SLOW_SECONDS: Final = 0.8
"""What takes longer is a bad answer, as the shop's manifests have it."""
_ROW: Final = struct.Struct("<dfIHBB")


class Row(NamedTuple):
    """A request. sent: seconds since 1970; latency: seconds until the whole answer was there, or it was given up.

    region: an index of REGIONS; version: 0 where no service said one; status: 0 where there was no answer.
    """

    sent: float
    latency: float
    user: int
    status: int
    region: int
    version: int

    @property
    def ended(self) -> float:
        """When the answer was there."""
        return self.sent + self.latency

    @property
    def is_failed(self) -> bool:
        """Whether it had no answer, or one that says that the server is at fault."""
        return self.status == 0 or self.status >= 500

    @property
    def is_bad(self) -> bool:
        """Whether its user has noticed something: it failed, or took too long."""
        return self.is_failed or self.latency > SLOW_SECONDS


def pack(rows: Iterable[Row]) -> bytes:
    """Return rows as bytes."""
    return b"".join(_ROW.pack(*row) for row in rows)


def rows_of(data: bytes) -> Iterator[Row]:
    """Return the whole rows of bytes; one that is half written is left out."""
    return map(Row._make, _ROW.iter_unpack(data[: len(data) - len(data) % _ROW.size]))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file in the order in which they were sent; none where there is no file."""
    try:
        return sorted(rows_of(path.read_bytes()))
    except FileNotFoundError:
        return []
