"""What the store is asked and what it answers: etcd v3's requests, responses and events as typed structs.

Every struct is a `msgspec.Struct` encoded as an array, so the write-ahead log and the snapshot tables hold them
compactly and a new field can be added at the end with a default. They hold only bytes and integers, therefore
`gc=False`: a million of them cost the garbage collector nothing.

Field names and meanings follow etcd's `rpc.proto` and `kv.proto` (v3).
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

__all__ = [
    "MAX_OPS_PER_TXN",
    "MAX_REQUEST_BYTES",
    "Alarm",
    "AlarmAction",
    "AlarmType",
    "Compare",
    "CompareResult",
    "CompareTarget",
    "DeleteRangeRequest",
    "DeleteRangeResponse",
    "Event",
    "HashKVResponse",
    "KeyValue",
    "LeaseGrantResponse",
    "LeaseTimeToLiveResponse",
    "Member",
    "Op",
    "OpResponse",
    "PutRequest",
    "PutResponse",
    "RangeRequest",
    "RangeResponse",
    "SortOrder",
    "SortTarget",
    "Status",
    "TxnRequest",
    "TxnResponse",
    "WatchFilter",
    "WatchRequest",
    "WatchResponse",
    "prefix_end",
]

MAX_REQUEST_BYTES = 1_572_864
"""etcd's default limit of one request, in bytes (1.5 MiB)."""

MAX_OPS_PER_TXN = 128
"""etcd's default limit of operations in one branch of a transaction."""


class SortOrder(enum.IntEnum):
    """Order of a range's answer."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(enum.IntEnum):
    """What a range's answer is sorted by."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareResult(enum.IntEnum):
    """The relation that a comparison asks for."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(enum.IntEnum):
    """The field of a key that a comparison looks at."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


class WatchFilter(enum.IntEnum):
    """Events that a watcher does not want."""

    NOPUT = 0
    NODELETE = 1


class AlarmType(enum.IntEnum):
    """Why the store refuses work."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2


class AlarmAction(enum.IntEnum):
    """What to do with an alarm."""

    GET = 0
    ACTIVATE = 1
    DEACTIVATE = 2


class KeyValue(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One revision of one key.

    A tombstone has `version` 0 and `create_revision` 0 and an empty value. `sub` is the place of the change
    within its revision's transaction; it is not a part of etcd's answer, only of its hash and its order.
    """

    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: int = 0
    sub: int = 0


class RangeRequest(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="range"):
    """Read `key`, or the keys in [key, range_end); a `range_end` of one zero byte means to the end of all keys."""

    key: bytes
    range_end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: SortOrder = SortOrder.NONE
    sort_target: SortTarget = SortTarget.KEY
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class PutRequest(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="put"):
    """Write one key."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteRangeRequest(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="delete"):
    """Delete `key`, or the keys in [key, range_end)."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class Compare(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One guard of a transaction: `target` of `key` (of every key in the range) `result` `operand`.

    `operand` is bytes for VALUE and an integer otherwise. `target` and `result` stay plain integers where a
    client sent one that is not known, so that the refusal can name it.
    """

    key: bytes
    target: int = CompareTarget.VERSION
    result: int = CompareResult.EQUAL
    operand: int | bytes = 0
    range_end: bytes = b""


class TxnRequest(msgspec.Struct, frozen=True, array_like=True, tag="txn"):
    """If every guard holds do `success`, else do `failure`, as one revision."""

    compare: tuple[Compare, ...] = ()
    success: tuple[RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest, ...] = ()
    failure: tuple[RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest, ...] = ()


Op: TypeAlias = RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest


class RangeResponse(msgspec.Struct, frozen=True):
    """Keys found; `count` is the number in the range whatever the limit, `more` says the limit cut it."""

    revision: int
    kvs: list[KeyValue]
    count: int
    more: bool = False


class PutResponse(msgspec.Struct, frozen=True, gc=False):
    """The revision of the write and, where asked for, what it replaced."""

    revision: int
    prev_kv: KeyValue | None = None


class DeleteRangeResponse(msgspec.Struct, frozen=True):
    """How many keys went and, where asked for, which."""

    revision: int
    deleted: int
    prev_kvs: list[KeyValue] = []


class TxnResponse(msgspec.Struct, frozen=True):
    """Which branch ran and what each of its operations answered."""

    revision: int
    succeeded: bool
    responses: tuple[RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse, ...] = ()


OpResponse: TypeAlias = RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse


class Event(msgspec.Struct, gc=False):
    """One change as watchers see it; one object serves all of them.

    `kv.version == 0` means the key was deleted. `wire` and `wire_prev` belong to the serving layer: the event
    encoded once for all watchers, without and with `prev_kv`.
    """

    kv: KeyValue
    prev_kv: KeyValue | None = None
    wire: bytes | None = None
    wire_prev: bytes | None = None

    @property
    def is_delete(self) -> bool:
        """Whether the event is a deletion."""
        return self.kv.version == 0


class WatchRequest(msgspec.Struct, frozen=True):
    """What to watch.

    `start_revision` 0 means from now. `progress_notify` asks for an empty response when nothing happened for the
    store's progress interval. Buffers are bounded: see `WatchResponse.cancel_reason`.
    """

    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    prev_kv: bool = False
    filters: tuple[WatchFilter, ...] = ()
    progress_notify: bool = False


class WatchResponse(msgspec.Struct, frozen=True):
    """All events of one or more whole revisions up to `revision`; none split between two responses.

    Without events it is a progress report: nothing up to and including `revision` is still to come. When
    `canceled`, it is the last one: `compact_revision` is not 0 where the start was compacted away, and
    `cancel_reason` says why in any case. `resume_revision` is not 0 where the watcher was too slow: a new watch from
    there misses nothing.
    """

    revision: int
    events: list[Event] = []
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    resume_revision: int = 0


class LeaseGrantResponse(msgspec.Struct, frozen=True):
    """A new lease: its id and its time to live in seconds."""

    revision: int
    id: int
    ttl: int


class LeaseTimeToLiveResponse(msgspec.Struct, frozen=True):
    """Seconds left (`ttl`, -1 when the lease is gone), seconds granted, and the attached keys where asked for."""

    revision: int
    id: int
    ttl: int
    granted_ttl: int
    keys: list[bytes] = []


class HashKVResponse(msgspec.Struct, frozen=True):
    """CRC-32C of the key space at `hash_revision` as etcd computes it."""

    revision: int
    hash: int
    hash_revision: int
    compact_revision: int


class Alarm(msgspec.Struct, frozen=True, array_like=True):
    """An alarm of a member."""

    member_id: int
    alarm: AlarmType


class Member(msgspec.Struct, frozen=True):
    """A member of the cluster that serves the store."""

    id: int
    name: str
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the member asked. Sizes are in bytes, `*_index` are log positions.

    `advice` holds sentences for the person who runs it (`pilothouse store status` prints them).
    """

    cluster_id: int
    member_id: int
    revision: int
    compact_revision: int = 0
    raft_term: int = 1
    raft_index: int = 0
    raft_applied_index: int = 0
    leader: int = 0
    version: str = ""
    db_size: int = 0
    db_size_in_use: int = 0
    quota: int = 0
    keys: int = 0
    watchers: int = 0
    leases: int = 0
    errors: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


def prefix_end(prefix: bytes) -> bytes:
    r"""Return the `range_end` of all keys with `prefix`: `b"\0"`, to the end of all keys, where none is larger."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return b"\0"
    return stripped[:-1] + bytes((stripped[-1] + 1,))
