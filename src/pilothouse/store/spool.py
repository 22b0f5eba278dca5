"""A copy of the whole store as a stream: written to a spool file first, so that a slow reader holds nothing up."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterable

from pilothouse import __version__
from pilothouse.foundation.files import FileSystem, write_all
from pilothouse.store import images
from pilothouse.store.datadir import DataDir
from pilothouse.store.machine import StateMachine
from pilothouse.store.tables import TableEncoder, TableHeader

__all__ = ["spool_snapshot"]

_CHUNK = 256 * 1024
_numbers = itertools.count(1)


async def spool_snapshot(
    machine: StateMachine, position: Callable[[], int], fs: FileSystem, directory: DataDir
) -> AsyncIterator[bytes]:
    """Yield the bytes of a table with the whole state as it is now; `position` gives the last log index applied."""
    identity = directory.identity
    header = TableHeader(
        cluster_id=identity.cluster_id, member_id=identity.member_id, purpose="save", program=__version__
    )
    path = os.path.join(directory.snap, f"spool-{next(_numbers)}.tmp")
    fd = await asyncio.to_thread(fs.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        # The name goes at once, so that nothing is left behind whatever happens; the file lives as long as it is open.
        await asyncio.to_thread(fs.unlink, path)
        size = await _fill(machine, position, header, fs, fd)
        offset = 0
        while offset < size:
            chunk = await asyncio.to_thread(fs.pread, fd, _CHUNK, offset)
            offset += len(chunk)
            yield chunk
    finally:
        fs.close(fd)


async def _fill(
    machine: StateMachine, position: Callable[[], int], header: TableHeader, fs: FileSystem, fd: int
) -> int:
    encoder = TableEncoder()
    offset = 0

    def append(data: bytes) -> None:
        nonlocal offset
        offset = write_all(fs.pwrite, fd, data, offset)

    def append_all(blocks: Iterable[tuple[int, bytes]]) -> None:
        for kind, payload in blocks:
            append(encoder.encode_block(kind, payload))

    async def write(blocks: Iterable[tuple[int, bytes]]) -> None:
        await asyncio.to_thread(append_all, blocks)

    append(encoder.encode_header(header))
    # Nothing may be awaited between the two, or a compaction could take away what is to be written.
    await images.write_base(machine, images.capture(machine, position()), write)
    append(encoder.encode_footer())
    return offset
