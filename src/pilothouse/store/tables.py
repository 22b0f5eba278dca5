"""Snapshot tables: a stream of typed blocks under a checksum chain, from its header to its footer.

The same bytes are a checkpoint's file and what `snapshot save` streams. Encoder and decoder do no input or output.
`docs/store-format.md` has the layout.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import NoReturn

import msgspec
from google_crc32c import extend

from pilothouse.foundation.files import FileSystem
from pilothouse.store.errors import DamagedData, NewerFormat

__all__ = [
    "FORMAT_VERSION",
    "MAX_BLOCK_BYTES",
    "TableDecoder",
    "TableEncoder",
    "TableHeader",
    "read_table",
    "read_table_file",
]

FORMAT_VERSION = 1
MAX_BLOCK_BYTES = 64 * 1024 * 1024
"""The most bytes that a block may have, so that a reader's memory is bounded."""

_MAGIC = b"PHTABLE\n"
_START = struct.Struct("<8sII")
_BLOCK = struct.Struct("<B3xI")
_CRC = struct.Struct("<I")
_FOOTER = struct.Struct("<QQ")
_FOOTER_KIND = 0xFF
_MAX_META = 64 * 1024
_CHUNK = 1024 * 1024


class TableHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote a table. `purpose` is `base`, `delta` or `save`; times are left to file systems."""

    cluster_id: int
    member_id: int
    purpose: str
    program: str = ""


class TableEncoder:
    """Turns a header, blocks and a footer into bytes, in this order. `crc` is the chain so far, `size` the bytes."""

    def __init__(self) -> None:
        self.crc = 0
        self.size = 0
        self._blocks = 0
        self._payload_bytes = 0

    def encode_header(self, header: TableHeader) -> bytes:
        """Return the bytes that begin a table."""
        meta = msgspec.json.encode(header)
        data = _START.pack(_MAGIC, FORMAT_VERSION, len(meta)) + meta
        self.crc = extend(0, data)
        self.size = len(data) + _CRC.size
        return data + _CRC.pack(self.crc)

    def encode_block(self, kind: int, payload: bytes) -> bytes:
        """Return a block; `kind` is 0 to 254. Raises `ValueError` over `MAX_BLOCK_BYTES`."""
        if not 0 <= kind < _FOOTER_KIND:
            raise ValueError(f"block kind {kind} is not in 0..254")
        if len(payload) > MAX_BLOCK_BYTES:
            raise ValueError(f"a block of {len(payload)} bytes where {MAX_BLOCK_BYTES} are allowed")
        self._blocks += 1
        self._payload_bytes += len(payload)
        return self._encode(kind, payload)

    def encode_footer(self) -> bytes:
        """Return the bytes that end a table: a block with the number of blocks and of their bytes."""
        return self._encode(_FOOTER_KIND, _FOOTER.pack(self._blocks, self._payload_bytes))

    def _encode(self, kind: int, payload: bytes) -> bytes:
        head = _BLOCK.pack(kind, len(payload))
        self.crc = extend(extend(self.crc, head), payload)
        self.size += len(head) + _CRC.size + len(payload)
        return b"".join((head, _CRC.pack(self.crc), payload))


class TableDecoder:
    """Turns the bytes of a table, fed in pieces of any size, back into its header and blocks.

    `name` is what errors call the table. Holds at most one block and one piece.
    """

    def __init__(self, name: str) -> None:
        self.header: TableHeader | None = None
        self.crc = 0
        """The chain over everything decoded."""
        self._name = name
        self._parts: list[bytes] = []
        self._held = 0
        self._wanted = _START.size
        self._offset = 0
        self._blocks = 0
        self._payload_bytes = 0
        self._ended = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next bytes and return the blocks that they complete.

        Raises `DamagedData` or `NewerFormat`; what was returned before was intact.
        """
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        buffer = b"".join(self._parts)
        at = 0
        blocks: list[tuple[int, bytes]] = []
        while len(buffer) - at >= self._wanted:
            used = self._take_header(buffer) if self.header is None else self._take_block(buffer, at, blocks)
            at += used
            self._offset += used
            if self._ended and at < len(buffer):
                self._damaged("the table goes on after its footer")
        self._parts = [buffer[at:]] if at < len(buffer) else []
        self._held = len(buffer) - at
        return blocks

    def finish(self) -> None:
        """Say that no more bytes come; raises `DamagedData` where the footer is missing."""
        if not self._ended:
            self._damaged(f"the table is truncated at byte {self._offset + self._held}")

    def _take_header(self, buffer: bytes) -> int:
        magic: bytes
        version: int
        meta_size: int
        magic, version, meta_size = _START.unpack_from(buffer)
        if magic != _MAGIC:
            self._damaged("not a snapshot table")
        if version > FORMAT_VERSION:
            raise NewerFormat(
                f"{self._name}: table format {version} was written by a newer program; this one reads up to "
                f"{FORMAT_VERSION}: use the newer program"
            )
        if meta_size > _MAX_META:
            self._damaged(f"a header of {meta_size} bytes")
        end = _START.size + meta_size
        if len(buffer) < end + _CRC.size:
            self._wanted = end + _CRC.size
            return 0
        self.crc = extend(0, buffer[:end])
        if self.crc != _CRC.unpack_from(buffer, end)[0]:
            self._damaged("the header's checksum is wrong")
        try:
            self.header = msgspec.json.decode(buffer[_START.size : end], type=TableHeader)
        except msgspec.MsgspecError as error:
            self._damaged(f"the header cannot be read: {error}")
        self._wanted = _BLOCK.size + _CRC.size
        return end + _CRC.size

    def _take_block(self, buffer: bytes, at: int, blocks: list[tuple[int, bytes]]) -> int:
        kind: int
        size: int
        kind, size = _BLOCK.unpack_from(buffer, at)
        start = at + _BLOCK.size + _CRC.size
        end = start + size
        if size > MAX_BLOCK_BYTES:
            self._damaged(f"a block of {size} bytes where {MAX_BLOCK_BYTES} are allowed")
        if end > len(buffer):
            self._wanted = end - at
            return 0
        payload = buffer[start:end]
        crc = extend(extend(self.crc, buffer[at : at + _BLOCK.size]), payload)
        if crc != _CRC.unpack_from(buffer, at + _BLOCK.size)[0]:
            self._damaged(f"the checksum of block {self._blocks} is wrong")
        self.crc = crc
        self._wanted = _BLOCK.size + _CRC.size
        if kind == _FOOTER_KIND:
            self._check_footer(payload)
        else:
            self._blocks += 1
            self._payload_bytes += size
            blocks.append((kind, payload))
        return end - at

    def _check_footer(self, payload: bytes) -> None:
        if payload != _FOOTER.pack(self._blocks, self._payload_bytes):
            self._damaged("the footer does not agree with the blocks")
        self._ended = True
        self._wanted = 1

    def _damaged(self, what: str) -> NoReturn:
        raise DamagedData(f"{self._name}: offset {self._offset}: {what}", path=self._name, offset=self._offset)


def read_table(chunks: Iterable[bytes], name: str, decoder: TableDecoder | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, payload) of a table's blocks; raises as `TableDecoder` does.

    The end of the iteration means that the table was whole. Give a `decoder` to see header and checksum.
    """
    decoder = decoder or TableDecoder(name)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.finish()


def read_table_file(
    fs: FileSystem, path: str, decoder: TableDecoder | None = None, *, size: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, payload) of the blocks of a table's file, or of its first `size` bytes."""
    fd = fs.open(path, os.O_RDONLY)
    try:
        yield from read_table(_chunks(fs, fd, fs.size(fd) if size is None else size), path, decoder)
    finally:
        fs.close(fd)


def _chunks(fs: FileSystem, fd: int, size: int) -> Iterator[bytes]:
    offset = 0
    while data := fs.pread(fd, min(_CHUNK, size - offset), offset):
        yield data
        offset += len(data)
