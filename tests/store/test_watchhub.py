"""The watch hub against a naive oracle, its bounds, and the work that a write costs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.store.keyspace import KeySpace
from pilothouse.store.model import (
    DeleteRangeRequest,
    Event,
    KeyValue,
    PutRequest,
    WatchFilter,
    WatchRequest,
    WatchResponse,
)
from pilothouse.store.segments import SegmentMap
from pilothouse.store.watchhub import Watcher, WatchHub


class Log:
    """A key space that remembers every revision since the last compaction."""

    def __init__(self, revision: int = 1) -> None:
        self.revision = revision
        self.compact_revision = 0
        self.revisions: dict[int, list[Event]] = {}
        self.now: dict[bytes, KeyValue] = {}
        self.reads = 0

    def events_since(self, revision: int, limit: int) -> list[tuple[int, Sequence[Event]]]:
        assert revision >= self.compact_revision
        self.reads += 1
        found: list[tuple[int, Sequence[Event]]] = []
        total = 0
        for each in range(revision, self.revision + 1):
            if found and total >= limit:
                break
            if each in self.revisions:
                found.append((each, self.revisions[each]))
                total += len(self.revisions[each])
        return found

    def write(self, changes: Mapping[bytes, bytes | None]) -> list[Event]:
        """Put each key, or delete it where its value is None, as one revision."""
        self.revision += 1
        events = []
        for key, value in changes.items():
            before = self.now.get(key)
            version = 0 if value is None else (before.version if before else 0) + 1
            after = KeyValue(key, value or b"", 1, self.revision, version)
            events.append(Event(after, before))
            if value is None:
                self.now.pop(key, None)
            else:
                self.now[key] = after
        self.revisions[self.revision] = events
        return events


def published(hub: WatchHub, log: Log, *writes: Mapping[bytes, bytes | None]) -> None:
    for changes in writes:
        events = log.write(changes)
        hub.publish(log.revision, events)


def shown(responses: list[WatchResponse]) -> list[tuple[int, list[tuple[bytes, bytes]]]]:
    return [(each.revision, [(event.kv.key, event.kv.value) for event in each.events]) for each in responses]


def test_a_watcher_of_one_key_hears_of_that_key_alone() -> None:
    log = Log()
    hub = WatchHub(log)
    watcher = hub.watch(WatchRequest(b"a"))
    published(hub, log, {b"a": b"1"}, {b"aa": b"2"}, {b"b": b"3"})
    assert shown(watcher.take()) == [(2, [(b"a", b"1")])]
    assert watcher.take() == []


@pytest.mark.parametrize(
    ("key", "range_end", "heard"),
    [
        (b"b", b"c", [b"b", b"bz"]),
        (b"b", b"\0", [b"b", b"bz", b"c", b"\xff\xff"]),
        (b"\0", b"\0", [b"\0", b"a", b"b", b"bz", b"c", b"\xff\xff"]),
        (b"", b"\0", [b"\0", b"a", b"b", b"bz", b"c", b"\xff\xff"]),
        (b"", b"b", [b"\0", b"a"]),
        (b"", b"", [b"\0"]),
    ],
)
def test_ranges_are_read_as_etcd_reads_them(key: bytes, range_end: bytes, heard: list[bytes]) -> None:
    log = Log()
    hub = WatchHub(log)
    watcher = hub.watch(WatchRequest(key, range_end))
    published(hub, log, *({each: b"v"} for each in (b"\0", b"a", b"b", b"bz", b"c", b"\xff\xff")))
    late = hub.watch(WatchRequest(key, range_end, start_revision=1 + 1))
    while hub.pump():
        pass
    for each in (watcher, late):
        assert [event.kv.key for response in each.take() for event in response.events] == heard


@pytest.mark.parametrize(("key", "range_end"), [(b"b", b"b"), (b"b", b"a"), (b"b\0", b"b")])
def test_a_range_that_ends_before_it_starts_is_refused(key: bytes, range_end: bytes) -> None:
    hub = WatchHub(Log())
    watcher = hub.watch(WatchRequest(key, range_end))
    (response,) = watcher.take()
    assert response.canceled
    assert response.cancel_reason == "mvcc: watcher range is empty"
    assert watcher.closed
    assert hub.watchers == 0


def test_one_response_holds_whole_consecutive_revisions() -> None:
    log = Log()
    hub = WatchHub(log)
    watcher = hub.watch(WatchRequest(b"a", b"c"))
    published(hub, log, {b"a": b"1", b"b": b"1", b"x": b"1"}, {b"a": b"2"}, {b"a": None, b"b": b"2"})
    assert shown(watcher.take(1)) == [(2, [(b"a", b"1"), (b"b", b"1")])]
    assert shown(watcher.take(2)) == [(3, [(b"a", b"2")])]
    assert shown(watcher.take(2)) == [(4, [(b"a", b""), (b"b", b"2")])]
    published(hub, log, {b"a": b"3", b"b": b"3"}, {b"a": b"4"}, {b"a": b"5"})
    assert shown(watcher.take(3)) == [(6, [(b"a", b"3"), (b"b", b"3"), (b"a", b"4")])]
    assert shown(watcher.take()) == [(7, [(b"a", b"5")])]


def test_watchers_of_one_range_share_the_events_and_their_list() -> None:
    log = Log()
    hub = WatchHub(log)
    first, second = (hub.watch(WatchRequest(b"a", b"b")) for _ in range(2))
    other = hub.watch(WatchRequest(b"a", b"c"))
    published(hub, log, {b"a": b"1"})
    lists = [each.take()[0].events for each in (first, second, other)]
    assert lists[0] is lists[1]
    assert lists[0][0] is lists[2][0]


def test_filters_leave_out_puts_or_deletions() -> None:
    log = Log()
    hub = WatchHub(log)
    requests = [
        WatchRequest(b"a", filters=(WatchFilter.NOPUT,)),
        WatchRequest(b"a", filters=(WatchFilter.NODELETE,)),
        WatchRequest(b"a", filters=(WatchFilter.NOPUT, WatchFilter.NODELETE)),
    ]
    watchers = [hub.watch(each) for each in requests]
    published(hub, log, {b"a": b"1"}, {b"a": None, b"b": b"1"})
    assert [shown(each.take()) for each in watchers] == [[(3, [(b"a", b"")])], [(2, [(b"a", b"1")])], []]


def test_ready_is_called_once_until_all_is_taken() -> None:
    log = Log()
    hub = WatchHub(log)
    watcher = hub.watch(WatchRequest(b"a"))
    calls: list[int] = []
    watcher.on_ready = lambda: calls.append(log.revision)
    published(hub, log, {b"a": b"1"}, {b"a": b"2"})
    assert calls == [2]
    watcher.take()
    published(hub, log, {b"b": b"1"}, {b"a": b"3"})
    assert calls == [2, 4 + 1]


def test_a_watcher_may_be_cancelled_from_within_a_callback() -> None:
    log = Log()
    hub = WatchHub(log)
    watchers = [hub.watch(WatchRequest(b"a")) for _ in range(3)]
    watchers[0].on_ready = watchers[1].cancel
    published(hub, log, {b"a": b"1"})
    assert [len(each.take()) for each in watchers] == [1, 0, 1]
    assert hub.watchers == 2


def test_a_slow_watcher_is_cancelled_and_told_where_to_resume() -> None:
    log = Log()
    hub = WatchHub(log, buffer_events=3)
    slow, quick = (hub.watch(WatchRequest(b"a", b"b")) for _ in range(2))
    heard = []
    for number in range(6):
        published(hub, log, {b"a%d" % number: b"v"})
        heard += quick.take()
        if number == 0:
            slow.take()
    (response,) = slow.take()
    assert response.canceled
    assert response.cancel_reason == "slow consumer: more than 3 events waited; resume from revision 3"
    assert response.revision == 2
    assert slow.closed
    assert [each.revision for each in heard] == [2, 3, 4, 5, 6, 7]
    assert (hub.slow_cancelled, hub.watchers) == (1, 1)


def test_waiting_bytes_are_bounded_too() -> None:
    log = Log()
    hub = WatchHub(log, buffer_bytes=100)
    watcher = hub.watch(WatchRequest(b"a", b"b"))
    published(hub, log, {b"a1": b"v" * 48}, {b"a2": b"v" * 48})
    assert hub.slow_cancelled == 0
    published(hub, log, {b"a3": b""})
    assert watcher.take()[0].cancel_reason == ("slow consumer: more than 100 bytes waited; resume from revision 2")


def test_a_revision_larger_than_the_buffer_can_be_passed_while_writes_go_on() -> None:
    log = Log()
    hub = WatchHub(log, buffer_events=4)
    live = hub.watch(WatchRequest(b"a", b"b"))
    published(hub, log, {b"a%d" % number: b"v" for number in range(10)})
    late = hub.watch(WatchRequest(b"a", b"b", start_revision=2))
    hub.pump()
    published(hub, log, {b"a": b"1"})
    assert [len(each.take(1)[0].events) for each in (live, late)] == [10, 10]
    published(hub, log, {b"a": b"2"}, {b"a": b"3"}, {b"a": b"4"})
    assert [len(each.take()[0].events) for each in (live, late)] == [4, 4]
    assert hub.slow_cancelled == 0


@pytest.mark.parametrize("bounds", [{"buffer_events": 4}, {"buffer_bytes": 12}])
def test_what_is_taken_in_parts_makes_room_in_parts(bounds: dict[str, int]) -> None:
    log = Log()
    hub = WatchHub(log, **bounds)
    watcher = hub.watch(WatchRequest(b"a"))
    # Two bytes each, the replaced key included, but for the first put, which replaces nothing.
    published(hub, log, *({b"a": b""} for _ in range(4)))
    for revision in range(2, 50):
        assert [each.revision for each in watcher.take(1)] == [revision]
        published(hub, log, {b"a": b"2" if revision < 3 else b""})
    assert hub.slow_cancelled == 0
    for _ in range(3):
        published(hub, log, {b"a": b"33"})
    assert hub.slow_cancelled == 1


def test_revisions_are_published_once_and_in_order() -> None:
    hub = WatchHub(Log(revision=5))
    for wrong in (5, 7):
        with pytest.raises(ValueError, match=f"revision {wrong} published after 5"):
            hub.publish(wrong, [])
    hub.publish(6, [])
    assert hub.revision == 6


def test_a_late_starter_reads_history_in_slices_and_joins_without_gap() -> None:
    log = Log()
    hub = WatchHub(log, buffer_events=100)
    published(hub, log, *({b"a": b"%d" % number} for number in range(1000)))
    watcher = hub.watch(WatchRequest(b"a", start_revision=2))
    woken: list[int] = []
    hub.on_behind = lambda: woken.append(1)
    heard: list[WatchResponse] = []
    waiting = []
    while len(heard) == 0 or heard[-1].revision < 1001:
        hub.pump(10)
        waiting.append(watcher._count)
        heard += watcher.take()
    assert max(waiting) <= 50
    assert woken
    published(hub, log, {b"a": b"live"})
    heard += watcher.take()
    values = [event.kv.value for response in heard for event in response.events]
    assert values == [b"%d" % number for number in range(1000)] + [b"live"]
    assert hub.pump() is False


def test_a_late_starter_whose_buffer_is_full_costs_no_reads() -> None:
    log = Log()
    hub = WatchHub(log, buffer_events=10)
    published(hub, log, *({b"a": b"%d" % number} for number in range(100)))
    hub.watch(WatchRequest(b"a", start_revision=2))
    assert hub.pump() is False
    reads = log.reads
    assert hub.pump() is False
    assert log.reads == reads


def test_watchers_that_start_together_read_history_once() -> None:
    log = Log()
    hub = WatchHub(log)
    published(hub, log, *({b"a": b"%d" % number} for number in range(10)))
    watchers = [hub.watch(WatchRequest(b"a", start_revision=2)) for _ in range(50)]
    while hub.pump(1):
        pass
    assert log.reads == 1
    assert not hub._slices
    assert all(each.take()[0].revision == 11 for each in watchers)


def test_a_revision_applied_but_not_yet_published_comes_once() -> None:
    log = Log()
    hub = WatchHub(log)
    published(hub, log, {b"a": b"1"})
    events = log.write({b"a": b"2"})
    late = hub.watch(WatchRequest(b"a", start_revision=2))
    now = hub.watch(WatchRequest(b"a"))
    exact = hub.watch(WatchRequest(b"a", start_revision=3))
    hub.pump()
    hub.publish(log.revision, events)
    published(hub, log, {b"a": b"3"})
    assert [event.kv.value for event in late.take()[0].events] == [b"1", b"2", b"3"]
    assert [event.kv.value for event in exact.take()[0].events] == [b"2", b"3"]
    assert [event.kv.value for event in now.take()[0].events] == [b"3"]


def test_nothing_before_a_future_start_is_delivered() -> None:
    log = Log()
    hub = WatchHub(log)
    watcher = hub.watch(WatchRequest(b"a", start_revision=4))
    watcher.request_progress()
    published(hub, log, {b"a": b"2"})
    assert watcher.take() == []
    published(hub, log, {b"a": b"3"}, {b"a": b"4"})
    assert shown(watcher.take()) == [(4, [(b"a", b"4")]), (4, [])]


def test_forgotten_future_watchers_leave_nothing_behind() -> None:
    hub = WatchHub(Log())
    for number in range(100):
        hub.watch(WatchRequest(b"a", start_revision=2**62 + number)).cancel()
    assert not hub._early
    assert not hub._groups


@pytest.mark.parametrize(("start", "refused"), [(1, True), (4, True), (5, False), (6, False), (-1, True)])
def test_a_start_before_the_last_compaction_is_refused(start: int, refused: bool) -> None:
    log = Log()
    hub = WatchHub(log)
    published(hub, log, *({b"a": b"%d" % number} for number in range(9)))
    log.compact_revision = 5
    watcher = hub.watch(WatchRequest(b"a", start_revision=start))
    hub.pump()
    response = watcher.take()[0]
    assert response.canceled is refused
    assert response.compact_revision == (5 if refused and start > 0 else 0)
    if refused:
        assert "compacted" in response.cancel_reason


def test_compaction_cancels_those_that_still_had_to_read() -> None:
    log = Log()
    hub = WatchHub(log, buffer_events=4)
    published(hub, log, *({b"a": b"%d" % number} for number in range(9)))
    live = hub.watch(WatchRequest(b"a"))
    behind = hub.watch(WatchRequest(b"a", start_revision=2))
    hub.pump()
    log.compact_revision = 8
    hub.compacted(8)
    responses = behind.take()
    assert shown(responses[:1]) == [(3, [(b"a", b"0"), (b"a", b"1")])]
    assert (responses[1].canceled, responses[1].compact_revision) == (True, 8)
    assert behind.closed
    published(hub, log, {b"a": b"x"})
    assert len(live.take()) == 1
    assert hub.compacted_cancelled == 1


def test_a_compaction_that_the_hub_has_not_heard_of_yet_is_seen_when_reading() -> None:
    log = Log()
    hub = WatchHub(log)
    published(hub, log, *({b"a": b"%d" % number} for number in range(9)))
    watchers = [hub.watch(WatchRequest(b"a", start_revision=start)) for start in (7, 8)]
    log.compact_revision = 8
    hub.pump()
    assert [each.take()[0].compact_revision for each in watchers] == [8, 0]


def test_compaction_spares_those_who_start_right_there() -> None:
    log = Log()
    hub = WatchHub(log)
    published(hub, log, *({b"a": b"%d" % number} for number in range(9)))
    watchers = [hub.watch(WatchRequest(b"a", start_revision=start)) for start in (7, 8)]
    log.compact_revision = 8
    hub.compacted(8)
    hub.pump()
    assert [each.take()[0].canceled for each in watchers] == [True, False]


def test_a_late_starter_that_leaves_is_not_kept() -> None:
    log = Log()
    hub = WatchHub(log)
    published(hub, log, {b"a": b"1"})
    first, second = (hub.watch(WatchRequest(b"a", start_revision=2)) for _ in range(2))
    assert hub.pump(1)
    first.cancel()
    second.cancel()
    assert not hub._slices
    assert not hub._readable
    assert not hub._behind
    assert hub.pump() is False


def test_progress_comes_after_all_that_was_before_it() -> None:
    log = Log()
    hub = WatchHub(log, buffer_events=4)
    published(hub, log, *({b"a": b"%d" % number} for number in range(9)))
    watcher = hub.watch(WatchRequest(b"a", start_revision=2))
    watcher.request_progress()
    heard = []
    for _ in range(20):
        hub.pump(1)
        heard += watcher.take(1)
    assert [len(each.events) for each in heard] == [1] * 9 + [0]
    assert heard[-1].revision == 10
    published(hub, log, {b"b": b""})
    calls: list[int] = []
    watcher.on_ready = lambda: calls.append(1)
    watcher.request_progress()
    watcher.request_progress()
    published(hub, log, {b"a": b"z"})
    assert calls == [1]
    assert shown(watcher.take()) == [(12, [(b"a", b"z")]), (12, [])]


def test_idle_progress_goes_to_those_who_asked_and_were_quiet() -> None:
    log = Log()
    hub = WatchHub(log)
    wants = hub.watch(WatchRequest(b"a", progress_notify=True))
    silent = hub.watch(WatchRequest(b"a"))
    published(hub, log, {b"a": b"1"})
    hub.idle_progress()
    assert shown(wants.take()) == [(2, [(b"a", b"1")])]
    hub.idle_progress()
    assert wants.take() == []
    published(hub, log, {b"b": b"1"})
    for _ in range(2):
        hub.idle_progress()
        assert shown(wants.take()) == [(3, [])]
    assert shown(silent.take()) == [(2, [(b"a", b"1")])]


def test_cancel_all_tells_everybody_why_after_what_waits() -> None:
    log = Log()
    hub = WatchHub(log)
    watchers = [
        hub.watch(WatchRequest(b"a")),
        hub.watch(WatchRequest(b"b", start_revision=99)),
        hub.watch(WatchRequest(b"c", b"\0")),
    ]
    calls: list[Watcher] = []
    for each in watchers:
        each.on_ready = lambda each=each: calls.append(each)
    published(hub, log, {b"a": b"1"})
    hub.cancel_all("stopping")
    hub.cancel_all("stopping twice")
    assert calls == watchers
    assert shown(watchers[0].take()[:1]) == [(2, [(b"a", b"1")])]
    assert [each.take()[-1].cancel_reason for each in watchers[1:]] == ["stopping"] * 2
    assert all(each.closed for each in watchers)
    assert hub.watchers == 0


def test_one_that_waits_for_progress_is_not_called_again_for_the_end() -> None:
    hub = WatchHub(Log())
    watcher = hub.watch(WatchRequest(b"a"))
    calls: list[int] = []
    watcher.on_ready = lambda: calls.append(1)
    watcher.request_progress()
    hub.cancel_all("stopping")
    watcher.request_progress()
    assert calls == [1]
    assert [each.cancel_reason for each in watcher.take()] == ["stopping"]


def test_a_buffer_must_be_positive() -> None:
    with pytest.raises(ValueError, match="both must be positive"):
        WatchHub(Log(), buffer_events=0)


def test_the_key_space_is_a_history() -> None:
    keys = KeySpace()
    hub = WatchHub(keys)
    early = hub.watch(WatchRequest(b"a", b"\0"))
    for number in range(600):
        keys.put(PutRequest(b"a" if number % 2 else b"b", b"%d" % number))
        hub.publish(keys.revision + 1, keys.commit())
        if number % 10 == 0:
            keys.delete_range(DeleteRangeRequest(b"b"))
            hub.publish(keys.revision + 1, keys.commit())
    late = hub.watch(WatchRequest(b"a", b"\0", start_revision=2))
    while hub.pump(50):
        pass
    (now,), (then,) = early.take(), late.take()
    assert now == then
    assert [event.kv.value for event in now.events if not event.is_delete] == [b"%d" % number for number in range(600)]


class CountingKey(bytes):
    """A key that counts how often it is looked at."""

    looks = 0

    def __lt__(self, other: Any) -> bool:
        CountingKey.looks += 1
        return super().__lt__(other)

    def __gt__(self, other: Any) -> bool:
        CountingKey.looks += 1
        return super().__gt__(other)

    def __le__(self, other: Any) -> bool:
        CountingKey.looks += 1
        return super().__le__(other)

    def __ge__(self, other: Any) -> bool:
        CountingKey.looks += 1
        return super().__ge__(other)

    def __eq__(self, other: object) -> bool:
        CountingKey.looks += 1
        return super().__eq__(other)

    __hash__ = bytes.__hash__


def looks_per_publish(elsewhere: int) -> int:
    log = Log()
    hub = WatchHub(log)
    for number in range(elsewhere):
        hub.watch(WatchRequest(b"key/%06d" % number))
        hub.watch(WatchRequest(b"range/%06d/" % number, b"range/%06d0" % number))
    watcher = hub.watch(WatchRequest(b"range/here", b"range/herf"))
    CountingKey.looks = 0
    log.revision += 1
    hub.publish(2, [Event(KeyValue(CountingKey(b"range/here/1"), b"v", 2, 2, 1))])
    looks = CountingKey.looks
    assert len(watcher.take()[0].events) == 1
    return looks


def test_a_write_costs_one_search_whatever_the_number_of_watchers_elsewhere() -> None:
    few, many = looks_per_publish(10), looks_per_publish(10_000)
    assert few >= 3
    # One binary search: ten more comparisons for a thousand times the ranges, not thousands.
    assert many <= few + 12


def test_segments_leave_nothing_behind() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        segments: SegmentMap[object] = SegmentMap()
        held: list[tuple[bytes, bytes | None, object]] = []
        for _ in range(60):
            if held and chance.random() < 0.45:
                segments.remove(*held.pop(chance.randrange(len(held))))
            else:
                start, stop = sorted(chance.sample(range(30), 2))
                held.append((b"%02d" % start, None if stop == 29 else b"%02d" % stop, object()))
                segments.add(*held[-1])
            for point in (b"", b"00", b"14", b"145", b"29", b"\xff"):
                expected = [each for low, high, each in held if low <= point and (high is None or point < high)]
                assert sorted(map(id, segments.covering(point))) == sorted(map(id, expected))
        while held:
            segments.remove(*held.pop())
        assert len(segments) == 1


KEYS = [b"a", b"b", b"ba", b"bb", b"c"]
ENDS = [b"", b"\0", b"b", b"bb", b"c", b"d"]


class Oracle:
    """What one watcher must hear: every write is scanned for it."""

    def __init__(self, log: Log, watcher: Watcher, published_revision: int) -> None:
        self.log = log
        self.watcher = watcher
        self.request = watcher.request
        self.start = self.request.start_revision or published_revision + 1
        self.position = self.start
        self.ended = False
        self.calls = 0
        self.idle = False
        watcher.on_ready = self.ready

    def ready(self) -> None:
        self.calls += 1

    def take(self, bound: int = 0) -> list[WatchResponse]:
        """Take, and see that one who found nothing was called once as soon as there was something."""
        responses = self.watcher.take(bound)
        if self.idle:
            assert self.calls == (1 if responses else 0)
        self.idle = not responses
        self.calls = 0
        return responses

    def expects(self, event: Event) -> bool:
        request, key = self.request, event.kv.key
        if request.range_end == b"":
            inside = key == request.key
        else:
            inside = key >= request.key and (request.range_end == b"\0" or key < request.range_end)
        unwanted = WatchFilter.NODELETE if event.is_delete else WatchFilter.NOPUT
        return inside and unwanted not in request.filters

    def check(self, response: WatchResponse, archive: dict[int, list[Event]]) -> None:
        assert not self.ended
        if response.canceled:
            self.ended = True
            assert response.events == []
            if response.cancel_reason.startswith("slow consumer"):
                assert response.cancel_reason.endswith(f"revision {response.revision + 1}")
            # To resume one after the last response loses nothing and repeats nothing.
            if not response.compact_revision:
                assert self.missed(response.revision, archive) == []
            return
        assert self.missed(response.revision, archive) == response.events
        assert all(
            got is kept for got, kept in zip(response.events, self.missed(response.revision, archive), strict=True)
        )
        self.position = max(self.position, response.revision + 1)

    def missed(self, until: int, archive: dict[int, list[Event]]) -> list[Event]:
        revisions = range(self.position, until + 1)
        return [event for revision in revisions for event in archive[revision] if self.expects(event)]


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.dictionaries(st.sampled_from(KEYS), st.one_of(st.none(), st.binary(max_size=4)), min_size=1),
        ),
        st.tuples(
            st.just("watch"),
            st.sampled_from(KEYS),
            st.sampled_from(ENDS),
            st.integers(-8, 4),
            st.sets(st.sampled_from(list(WatchFilter))),
            st.booleans(),
        ),
        st.tuples(st.just("take"), st.integers(0, 99), st.integers(0, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
        st.tuples(st.just("progress"), st.integers(0, 99)),
        st.tuples(st.just("idle")),
        st.tuples(st.just("compact"), st.integers(0, 6)),
        st.tuples(st.just("pump"), st.integers(1, 5)),
    ),
    max_size=80,
)


class Scene:
    """A hub, its log, an archive that compaction does not touch, and an oracle for each watcher."""

    def __init__(self, buffer_events: int) -> None:
        self.log = Log()
        self.hub = WatchHub(self.log, buffer_events=buffer_events)
        self.archive: dict[int, list[Event]] = {1: []}
        self.oracles: list[Oracle] = []

    def play(self, step: Any) -> None:
        match step:
            case ("take" | "cancel" | "progress", which, *rest):
                if self.oracles:
                    self.steer(step[0], self.oracles[which % len(self.oracles)], *rest)
            case ("write", changes):
                events = self.log.write(changes)
                self.archive[self.log.revision] = events
                self.hub.publish(self.log.revision, events)
            case ("watch", key, end, offset, filters, notify):
                start = max(self.log.revision + offset, 0)
                request = WatchRequest(key, end, start, filters=tuple(filters), progress_notify=notify)
                self.oracles.append(Oracle(self.log, self.hub.watch(request), self.log.revision))
            case ("idle",):
                self.hub.idle_progress()
            case ("compact", back):
                self.compact(back)
            case ("pump", budget):
                self.hub.pump(budget)

    def steer(self, verb: str, oracle: Oracle, bound: int = 0) -> None:
        if verb == "take":
            for response in oracle.take(bound):
                oracle.check(response, self.archive)
        elif verb == "progress":
            oracle.watcher.request_progress()
        else:
            oracle.watcher.cancel()
            self.oracles.remove(oracle)
            assert oracle.watcher.take() == []

    def compact(self, back: int) -> None:
        log = self.log
        log.compact_revision = max(log.compact_revision, log.revision - back)
        log.revisions = {at: kept for at, kept in log.revisions.items() if at >= log.compact_revision}
        self.hub.compacted(log.compact_revision)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(2, 12))
def test_every_watcher_hears_what_a_scan_of_all_writes_says(script: list[Any], buffer_events: int) -> None:
    scene = Scene(buffer_events)
    for step in script:
        scene.play(step)
    finish(scene.hub, scene.oracles, scene.archive, scene.log.revision)


def finish(hub: WatchHub, oracles: list[Oracle], archive: dict[int, list[Event]], revision: int) -> None:
    """Take everything: each watcher has heard all, or was told why not; then nothing is left in the hub."""
    more = True
    while more:
        more = hub.pump()
        for oracle in oracles:
            while responses := oracle.take():
                more = True
                for response in responses:
                    oracle.check(response, archive)
    for oracle in oracles:
        assert oracle.ended or oracle.missed(revision, archive) == []
        assert oracle.ended == oracle.watcher.closed
        oracle.watcher.cancel()
    assert hub.watchers == 0
    assert not hub._groups
    assert not hub._keys
    assert not hub._behind
    assert not hub._readable
    assert not hub._early
    assert len(hub._ranges) == 1
