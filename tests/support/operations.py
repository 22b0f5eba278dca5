"""Random operations on a store, for comparing stores answer by answer.

Keys are few and awkward (a zero byte, prefixes of each other, only 0xff), so that operations meet. Numbers and
ranges are mostly sensible and sometimes wrong: empty and reversed ranges, compacted, future and negative revisions,
unknown leases and compare targets, keys written twice, too many operations.

Some transactions make etcd stop with a panic and are never made: `ignore_value` or `ignore_lease` beside a delete,
and unknown sort options (unless asked for, 3.4 does not survive them).
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
from hypothesis import strategies as st

from pilothouse.store.errors import StoreError
from pilothouse.store.model import (
    MAX_OPS_PER_TXN,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseTimeToLiveResponse,
    Op,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
)

__all__ = ["KEYS", "LEASES", "Action", "Call", "Generator", "actions", "comparable", "perform"]

KEYS = (b"a", b"a\0", b"aa", b"ab", b"b", b"ba", b"c", b"\0", b"\xff", b"\xff\xff")
"""At most 12, so that Go's sort, stable up to there, leaves ties in key order."""

LEASES = (1, 2, 3, 1 << 62)
VALUES = (b"", b"1", b"2", b"\0", b"value", b"\xff" * 20)


class Call(NamedTuple):
    """An operation that is not a request struct: a store's method and its arguments."""

    method: str
    args: tuple[int, ...] = ()
    keys: bool = False


Action: TypeAlias = Op | Call

_METHODS = {RangeRequest: "range", PutRequest: "put", DeleteRangeRequest: "delete_range", TxnRequest: "txn"}


def perform(store: Any, action: Action) -> Any:
    """Start an action on a store; the result is the answer or, on an asynchronous store, what to await."""
    if isinstance(action, Call):
        keywords = {"keys": True} if action.keys else {}
        return getattr(store, action.method)(*action.args, **keywords)
    return getattr(store, _METHODS[type(action)])(action)


def comparable(answer: object, *, exact_time: bool = True) -> object:
    """Return an answer without what is no part of etcd's: `sub` and the revision of nested transactions.

    An error becomes its type, and lists that etcd sends in no order are sorted. Without `exact_time` a lease's rest
    is only told from none, for stores on real clocks.
    """
    if isinstance(answer, StoreError):
        return type(answer).__name__
    if isinstance(answer, LeaseTimeToLiveResponse):
        ttl = answer.ttl if exact_time or answer.ttl <= 0 else answer.granted_ttl
        return msgspec.structs.replace(answer, ttl=ttl, keys=sorted(answer.keys))
    if isinstance(answer, RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse):
        return _response(answer, nested=False)
    return sorted(answer) if isinstance(answer, list) else answer


def _response(
    response: RangeResponse | PutResponse | DeleteRangeResponse | TxnResponse, *, nested: bool
) -> tuple[object, ...]:
    if isinstance(response, RangeResponse):
        kvs = [_plain(kv) for kv in response.kvs]
        return "range", response.revision, kvs, response.count, response.more
    if isinstance(response, PutResponse):
        return "put", response.revision, response.prev_kv and _plain(response.prev_kv)
    if isinstance(response, DeleteRangeResponse):
        return "delete", response.revision, response.deleted, [_plain(kv) for kv in response.prev_kvs]
    inner = [_response(one, nested=True) for one in response.responses]
    return "txn", "nested" if nested else response.revision, response.succeeded, inner


def _plain(kv: KeyValue) -> KeyValue:
    return msgspec.structs.replace(kv, sub=0)


class Generator:
    """Makes actions from a source of randomness, given what the store's revisions are at the moment."""

    def __init__(self, rng: random.Random, *, invalid_sort: bool = False, hashes: bool = True) -> None:
        self.rng = rng
        self.revision = 1
        self.compact_revision = 0
        self._invalid_sort = invalid_sort
        self._weighted = [
            (self.range, 30),
            (self.put, 30),
            (self.delete_range, 8),
            (self.txn, 30),
            (self.compact, 2),
            (self.lease, 8),
            (self.hash_kv, 2 if hashes else 0),
        ]

    def action(self, revision: int, compact_revision: int) -> Action:
        """Return the next action for a store at `revision`, compacted at `compact_revision`."""
        self.revision, self.compact_revision = revision, compact_revision
        makers, weights = zip(*self._weighted, strict=True)
        return cast("Action", self.rng.choices(makers, weights)[0]())

    def chance(self, probability: float) -> bool:
        """Return True in that share of cases."""
        return self.rng.random() < probability

    def key(self) -> bytes:
        """Return a key, rarely none."""
        return b"" if self.chance(0.01) else self.rng.choice(KEYS)

    def span(self) -> tuple[bytes, bytes]:
        """Return a key and range end: one key, a range, a prefix, to the end, all, empty or reversed."""
        key = self.key()
        ends = (b"", key[:-1] + bytes([min(key[-1] + 1, 255)]) if key else b"z", b"\0", key, self.rng.choice(KEYS))
        return key, self.rng.choices(ends, (4, 2, 2, 0.3, 3))[0]

    def past_revision(self) -> int:
        """Return a revision to read at: mostly the present, else any from negative to beyond the newest."""
        if self.chance(0.6):
            return 0
        low = max(self.compact_revision, 1)
        inside = self.rng.randint(low, max(low, self.revision))
        wrong = self.rng.choice((-1, -2, self.compact_revision, low - 1, self.revision + 1, self.revision + 10))
        return inside if self.chance(0.75) else wrong

    def range(self) -> RangeRequest:
        """Return a range with any of its options."""
        key, end = self.span()
        order, target = self.rng.choice(list(SortOrder)), self.rng.choice(list(SortTarget))
        if self.chance(0.5):
            order, target = SortOrder.NONE, SortTarget.KEY
        if self._invalid_sort and self.chance(0.02):
            order, target = self.rng.choice(((3, 0), (0, 5), (-1, 0), (1, 9)))  # type: ignore[assignment]
        return RangeRequest(
            key=key,
            range_end=end,
            limit=self.rng.choice((0, 0, 0, 1, 2, 3, 5, 100, -1)),
            revision=self.past_revision(),
            sort_order=order,
            sort_target=target,
            serializable=self.chance(0.3),
            keys_only=self.chance(0.15),
            count_only=self.chance(0.1),
            min_mod_revision=self._bound(),
            max_mod_revision=self._bound(),
            min_create_revision=self._bound(),
            max_create_revision=self._bound(),
        )

    def _bound(self) -> int:
        return self.rng.randint(1, self.revision + 1) if self.chance(0.07) else 0

    def put(self, *, ignoring: bool = True) -> PutRequest:
        """Return a put, sometimes keeping value or lease, sometimes with a contradiction."""
        ignore_value = ignoring and self.chance(0.08)
        ignore_lease = ignoring and self.chance(0.08)
        value = b"" if ignore_value and not self.chance(0.1) else self.rng.choice(VALUES)
        lease = self.rng.choice((*LEASES, 99)) if self.chance(0.25) and not ignore_lease else 0
        if ignore_lease and self.chance(0.1):
            lease = 1
        return PutRequest(self.key(), value, lease, self.chance(0.3), ignore_value, ignore_lease)

    def delete_range(self) -> DeleteRangeRequest:
        """Return a delete of one key or a range."""
        return DeleteRangeRequest(*self.span(), prev_kv=self.chance(0.4))

    def compare(self) -> Compare:
        """Return a guard of any kind, rarely of an unknown one."""
        key, end = self.span()
        if self.chance(0.7):
            end = b""
        target: int = self.rng.choice(list(CompareTarget))
        result: int = self.rng.choice(list(CompareResult))
        if self.chance(0.02):
            target = self.rng.choice((5, 9))
        if self.chance(0.02):
            result = self.rng.choice((4, 9))
        operands = {
            CompareTarget.VERSION: self.rng.randint(0, 3),
            CompareTarget.LEASE: self.rng.choice((0, *LEASES)),
        }
        operand: int | bytes = operands.get(cast("CompareTarget", target), self.rng.randint(0, self.revision + 1))
        if target == CompareTarget.VALUE:
            operand = self.rng.choice(VALUES)
        return Compare(key, target, result, operand, end)

    def txn(self, depth: int = 0, *, deletes: bool | None = None) -> TxnRequest:
        """Return a transaction, nested up to two levels deep."""
        if deletes is None:
            deletes = self.chance(0.6)
        compares = tuple(self.compare() for _ in range(self.rng.choice((0, 1, 1, 1, 2, 3))))
        branches = [self._branch(depth, deletes=deletes) for _ in range(2)]
        if not depth and self.chance(0.005):
            branches[0] = tuple(RangeRequest(b"a") for _ in range(MAX_OPS_PER_TXN + self.rng.choice((0, 1))))
        return TxnRequest(compares, branches[0], branches[1])

    def _branch(self, depth: int, *, deletes: bool) -> tuple[Op, ...]:
        ops: list[Op] = []
        for _ in range(self.rng.choice((0, 1, 1, 2, 2, 3))):
            kind = self.rng.choices("rpdt", (3, 4, 2 if deletes else 0, 1 if depth < 2 else 0))[0]
            if kind == "r":
                ops.append(self.range())
            elif kind == "p":
                ops.append(self.put(ignoring=not deletes))
            elif kind == "d":
                ops.append(self.delete_range())
            else:
                ops.append(self.txn(depth + 1, deletes=deletes))
        return tuple(ops)

    def compact(self) -> Call:
        """Return a compaction, mostly at a revision that can be compacted."""
        low = self.compact_revision + 1
        if self.chance(0.8) and low <= self.revision:
            return Call("compact", (self.rng.randint(low, self.revision),))
        return Call("compact", (self.rng.choice((-1, 0, self.compact_revision, self.revision + 1)),))

    def lease(self) -> Call:
        """Return an operation on leases; their time is long, the clock's part is tested by other means."""
        lease_id = self.rng.choice((*LEASES, 99))
        calls = (
            Call("lease_grant", (self.rng.choice((1000, 5000)), lease_id % 99)),
            Call("lease_grant", (9_000_000_001, 3)),
            Call("lease_revoke", (lease_id,)),
            Call("lease_keep_alive", (lease_id,)),
            Call("lease_time_to_live", (lease_id,), keys=self.chance(0.7)),
            Call("lease_leases"),
        )
        call = self.rng.choices(calls, (6, 0.2, 2, 1, 3, 1))[0]
        # Id 0 lets a store choose, and two stores choose differently.
        return call._replace(args=(call.args[0], 1)) if call.method == "lease_grant" and not call.args[1] else call

    def hash_kv(self) -> Call:
        """Return a hash of the key space now or at a revision."""
        return Call("hash_kv", (max(0, self.past_revision()),))


@st.composite
def actions(draw: st.DrawFn, revision: int, compact_revision: int) -> Action:
    """Draw one action for a store at these revisions."""
    rng = draw(st.randoms(use_true_random=False))
    return Generator(rng, invalid_sort=True).action(revision, compact_revision)
