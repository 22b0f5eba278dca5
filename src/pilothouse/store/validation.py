"""Refuse requests that can be refused without looking at the data, in etcd's words and order."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.store.errors import (
    DuplicateKey,
    EmptyKey,
    InvalidSort,
    LeaseProvided,
    TooManyOps,
    UnknownCompare,
    ValueProvided,
)
from pilothouse.store.model import (
    MAX_OPS_PER_TXN,
    Compare,
    DeleteRangeRequest,
    Op,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

__all__ = ["check_compare", "check_delete", "check_op", "check_put", "check_range", "check_txn", "writes"]

_LAST_SORT_ORDER = 2
_LAST_SORT_TARGET = 4
_LAST_COMPARE_RESULT = 3
_LAST_COMPARE_TARGET = 4


def check_range(request: RangeRequest) -> None:
    """Refuse a range without a key or with an unknown sort option."""
    if not request.key:
        raise EmptyKey
    if not (0 <= request.sort_order <= _LAST_SORT_ORDER and 0 <= request.sort_target <= _LAST_SORT_TARGET):
        raise InvalidSort


def check_put(request: PutRequest) -> None:
    """Refuse a put without a key, or with what it asks to ignore."""
    if not request.key:
        raise EmptyKey
    if request.ignore_value and request.value:
        raise ValueProvided
    if request.ignore_lease and request.lease:
        raise LeaseProvided


def check_delete(request: DeleteRangeRequest) -> None:
    """Refuse a delete without a key."""
    if not request.key:
        raise EmptyKey


def check_compare(compare: Compare) -> None:
    """Refuse a guard without a key, of an unknown kind, or with an operand of the wrong type."""
    if not compare.key:
        raise EmptyKey
    if not (0 <= compare.target <= _LAST_COMPARE_TARGET and 0 <= compare.result <= _LAST_COMPARE_RESULT):
        raise UnknownCompare(
            f"etcdserver: invalid compare: key {compare.key!r} has target {compare.target} and result "
            f"{compare.result}; targets are 0 to {_LAST_COMPARE_TARGET}, results 0 to {_LAST_COMPARE_RESULT}"
        )


def check_op(op: Op, max_ops: int = MAX_OPS_PER_TXN) -> None:
    """Refuse one operation of a transaction."""
    if isinstance(op, PutRequest):
        check_put(op)
    elif isinstance(op, RangeRequest):
        check_range(op)
    elif isinstance(op, DeleteRangeRequest):
        check_delete(op)
    else:
        _check_shape(op, max_ops)


def check_txn(request: TxnRequest, max_ops: int = MAX_OPS_PER_TXN) -> None:
    """Refuse a transaction that is too large, has a wrong part, or writes a key twice in one course of events."""
    _check_shape(request, max_ops)
    for branch in (request.success, request.failure):
        if len(branch) > 1 or (branch and isinstance(branch[0], TxnRequest)):  # one write alone meets no other
            _written(branch)


def _check_shape(request: TxnRequest, max_ops: int) -> None:
    ops = max(len(request.compare), len(request.success), len(request.failure))
    if ops > max_ops:
        raise TooManyOps(f"{TooManyOps.text}: {ops} where {max_ops} are allowed (nested ones share the limit)")
    for compare in request.compare:
        check_compare(compare)
    for branch in (request.success, request.failure):
        for op in branch:
            check_op(op, max_ops - ops)


class _Deletes:
    """The ranges that a branch deletes."""

    __slots__ = ("ranges",)

    def __init__(self) -> None:
        self.ranges: list[tuple[bytes, bytes]] = []

    def cover(self, key: bytes) -> bool:
        return any(
            key == start if not end else start <= key and (end == b"\0" or key < end) for start, end in self.ranges
        )


def _written(ops: Sequence[Op]) -> tuple[set[bytes], _Deletes]:
    """Return the keys put and the ranges deleted by a branch; raise where a put meets another write of its key.

    The branches of a nested transaction exclude each other, so they may put the same key.
    """
    deletes = _Deletes()
    deletes.ranges = [(op.key, op.range_end) for op in ops if isinstance(op, DeleteRangeRequest)]
    puts: set[bytes] = set()
    for op in ops:
        if isinstance(op, TxnRequest):
            _add_nested(op, puts, deletes)
    for op in ops:
        if isinstance(op, PutRequest):
            if op.key in puts or deletes.cover(op.key):
                raise DuplicateKey
            puts.add(op.key)
    return puts, deletes


def _add_nested(txn: TxnRequest, puts: set[bytes], deletes: _Deletes) -> None:
    puts_then, deletes_then = _written(txn.success)
    puts_else, deletes_else = _written(txn.failure)
    for key in puts_then:
        if key in puts or deletes.cover(key):
            raise DuplicateKey
    for key in puts_else:
        if key in puts or deletes.cover(key):
            raise DuplicateKey
    puts |= puts_then | puts_else
    deletes.ranges += deletes_then.ranges + deletes_else.ranges


def writes(request: TxnRequest) -> tuple[bool, bool]:
    """Say whether a transaction may put and whether it may delete, in any of its branches."""
    puts = deletes = False
    for branch in (request.success, request.failure):
        for op in branch:
            if isinstance(op, PutRequest):
                puts = True
            elif isinstance(op, DeleteRangeRequest):
                deletes = True
            elif isinstance(op, TxnRequest):
                inner_puts, inner_deletes = writes(op)
                puts, deletes = puts or inner_puts, deletes or inner_deletes
    return puts, deletes
