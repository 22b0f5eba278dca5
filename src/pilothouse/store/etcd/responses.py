"""Between the store's answers and the bytes of etcd's responses, both ways.

`ResponseEncoder` is for a server: it knows the member's header. `decode_*` are for a client and raise
`InvalidRequest` for bytes that are not the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.requests import decode_message
from pilothouse.store.etcd.wire import HeaderEncoder, event_field, key_value, key_values, nested, varint
from pilothouse.store.model import (
    Alarm,
    AlarmType,
    DeleteRangeResponse,
    Event,
    HashKVResponse,
    KeyValue,
    LeaseGrantResponse,
    LeaseTimeToLiveResponse,
    Member,
    OpResponse,
    PutResponse,
    RangeResponse,
    Status,
    TxnResponse,
    WatchResponse,
)

__all__ = [
    "ResponseEncoder",
    "SnapshotPart",
    "WatchMessage",
    "decode_alarm_response",
    "decode_delete_range_response",
    "decode_hash_kv_response",
    "decode_header_revision",
    "decode_lease_grant_response",
    "decode_lease_keep_alive_response",
    "decode_lease_leases_response",
    "decode_lease_time_to_live_response",
    "decode_member_list_response",
    "decode_put_response",
    "decode_range_response",
    "decode_snapshot_response",
    "decode_status_response",
    "decode_txn_response",
    "decode_watch_response",
]


class ResponseEncoder:
    """Encodes what a server answers. Make one for each member and raft term; it is not for several threads."""

    __slots__ = ("_header",)

    def __init__(self, cluster_id: int, member_id: int, raft_term: int) -> None:
        self._header = HeaderEncoder(cluster_id, member_id, raft_term)

    def header(self, revision: int) -> bytes:
        """Encode an answer that is a header only (compact, revoke, defragment, member and auth operations).

        It is also the beginning of every other answer: a message with more fields is `header(r) +` those fields,
        serialized without a header.
        """
        return self._header.field(revision)

    def range(self, response: RangeResponse) -> bytes:
        """Encode a `RangeResponse`."""
        parts = [self._header.field(response.revision)]
        parts += _range_fields(response)
        return b"".join(parts)

    def put(self, response: PutResponse) -> bytes:
        """Encode a `PutResponse`."""
        header = self._header.field(response.revision)
        prev = response.prev_kv
        return header if prev is None else header + nested(b"\x12", key_value(prev))

    def delete_range(self, response: DeleteRangeResponse) -> bytes:
        """Encode a `DeleteRangeResponse`."""
        return self._header.field(response.revision) + _delete_fields(response)

    def txn(self, response: TxnResponse) -> bytes:
        """Encode a `TxnResponse`; like etcd's, the answers inside carry a header with the revision only."""
        return self._header.field(response.revision) + _txn_fields(response)

    def watch(self, watch_id: int, response: WatchResponse, *, prev_kv: bool = False, fragment: bool = False) -> bytes:
        """Encode one `WatchResponse`; `fragment` says that more of it follows."""
        parts = [self._header.field(response.revision), _watch_id(watch_id)]
        if response.canceled:
            parts.append(b"\x20\x01")
            if response.compact_revision:
                parts += (b"\x28", varint(response.compact_revision))
            if response.cancel_reason:
                parts.append(nested(b"\x32", response.cancel_reason.encode()))
        if fragment:
            parts.append(b"\x38\x01")
        parts += [event_field(event, prev_kv) for event in response.events]
        return b"".join(parts)

    def watch_created(self, watch_id: int, revision: int) -> bytes:
        """Encode the answer to a create request."""
        return b"%b%b\x18\x01" % (self._header.field(revision), _watch_id(watch_id))

    def watch_fragments(self, watch_id: int, response: WatchResponse, *, prev_kv: bool, limit: int) -> Iterator[bytes]:
        """Encode a response as messages of at most `limit` bytes of events each; an event is never split."""
        pieces = list(split_events(response.events, prev_kv, limit)) or [[]]
        for piece in pieces[:-1]:
            yield self.watch(watch_id, WatchResponse(response.revision, piece), prev_kv=prev_kv, fragment=True)
        yield self.watch(watch_id, msgspec.structs.replace(response, events=pieces[-1]), prev_kv=prev_kv)

    def lease_grant(self, response: LeaseGrantResponse) -> bytes:
        """Encode a `LeaseGrantResponse`."""
        rest = pb.LeaseGrantResponse(ID=response.id, TTL=response.ttl)
        return self._header.field(response.revision) + rest.SerializeToString()

    def lease_keep_alive(self, revision: int, lease_id: int, ttl: int) -> bytes:
        """Encode a `LeaseKeepAliveResponse`; `ttl` 0 says that the lease is gone."""
        return self._header.field(revision) + pb.LeaseKeepAliveResponse(ID=lease_id, TTL=ttl).SerializeToString()

    def lease_time_to_live(self, response: LeaseTimeToLiveResponse) -> bytes:
        """Encode a `LeaseTimeToLiveResponse`."""
        rest = pb.LeaseTimeToLiveResponse(
            ID=response.id, TTL=response.ttl, grantedTTL=response.granted_ttl, keys=response.keys
        )
        return self._header.field(response.revision) + rest.SerializeToString()

    def lease_leases(self, revision: int, lease_ids: Iterable[int]) -> bytes:
        """Encode a `LeaseLeasesResponse`."""
        rest = pb.LeaseLeasesResponse(leases=[pb.LeaseStatus(ID=lease_id) for lease_id in lease_ids])
        return self._header.field(revision) + rest.SerializeToString()

    def members(self, revision: int, members: Iterable[Member]) -> bytes:
        """Encode a `MemberListResponse` (member removal, update and promotion answer with the same fields)."""
        rest = pb.MemberListResponse(members=[_encode_member(member) for member in members])
        return self._header.field(revision) + rest.SerializeToString()

    def alarms(self, revision: int, alarms: Iterable[Alarm]) -> bytes:
        """Encode an `AlarmResponse`."""
        rest = pb.AlarmResponse(alarms=[pb.AlarmMember(memberID=one.member_id, alarm=one.alarm) for one in alarms])
        return self._header.field(revision) + rest.SerializeToString()

    def hash(self, revision: int, value: int) -> bytes:
        """Encode a `HashResponse`."""
        return self._header.field(revision) + pb.HashResponse(hash=value).SerializeToString()

    def hash_kv(self, response: HashKVResponse) -> bytes:
        """Encode a `HashKVResponse`."""
        rest = pb.HashKVResponse(
            hash=response.hash, compact_revision=response.compact_revision, hash_revision=response.hash_revision
        )
        return self._header.field(response.revision) + rest.SerializeToString()

    def status(self, status: Status) -> bytes:
        """Encode a `StatusResponse`."""
        rest = pb.StatusResponse(
            version=status.version,
            dbSize=status.db_size,
            leader=status.leader,
            raftIndex=status.raft_index,
            raftTerm=status.raft_term,
            raftAppliedIndex=status.raft_applied_index,
            errors=status.errors,
            dbSizeInUse=status.db_size_in_use,
            dbSizeQuota=status.quota,
        )
        return self._header.field(status.revision) + rest.SerializeToString()

    def snapshot(self, revision: int, remaining_bytes: int, blob: bytes, version: str = "") -> bytes:
        """Encode one `SnapshotResponse` of the stream."""
        rest = pb.SnapshotResponse(remaining_bytes=remaining_bytes, blob=blob, version=version)
        return self._header.field(revision) + rest.SerializeToString()


def split_events(events: Sequence[Event], prev_kv: bool, limit: int) -> Iterator[list[Event]]:
    """Cut events into runs whose encodings have at most `limit` bytes, one event at least."""
    piece: list[Event] = []
    size = 0
    for event in events:
        more = len(event_field(event, prev_kv))
        if piece and size + more > limit:
            yield piece
            piece, size = [], 0
        piece.append(event)
        size += more
    if piece:
        yield piece


def _watch_id(watch_id: int) -> bytes:
    return b"\x10" + varint(watch_id) if watch_id else b""


def _range_fields(response: RangeResponse) -> list[bytes]:
    fields = key_values(response.kvs, b"\x12")
    if response.more:
        fields.append(b"\x18\x01")
    if response.count:
        fields += (b"\x20", varint(response.count))
    return fields


def _delete_fields(response: DeleteRangeResponse) -> bytes:
    deleted = b"\x10" + varint(response.deleted) if response.deleted else b""
    return deleted + b"".join(key_values(response.prev_kvs, b"\x1a"))


def _txn_fields(response: TxnResponse) -> bytes:
    parts = [b"\x10\x01"] if response.succeeded else []
    parts += [nested(b"\x1a", _op_response(one)) for one in response.responses]
    return b"".join(parts)


def _op_response(response: OpResponse) -> bytes:
    header = b"\x18" + varint(response.revision) if response.revision else b""
    start = nested(b"\x0a", header)
    match response:
        case PutResponse(prev_kv=prev):
            return nested(b"\x12", start if prev is None else start + nested(b"\x12", key_value(prev)))
        case RangeResponse():
            return nested(b"\x0a", start + b"".join(_range_fields(response)))
        case DeleteRangeResponse():
            return nested(b"\x1a", start + _delete_fields(response))
        case TxnResponse():
            return nested(b"\x22", start + _txn_fields(response))


def _encode_member(member: Member) -> pb.Member:
    return pb.Member(
        ID=member.id,
        name=member.name,
        peerURLs=member.peer_urls,
        clientURLs=member.client_urls,
        isLearner=member.is_learner,
    )


class WatchMessage(msgspec.Struct, frozen=True):
    """One message of a watch stream as the client sees it; `watch_id` -1 is a progress report for all watches."""

    watch_id: int
    response: WatchResponse
    created: bool = False
    fragment: bool = False


class SnapshotPart(msgspec.Struct, frozen=True):
    """One piece of a snapshot and how many bytes follow it."""

    blob: bytes
    remaining_bytes: int


def _kv(message: pb.KeyValue) -> KeyValue:
    return KeyValue(
        message.key, message.value, message.create_revision, message.mod_revision, message.version, message.lease
    )


def decode_range_response(data: bytes) -> RangeResponse:
    """Decode a `RangeResponse`."""
    return _range(decode_message(pb.RangeResponse, data))


def _range(message: pb.RangeResponse) -> RangeResponse:
    return RangeResponse(message.header.revision, [_kv(kv) for kv in message.kvs], message.count, message.more)


def decode_put_response(data: bytes) -> PutResponse:
    """Decode a `PutResponse`."""
    return _put(decode_message(pb.PutResponse, data))


def _put(message: pb.PutResponse) -> PutResponse:
    return PutResponse(message.header.revision, _kv(message.prev_kv) if message.HasField("prev_kv") else None)


def decode_delete_range_response(data: bytes) -> DeleteRangeResponse:
    """Decode a `DeleteRangeResponse`."""
    return _delete(decode_message(pb.DeleteRangeResponse, data))


def _delete(message: pb.DeleteRangeResponse) -> DeleteRangeResponse:
    return DeleteRangeResponse(message.header.revision, message.deleted, [_kv(kv) for kv in message.prev_kvs])


def decode_txn_response(data: bytes) -> TxnResponse:
    """Decode a `TxnResponse`. An answer inside it without a revision has that of the whole."""
    message = decode_message(pb.TxnResponse, data)
    return _txn(message, message.header.revision)


def _txn(message: pb.TxnResponse, revision: int) -> TxnResponse:
    return TxnResponse(revision, message.succeeded, tuple([_op(one, revision) for one in message.responses]))


def _op(message: pb.ResponseOp, revision: int) -> OpResponse:
    match message.WhichOneof("response"):
        case "response_range":
            found = message.response_range
            return RangeResponse(
                found.header.revision or revision, [_kv(kv) for kv in found.kvs], found.count, found.more
            )
        case "response_put":
            put = message.response_put
            prev = _kv(put.prev_kv) if put.HasField("prev_kv") else None
            return PutResponse(put.header.revision or revision, prev)
        case "response_delete_range":
            gone = message.response_delete_range
            return DeleteRangeResponse(
                gone.header.revision or revision, gone.deleted, [_kv(kv) for kv in gone.prev_kvs]
            )
        case _:
            txn = message.response_txn
            return _txn(txn, txn.header.revision or revision)


def decode_watch_response(data: bytes) -> WatchMessage:
    """Decode one message of a watch stream."""
    message = decode_message(pb.WatchResponse, data)
    response = WatchResponse(
        message.header.revision,
        [Event(_kv(one.kv), _kv(one.prev_kv) if one.HasField("prev_kv") else None) for one in message.events],
        message.canceled,
        message.compact_revision,
        message.cancel_reason,
    )
    return WatchMessage(message.watch_id, response, message.created, message.fragment)


def decode_header_revision(data: bytes) -> int:
    """Return the header's revision of an answer of any kind."""
    return decode_message(pb.CompactionResponse, data).header.revision


def decode_lease_grant_response(data: bytes) -> LeaseGrantResponse:
    """Decode a `LeaseGrantResponse`."""
    message = decode_message(pb.LeaseGrantResponse, data)
    return LeaseGrantResponse(message.header.revision, message.ID, message.TTL)


def decode_lease_keep_alive_response(data: bytes) -> tuple[int, int]:
    """Decode a `LeaseKeepAliveResponse` into id and time to live."""
    message = decode_message(pb.LeaseKeepAliveResponse, data)
    return message.ID, message.TTL


def decode_lease_time_to_live_response(data: bytes) -> LeaseTimeToLiveResponse:
    """Decode a `LeaseTimeToLiveResponse`."""
    message = decode_message(pb.LeaseTimeToLiveResponse, data)
    return LeaseTimeToLiveResponse(
        message.header.revision, message.ID, message.TTL, message.grantedTTL, list(message.keys)
    )


def decode_lease_leases_response(data: bytes) -> list[int]:
    """Decode a `LeaseLeasesResponse`."""
    return [lease.ID for lease in decode_message(pb.LeaseLeasesResponse, data).leases]


def decode_member_list_response(data: bytes) -> list[Member]:
    """Decode a `MemberListResponse`."""
    return [
        Member(one.ID, one.name, tuple(one.peerURLs), tuple(one.clientURLs), one.isLearner)
        for one in decode_message(pb.MemberListResponse, data).members
    ]


def decode_alarm_response(data: bytes) -> list[Alarm]:
    """Decode an `AlarmResponse`; alarms of a kind that is not known count as CORRUPT, the graver one."""
    known = {int(kind) for kind in AlarmType}
    return [
        Alarm(one.memberID, AlarmType(one.alarm if one.alarm in known else AlarmType.CORRUPT))
        for one in decode_message(pb.AlarmResponse, data).alarms
    ]


def decode_hash_kv_response(data: bytes, revision: int = 0) -> HashKVResponse:
    """Decode the answer to a `HashKVRequest` for `revision`; servers before 3.6 do not repeat it."""
    message = decode_message(pb.HashKVResponse, data)
    current = message.header.revision
    return HashKVResponse(current, message.hash, message.hash_revision or revision or current, message.compact_revision)


def decode_status_response(data: bytes) -> Status:
    """Decode a `StatusResponse`."""
    message = decode_message(pb.StatusResponse, data)
    return Status(
        cluster_id=message.header.cluster_id,
        member_id=message.header.member_id,
        revision=message.header.revision,
        raft_term=message.raftTerm,
        raft_index=message.raftIndex,
        raft_applied_index=message.raftAppliedIndex,
        leader=message.leader,
        version=message.version,
        db_size=message.dbSize,
        db_size_in_use=message.dbSizeInUse,
        quota=message.dbSizeQuota,
        errors=tuple(message.errors),
    )


def decode_snapshot_response(data: bytes) -> SnapshotPart:
    """Decode one message of a snapshot stream."""
    message = decode_message(pb.SnapshotResponse, data)
    return SnapshotPart(message.blob, message.remaining_bytes)
