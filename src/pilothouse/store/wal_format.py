"""The write-ahead log's bytes: segment headers and records. Pure functions; `docs/store-format.md` has the tables.

Two properties of a record make the end of the log exact. Its header has a checksum of its own, so that its length can
be trusted before its body is read. And no disk sector (512 bytes) that belongs to it is ever all zeros: the header
begins with a mark, the padding ends with bytes that are not zero, and a payload with a long run of zeros is masked.
So a sector of zeros within a record was never written, and a changed byte cannot look like one that was not.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from google_crc32c import extend

from pilothouse.store.errors import DamagedData, NewerFormat

__all__ = [
    "FORMAT_VERSION",
    "MASKED",
    "PADDING",
    "PLAIN",
    "RECORD_HEAD",
    "RECORD_HEADER",
    "RECORD_HEADER_SIZE",
    "SECTOR",
    "SEGMENT_HEADER_SIZE",
    "SegmentHeader",
    "frame",
    "mask",
    "parse_segment_name",
    "segment_name",
]

FORMAT_VERSION = 1
SECTOR = 512
"""What a disk writes whole or not at all, in bytes."""

_MAGIC = b"PHLOGSEG"
_SEGMENT = struct.Struct("<8sIIQQQI16x")
SEGMENT_HEADER_SIZE = _SEGMENT.size + 4

PLAIN = 0x9B52C50D
MASKED = 0x9B52C5F2
"""Marks that begin a record: its payload as it is, or masked because it has a long run of zeros."""

RECORD_HEAD = struct.Struct("<IIQQI")
RECORD_HEADER = struct.Struct("<IIQQII")
RECORD_HEADER_SIZE = RECORD_HEADER.size

PADDING = tuple(b"\xa5" * (2 + -(size + 2) % 8) for size in range(8))
"""What follows a payload, by the low three bits of its size: up to 8-byte alignment and never under two bytes."""

# Half a sector less what headers and padding may take of it: beyond a run of this length a sector that holds
# nothing else could be one changed byte away from all zeros.
_ZEROS = bytes(200)
_U32 = struct.Struct("<I")


class SegmentHeader(NamedTuple):
    """What a segment says of itself.

    `salt` seeds the header checksums of this log's records, so that no payload can pass for a record.
    `chain` is the checksum chain before the first record.
    """

    cluster_id: int
    salt: int
    sequence: int
    first_index: int
    chain: int

    def encode(self) -> bytes:
        """Return the header's bytes."""
        head = _SEGMENT.pack(
            _MAGIC, FORMAT_VERSION, self.salt, self.cluster_id, self.sequence, self.first_index, self.chain
        )
        return head + _U32.pack(extend(0, head))

    @classmethod
    def decode(cls, data: bytes, path: str) -> SegmentHeader:
        """Read a header; `DamagedData` and `NewerFormat` name `path`.

        Every version keeps the layout of these bytes, so the checksum is judged before the version.
        """
        head = data[: _SEGMENT.size]
        if len(data) < SEGMENT_HEADER_SIZE or _U32.unpack_from(data, _SEGMENT.size)[0] != extend(0, head):
            raise DamagedData(f"{path}: offset 0: the segment's header is damaged or cut short", path=path)
        magic, version, salt, cluster_id, sequence, first_index, chain = _SEGMENT.unpack(head)
        if magic != _MAGIC:
            raise DamagedData(f"{path}: offset 0: not a segment of a write-ahead log", path=path)
        if version > FORMAT_VERSION:
            raise NewerFormat(
                f"{path}: log format {version} was written by a newer program; this one reads up to {FORMAT_VERSION}: "
                "start the newer program, or restore a snapshot it saved"
            )
        return cls(cluster_id, salt, sequence, first_index, chain)


def segment_name(sequence: int, first_index: int) -> str:
    """Return a segment's file name."""
    return f"{sequence:016x}-{first_index:016x}.wal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """Return (sequence, first index) of a segment's file name, None for any other name."""
    sequence, dash, rest = name.partition("-")
    first, dot, suffix = rest.partition(".")
    if not dash or not dot or suffix != "wal" or len(sequence) != 16 or len(first) != 16:
        return None
    try:
        return int(sequence, 16), int(first, 16)
    except ValueError:
        return None


def frame(payload: bytes, index: int, chain: int, durable_index: int, salt: int) -> tuple[bytes, int]:
    """Return the record of `payload` and the chain after it.

    `chain` is the chain after record `index - 1`. `durable_index` is an index that is known to be durable now: an
    intact record proves that everything up to it was acknowledged, so a hole there is damage.
    """
    size = len(payload)
    mark = PLAIN
    if size >= 200 and _ZEROS in payload:
        mark = MASKED
        payload = mask(payload, salt)
    body = payload + PADDING[size & 7]
    chain = extend(chain, body)
    head = RECORD_HEAD.pack(mark, size, index, durable_index, chain)
    return head + _U32.pack(extend(salt, head)) + body, chain


def mask(payload: bytes, salt: int) -> bytes:
    """Combine a payload with the log's key stream; twice gives it back."""
    size = len(payload)
    stream = hashlib.shake_128(b"pilothouse log %d" % salt).digest(size)
    return (int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")
