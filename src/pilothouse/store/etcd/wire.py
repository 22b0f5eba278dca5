"""Assemble the messages that make up the traffic (headers, keys, events) from parts that are encoded once.

A protobuf message is the concatenation of its fields, and a nested message is its bytes behind a tag and a length.
So an event encoded once serves every watcher, and an answer is its header followed by what is already bytes.
Tags are field number times 8 plus wire type (0: varint, 2: length and bytes), as protobuf's encoding specification
says. What is made here is canonical: fields in order, defaults left out, shortest varints; byte for byte what the
protobuf library would make.
"""

from __future__ import annotations

from collections.abc import Iterable

from pilothouse.store.model import Event, KeyValue

__all__ = ["HeaderEncoder", "event_field", "key_value", "key_values", "nested", "varint"]

_ONE = [bytes((i,)) for i in range(128)]
_MORE = [bytes((i | 128,)) for i in range(128)]
_MASK = (1 << 64) - 1


def varint(number: int) -> bytes:
    """Encode an integer; a negative one takes ten bytes, as an int64 does."""
    if 0 <= number < 128:
        return _ONE[number]
    number &= _MASK
    if number < 16384:
        return _MORE[number & 127] + _ONE[number >> 7]
    parts = []
    while number > 127:
        parts.append(_MORE[number & 127])
        number >>= 7
    parts.append(_ONE[number])
    return b"".join(parts)


_SMALL = [varint(i) for i in range(4096)]
_LOW = [_MORE[i & 127] + _MORE[i >> 7] for i in range(16384)]
"""The first two bytes of every longer varint: revisions and sizes take one look-up here and one in `_SMALL`."""
_LOW_LIMIT = 16384
_HIGH_LIMIT = 4096 << 14
_SHORT = [varint(i) for i in range(_LOW_LIMIT)]
"""Whole varints of two bytes at most: what a young store's revisions are."""


def nested(tag: bytes, body: bytes) -> bytes:
    """Put a nested message or a byte string behind its tag and length."""
    return b"%b%b%b" % (tag, varint(len(body)), body)


def key_value(kv: KeyValue) -> bytes:
    """Encode a `mvccpb.KeyValue`. Revisions are not negative."""
    value = kv.value
    parts = [b"\x0a", varint(len(kv.key)), kv.key] if kv.key else []
    if kv.create_revision:
        parts += (b"\x10", varint(kv.create_revision))
    if kv.mod_revision:
        parts += (b"\x18", varint(kv.mod_revision))
    if kv.version:
        parts += (b"\x20", varint(kv.version))
    if value:
        parts += (b"\x2a", varint(len(value)), value)
    if kv.lease:
        parts += (b"\x30", varint(kv.lease))
    return b"".join(parts)


def key_values(kvs: Iterable[KeyValue], tag: bytes) -> list[bytes]:
    """Encode many keys, each behind `tag`, ready to be joined: about 0.5 µs a key.

    The straight path is for what fills a store: keys and values under 4 KiB with revisions under 2^26.
    """
    fields: list[bytes] = []
    add = fields.append
    small, low, short = _SMALL, _LOW, _SHORT
    low_limit, high_limit = _LOW_LIMIT, _HIGH_LIMIT
    for kv in kvs:
        key, value, created, modified = kv.key, kv.value, kv.create_revision, kv.mod_revision
        size, version = len(value), kv.version
        if 0 < created <= modified < high_limit and 0 < size < 4096 and 0 < version < 4096 and 0 < len(key) < 4096:
            body = b"\x0a%b%b\x10%b%b\x18%b%b\x20%b\x2a%b%b" % (
                small[len(key)],
                key,
                low[created & 16383] if created >= low_limit else short[created],
                small[created >> 14] if created >= low_limit else b"",
                low[modified & 16383] if modified >= low_limit else short[modified],
                small[modified >> 14] if modified >= low_limit else b"",
                small[version],
                small[size],
                value,
            )
            if kv.lease:
                body += b"\x30" + varint(kv.lease)
        else:
            body = key_value(kv)
        size = len(body)
        add(b"%b%b%b" % (tag, small[size] if size < 4096 else varint(size), body))
    return fields


def event_field(event: Event, prev_kv: bool) -> bytes:
    """Return the event as a field of a `WatchResponse`, encoded once for all watchers."""
    if prev_kv and event.prev_kv is not None:
        wire = event.wire_prev
        if wire is None:
            wire = event.wire_prev = _event(event, nested(b"\x1a", key_value(event.prev_kv)))
        return wire
    wire = event.wire
    if wire is None:
        wire = event.wire = _event(event, b"")
    return wire


def _event(event: Event, prev: bytes) -> bytes:
    kind = b"\x08\x01" if event.kv.version == 0 else b""
    return nested(b"\x5a", kind + nested(b"\x12", key_value(event.kv)) + prev)


class HeaderEncoder:
    """Encodes response headers (field 1 of every answer) of one member; only the revision differs between two.

    Costs about 0.2 µs, or a comparison when the revision is the one encoded last.
    """

    __slots__ = ("_end", "_field", "_high", "_revision", "_start", "_tail")

    def __init__(self, cluster_id: int, member_id: int, raft_term: int) -> None:
        start = b"\x08" + varint(cluster_id) if cluster_id else b""
        if member_id:
            start += b"\x10" + varint(member_id)
        self._start = start
        self._end = b"\x20" + varint(raft_term) if raft_term else b""
        self._high = -1
        self._tail = b""
        self._revision = -1
        self._field = b""

    def field(self, revision: int) -> bytes:
        """Return the header with its tag and length."""
        if revision == self._revision:
            return self._field
        if revision < _LOW_LIMIT:
            middle = b"\x18" + varint(revision) if revision else b""
            made = nested(b"\x0a", b"%b%b%b" % (self._start, middle, self._end))
        else:
            high = revision >> 14
            if high != self._high:
                self._high = high
                self._tail = varint(high) + self._end
            # A header is at most 10 + 10 + 11 + 11 bytes and its three tags, so its length is one byte.
            start, tail = self._start, self._tail
            made = b"\x0a%b%b\x18%b%b" % (_ONE[len(start) + 3 + len(tail)], start, _LOW[revision & 16383], tail)
        self._revision = revision
        self._field = made
        return made
