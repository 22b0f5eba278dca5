from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from pilothouse.store.model import (
    DeleteRangeRequest,
    Event,
    PutRequest,
    TxnRequest,
    WatchFilter,
    WatchRequest,
    WatchResponse,
)
from support.model import ModelStore
from support.watch_validators import VALIDATORS, Watched, validate


@pytest.fixture
def history() -> list[Event]:
    """Revisions 2 to 7: a and b together, a again, a gone, z, b again, a anew with z gone."""
    store = ModelStore(clock=lambda: 0.0)
    store.txn(TxnRequest(success=(PutRequest(b"a", b"1"), PutRequest(b"b", b"1"))))
    store.put(PutRequest(b"a", b"2"))
    store.delete_range(DeleteRangeRequest(b"a"))
    store.put(PutRequest(b"z", b"1"))
    store.put(PutRequest(b"b", b"2"))
    store.txn(TxnRequest(success=(PutRequest(b"a", b"3"), DeleteRangeRequest(b"z"))))
    return store.history


ALL = WatchRequest(b"a", b"\0", start_revision=2, prev_kv=True)


def responses_of(request: WatchRequest, history: Sequence[Event], last: int = 7) -> list[WatchResponse]:
    """Answer as a correct store does: one response a revision, then a progress report."""
    store = ModelStore(clock=lambda: 0.0)
    store.history, store.records = list(history), [event.kv for event in history]
    events = store.events(request)
    revisions = sorted({event.kv.mod_revision for event in events if event.kv.mod_revision <= last})
    grouped = [WatchResponse(r, [e for e in events if e.kv.mod_revision == r]) for r in revisions]
    return [*grouped, WatchResponse(last)]


@pytest.mark.parametrize(
    "request_",
    [
        ALL,
        WatchRequest(b"a", b"c", start_revision=2),
        WatchRequest(b"b", start_revision=2, prev_kv=True),
        WatchRequest(b"a", b"\0", start_revision=4, prev_kv=True),
        WatchRequest(b"a", b"\0", start_revision=2, filters=(WatchFilter.NODELETE,)),
        WatchRequest(b"a", b"\0", start_revision=2, filters=(WatchFilter.NOPUT,)),
        WatchRequest(b"nothing", start_revision=2),
    ],
)
def test_accepts_a_correct_watch(history: list[Event], request_: WatchRequest) -> None:
    assert validate(Watched(request_, responses_of(request_, history), request_.start_revision), history) == []


def test_accepts_several_revisions_in_one_response_and_a_cancel(history: list[Event]) -> None:
    responses = [WatchResponse(4, history[:4]), WatchResponse(4), WatchResponse(7, history[4:])]
    responses.append(WatchResponse(0, canceled=True, cancel_reason="too slow"))
    assert validate(Watched(ALL, responses, 2), history) == []


def test_accepts_a_watch_cut_short(history: list[Event]) -> None:
    assert validate(Watched(ALL, responses_of(ALL, history)[:3], 2), history) == []
    assert validate(Watched(ALL, [], 2), history) == []


def swap(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [responses[1], responses[0], *responses[2:]]


def repeat(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [*responses[:2], responses[1], *responses[2:]]


def split(responses: list[WatchResponse]) -> list[WatchResponse]:
    first = responses[0]
    return [WatchResponse(2, first.events[:1]), WatchResponse(2, first.events[1:]), *responses[1:]]


def lose(responses: list[WatchResponse]) -> list[WatchResponse]:
    return responses[:2] + responses[3:]


def lose_half_a_revision(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [WatchResponse(2, responses[0].events[:1]), *responses[1:]]


def lose_the_start(responses: list[WatchResponse]) -> list[WatchResponse]:
    return responses[1:]


def report_too_early(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [WatchResponse(7), *responses]


def changed(responses: list[WatchResponse], n: int, **fields: object) -> list[WatchResponse]:
    event = responses[n].events[0]
    kv = msgspec.structs.replace(event.kv, **fields)
    return [*responses[:n], WatchResponse(responses[n].revision, [Event(kv, event.prev_kv)]), *responses[n + 1 :]]


def change_a_value(responses: list[WatchResponse]) -> list[WatchResponse]:
    return changed(responses, 1, value=b"other")


def invent(responses: list[WatchResponse]) -> list[WatchResponse]:
    return changed(responses, 1, key=b"other")


def call_a_change_a_creation(responses: list[WatchResponse]) -> list[WatchResponse]:
    return changed(responses, 1, create_revision=3, version=1)


def call_a_creation_a_change(responses: list[WatchResponse]) -> list[WatchResponse]:
    return changed(responses, 3, create_revision=4, version=2)


def keep_the_value_of_a_deletion(responses: list[WatchResponse]) -> list[WatchResponse]:
    return changed(responses, 2, value=b"2")


def forget_what_was_there(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [WatchResponse(r.revision, [Event(e.kv) for e in r.events]) for r in responses]


def understate_the_revision(responses: list[WatchResponse]) -> list[WatchResponse]:
    return [*responses[:1], WatchResponse(2, responses[1].events), *responses[2:]]


CASES: list[tuple[Callable[[list[WatchResponse]], list[WatchResponse]], set[str]]] = [
    (swap, {"ordered", "bookmarkable", "resumable"}),
    (repeat, {"unique", "atomic", "bookmarkable"}),
    (split, {"atomic", "bookmarkable"}),
    (lose, {"reliable"}),
    (lose_half_a_revision, {"reliable"}),
    (lose_the_start, {"reliable", "resumable"}),
    (report_too_early, {"bookmarkable"}),
    (change_a_value, {"reliable"}),
    (invent, {"reliable", "create or modify", "prev_kv"}),
    (call_a_change_a_creation, {"reliable", "create or modify"}),
    (call_a_creation_a_change, {"reliable", "create or modify"}),
    (keep_the_value_of_a_deletion, {"reliable", "create or modify"}),
    (forget_what_was_there, {"prev_kv"}),
    (understate_the_revision, {"atomic"}),
]


@pytest.mark.parametrize(("spoil", "rules"), CASES)
def test_catches(
    history: list[Event], spoil: Callable[[list[WatchResponse]], list[WatchResponse]], rules: set[str]
) -> None:
    responses = spoil(responses_of(ALL, history))
    assert {breach.rule for breach in validate(Watched(ALL, responses, 2), history)} == rules


def test_catches_events_that_were_not_asked_for(history: list[Event]) -> None:
    everything = responses_of(ALL, history)
    for request in (
        WatchRequest(b"a", b"z", start_revision=2, prev_kv=True),
        WatchRequest(b"a", b"\0", start_revision=2, prev_kv=True, filters=(WatchFilter.NODELETE,)),
    ):
        assert {b.rule for b in validate(Watched(request, everything, 2), history)} == {"filter"}


def test_catches_events_from_before_the_start(history: list[Event]) -> None:
    request = WatchRequest(b"a", b"\0", start_revision=4, prev_kv=True)
    breaches = validate(Watched(request, responses_of(ALL, history), 4), history)
    assert {breach.rule for breach in breaches} == {"resumable"}


def test_what_was_not_asked_for_may_come_along_but_not_wrong(history: list[Event]) -> None:
    request = WatchRequest(b"a", b"\0", start_revision=2)
    right = responses_of(ALL, history)
    assert validate(Watched(request, right, 2), history) == []
    assert validate(Watched(request, forget_what_was_there(right), 2), history) == []
    event = right[1].events[0]
    wrong = [right[0], WatchResponse(3, [Event(event.kv, event.kv)]), *right[2:]]
    assert {breach.rule for breach in validate(Watched(request, wrong, 2), history)} == {"prev_kv"}


def test_every_rule_is_shown_to_catch_something() -> None:
    assert {"filter"}.union(*(rules for _, rules in CASES)) == set(VALIDATORS)
