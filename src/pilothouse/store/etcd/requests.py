"""Between the bytes of etcd's requests and the store's own request structs, both ways.

`decode_*` are for a server, `encode_*` for a client. A decoder raises `InvalidRequest` for bytes that are not the
message, `InvalidSort` and `UnknownCompare` for enumeration values that etcd does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from pilothouse.store import errors
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.wire import nested, varint
from pilothouse.store.model import (
    AlarmAction,
    AlarmType,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    Op,
    PutRequest,
    RangeRequest,
    SortOrder,
    SortTarget,
    TxnRequest,
    WatchFilter,
    WatchRequest,
)

__all__ = [
    "WatchCancel",
    "WatchCreate",
    "WatchInput",
    "WatchProgress",
    "decode_alarm",
    "decode_compact",
    "decode_delete_range",
    "decode_hash_kv",
    "decode_lease_grant",
    "decode_lease_keep_alive",
    "decode_lease_revoke",
    "decode_lease_time_to_live",
    "decode_message",
    "decode_put",
    "decode_range",
    "decode_txn",
    "decode_watch",
    "encode_alarm",
    "encode_compact",
    "encode_delete_range",
    "encode_hash_kv",
    "encode_lease_grant",
    "encode_lease_keep_alive",
    "encode_lease_revoke",
    "encode_lease_time_to_live",
    "encode_put",
    "encode_range",
    "encode_txn",
    "encode_watch",
]

_M = TypeVar("_M", bound=Message)
_ORDERS: list[SortOrder] = list(SortOrder)
_TARGETS: list[SortTarget] = list(SortTarget)
_OPERANDS = ("version", "create_revision", "mod_revision", "value", "lease")
"""The name of the operand's field in a `Compare`, by target."""

_OPERAND_TAGS = (b"\x20", b"\x28", b"\x30", b"\x3a", b"\x40")
_SMALL = [bytes((i,)) for i in range(5)]
_COMPARE_TARGETS: list[CompareTarget] = list(CompareTarget)
_COMPARE_RESULTS: list[CompareResult] = list(CompareResult)

_MAX_TXN_DEPTH = 50
"""Nested transactions deeper than this are refused; the protobuf library itself refuses at 100 messages."""


class WatchCreate(msgspec.Struct, frozen=True):
    """Start a watch on the stream; `watch_id` 0 lets the server choose."""

    request: WatchRequest
    watch_id: int = 0
    fragment: bool = False


class WatchCancel(msgspec.Struct, frozen=True):
    """End one watch of the stream."""

    watch_id: int


class WatchProgress(msgspec.Struct, frozen=True):
    """Ask how far the whole stream has come."""


WatchInput: TypeAlias = WatchCreate | WatchCancel | WatchProgress


def decode_message(kind: type[_M], data: bytes) -> _M:
    """Parse any message; `InvalidRequest` names the kind where the bytes are not one."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise errors.InvalidRequest(
            f"etcdserver: the {len(data)} bytes are not a {kind.DESCRIPTOR.name} message ({error})"
        ) from None


def decode_range(data: bytes) -> RangeRequest:
    """Decode a `RangeRequest`; `InvalidSort` for an unknown order or target."""
    return _range(decode_message(pb.RangeRequest, data))


def _range(message: pb.RangeRequest) -> RangeRequest:
    order: int = message.sort_order
    target: int = message.sort_target
    if not (0 <= order < len(_ORDERS) and 0 <= target < len(_TARGETS)):
        raise errors.InvalidSort(f"{errors.InvalidSort.text}: sort_order {order}, sort_target {target}")
    return RangeRequest(
        message.key,
        message.range_end,
        message.limit,
        message.revision,
        _ORDERS[order],
        _TARGETS[target],
        message.serializable,
        message.keys_only,
        message.count_only,
        message.min_mod_revision,
        message.max_mod_revision,
        message.min_create_revision,
        message.max_create_revision,
    )


def decode_put(data: bytes) -> PutRequest:
    """Decode a `PutRequest`."""
    return _put(decode_message(pb.PutRequest, data))


def _put(message: pb.PutRequest) -> PutRequest:
    return PutRequest(
        message.key, message.value, message.lease, message.prev_kv, message.ignore_value, message.ignore_lease
    )


def decode_delete_range(data: bytes) -> DeleteRangeRequest:
    """Decode a `DeleteRangeRequest`."""
    return _delete(decode_message(pb.DeleteRangeRequest, data))


def _delete(message: pb.DeleteRangeRequest) -> DeleteRangeRequest:
    return DeleteRangeRequest(message.key, message.range_end, message.prev_kv)


def decode_txn(data: bytes) -> TxnRequest:
    """Decode a `TxnRequest`; `UnknownCompare` and `InvalidSort` for unknown values, at any depth."""
    return _txn(decode_message(pb.TxnRequest, data), 0)


def _txn(message: pb.TxnRequest, depth: int) -> TxnRequest:
    if depth > _MAX_TXN_DEPTH:
        raise errors.InvalidRequest(f"etcdserver: transactions nested more than {_MAX_TXN_DEPTH} deep")
    return TxnRequest(
        tuple([_compare(guard) for guard in message.compare]),
        tuple([_op(op, depth) for op in message.success]),
        tuple([_op(op, depth) for op in message.failure]),
    )


def _compare(message: pb.Compare) -> Compare:
    target: int = message.target
    result: int = message.result
    if not (0 <= target < len(_OPERANDS) and 0 <= result <= CompareResult.NOT_EQUAL):
        raise errors.UnknownCompare(
            f"{errors.UnknownCompare.text}: target {target}, result {result} for key {message.key!r}"
        )
    operand: int | bytes = getattr(message, _OPERANDS[target])
    return Compare(message.key, _COMPARE_TARGETS[target], _COMPARE_RESULTS[result], operand, message.range_end)


def _op(message: pb.RequestOp, depth: int) -> Op:
    match message.WhichOneof("request"):
        case "request_put":
            return _put(message.request_put)
        case "request_range":
            return _range(message.request_range)
        case "request_delete_range":
            return _delete(message.request_delete_range)
        case "request_txn":
            return _txn(message.request_txn, depth + 1)
    raise errors.InvalidRequest("etcdserver: an operation of the transaction is empty or of an unknown kind")


def decode_compact(data: bytes) -> tuple[int, bool]:
    """Decode a `CompactionRequest` into revision and `physical`."""
    message = decode_message(pb.CompactionRequest, data)
    return message.revision, message.physical


def decode_watch(data: bytes) -> WatchInput:
    """Decode one message of a watch stream; unknown filters are left out, as etcd does."""
    message = decode_message(pb.WatchRequest, data)
    match message.WhichOneof("request_union"):
        case "create_request":
            create = message.create_request
            filters = tuple([WatchFilter(number) for number in create.filters if number in (0, 1)])
            request = WatchRequest(
                create.key, create.range_end, create.start_revision, create.prev_kv, filters, create.progress_notify
            )
            return WatchCreate(request, create.watch_id, create.fragment)
        case "cancel_request":
            return WatchCancel(message.cancel_request.watch_id)
        case "progress_request":
            return WatchProgress()
    raise errors.InvalidRequest("etcdserver: a message of a watch stream asks for nothing that is known")


def decode_lease_grant(data: bytes) -> tuple[int, int]:
    """Decode a `LeaseGrantRequest` into time to live in seconds and id."""
    message = decode_message(pb.LeaseGrantRequest, data)
    return message.TTL, message.ID


def decode_lease_revoke(data: bytes) -> int:
    """Decode a `LeaseRevokeRequest` into the id."""
    return decode_message(pb.LeaseRevokeRequest, data).ID


def decode_lease_keep_alive(data: bytes) -> int:
    """Decode a `LeaseKeepAliveRequest` into the id."""
    return decode_message(pb.LeaseKeepAliveRequest, data).ID


def decode_lease_time_to_live(data: bytes) -> tuple[int, bool]:
    """Decode a `LeaseTimeToLiveRequest` into the id and whether keys are wanted."""
    message = decode_message(pb.LeaseTimeToLiveRequest, data)
    return message.ID, message.keys


def decode_hash_kv(data: bytes) -> int:
    """Decode a `HashKVRequest` into the revision."""
    return decode_message(pb.HashKVRequest, data).revision


def decode_alarm(data: bytes) -> tuple[AlarmAction, AlarmType, int]:
    """Decode an `AlarmRequest` into action, alarm and member id; `InvalidRequest` for unknown ones."""
    message = decode_message(pb.AlarmRequest, data)
    try:
        return AlarmAction(message.action), AlarmType(message.alarm), message.memberID
    except ValueError:
        raise errors.InvalidRequest(
            f"etcdserver: alarm action {message.action} or type {message.alarm} is not known"
        ) from None


def encode_range(request: RangeRequest) -> bytes:
    """Encode a `RangeRequest`."""
    return pb.RangeRequest(
        key=request.key,
        range_end=request.range_end,
        limit=request.limit,
        revision=request.revision,
        sort_order=request.sort_order,
        sort_target=request.sort_target,
        serializable=request.serializable,
        keys_only=request.keys_only,
        count_only=request.count_only,
        min_mod_revision=request.min_mod_revision,
        max_mod_revision=request.max_mod_revision,
        min_create_revision=request.min_create_revision,
        max_create_revision=request.max_create_revision,
    ).SerializeToString()


def encode_put(request: PutRequest) -> bytes:
    """Encode a `PutRequest`."""
    parts = [b"\x0a", varint(len(request.key)), request.key] if request.key else []
    if request.value:
        parts += (b"\x12", varint(len(request.value)), request.value)
    if request.lease:
        parts += (b"\x18", varint(request.lease))
    if request.prev_kv:
        parts.append(b"\x20\x01")
    if request.ignore_value:
        parts.append(b"\x28\x01")
    if request.ignore_lease:
        parts.append(b"\x30\x01")
    return b"".join(parts)


def encode_delete_range(request: DeleteRangeRequest) -> bytes:
    """Encode a `DeleteRangeRequest`."""
    return pb.DeleteRangeRequest(
        key=request.key, range_end=request.range_end, prev_kv=request.prev_kv
    ).SerializeToString()


def encode_txn(request: TxnRequest) -> bytes:
    """Encode a `TxnRequest`; `UnknownCompare` for a target or result that etcd does not know."""
    parts = [nested(b"\x0a", _encode_compare(guard)) for guard in request.compare]
    parts += _encode_ops(b"\x12", request.success)
    parts += _encode_ops(b"\x1a", request.failure)
    return b"".join(parts)


def _encode_ops(tag: bytes, ops: Iterable[Op]) -> list[bytes]:
    return [nested(tag, _encode_op(op)) for op in ops]


def _encode_op(op: Op) -> bytes:
    match op:
        case PutRequest():
            return nested(b"\x12", encode_put(op))
        case RangeRequest():
            return nested(b"\x0a", encode_range(op))
        case DeleteRangeRequest():
            return nested(b"\x1a", encode_delete_range(op))
        case TxnRequest():
            return nested(b"\x22", encode_txn(op))


def _encode_compare(guard: Compare) -> bytes:
    target, operand = guard.target, guard.operand
    if not (0 <= target < len(_OPERANDS) and 0 <= guard.result <= CompareResult.NOT_EQUAL):
        raise errors.UnknownCompare(
            f"{errors.UnknownCompare.text}: target {target}, result {guard.result} for key {guard.key!r}"
        )
    if isinstance(operand, bytes) is not (target == CompareTarget.VALUE):
        raise errors.UnknownCompare(
            f"{errors.UnknownCompare.text}: operand of {type(operand).__name__} for target "
            f"{CompareTarget(target).name} of key {guard.key!r}; VALUE takes bytes, the others an integer"
        )
    parts = [b"\x08", _SMALL[guard.result]] if guard.result else []
    if target:
        parts += (b"\x10", _SMALL[target])
    if guard.key:
        parts.append(nested(b"\x1a", guard.key))
    # An operand is written even where it is 0: it belongs to a oneof, whose presence is kept.
    tag = _OPERAND_TAGS[target]
    parts.append(nested(tag, operand) if isinstance(operand, bytes) else tag + varint(operand))
    if guard.range_end:
        parts.append(nested(b"\x82\x04", guard.range_end))
    return b"".join(parts)


def encode_compact(revision: int, *, physical: bool = False) -> bytes:
    """Encode a `CompactionRequest`."""
    return pb.CompactionRequest(revision=revision, physical=physical).SerializeToString()


def encode_watch(message: WatchInput) -> bytes:
    """Encode one message of a watch stream."""
    match message:
        case WatchCreate(request=request):
            create = pb.WatchCreateRequest(
                key=request.key,
                range_end=request.range_end,
                start_revision=request.start_revision,
                progress_notify=request.progress_notify,
                filters=request.filters,
                prev_kv=request.prev_kv,
                watch_id=message.watch_id,
                fragment=message.fragment,
            )
            return pb.WatchRequest(create_request=create).SerializeToString()
        case WatchCancel(watch_id=watch_id):
            return pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)).SerializeToString()
        case WatchProgress():
            return pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString()


def encode_lease_grant(ttl: int, lease_id: int = 0) -> bytes:
    """Encode a `LeaseGrantRequest`."""
    return pb.LeaseGrantRequest(TTL=ttl, ID=lease_id).SerializeToString()


def encode_lease_revoke(lease_id: int) -> bytes:
    """Encode a `LeaseRevokeRequest`."""
    return pb.LeaseRevokeRequest(ID=lease_id).SerializeToString()


def encode_lease_keep_alive(lease_id: int) -> bytes:
    """Encode a `LeaseKeepAliveRequest`."""
    return pb.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()


def encode_lease_time_to_live(lease_id: int, *, keys: bool = False) -> bytes:
    """Encode a `LeaseTimeToLiveRequest`."""
    return pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys).SerializeToString()


def encode_hash_kv(revision: int = 0) -> bytes:
    """Encode a `HashKVRequest`."""
    return pb.HashKVRequest(revision=revision).SerializeToString()


def encode_alarm(action: AlarmAction, alarm: AlarmType = AlarmType.NONE, member_id: int = 0) -> bytes:
    """Encode an `AlarmRequest`."""
    return pb.AlarmRequest(
        action=action,
        alarm=alarm,
        memberID=member_id,
    ).SerializeToString()
