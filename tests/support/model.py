r"""State etcd v3's semantics in memory, as plainly as they can be said: the reference for every engine.

The model keeps one list of records in (revision, sub) order and scans it for every question. It follows etcd's
published sources (3.4.23, 3.6 and 3.7 were read) and is itself checked against a running etcd, answer by answer.

Where releases differ, a `Profile` says which one is meant:

- A transaction whose operations have several faults: 3.4 reports puts' faults before ranges', 3.5 and later report
  the first in the order of operations, and so does Pilothouse. A put with an unknown lease that also keeps what is
  not there has its lease reported, except inside a transaction of 3.4.
- A tombstone exactly at the compaction point stays in the store since 3.4.34 and 3.5.16 (watchers that start there
  see the deletion), as here; 3.4.23 drops it. Its hash is the same, see below.
- Hashing exactly at the compaction point is refused by 3.4 and allowed by 3.5 and later, as here.
- Unknown sort orders and targets are `InvalidSort` since 3.5, as here; 3.4 stops with a panic.

Pilothouse itself deviates where etcd (up to 3.7) does not look:

- No etcd refuses unknown compare targets and results: an unknown target compares as equal, an unknown result holds.
  Pilothouse refuses both with `UnknownCompare`.
- etcd takes a delete's `range_end` of one zero byte (to the end of all keys) literally when it looks for puts and
  deletes of one key in a transaction, so that it overlaps nothing. Pilothouse sees the overlap.
- Inside a transaction etcd calls a negative revision compacted when it is below the compaction floor, which is -1 in
  a store never compacted. Outside, and in Pilothouse everywhere, a negative revision reads the present.
- A range with a sort target other than the key, sort order NONE, a limit and no revision filter: etcd sorts, in
  ascending order, only the first limit + 1 keys and cuts the last. Pilothouse sorts all and then cuts.

Perhaps surprising and the same everywhere:

- The floor of -1 lets `compact(0)` succeed once.
- All guards, nested ones too, are evaluated on the state before the transaction.
- Of two nested transactions in one branch, the deletes of the later are not held against the puts of the earlier.
- A nested transaction's answer carries revision 0 (Pilothouse's engine fills it; comparisons leave it out).
- `count` is what the range holds, whatever limit and revision filters leave of it.

HashKV, as etcd computes it at revision R in a store compacted at C:

1. CRC-32C (Castagnoli, the usual reflected form with inverted start and end), first over the bucket's name `key`.
2. Then over every record stored with main revision <= R, in (main, sub) order: the record's key, then its value.
   Key: main as 8 bytes big-endian, `_`, sub as 8 bytes big-endian, and `t` at the end for a tombstone (17 or 18
   bytes). Value: the protobuf `KeyValue` with fields in number order and zeros left out: key 1, create_revision 2,
   mod_revision 3, version 4, value 5, lease 6. A tombstone's value is `KeyValue` with the key alone: no revision.
3. Records with main <= C are left out unless they are their key's newest record <= R (R, not C) and no tombstone.
   So what was still readable at C but was overwritten up to R is not hashed: the hash does not depend on how far
   the physical compaction has come. Exception: where no key at all is alive at R, nothing is left out by this rule
   and what is physically stored decides (etcd's "keep" set is empty).
4. A tombstone at main == C is left out in any case, so that old and new releases agree.

`hash_kv` with R == 0 hashes at the current revision. The answer's compact revision is C, -1 when never compacted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pilothouse.store.errors import (
    Compacted,
    DuplicateKey,
    EmptyKey,
    FutureRevision,
    InvalidSort,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseProvided,
    LeaseTtlTooLarge,
    TooManyOps,
    UnknownCompare,
    ValueProvided,
)
from pilothouse.store.model import (
    MAX_OPS_PER_TXN,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    HashKVResponse,
    KeyValue,
    LeaseGrantResponse,
    LeaseTimeToLiveResponse,
    Op,
    OpResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
    WatchFilter,
    WatchRequest,
)
from support.etcd_bytes import crc32c, marshal_key_value, revision_bytes

__all__ = ["ETCD_3_4", "PILOTHOUSE", "ModelStore", "Profile", "in_range"]

MAX_LEASE_TTL = 9_000_000_000
MIN_LEASE_TTL = 2


class Profile(NamedTuple):
    """Whose behaviour is meant where they differ (see the module's docstring)."""

    puts_checked_first: bool
    refuse_unknown_compare: bool
    literal_overlaps: bool
    negative_revision_in_txn_is_past: bool
    limit_before_default_sort: bool
    keep_tombstone_at_compaction: bool
    hash_at_compaction: bool


ETCD_3_4 = Profile(
    puts_checked_first=True,
    refuse_unknown_compare=False,
    literal_overlaps=True,
    negative_revision_in_txn_is_past=True,
    limit_before_default_sort=True,
    keep_tombstone_at_compaction=False,
    hash_at_compaction=False,
)
PILOTHOUSE = Profile(
    puts_checked_first=False,
    refuse_unknown_compare=True,
    literal_overlaps=False,
    negative_revision_in_txn_is_past=False,
    limit_before_default_sort=False,
    keep_tombstone_at_compaction=True,
    hash_at_compaction=True,
)


@dataclass
class ModelLease:
    """A lease: granted seconds, when it ends by the clock, and its keys."""

    granted_ttl: int
    expires_at: float
    keys: set[bytes] = field(default_factory=set)


def in_range(key: bytes, start: bytes, range_end: bytes) -> bool:
    r"""Return whether `key` is in [start, range_end): without an end only `start`, with `b"\0"` all from `start`."""
    if not range_end:
        return key == start
    if range_end == b"\0":
        return key >= start
    return start <= key < range_end


class ModelStore:
    """etcd v3 in memory. `clock` returns seconds; leases end when `expire_leases` is called after their time."""

    def __init__(self, clock: Callable[[], float], profile: Profile = PILOTHOUSE) -> None:
        self.clock = clock
        self.profile = profile
        self.revision = 1
        self.compact_revision = -1
        self.records: list[KeyValue] = []
        self.history: list[Event] = []
        self.leases: dict[int, ModelLease] = {}
        self._next_lease = 1
        self._changes = 0

    # Reading

    def alive(self, revision: int) -> dict[bytes, KeyValue]:
        """Return each key that exists at `revision`, in key order."""
        newest = {kv.key: kv for kv in self.records if kv.mod_revision <= revision}
        return {key: newest[key] for key in sorted(newest) if newest[key].version > 0}

    def range(self, request: RangeRequest) -> RangeResponse:
        """Answer a range request on its own."""
        _check_range_request(request)
        return self._range(request)

    def _range(self, request: RangeRequest) -> RangeResponse:
        current = self._now()
        if request.revision > current:
            raise FutureRevision
        revision = request.revision if request.revision > 0 else current
        if revision < self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        found = [kv for key, kv in self.alive(revision).items() if in_range(key, request.key, request.range_end)]
        count = len(found)
        if request.count_only:
            return RangeResponse(revision=current, kvs=[], count=count)
        if self.profile.limit_before_default_sort and _sorts_by_default(request):
            found = found[: request.limit + 1]
        kvs = _sorted([kv for kv in found if _passes_revision_filters(kv, request)], request)
        more = 0 < request.limit < len(kvs)
        if more:
            kvs = kvs[: request.limit]
        if request.keys_only:
            kvs = [_without_value(kv) for kv in kvs]
        return RangeResponse(revision=current, kvs=kvs, count=count, more=more)

    def _now(self) -> int:
        return self.revision + (1 if self._changes else 0)

    # Writing

    def put(self, request: PutRequest) -> PutResponse:
        """Answer a put on its own."""
        _check_put_request(request)
        self._check_lease(request)
        self._check_kept(request)
        response = self._put(request)
        self._commit()
        return response

    def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        """Answer a delete on its own."""
        _check_delete_request(request)
        response = self._delete_range(request)
        self._commit()
        return response

    def _put(self, request: PutRequest) -> PutResponse:
        old = self.alive(self._now()).get(request.key)
        if old is None and (request.ignore_value or request.ignore_lease):
            raise AssertionError("etcd stops with a panic on this transaction; do not generate it")
        lease = old.lease if request.ignore_lease and old else request.lease
        self._append(
            KeyValue(
                key=request.key,
                value=old.value if request.ignore_value and old else request.value,
                create_revision=old.create_revision if old else self.revision + 1,
                mod_revision=self.revision + 1,
                version=old.version + 1 if old else 1,
                lease=lease,
                sub=self._changes,
            )
        )
        if lease in self.leases:
            self.leases[lease].keys.add(request.key)
        return PutResponse(revision=self.revision + 1, prev_kv=old if request.prev_kv else None)

    def _check_lease(self, request: PutRequest) -> None:
        if request.lease and request.lease not in self.leases:
            raise LeaseNotFound

    def _check_kept(self, request: PutRequest) -> None:
        if (request.ignore_value or request.ignore_lease) and request.key not in self.alive(self.revision):
            raise KeyNotFound

    def _delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        doomed = [kv for key, kv in self.alive(self._now()).items() if in_range(key, request.key, request.range_end)]
        for kv in doomed:
            self._append(KeyValue(key=kv.key, mod_revision=self.revision + 1, sub=self._changes))
        prev_kvs = doomed if request.prev_kv else []
        return DeleteRangeResponse(revision=self._now(), deleted=len(doomed), prev_kvs=prev_kvs)

    def _append(self, kv: KeyValue) -> None:
        for lease in self.leases.values():
            lease.keys.discard(kv.key)
        self.records.append(kv)
        # Watchers are told what there was before the revision, even where it writes the key twice; a creation has no
        # previous version even where the same revision deleted one.
        created = kv.version == 1
        self.history.append(Event(kv=kv, prev_kv=None if created else self.alive(self.revision).get(kv.key)))
        self._changes += 1

    def _commit(self) -> None:
        self.revision = self._now()
        self._changes = 0

    # Transactions

    def txn(self, request: TxnRequest) -> TxnResponse:
        """Answer a transaction: guards are all evaluated, nested ones too, before anything is done."""
        _check_txn_request(request, MAX_OPS_PER_TXN, self.profile)
        _check_overlaps(request.success, self.profile)
        _check_overlaps(request.failure, self.profile)
        plan = self._plan(request)
        writes = any(not isinstance(op, RangeRequest) for op in request.success + request.failure)
        if self.profile.puts_checked_first:
            if writes:
                self._check_plan(plan, puts=True, ranges=False)
            self._check_plan(plan, puts=False, ranges=True)
        else:
            self._check_plan(plan, puts=True, ranges=True)
        responses = self._run(plan)
        self._commit()
        return TxnResponse(revision=self.revision, succeeded=plan.succeeded, responses=responses)

    def _plan(self, request: TxnRequest) -> Plan:
        succeeded = all(self._holds(compare) for compare in request.compare)
        ops = request.success if succeeded else request.failure
        return Plan(succeeded, tuple(self._plan(op) if isinstance(op, TxnRequest) else op for op in ops))

    def _holds(self, compare: Compare) -> bool:
        kvs = [kv for key, kv in self.alive(self.revision).items() if in_range(key, compare.key, compare.range_end)]
        if not kvs:
            if compare.target == CompareTarget.VALUE:
                return False
            return _compares(compare, KeyValue(key=b""))
        return all(_compares(compare, kv) for kv in kvs)

    def _check_plan(self, plan: Plan, *, puts: bool, ranges: bool) -> None:
        for op in plan.ops:
            if isinstance(op, Plan):
                self._check_plan(op, puts=puts, ranges=ranges)
            elif isinstance(op, PutRequest) and puts:
                checks = [self._check_lease, self._check_kept]
                for check in reversed(checks) if self.profile.puts_checked_first else checks:
                    check(op)
            elif isinstance(op, RangeRequest) and ranges and op.revision != 0:
                if op.revision > self.revision:
                    raise FutureRevision
                negative_is_now = op.revision < 0 and not self.profile.negative_revision_in_txn_is_past
                if op.revision < self.compact_revision and not negative_is_now:
                    raise Compacted(compact_revision=self.compact_revision)

    def _run(self, plan: Plan) -> tuple[OpResponse, ...]:
        responses: list[OpResponse] = []
        for op in plan.ops:
            if isinstance(op, Plan):
                responses.append(TxnResponse(revision=0, succeeded=op.succeeded, responses=self._run(op)))
            elif isinstance(op, PutRequest):
                responses.append(self._put(op))
            elif isinstance(op, DeleteRangeRequest):
                responses.append(self._delete_range(op))
            else:
                responses.append(self._range(op))
        return tuple(responses)

    # Compaction and hash

    def compact(self, revision: int) -> int:
        """Forget what was overwritten before `revision`, physically at once; return the current revision."""
        if revision <= self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        if revision > self.revision:
            raise FutureRevision
        self.compact_revision = revision
        newest = {kv.key: kv for kv in self.records if kv.mod_revision <= revision}
        self.records = [kv for kv in self.records if kv.mod_revision > revision or self._kept(kv, newest[kv.key])]
        return self.revision

    def _kept(self, kv: KeyValue, newest: KeyValue) -> bool:
        if kv != newest:
            return False
        at_the_point = self.profile.keep_tombstone_at_compaction and kv.mod_revision == self.compact_revision
        return kv.version > 0 or at_the_point

    def hash_kv(self, revision: int = 0) -> HashKVResponse:
        """Hash the key space at `revision` (0: now) by the rules in the module's docstring."""
        refused = revision < self.compact_revision + (0 if self.profile.hash_at_compaction else 1)
        if revision > 0 and refused:
            raise Compacted(compact_revision=self.compact_revision)
        if revision > self.revision:
            raise FutureRevision
        at = revision or self.revision
        keep = {(kv.mod_revision, kv.sub) for kv in self.alive(at).values()}
        hashed = b"key"
        for kv in self.records:
            if kv.mod_revision > at:
                continue
            if kv.mod_revision <= self.compact_revision and keep and (kv.mod_revision, kv.sub) not in keep:
                continue
            if kv.mod_revision == self.compact_revision and kv.version == 0:
                continue
            hashed += revision_bytes(kv) + marshal_key_value(kv)
        return HashKVResponse(
            revision=self.revision, hash=crc32c(hashed), hash_revision=at, compact_revision=self.compact_revision
        )

    # Leases

    def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        """Create a lease; seconds are raised to etcd's least (2 at its default election timeout)."""
        if ttl > MAX_LEASE_TTL:
            raise LeaseTtlTooLarge
        if lease_id in self.leases:
            raise LeaseExists
        while lease_id == 0:
            lease_id, self._next_lease = self._next_lease, self._next_lease + 1
            lease_id = 0 if lease_id in self.leases else lease_id
        granted = max(ttl, MIN_LEASE_TTL)
        self.leases[lease_id] = ModelLease(granted, self.clock() + granted)
        return LeaseGrantResponse(revision=self.revision, id=lease_id, ttl=granted)

    def lease_revoke(self, lease_id: int) -> int:
        """End a lease and delete its keys in key order as one revision."""
        if lease_id not in self.leases:
            raise LeaseNotFound
        for key in sorted(self.leases[lease_id].keys):
            self._delete_range(DeleteRangeRequest(key=key))
        self._commit()
        del self.leases[lease_id]
        return self.revision

    def lease_keep_alive(self, lease_id: int) -> int:
        """Start a lease's time anew; 0 when it is gone."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return 0
        lease.expires_at = self.clock() + lease.granted_ttl
        return lease.granted_ttl

    def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Return the whole seconds left, -1 when the lease is gone; keys in order."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return LeaseTimeToLiveResponse(revision=self.revision, id=lease_id, ttl=-1, granted_ttl=0)
        return LeaseTimeToLiveResponse(
            revision=self.revision,
            id=lease_id,
            ttl=int(lease.expires_at - self.clock()),
            granted_ttl=lease.granted_ttl,
            keys=sorted(lease.keys) if keys else [],
        )

    def lease_leases(self) -> list[int]:
        """Return all leases' ids in order."""
        return sorted(self.leases)

    def expire_leases(self) -> list[int]:
        """Revoke the leases whose time is over, oldest end first; return their ids."""
        due = sorted((lease.expires_at, key) for key, lease in self.leases.items() if lease.expires_at <= self.clock())
        for _, lease_id in due:
            self.lease_revoke(lease_id)
        return [lease_id for _, lease_id in due]

    # Watching

    def events(self, request: WatchRequest) -> list[Event]:
        """Return what a watcher from `start_revision` (1 or more) has seen by now; `Compacted` where that is gone.

        At the compaction point itself only what is still stored can be replayed.
        """
        if request.start_revision < self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        stored = set(self.records)
        return [
            Event(kv=event.kv, prev_kv=event.prev_kv if request.prev_kv else None)
            for event in self.history
            if event.kv.mod_revision >= request.start_revision
            and event.kv in stored
            and in_range(event.kv.key, request.key, request.range_end)
            and (WatchFilter.NODELETE if event.is_delete else WatchFilter.NOPUT) not in request.filters
        ]


class Plan(NamedTuple):
    """A transaction whose guards have been evaluated: the operations that will run."""

    succeeded: bool
    ops: tuple[RangeRequest | PutRequest | DeleteRangeRequest | Plan, ...]


def _without_value(kv: KeyValue) -> KeyValue:
    return KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease, kv.sub)


def _passes_revision_filters(kv: KeyValue, request: RangeRequest) -> bool:
    return (
        (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
        and (not request.min_mod_revision or kv.mod_revision >= request.min_mod_revision)
        and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
        and (not request.min_create_revision or kv.create_revision >= request.min_create_revision)
    )


def _sorts_by_default(request: RangeRequest) -> bool:
    filters = (
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
    return request.limit > 0 and request.sort_order == SortOrder.NONE and not any(filters)


def _sorted(kvs: list[KeyValue], request: RangeRequest) -> list[KeyValue]:
    # Ties keep key order in both directions; etcd promises nothing about them (Go's sort is stable up to 12 items).
    target, descending = request.sort_target, request.sort_order == SortOrder.DESCEND
    if target == SortTarget.KEY:
        return sorted(kvs, key=lambda kv: kv.key, reverse=descending)
    if target == SortTarget.VALUE:
        return sorted(kvs, key=lambda kv: kv.value, reverse=descending)
    number: dict[SortTarget, Callable[[KeyValue], int]] = {
        SortTarget.VERSION: lambda kv: kv.version,
        SortTarget.CREATE: lambda kv: kv.create_revision,
        SortTarget.MOD: lambda kv: kv.mod_revision,
    }
    return sorted(kvs, key=number[target], reverse=descending)


def _compares(compare: Compare, kv: KeyValue) -> bool:
    sign = 0
    if compare.target == CompareTarget.VALUE and isinstance(compare.operand, bytes):
        sign = (kv.value > compare.operand) - (kv.value < compare.operand)
    elif isinstance(compare.operand, int):
        fields: dict[int, int] = {
            CompareTarget.VERSION: kv.version,
            CompareTarget.CREATE: kv.create_revision,
            CompareTarget.MOD: kv.mod_revision,
            CompareTarget.LEASE: kv.lease,
        }
        actual = fields.get(compare.target, compare.operand)
        sign = (actual > compare.operand) - (actual < compare.operand)
    holds: dict[int, bool] = {
        CompareResult.EQUAL: sign == 0,
        CompareResult.NOT_EQUAL: sign != 0,
        CompareResult.GREATER: sign > 0,
        CompareResult.LESS: sign < 0,
    }
    return holds.get(compare.result, True)


def _check_range_request(request: RangeRequest) -> None:
    if not request.key:
        raise EmptyKey
    if request.sort_order not in set(SortOrder) or request.sort_target not in set(SortTarget):
        raise InvalidSort


def _check_put_request(request: PutRequest) -> None:
    if not request.key:
        raise EmptyKey
    if request.ignore_value and request.value:
        raise ValueProvided
    if request.ignore_lease and request.lease:
        raise LeaseProvided


def _check_delete_request(request: DeleteRangeRequest) -> None:
    if not request.key:
        raise EmptyKey


def _check_txn_request(request: TxnRequest, allowed: int, profile: Profile) -> None:
    # A nested transaction may use only what the one around it leaves of the limit.
    most = max(len(request.compare), len(request.success), len(request.failure))
    if most > allowed:
        raise TooManyOps
    for compare in request.compare:
        if not compare.key:
            raise EmptyKey
        known = compare.target in set(CompareTarget) and compare.result in set(CompareResult)
        if profile.refuse_unknown_compare and not known:
            raise UnknownCompare
    for op in request.success + request.failure:
        if isinstance(op, RangeRequest):
            _check_range_request(op)
        elif isinstance(op, PutRequest):
            _check_put_request(op)
        elif isinstance(op, DeleteRangeRequest):
            _check_delete_request(op)
        else:
            _check_txn_request(op, allowed - most, profile)


def _check_overlaps(ops: Sequence[Op], profile: Profile) -> tuple[set[bytes], list[DeleteRangeRequest]]:
    """Return the keys put and the deletes of one branch; `DuplicateKey` where a put overlaps with another write."""
    deletes = [op for op in ops if isinstance(op, DeleteRangeRequest)]
    puts: set[bytes] = set()
    for op in ops:
        if isinstance(op, TxnRequest):
            puts_then, deletes_then = _check_overlaps(op.success, profile)
            puts_else, deletes_else = _check_overlaps(op.failure, profile)
            _refuse_overlap(puts_then | puts_else, puts, deletes, profile)
            puts |= puts_then | puts_else
            deletes += deletes_then + deletes_else
    for op in ops:
        if isinstance(op, PutRequest):
            _refuse_overlap({op.key}, puts, deletes, profile)
            puts.add(op.key)
    return puts, deletes


def _refuse_overlap(new: set[bytes], puts: set[bytes], deletes: list[DeleteRangeRequest], profile: Profile) -> None:
    for key in new:
        deleted = any(in_range(key, op.key, op.range_end) for op in deletes)
        if profile.literal_overlaps:
            deleted = any(op.key <= key < (op.range_end or op.key + b"\0") for op in deletes)
        if key in puts or deleted:
            raise DuplicateKey
