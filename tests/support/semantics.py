"""Which tests show the rules that `docs/informers.md` lists: for each rule the tests, traces and benchmarks."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

__all__ = ["SHOWN", "missing", "rules_of_docs"]

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs" / "informers.md"
HEADING: Final = "## What is kept, line by line"

_LISTS = "tests/golden/client/reflector-list.txt"
_LIST_FAILURES = "tests/golden/client/reflector-list-failures.txt"
_WATCHES = "tests/golden/client/reflector-watch-failures.txt"
_STREAMS = "tests/golden/client/reflector-stream.txt"
_FALLBACKS = "tests/golden/client/reflector-stream-fallback.txt"
_ODD = "tests/golden/client/reflector-odd-objects.txt"
_DELTAS = "tests/golden/client/deltas.txt"
_QUEUE = "tests/golden/client/workqueue.txt"
_LOOP = "tests/golden/operator/loop.txt"
_INFORMER = "tests/client/test_informer.py"
_SERVER = "tests/client/test_informer_server.py"
_HERE = "tests/client/test_semantics.py"
_FAULTS = "tests/operator/test_faults.py"
_HTTP = "tests/operator/test_faults_http.py"
_REAL = "tests/operator/test_real_server.py"

SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    # Reflector
    "The first list takes any state (`resourceVersion=0`), a later one none older than the last version seen": (
        f"{_LISTS}: The first list takes any state",
        f"{_LISTS}: A new list, after 410, asks for the last version seen",
    ),
    "A list refused as gone (410) or too large is asked again at once for the newest state; then that is forgotten": (
        f"{_LIST_FAILURES}: 410 on LIST",
        f'{_LIST_FAILURES}: "Too large" on LIST is the same',
        "tests/client/test_real_server.py::test_recorded_streams_lead_to_the_same_cache_and_notifications",
    ),
    "A watch begins at the last version, with bookmarks, for a random time of 5 to 10 minutes": (
        f"{_LISTS}: The watch starts from the list's version",
        "tests/client/test_reflector_core.py::test_watch_timeouts_are_random_between_five_and_ten_minutes",
    ),
    "A watch that ended properly goes on from the last version, without a list": (
        f"{_LISTS}: Clean close",
        f"{_REAL}::test_an_informer_is_told_the_same_by_every_server",
    ),
    "A watch refused with 410 leads to a new list": (
        f"{_LIST_FAILURES}: 410 on LIST",
        f"{_HTTP}::test_versions_that_are_compacted_away_meanwhile",
        f"{_REAL}::test_an_informer_is_told_the_same_by_every_server",
    ),
    "A watch that cannot begin, or is refused with 429, waits and goes on, without a list": (
        f"{_WATCHES}: Refused or busy",
        f"{_INFORMER}::test_a_storm_of_429_is_waited_out_as_the_server_asks",
        f"{_FAULTS}::test_a_storm_of_429_is_waited_out_and_not_answered_with_one_of_our_own",
        f"{_HTTP}::test_a_server_that_is_killed_and_comes_again",
    ),
    "Waits are 0.8 s doubled up to 30 s, and up to as much again by chance; they begin anew after 2 quiet minutes": (
        (
            "tests/client/test_reflector_core.py::"
            "test_waits_lie_between_the_base_and_twice_that_up_to_thirty_and_sixty_seconds"
        ),
        f"{_LIST_FAILURES}: After two minutes without a failure the waits begin anew",
    ),
    "A watch under 1 s that brought nothing is an error": (f"{_WATCHES}: A watch under a second without an event",),
    "Every event advances the version, bookmarks too": (
        f"{_LISTS}: Every event advances the version",
        f"{_INFORMER}::test_bookmarks_keep_a_quiet_watch_alive_and_the_version_fresh",
    ),
    "What is of a wrong type is logged, counted and skipped; the stream goes on": (
        f"{_ODD}: A wrong type is skipped",
        f"{_INFORMER}::test_a_wrong_type_is_skipped_and_counted",
        f"{_FAULTS}::test_an_object_that_does_not_fit_is_skipped_and_counted_and_fitting_again_is_seen",
    ),
    "The first state is streamed (`sendInitialEvents`, `NotOlderThan`) unless that is switched off": (
        f"{_STREAMS}: WatchList is the default",
        f"{_REAL}::test_an_informer_is_told_the_same_by_every_server",
    ),
    "Initial events fill a store of their own; the bookmark with `k8s.io/initial-events-end` hands it over as one": (
        f"{_STREAMS}: Events go to a temporary store",
        f"{_STREAMS}: The bookmark with the annotation",
    ),
    "A server that cannot stream says Invalid and is asked for a list": (
        f"{_FALLBACKS}: A server that does not know initial events says Invalid",
    ),
    "A connection that is half open is noticed by its silence": (
        f"{_INFORMER}::test_a_half_open_connection_is_noticed_and_watched_anew_without_a_list",
        f"{_SERVER}::test_a_half_open_stream_is_noticed_by_its_silence",
        f"{_HTTP}::test_connections_that_are_half_open",
        f"{_HTTP}::test_a_server_that_stands_still_and_goes_on",
    ),
    "A server that takes connections and answers nothing is told, as one that is not there": (
        f"{_WATCHES}: A server that takes connections and answers nothing",
        f"{_HTTP}::test_connections_that_are_half_open",
    ),
    # Delta queue
    "Every event comes out, in order": (
        f"{_DELTAS}: Every event comes out in order",
        "tests/client/test_deltaqueue.py::test_every_event_comes_out_in_order",
    ),
    "A new list says first what vanished, as `DeletedFinalStateUnknown`, then what is there": (
        f"{_DELTAS}: A new list: first tombstones",
        f"{_INFORMER}::test_what_vanished_unseen_comes_as_a_tombstone_and_first",
    ),
    "Synced is only what has processed its whole first list": (
        f"{_DELTAS}: The first list is synced when its last item was processed",
        "tests/client/test_deltaqueue.py::test_synced_only_when_the_whole_first_list_was_processed",
    ),
    "A resync asks no server": (
        f"{_DELTAS}: A resync takes cached objects",
        f"{_INFORMER}::test_a_resync_tells_handlers_again_at_their_own_pace_and_asks_no_server",
    ),
    "Resyncs are off by default, and may be asked for by informer and by handler": (
        f"{_HERE}::test_a_resync_is_off_unless_it_is_asked_for_and_may_be_thirty_seconds",
        f"{_INFORMER}::test_resync_is_off_by_default_and_at_least_a_second",
        f"{_FAULTS}::test_a_resync_after_a_jump_comes_once_and_not_for_each_time_that_was_missed",
    ),
    "The older queue, by key, merges deletions in a row alone and keeps the real object": (
        "tests/client/test_deltaqueue.py::test_the_older_queue_merges_deletions_in_a_row_and_keeps_the_real_object",
        "tests/client/test_deltaqueue.py::test_the_older_queue_merges_nothing_else",
        "tests/golden/client/deltas-by-key.txt: The older queue gathers by key",
    ),
    # Shared informer
    "What is cached already is updated, everything else added": (
        f"{_INFORMER}::test_handlers_are_told_of_the_first_state_and_of_every_change",
    ),
    "A late handler gets adds of what is there, and syncs by itself": (
        f"{_INFORMER}::test_a_late_handler_gets_adds_and_its_own_sync",
    ),
    "A handler is told one thing after the other": (
        "tests/client/test_listener.py::test_coroutines_are_waited_for_one_after_the_other",
    ),
    "A slow handler holds up nobody, and what waits for it is bounded": (
        f"{_INFORMER}::test_a_slow_handler_holds_up_nobody",
        "tests/client/test_listener.py::test_what_waits_for_a_slow_handler_is_bounded_by_the_objects",
        f"{_HTTP}::test_a_consumer_so_slow_that_the_server_gives_it_up",
    ),
    "Deleted and made again unseen is one update, with another UID": (
        f"{_INFORMER}::test_deleted_and_made_again_unseen_is_one_update_with_another_uid",
    ),
    # Work queue
    "Queued keys are dirty, and no queued key is worked on": (
        f"{_HERE}::test_queued_keys_are_dirty_and_no_queued_key_is_worked_on",
    ),
    "A key that is added while it is worked on comes again when that is done, never to two workers at once": (
        f"{_QUEUE}: A key is there once",
        "tests/client/test_workqueue.py::test_a_key_that_is_added_while_it_is_worked_on_comes_again_when_that_is_done",
        "tests/client/test_workqueue.py::test_workers_never_work_on_one_key_together",
    ),
    "A shutdown hands out what is queued; one with drain waits for what is worked on too": (
        "tests/client/test_workqueue.py::test_a_shutdown_hands_out_what_is_queued_and_then_ends_the_workers",
        "tests/client/test_workqueue.py::test_a_drain_waits_for_what_is_worked_on_and_for_what_comes_again",
    ),
    "Of several times the earliest counts": (
        f"{_QUEUE}: Of several times the earliest counts",
        "tests/client/test_workqueue.py::test_of_several_times_the_earliest_counts",
    ),
    "Failures of a key wait 5 ms doubled up to 1,000 s; a bucket of 10 a second, 100 at once, can be had": (
        "tests/client/test_ratelimit.py::test_a_key_waits_twice_as_long_each_time_up_to_a_thousand_seconds",
        "tests/client/test_ratelimit.py::test_a_bucket_gives_a_burst_and_then_so_many_a_second",
        "tests/operator/test_semantics.py::test_hundreds_that_fail_at_once_do_not_wait_for_each_other",
    ),
    # Reconcile loop
    "An error is tried again by the limiter": (
        f"{_LOOP}: It fails: back off",
        "tests/operator/test_controllers.py::test_failures_are_tried_again_by_the_clock_and_said",
    ),
    "A terminal error is not tried again before something changes": (
        f"{_LOOP}: What cannot be helped is not tried again",
        "tests/operator/test_controllers.py::test_terminal_errors_wait_for_a_change",
    ),
    "`requeue_after` forgets the failures and comes after that time": (
        f"{_LOOP}: It wants to be called again",
        "tests/operator/test_controllers.py::test_requeue_after_and_a_reconcile_that_blocks",
    ),
    "Success forgets the failures": (
        f"{_LOOP}: It goes well",
        "tests/operator/test_semantics.py::test_success_begins_the_back_off_anew",
    ),
    "A crash of a reconciler is caught, counted and tried again": (
        "tests/operator/test_controllers.py::test_a_result_of_another_type_and_a_cancellation_from_within_are_failures",
        f"{_FAULTS}::test_three_that_misbehave_are_named_and_hold_up_no_other",
    ),
    "Caches have 2 minutes to fill, a stop has a grace of 30 s": (
        "tests/operator/test_semantics.py::test_caches_have_two_minutes_to_fill_and_a_stop_half_a_minute",
        "tests/operator/test_manager.py::test_a_stop_takes_no_longer_than_the_grace_and_a_cancellation_no_time",
        f"{_HTTP}::test_a_server_that_is_never_there_ends_the_operator_with_its_name",
    ),
    "What was there at the start has a low priority, and keeps it when it is tried again": (
        f"{_QUEUE}: What changes goes before what is only listed",
        "tests/operator/test_predicates.py::test_what_was_there_at_the_start_comes_after_what_changes",
        (
            "tests/operator/test_semantics.py::"
            "test_what_was_listed_at_the_start_stays_behind_what_changes_when_it_is_tried_again"
        ),
    ),
    # Leader election
    "A lease lasts 15 s, is to be renewed within 10 s, is tried every 2 s": (
        f"{_HERE}::test_a_lease_is_renewed_with_client_gos_times",
        "tests/golden/client/election-alone.txt: Nobody has a lease",
    ),
    "The lease outlasts the renewing, and that 1.2 tries, or it is refused": (
        "tests/client/test_election_core.py::test_times_by_which_two_could_lead_are_refused",
    ),
    "Another's lease has run out when this candidate saw no change for so long, whatever the clocks say": (
        "tests/golden/client/election-others.txt: As long as the lease changes it is alive",
        "tests/client/test_leaderelection.py::test_never_two_whatever_their_clocks_say_when_the_leader_is_cut_off",
        f"{_FAULTS}::test_a_wall_clock_that_is_set_changes_no_leader_and_no_delay",
        f"{_FAULTS}::test_a_process_that_stood_still_for_an_hour_goes_on_and_two_never_lead",
    ),
    "Who loses the lease stops": (
        "tests/golden/client/election-lost.txt: The server is gone",
        "tests/operator/test_manager.py::test_who_loses_the_lease_stops_its_work_before_it_says_so",
        f"{_REAL}::test_leaders_take_turns_on_one_lease",
    ),
    "Who is cancelled gives the lease back": (
        "tests/golden/client/election-alone.txt: Given back when stopped",
        "tests/client/test_leaderelection.py::test_the_work_has_ended_before_the_lease_is_given_back",
    ),
    # What users of Python ask for
    "No watch hangs or dies silently": (
        f"{_INFORMER}::test_whatever_a_lister_watcher_raises_does_not_end_it",
        f"{_INFORMER}::test_a_watcher_that_was_killed_is_named_and_begun_anew",
        "tests/operator/test_manager.py::test_a_watcher_that_dies_is_begun_anew_and_named",
    ),
    "A watch can go on for ever, through 410 in an informer": (
        "tests/client/test_client.py::test_a_watch_that_is_resumed_goes_on_where_it_was",
        "tests/client/test_lister.py::test_a_resumed_watch_survives_breaks_and_refusals_and_raises_when_it_is_too_old",
    ),
    "No event is lost or told twice under load": (
        f"{_HERE}::test_no_event_is_lost_or_told_twice_however_often_connections_break",
        "tests/client/test_informer_properties.py::test_the_cache_converges",
        "tests/operator/test_soak.py::test_two_minutes",
    ),
    "Nothing begins threads, and nothing that is ended leaves tasks": (
        f"{_HERE}::test_clients_informers_and_electors_begin_no_threads",
        f"{_INFORMER}::test_a_stopped_informer_ends_at_once_keeps_its_cache_and_cannot_be_used_again",
    ),
    "Watches do not take the connections of calls": (
        "tests/client/test_http_transport.py::test_watches_do_not_take_the_places_of_calls",
        "tests/client/test_http_transport.py::test_streams_are_bounded_too",
    ),
    "Importing is quick and light, reading thousands of objects too": (
        "tests/client/test_imports.py::test_importing_the_client_loads_next_to_nothing",
        "bench/client_import.py",
        "bench/client_list.py",
        "bench/client_informer.py",
    ),
    "Types are checked": ("tests/operator/test_typing.py::test_wrong_types_are_refused_and_right_ones_taken",),
    "Server-side apply": (
        "tests/client/test_client.py::test_apply",
        f"{_REAL}::test_two_appliers_share_an_object_and_are_told_what_is_the_others",
    ),
    "Definitions of custom resources are made from types": (
        "tests/operator/test_crd_definition.py::test_the_least_that_is_told_is_enough",
        f"{_REAL}::test_the_website_operator_converges_and_survives_a_gone_version",
    ),
    "Tests need no cluster, and their server has versions, watches, 410, garbage collection, deletion of namespaces": (
        "tests/testing/test_plane.py::test_garbage_is_collected_and_a_namespace_emptied",
        f"{_SERVER}::test_a_cache_follows_in_process_and_survives_compaction",
        f"{_REAL}::test_an_informer_is_told_the_same_by_every_server",
    ),
}


def rules_of_docs() -> Iterator[str]:
    """Yield the first cells of the tables under the heading."""
    text = DOCS.read_text(encoding="utf-8").partition(HEADING)[2]
    for line in re.split(r"\n## ", text)[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] != "Rule" and not set(cells[0]) <= {"-", ":"}:
            yield cells[0]


def missing(place: str) -> bool:
    """Whether a place is not there: FILE::TEST, FILE: COMMENT of a trace, or FILE."""
    path, _, name = place.partition("::")
    if name:
        return name not in _tests_of(ROOT / path)
    path, _, comment = place.partition(": ")
    if not comment:
        return not (ROOT / path).is_file()
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines() if (ROOT / path).is_file() else []
    return not any(line.startswith(f"# {comment}") for line in lines)


@functools.cache
def _tests_of(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return frozenset(one.name for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
