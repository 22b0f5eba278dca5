"""The store's state machine: commands in, answers and events out, the same on every replay.

It joins the key space, leases, alarms and users. Nothing here reads a clock to decide an answer, does input or
output, or fails half-way: what can be refused is refused before the first change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pilothouse.store.auth import Auth
from pilothouse.store.auth_tokens import SimpleTokens
from pilothouse.store.commands import Command, Compact, GrantLease, RevokeLease, SetAlarm
from pilothouse.store.errors import CorruptAlarm, NoSpace
from pilothouse.store.keyspace import KeySpace
from pilothouse.store.leases import Leases
from pilothouse.store.model import (
    Alarm,
    AlarmType,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    KeyValue,
    LeaseGrantResponse,
    OpResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    TxnRequest,
    TxnResponse,
)
from pilothouse.store.validation import writes

__all__ = ["Answer", "StateMachine"]

_Path = Iterator[bool]

Answer = PutResponse | DeleteRangeResponse | TxnResponse | LeaseGrantResponse | list[Alarm] | int | None

_MISSING = KeyValue(b"")


class StateMachine:
    """All replicated state. `apply` is its only way to change."""

    def __init__(self, leases: Leases, tokens: SimpleTokens | None = None) -> None:
        self.leases = leases
        self.keys = KeySpace(leases)
        self.auth = Auth(tokens)
        self.alarms: set[Alarm] = set()
        self._handlers: dict[type, Callable[..., Answer]] = {
            PutRequest: self._put,
            DeleteRangeRequest: self._delete,
            TxnRequest: self._txn,
            Compact: self._compact,
            GrantLease: self._grant,
            RevokeLease: self._revoke,
            SetAlarm: self._set_alarm,
        }

    def apply(self, command: Command) -> tuple[Answer, Sequence[Event]]:
        """Apply one command; return its answer and the events of its revision, none if nothing changed.

        Raises a `StoreError` where the command is refused; nothing has changed then.
        """
        handler = self._handlers.get(type(command))
        if handler is None:
            self.auth.apply(command)  # type: ignore[arg-type]  # what is left of the union are the auth commands
            return None, ()
        if self.alarms:
            self._heed_alarms(command)
        return handler(command), self.keys.commit()

    def has_alarm(self, alarm: AlarmType) -> bool:
        """Whether any member has the alarm."""
        return any(one.alarm == alarm for one in self.alarms)

    def _heed_alarms(self, command: Command) -> None:
        if isinstance(command, SetAlarm):
            return
        if self.has_alarm(AlarmType.CORRUPT):
            raise CorruptAlarm
        if isinstance(command, PutRequest | GrantLease) or (isinstance(command, TxnRequest) and writes(command)[0]):
            raise NoSpace

    def _put(self, request: PutRequest) -> PutResponse:
        self.keys.check_put(request)
        return self.keys.put(request)

    def _delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        return self.keys.delete_range(request)

    def _compact(self, command: Compact) -> int:
        self.keys.compact(command.revision)
        return self.keys.revision

    def _grant(self, command: GrantLease) -> LeaseGrantResponse:
        ttl = self.leases.grant(command.lease_id, command.ttl)
        return LeaseGrantResponse(self.keys.revision, command.lease_id, ttl)

    def _revoke(self, command: RevokeLease) -> int:
        for key in self.leases.revoke(command.lease_id):
            self.keys.delete_range(DeleteRangeRequest(key))
        return self.keys.next_revision

    def _set_alarm(self, command: SetAlarm) -> list[Alarm]:
        alarm = Alarm(command.member_id, command.alarm)
        if command.active:
            self.alarms.add(alarm)
            return [alarm]
        gone = [one for one in self.alarms if one == alarm]
        self.alarms.difference_update(gone)
        return gone

    # Transactions

    def read(self, request: TxnRequest) -> TxnResponse:
        """Run a transaction that writes nothing; it needs no log."""
        return self._txn(request)

    def _txn(self, request: TxnRequest) -> TxnResponse:
        path = self._path(request)
        self._check(request, iter(path))
        return self._run(request, iter(path))

    def _path(self, request: TxnRequest) -> list[bool]:
        """Decide all branches on the state before the transaction, nested ones in the order they are met."""
        taken = all(map(self._holds, request.compare))
        path = [taken]
        for op in request.success if taken else request.failure:
            if isinstance(op, TxnRequest):
                path += self._path(op)
        return path

    def _holds(self, compare: Compare) -> bool:
        if compare.range_end:
            kvs = self.keys.range(RangeRequest(compare.key, compare.range_end)).kvs
        else:
            kv = self.keys.get(compare.key)
            kvs = [] if kv is None else [kv]
        if not kvs:
            # A missing key has no value, not even an empty one; its numbers are 0.
            return compare.target != CompareTarget.VALUE and _compare(compare, _MISSING)
        return all(_compare(compare, kv) for kv in kvs)

    def _check(self, request: TxnRequest, path: _Path) -> None:
        for op in request.success if next(path) else request.failure:
            if isinstance(op, PutRequest):
                self.keys.check_put(op)
            elif isinstance(op, RangeRequest):
                self.keys.check_revision(op.revision)
            elif isinstance(op, TxnRequest):
                self._check(op, path)

    def _run(self, request: TxnRequest, path: _Path) -> TxnResponse:
        taken = next(path)
        responses = tuple([self._run_op(op, path) for op in (request.success if taken else request.failure)])
        return TxnResponse(self.keys.next_revision, taken, responses)

    def _run_op(self, op: RangeRequest | PutRequest | DeleteRangeRequest | TxnRequest, path: _Path) -> OpResponse:
        if isinstance(op, PutRequest):
            return self.keys.put(op)
        if isinstance(op, RangeRequest):
            return self.keys.range(op)
        if isinstance(op, DeleteRangeRequest):
            return self.keys.delete_range(op)
        return self._run(op, path)


def _compare(compare: Compare, kv: KeyValue) -> bool:
    if compare.target == CompareTarget.VALUE:
        operand = compare.operand if isinstance(compare.operand, bytes) else b""
        order = (kv.value > operand) - (kv.value < operand)
    else:
        number = compare.operand if isinstance(compare.operand, int) else 0
        actual = _field(compare.target, kv)
        order = (actual > number) - (actual < number)
    if compare.result == CompareResult.EQUAL:
        return order == 0
    if compare.result == CompareResult.NOT_EQUAL:
        return order != 0
    return order > 0 if compare.result == CompareResult.GREATER else order < 0


def _field(target: int, kv: KeyValue) -> int:
    if target == CompareTarget.MOD:
        return kv.mod_revision
    if target == CompareTarget.VERSION:
        return kv.version
    if target == CompareTarget.CREATE:
        return kv.create_revision
    return kv.lease
