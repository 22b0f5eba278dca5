"""The codec against the protobuf library: what we assemble is what it would write, and both ways give the same."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.store import errors
from pilothouse.store.etcd import codec, wire
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.model import (
    Alarm,
    AlarmAction,
    AlarmType,
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
    Member,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SortOrder,
    SortTarget,
    Status,
    TxnRequest,
    TxnResponse,
    WatchFilter,
    WatchRequest,
    WatchResponse,
)

CLUSTER, MEMBER, TERM = 0xCDF8_1819_4E3A_8C32, 0x8E9E_05C5_2164_694D, 7
ENCODER = codec.ResponseEncoder(CLUSTER, MEMBER, TERM)

int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)
# Revisions, around the edges of the varint tables too.
revisions = st.one_of(
    st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 127, 128, 16383, 16384, 16385, 2**21, 2**26 - 1, 2**26, 2**28])
)
payloads = st.one_of(st.binary(max_size=40), st.sampled_from([127, 128, 4095, 4096, 16384]).map(bytes))
key_values = st.builds(
    KeyValue, payloads, payloads, revisions, revisions, st.one_of(st.integers(0, 5000), revisions), int64
)
ranges = st.builds(
    RangeRequest,
    payloads,
    payloads,
    int64,
    int64,
    st.sampled_from(SortOrder),
    st.sampled_from(SortTarget),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    int64,
    int64,
    int64,
    int64,
)
puts = st.builds(PutRequest, payloads, payloads, int64, st.booleans(), st.booleans(), st.booleans())
deletes = st.builds(DeleteRangeRequest, payloads, payloads, st.booleans())
results = st.sampled_from(CompareResult)
compares = st.one_of(
    st.builds(
        Compare,
        payloads,
        st.sampled_from([one for one in CompareTarget if one is not CompareTarget.VALUE]),
        results,
        int64,
        payloads,
    ),
    st.builds(Compare, payloads, st.just(CompareTarget.VALUE), results, payloads, payloads),
)


def _tuples(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=4).map(tuple)


ops = st.recursive(
    st.one_of(ranges, puts, deletes),
    lambda inner: st.builds(TxnRequest, _tuples(compares), _tuples(inner), _tuples(inner)),
    max_leaves=8,
)
txns = st.builds(TxnRequest, _tuples(compares), _tuples(ops), _tuples(ops))
range_responses = st.builds(
    RangeResponse, revisions, st.lists(key_values, max_size=5), st.integers(0, 2**40), st.booleans()
)
put_responses = st.builds(PutResponse, revisions, st.none() | key_values)
delete_responses = st.builds(DeleteRangeResponse, revisions, st.integers(0, 2**40), st.lists(key_values, max_size=5))


def _parsed(kind: type[pb.RangeResponse], data: bytes) -> pb.RangeResponse:
    message = kind.FromString(data)
    assert message.SerializeToString(deterministic=True) == data
    return message


@given(number=int64)
def test_a_varint_is_what_protobuf_writes(number: int) -> None:
    tag = b"\x08" if number else b""
    encoded = tag + (wire.varint(number) if number else b"")
    assert pb.CompactionRequest(revision=number).SerializeToString() == encoded


@given(cluster=uint64, member=uint64, term=uint64, revisions=st.lists(revisions, min_size=1, max_size=5))
def test_a_header_is_what_protobuf_writes(cluster: int, member: int, term: int, revisions: list[int]) -> None:
    encoder = wire.HeaderEncoder(cluster, member, term)
    for revision in [*revisions, revisions[0]]:
        header = pb.ResponseHeader(cluster_id=cluster, member_id=member, revision=revision, raft_term=term)
        assert encoder.field(revision) == pb.PutResponse(header=header).SerializeToString()


@given(kvs=st.lists(key_values, max_size=6))
def test_keys_are_what_protobuf_writes(kvs: list[KeyValue]) -> None:
    message = pb.RangeResponse(
        kvs=[
            pb.KeyValue(
                key=kv.key,
                value=kv.value,
                create_revision=kv.create_revision,
                mod_revision=kv.mod_revision,
                version=kv.version,
                lease=kv.lease,
            )
            for kv in kvs
        ]
    )
    assert b"".join(wire.key_values(kvs, b"\x12")) == message.SerializeToString()


def test_the_straight_path_of_keys_is_taken_and_right() -> None:
    kv = KeyValue(b"/registry/pods/a", b"x" * 300, 20_000, 2**26 - 1, 4095, 77)
    (field,) = wire.key_values([kv], b"\x12")
    assert field == wire.nested(b"\x12", wire.key_value(kv))


@given(request=ranges)
def test_range_requests_survive(request: RangeRequest) -> None:
    assert codec.decode_range(codec.encode_range(request)) == request


@given(request=puts)
def test_put_requests_survive(request: PutRequest) -> None:
    data = codec.encode_put(request)
    assert codec.decode_put(data) == request
    assert pb.PutRequest.FromString(data).SerializeToString() == data


@given(request=deletes)
def test_delete_requests_survive(request: DeleteRangeRequest) -> None:
    assert codec.decode_delete_range(codec.encode_delete_range(request)) == request


@given(request=txns)
def test_transactions_survive(request: TxnRequest) -> None:
    data = codec.encode_txn(request)
    assert codec.decode_txn(data) == request
    assert pb.TxnRequest.FromString(data).SerializeToString() == data


@given(response=range_responses)
def test_range_responses_survive(response: RangeResponse) -> None:
    data = ENCODER.range(response)
    assert codec.decode_range_response(data) == response
    message = _parsed(pb.RangeResponse, data)
    assert (message.header.cluster_id, message.header.member_id, message.header.raft_term) == (CLUSTER, MEMBER, TERM)


@given(response=put_responses)
def test_put_responses_survive(response: PutResponse) -> None:
    data = ENCODER.put(response)
    assert codec.decode_put_response(data) == response
    assert pb.PutResponse.FromString(data).SerializeToString() == data


@given(response=delete_responses)
def test_delete_responses_survive(response: DeleteRangeResponse) -> None:
    data = ENCODER.delete_range(response)
    assert codec.decode_delete_range_response(data) == response
    assert pb.DeleteRangeResponse.FromString(data).SerializeToString() == data


@given(
    revision=st.integers(1, 2**62),
    succeeded=st.booleans(),
    inner=st.lists(st.one_of(range_responses, put_responses, delete_responses), max_size=4),
    deep=st.booleans(),
)
def test_transaction_responses_survive(
    revision: int, succeeded: bool, inner: list[RangeResponse | PutResponse | DeleteRangeResponse], deep: bool
) -> None:
    answers = tuple(msgspec.structs.replace(one, revision=revision) for one in inner)
    response = TxnResponse(revision, succeeded, answers)
    if deep:
        response = TxnResponse(revision, not succeeded, (response, *answers))
    data = ENCODER.txn(response)
    assert codec.decode_txn_response(data) == response
    assert pb.TxnResponse.FromString(data).SerializeToString() == data


events = st.builds(Event, key_values, st.none() | key_values)


@given(
    watch_id=st.integers(-1, 2**40),
    revision=revisions,
    events=st.lists(events, max_size=5),
    prev_kv=st.booleans(),
    canceled=st.booleans(),
    compact_revision=st.integers(0, 2**40),
    reason=st.text(max_size=20),
)
def test_watch_responses_survive(
    watch_id: int,
    revision: int,
    events: list[Event],
    prev_kv: bool,
    canceled: bool,
    compact_revision: int,
    reason: str,
) -> None:
    if not canceled:
        compact_revision, reason = 0, ""
    response = WatchResponse(revision, events, canceled, compact_revision, reason)
    data = ENCODER.watch(watch_id, response, prev_kv=prev_kv)
    assert pb.WatchResponse.FromString(data).SerializeToString() == data
    message = codec.decode_watch_response(data)
    assert (message.watch_id, message.created, message.fragment) == (watch_id, False, False)
    wanted = [Event(one.kv, one.prev_kv if prev_kv else None) for one in events]
    assert message.response == WatchResponse(revision, wanted, canceled, compact_revision, reason)


def test_an_event_is_encoded_once_for_all_watchers() -> None:
    event = Event(KeyValue(b"k", b"v", 2, 3, 2), KeyValue(b"k", b"u", 2, 2, 1))
    response = WatchResponse(3, [event])
    first = ENCODER.watch(1, response)
    memo = event.wire
    assert memo is not None
    assert ENCODER.watch(1, response) == first
    assert event.wire is memo
    ENCODER.watch(2, response, prev_kv=True)
    assert isinstance(event.wire_prev, bytes)
    assert event.wire_prev != memo


def test_the_type_of_a_deletion_is_delete() -> None:
    response = WatchResponse(9, [Event(KeyValue(b"k", mod_revision=9)), Event(KeyValue(b"k", b"v", 8, 8, 1))])
    message = pb.WatchResponse.FromString(ENCODER.watch(5, response))
    assert [one.type for one in message.events] == [pb.Event.DELETE, pb.Event.PUT]


def test_a_created_watch_answers_with_its_id() -> None:
    message = codec.decode_watch_response(ENCODER.watch_created(3, 42))
    assert (message.watch_id, message.created, message.response.revision) == (3, True, 42)


@given(sizes=st.lists(st.integers(0, 60), max_size=12), limit=st.integers(1, 200))
def test_fragments_hold_every_event_once_and_keep_to_the_limit(sizes: list[int], limit: int) -> None:
    events = [Event(KeyValue(b"k%d" % i, bytes(size), i + 1, i + 1, 1)) for i, size in enumerate(sizes)]
    response = WatchResponse(99, events)
    messages = list(ENCODER.watch_fragments(4, response, prev_kv=False, limit=limit))
    parsed = [codec.decode_watch_response(data) for data in messages]
    assert [one.fragment for one in parsed] == [True] * (len(parsed) - 1) + [False]
    assert [event.kv for one in parsed for event in one.response.events] == [event.kv for event in events]
    for one in parsed:
        size = sum(len(wire.event_field(event, False)) for event in one.response.events)
        assert size <= limit or len(one.response.events) == 1


@pytest.mark.parametrize(
    "message",
    [
        codec.WatchCreate(
            WatchRequest(b"a", b"b", 5, True, (WatchFilter.NOPUT, WatchFilter.NODELETE), True), 7, fragment=True
        ),
        codec.WatchCreate(WatchRequest(b"a")),
        codec.WatchCancel(0),
        codec.WatchCancel(12),
        codec.WatchProgress(),
    ],
)
def test_watch_requests_survive(message: codec.WatchInput) -> None:
    assert codec.decode_watch(codec.encode_watch(message)) == message


def test_lease_messages_survive() -> None:
    assert codec.decode_lease_grant(codec.encode_lease_grant(60, 5)) == (60, 5)
    assert codec.decode_lease_revoke(codec.encode_lease_revoke(-5)) == -5
    assert codec.decode_lease_keep_alive(codec.encode_lease_keep_alive(5)) == 5
    assert codec.decode_lease_time_to_live(codec.encode_lease_time_to_live(5, keys=True)) == (5, True)
    granted = LeaseGrantResponse(3, 5, 60)
    assert codec.decode_lease_grant_response(ENCODER.lease_grant(granted)) == granted
    assert codec.decode_lease_keep_alive_response(ENCODER.lease_keep_alive(3, 5, 60)) == (5, 60)
    left = LeaseTimeToLiveResponse(3, 5, -1, 60, [b"a", b"b"])
    assert codec.decode_lease_time_to_live_response(ENCODER.lease_time_to_live(left)) == left
    assert codec.decode_lease_leases_response(ENCODER.lease_leases(3, [1, 2])) == [1, 2]


def test_maintenance_messages_survive() -> None:
    assert codec.decode_compact(codec.encode_compact(9, physical=True)) == (9, True)
    assert codec.decode_header_revision(ENCODER.header(77)) == 77
    assert codec.decode_hash_kv(codec.encode_hash_kv(9)) == 9
    hashed = HashKVResponse(20, 2**32 - 1, 9, 4)
    assert codec.decode_hash_kv_response(ENCODER.hash_kv(hashed)) == hashed
    assert codec.decode_alarm(codec.encode_alarm(AlarmAction.DEACTIVATE, AlarmType.NOSPACE, 2**63)) == (
        AlarmAction.DEACTIVATE,
        AlarmType.NOSPACE,
        2**63,
    )
    alarms = [Alarm(2**63, AlarmType.NOSPACE), Alarm(1, AlarmType.CORRUPT)]
    assert codec.decode_alarm_response(ENCODER.alarms(3, alarms)) == alarms
    members = [Member(2**63, "a", ("http://p:1",), ("http://c:1", "http://c:2"), True)]
    assert codec.decode_member_list_response(ENCODER.members(3, members)) == members
    part = codec.decode_snapshot_response(ENCODER.snapshot(3, 10, b"abc", "3.4.0"))
    assert part == codec.SnapshotPart(b"abc", 10)
    assert pb.HashResponse.FromString(ENCODER.hash(3, 8)).hash == 8
    status = Status(
        cluster_id=CLUSTER,
        member_id=MEMBER,
        revision=5,
        raft_term=TERM,
        raft_index=9,
        raft_applied_index=8,
        leader=MEMBER,
        version="3.4.0",
        db_size=4096,
        db_size_in_use=2048,
        quota=10**10,
        errors=("NOSPACE",),
    )
    assert codec.decode_status_response(ENCODER.status(status)) == status


def test_servers_before_the_hash_revision_was_added_answer_for_what_was_asked() -> None:
    old = pb.HashKVResponse(header=pb.ResponseHeader(revision=20), hash=1).SerializeToString()
    assert codec.decode_hash_kv_response(old, 9).hash_revision == 9
    assert codec.decode_hash_kv_response(old).hash_revision == 20


def test_unknown_enumeration_values_are_refused_by_name() -> None:
    with pytest.raises(errors.InvalidSort, match="sort_order 9"):
        codec.decode_range(pb.RangeRequest(key=b"k", sort_order=9).SerializeToString())
    with pytest.raises(errors.InvalidSort, match="sort_target 5"):
        codec.decode_range(pb.RangeRequest(key=b"k", sort_target=5).SerializeToString())
    for guard in (pb.Compare(key=b"k", target=5), pb.Compare(key=b"k", result=4), pb.Compare(key=b"k", target=-1)):
        with pytest.raises(errors.UnknownCompare, match="b'k'"):
            codec.decode_txn(pb.TxnRequest(compare=[guard]).SerializeToString())
    with pytest.raises(errors.UnknownCompare, match="target 9"):
        codec.encode_txn(TxnRequest((Compare(b"k", 9),)))
    with pytest.raises(errors.UnknownCompare, match="VALUE takes bytes"):
        codec.encode_txn(TxnRequest((Compare(b"k", CompareTarget.VALUE, CompareResult.EQUAL, 3),)))
    with pytest.raises(errors.InvalidRequest, match="alarm action 7"):
        codec.decode_alarm(pb.AlarmRequest(action=7).SerializeToString())
    with pytest.raises(errors.InvalidRequest, match="empty or of an unknown kind"):
        codec.decode_txn(pb.TxnRequest(success=[pb.RequestOp()]).SerializeToString())
    with pytest.raises(errors.InvalidRequest, match="asks for nothing"):
        codec.decode_watch(b"")


@given(data=st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused_and_never_crash(data: bytes) -> None:
    for decode in (codec.decode_put, codec.decode_range, codec.decode_txn, codec.decode_watch, codec.decode_alarm):
        with contextlib.suppress(errors.InvalidRequest):
            decode(data)


def test_a_broken_message_is_named() -> None:
    with pytest.raises(errors.InvalidRequest, match="2 bytes are not a PutRequest"):
        codec.decode_put(b"\x0a\xff")


def test_transactions_nested_too_deep_are_refused() -> None:
    request = TxnRequest()
    for _ in range(49):
        request = TxnRequest(success=(request,))
    assert codec.decode_txn(codec.encode_txn(request)) == request
    for _ in range(50):
        request = TxnRequest(success=(request,))
    with pytest.raises(errors.InvalidRequest):
        codec.decode_txn(codec.encode_txn(request))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Compacted(), 11),
        (errors.FutureRevision(), 11),
        (errors.EmptyKey(), 3),
        (errors.DuplicateKey(), 3),
        (errors.TooManyOps(), 3),
        (errors.RequestTooLarge(), 3),
        (errors.KeyNotFound(), 3),
        (errors.ValueProvided(), 3),
        (errors.LeaseProvided(), 3),
        (errors.LeaseNotFound(), 5),
        (errors.LeaseExists(), 9),
        (errors.LeaseTtlTooLarge(), 11),
        (errors.NoSpace(), 8),
        (errors.TooManyRequests(), 8),
        (errors.CorruptAlarm(), 15),
        (errors.Unavailable(), 14),
        (errors.Timeout(), 14),
        (errors.WatchCanceled(), 1),
        (errors.InvalidSort(), 3),
        (errors.UnknownCompare(), 3),
    ],
)
def test_errors_become_statuses_and_come_back(error: errors.StoreError, code: int) -> None:
    status = codec.status_from_error(error)
    assert status == (code, type(error).text)
    back = codec.error_from_status(*status)
    assert type(back) is type(error)
    assert back.message == error.message


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (14, "etcdserver: request timed out, possibly due to previous leader failure", errors.Timeout),
        (14, "etcdserver: leader changed", errors.Unavailable),
        (14, "etcdserver: no leader", errors.Unavailable),
        (4, "context deadline exceeded", errors.Timeout),
        (2, "context deadline exceeded", errors.Timeout),
        (8, "trying to send message larger than max", errors.TooManyRequests),
        (3, "etcdserver: authentication failed, invalid user ID or password", errors.AuthError),
        (9, "etcdserver: role name not found", errors.AuthError),
        (16, "etcdserver: invalid auth token", errors.AuthError),
        (7, "etcdserver: permission denied", errors.AuthError),
        (3, "etcdserver: something newer", errors.InvalidRequest),
        (12, "unknown service", errors.StoreError),
    ],
)
def test_other_statuses_map_by_text_then_code(code: int, text: str, kind: type[errors.StoreError]) -> None:
    error = codec.error_from_status(code, text)
    assert type(error) is kind
    assert error.message == text
    if kind in {errors.AuthError, errors.StoreError}:
        assert error.code == code


def test_an_error_of_ours_does_not_leak_its_text() -> None:
    code, text = codec.status_from_error(RuntimeError("password=hunter2"))
    assert code == 13
    assert "hunter2" not in text
