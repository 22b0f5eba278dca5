"""The hash of a key space as etcd computes it, so that two stores can be compared whatever engine they run on.

CRC-32C over the bucket name "key" and then, in order of revision, each retained revision's key (8 bytes big-endian
main revision, "_", 8 bytes sub revision, "t" for a tombstone) and value (a protobuf `mvccpb.KeyValue`). Versions
that compaction has given up do not count, whether or not they are still there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from operator import attrgetter

import google_crc32c

from pilothouse.store.etcd.wire import key_value
from pilothouse.store.model import KeyValue

__all__ = ["crc_of", "hashable"]

_REVISION = struct.Struct(">qcq")
_CHUNK = 1000


def hashable(
    live: Iterable[KeyValue], old: Iterable[tuple[list[KeyValue], KeyValue | None]], revision: int, compacted: int
) -> list[KeyValue]:
    """Choose the versions that count at `revision`, in order of revision.

    `old` gives for each key its replaced versions and the current one. Of the versions up to the line of the last
    compaction only those count that were still current at `revision`, and no tombstones; where no key lived at
    `revision`, those that were current at the line.
    """
    chosen = [kv for kv in live if kv.mod_revision <= revision]
    chains = [chain if current is None else [*chain, current] for chain, current in old]
    bound = revision if chosen or any(_lived(chain, revision) for chain in chains) else compacted
    for chain in chains:
        for kv, following in pairwise([*chain, None]):
            if kv is None or kv.mod_revision > revision or (following is None and kv.version):
                continue  # the last one lives and has been chosen above
            outlived = following is None or following.mod_revision > bound
            if kv.mod_revision > compacted or (outlived and kv.version):
                chosen.append(kv)
    chosen.sort(key=attrgetter("mod_revision", "sub"))
    return chosen


def _lived(chain: list[KeyValue], revision: int) -> bool:
    current = None
    for kv in chain:
        if kv.mod_revision <= revision:
            current = kv
    return current is not None and current.version > 0


def crc_of(versions: list[KeyValue]) -> int:
    """Return the CRC-32C of versions in order of revision; about 2 µs each, so call it off the event loop."""
    crc: int = google_crc32c.value(b"key")
    for start in range(0, len(versions), _CHUNK):
        parts: list[bytes] = []
        for kv in versions[start : start + _CHUNK]:
            place = _REVISION.pack(kv.mod_revision, b"_", kv.sub)
            parts += (place, key_value(kv)) if kv.version else (place, b"t", key_value(KeyValue(kv.key)))
        crc = google_crc32c.extend(crc, b"".join(parts))
    return crc
