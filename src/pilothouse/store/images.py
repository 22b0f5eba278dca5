"""What a checkpoint holds: the state machine as blocks, whole (a base) or what changed since another (a delta).

Block kinds: META (everything small, first in its table), LIVE (current versions in key order), OLD (replaced
versions and tombstones that compaction has not dropped) and CHANGES (whole revisions in order). Versions are
MessagePack arrays of `KeyValue`, some hundred a block, fewer where they are large, which msgspec decodes at several
million a second.

A base is written at one revision while writes go on: versions are immutable, the key space is pinned so that
compaction drops none of them, and the walk goes in chunks that leave the event loop free in between.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator

import msgspec

from pilothouse.store.auth_commands import AuthState
from pilothouse.store.changelog import Change, each
from pilothouse.store.machine import StateMachine
from pilothouse.store.model import Alarm, KeyValue

__all__ = ["Meta", "capture", "delta_blocks", "load", "write_base"]

META = 1
LIVE = 2
OLD = 3
CHANGES = 4

_BLOCK = 500
_BLOCK_BYTES = 1024 * 1024
"""Keys and values after which a block ends; far below what a table takes in one, and the last value may be large."""
_WALK = 4000
"""Keys looked at in one go on the event loop, about 2 ms."""

_encode = msgspec.msgpack.Encoder().encode
_decode_kvs = msgspec.msgpack.Decoder(list[KeyValue]).decode


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """Where a table stands: log index and revision it includes, and all state that is not keys."""

    index: int
    revision: int
    compact_revision: int
    leases: list[tuple[int, int]]
    alarms: list[Alarm]
    auth: AuthState


_decode_meta = msgspec.msgpack.Decoder(Meta).decode


def capture(machine: StateMachine, index: int) -> Meta:
    """Take the small state at this instant; `index` is the last log index applied."""
    return Meta(
        index,
        machine.keys.revision,
        machine.keys.compact_revision,
        machine.leases.dump(),
        sorted(machine.alarms, key=lambda alarm: (alarm.member_id, alarm.alarm)),
        machine.auth.dump(),
    )


async def write_base(
    machine: StateMachine, meta: Meta, write: Callable[[Iterable[tuple[int, bytes]]], Awaitable[None]]
) -> None:
    """Write the whole state at `meta.revision`, which must be the current one when this is called.

    `write(blocks)` stores some blocks; they are encoded as it takes them, so it should do so off the event loop.
    """
    keys = machine.keys
    keys.pin()
    try:
        old_keys = keys.old_keys()
        await write([(META, _encode(meta))])
        after: bytes | None = None
        while True:
            kvs, after = keys.live_at(meta.revision, after, _WALK)
            if after is None:
                break
            await write(_blocks(LIVE, kvs))
        for start in range(0, len(old_keys), _WALK):
            await write(_blocks(OLD, keys.old_at(old_keys[start : start + _WALK], meta.revision)))
    finally:
        keys.unpin()


def _blocks(kind: int, kvs: Iterable[KeyValue]) -> Iterator[tuple[int, bytes]]:
    chunk: list[KeyValue] = []
    size = 0
    for kv in kvs:
        chunk.append(kv)
        size += len(kv.key) + len(kv.value)
        if len(chunk) >= _BLOCK or size >= _BLOCK_BYTES:
            yield kind, _encode(chunk)
            chunk, size = [], 0
    if chunk:
        yield kind, _encode(chunk)


def delta_blocks(meta: Meta, changes: list[Change]) -> Iterable[tuple[int, bytes]]:
    """Encode the changes of whole revisions up to `meta.revision`, block by block; a revision may take several."""
    yield META, _encode(meta)
    yield from _blocks(CHANGES, (kv for change in changes for kv in each(change)))


def load(machine: StateMachine, blocks: Iterable[tuple[int, bytes]]) -> Meta | None:
    """Fill an empty state machine from a base and its deltas; return where they end, None if there was nothing.

    Raises `msgspec.DecodeError` or `ValueError` where a block is not what its kind says.
    """
    collecting = gc.isenabled()
    gc.disable()  # a million new objects and no garbage: the collector would only walk them again and again
    try:
        return _load(machine, blocks)
    finally:
        if collecting:
            gc.enable()


def _load(machine: StateMachine, blocks: Iterable[tuple[int, bytes]]) -> Meta | None:
    keys = machine.keys
    meta: Meta | None = None
    base: Meta | None = None
    live: list[KeyValue] = []
    old: list[KeyValue] = []
    for kind, payload in blocks:
        if kind == META:
            if base is not None:
                keys.load(live, old, base.revision, base.compact_revision)
                live, old, base = [], [], None
                meta = _decode_meta(payload)
            else:
                following = _decode_meta(payload)
                base = following if meta is None else None
                meta = following
        elif kind == LIVE:
            live += _decode_kvs(payload)
        elif kind == OLD:
            old += _decode_kvs(payload)
        elif kind == CHANGES:
            keys.replay(_decode_kvs(payload))
        else:
            raise ValueError(f"a block of unknown kind {kind}")
    keys.commit()
    if base is not None:
        keys.load(live, old, base.revision, base.compact_revision)
    if meta is not None:
        _finish(machine, meta)
    return meta


def _finish(machine: StateMachine, meta: Meta) -> None:
    if machine.keys.revision != meta.revision:
        raise ValueError(f"the blocks end at revision {machine.keys.revision} where {meta.revision} is announced")
    machine.keys.compact_revision = meta.compact_revision
    machine.leases.load(meta.leases)
    machine.alarms = set(meta.alarms)
    machine.auth.load(meta.auth)
    machine.keys.attach_all()
