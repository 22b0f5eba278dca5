"""A saved snapshot as etcd's clients keep it: filled up to whole sectors, and in the last 32 bytes its SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterable, Callable

from pilothouse.foundation.files import OsFileSystem
from pilothouse.store.errors import DamagedData

__all__ = ["SECTOR", "filling", "save", "snapshot_size"]

SECTOR = 512
"""What a snapshot's size is a multiple of, without its checksum."""

_DIGEST = hashlib.sha256().digest_size
_CHUNK = 1 << 20
_LENGTH = 2


def filling(size: int) -> bytes:
    """Return what follows a snapshot of `size` bytes up to whole sectors; its last two bytes hold its length."""
    length = -(size + _LENGTH) % SECTOR + _LENGTH
    return bytes(length - _LENGTH) + length.to_bytes(_LENGTH, "big")


async def save(blocks: AsyncIterable[bytes], path: str, progress: Callable[[int], None] | None = None) -> int:
    """Write a snapshot durably to a new file, mode 0600, whole or not at all; return its size in bytes.

    Raises `FileExistsError`, and `DamagedData` where what arrived does not match its checksum.
    """
    directory, name = os.path.split(path)
    directory = directory or os.curdir
    # A name of its own: one that others can guess may be a file of theirs, or a link to anywhere.
    fd, partial = tempfile.mkstemp(".part", f"{name}.", directory)
    try:
        with os.fdopen(fd, "wb") as file:
            digest, size, tail = hashlib.sha256(), 0, b""
            async for block in blocks:
                file.write(block)
                size += len(block)
                # The checksum is not of itself, and which bytes are the last is known at the end.
                tail += block
                digest.update(tail[:-_DIGEST])
                tail = tail[-_DIGEST:]
                if progress is not None:
                    progress(size)
            if size % SECTOR != _DIGEST or tail != digest.digest():
                raise DamagedData(
                    f"{path}: the {size} bytes received do not match their checksum; save again", path=path
                )
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, does not replace what is there.
        os.link(partial, path)
        OsFileSystem().sync_directory(directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    return size


def snapshot_size(path: str) -> int | None:
    """Return the bytes of a saved snapshot before its filling and checksum; None where it does not end in one."""
    size = os.stat(path).st_size
    if size % SECTOR != _DIGEST or size < SECTOR or not _ends_in_checksum(path, size):
        return None
    with open(path, "rb") as file:
        file.seek(size - _DIGEST - _LENGTH)
        return size - _DIGEST - int.from_bytes(file.read(_LENGTH), "big")


def _ends_in_checksum(path: str, size: int) -> bool:
    with open(path, "rb") as file:
        digest, left = hashlib.sha256(), size - _DIGEST
        while left and (data := file.read(min(left, _CHUNK))):
            digest.update(data)
            left -= len(data)
        return file.read() == digest.digest()
