"""Small documents under a checksum: JSON that a person can read and that a program can trust."""

from __future__ import annotations

import contextlib
import os
from typing import TypeVar

import msgspec
from google_crc32c import extend

from pilothouse.foundation.files import FileSystem, write_all
from pilothouse.store.errors import DamagedData, NewerFormat

__all__ = ["read_sealed", "write_sealed"]

T = TypeVar("T", bound=msgspec.Struct)

_MAX_BYTES = 16 * 1024 * 1024


class _Sealed(msgspec.Struct):
    format: int
    crc32c: str
    content: msgspec.Raw


def write_sealed(fs: FileSystem, path: str, content: msgspec.Struct, version: int) -> None:
    """Put `content` in the place of the file at `path`, durable on return, all or nothing.

    Raises `OSError`. Until the rename nothing has changed; after it the caller syncs the directory.
    """
    raw = msgspec.json.encode(content)
    data = msgspec.json.encode(_Sealed(version, _seal(version, raw), msgspec.Raw(raw))) + b"\n"
    temporary = path + ".tmp"
    try:
        _write_whole(fs, temporary, data)
        fs.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            fs.unlink(temporary)
        raise


def read_sealed(fs: FileSystem, path: str, kind: type[T], version: int) -> T:
    """Read what `write_sealed` wrote.

    Raises `NewerFormat` above `version`, `DamagedData` where checksum or content is wrong.
    """
    fd = fs.open(path, os.O_RDONLY)
    try:
        data = fs.pread(fd, _MAX_BYTES, 0)
    finally:
        fs.close(fd)
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedData(f"{path}: offset 0: not a document of the store ({error})", path=path) from error
    raw = bytes(sealed.content)
    if sealed.crc32c != _seal(sealed.format, raw):
        raise DamagedData(f"{path}: offset 0: the checksum is wrong", path=path)
    if sealed.format > version:
        raise NewerFormat(
            f"{path}: format {sealed.format} was written by a newer program; this one reads up to {version}: start "
            "the newer program, or restore a snapshot it saved into a new directory"
        )
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedData(f"{path}: offset 0: the content cannot be read ({error})", path=path) from error


def _seal(version: int, raw: bytes) -> str:
    return f"{extend(extend(0, b'%d ' % version), raw):08x}"


def _write_whole(fs: FileSystem, path: str, data: bytes) -> None:
    fd = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(fs.pwrite, fd, data, 0)
        fs.fsync(fd)
    finally:
        fs.close(fd)
