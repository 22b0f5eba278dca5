"""Supervision: parts that end are begun anew, hopeless ones end everything, and stopping goes in order and in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.platform.core import (
    Action,
    Asked,
    Begin,
    Ended,
    Event,
    Finish,
    Kill,
    Ready,
    Spawn,
    Supervision,
    Terminate,
    Tick,
    Wanted,
)


def started(**hopeless: set[int]) -> Supervision:
    core = Supervision(hopeless or {"server": {2}, "controllers": set()})
    core.step(Begin(), 0.0)
    return core


def ready() -> Supervision:
    core = started()
    core.step(Ready("server", {"url": "https://x"}), 0.5)
    core.step(Ready("controllers"), 0.7)
    return core


def test_all_start_at_once_and_all_must_be_ready() -> None:
    core = Supervision({"server": (), "controllers": ()})
    assert core.step(Begin(), 0.0) == [Spawn("server"), Spawn("controllers")]
    core.step(Ready("controllers"), 0.4)
    assert core.states() == {"server": ("starting", 0), "controllers": ("ready", 0)}
    core.step(Ready("server", {"url": "https://x"}), 0.5)
    assert core.is_ready
    assert core.told("server") == {"url": "https://x"}


def test_what_ends_is_begun_anew_later_each_time() -> None:
    core, now, waits = ready(), 1.0, []
    for _ in range(9):
        assert core.step(Ended("controllers", -9), now) == []
        due = core.next_due()
        assert due is not None
        waits.append(round(due - now, 3))
        assert core.step(Tick(), due - 0.01) == []
        now = due
        assert core.step(Tick(), now) == [Spawn("controllers")]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert core.states()["controllers"] == ("starting", 9)
    core.step(Ended("controllers", 1), now + 60)  # it was well for long enough
    assert core.next_due() == pytest.approx(now + 60.1)


def test_a_wrong_option_ends_everything_with_its_code() -> None:
    core = started()
    assert core.step(Ended("server", 2), 0.2) == [Terminate("controllers")]
    assert core.step(Ended("controllers", 0), 0.3) == [Finish(2)]


def test_what_did_its_work_once_is_never_hopeless() -> None:
    core = ready()
    assert core.step(Ended("server", 2), 9.0) == []
    assert core.step(Tick(), 9.1) == [Spawn("server")]


def test_the_server_stops_last() -> None:
    core = ready()
    assert core.step(Asked(), 10.0) == [Terminate("controllers")]
    assert core.step(Ended("controllers", 0), 10.3) == [Terminate("server")]
    assert core.step(Ended("server", 0), 10.5) == [Finish(0)]


def test_who_takes_long_holds_up_the_others_for_two_seconds_and_is_killed_after_four() -> None:
    core = ready()
    core.step(Asked(), 10.0)
    assert core.next_due() == 12.0
    assert core.step(Tick(), 12.0) == [Terminate("server")]
    assert core.next_due() == 14.0
    assert core.step(Ended("server", 0), 12.5) == []
    assert core.step(Tick(), 14.0) == [Kill("controllers")]
    assert core.step(Ended("controllers", -9), 14.1) == [Finish(0)]


def test_asked_twice_it_kills_at_once() -> None:
    core = ready()
    core.step(Asked(), 10.0)
    assert core.step(Asked(), 10.1) == [Kill("server"), Kill("controllers")]


def test_one_that_waits_to_be_begun_anew_is_not_when_all_stop() -> None:
    core = ready()
    core.step(Ended("controllers", -9), 5.0)
    assert core.step(Asked(), 5.05) == [Terminate("server")]
    assert core.step(Tick(), 5.2) == []
    assert core.step(Ended("server", 0), 5.3) == [Finish(0)]


# On demand


def resting() -> Supervision:
    core = Supervision({"server": (), "gateway": ()}, {"gateway"})
    assert core.step(Begin(), 0.0) == [Spawn("server")]
    core.step(Ready("server"), 0.5)
    return core


def test_what_is_on_demand_rests_until_it_is_wanted() -> None:
    core = resting()
    assert core.states() == {"server": ("ready", 0), "gateway": ("idle", 0)}
    assert (core.is_ready, core.next_due()) == (True, None)
    assert core.step(Wanted("gateway", True), 1.0) == [Spawn("gateway")]
    assert core.step(Wanted("gateway", True), 1.1) == []
    assert core.is_ready
    core.step(Ready("gateway"), 1.5)
    assert core.step(Wanted("gateway", False), 2.0) == [Terminate("gateway")]
    assert core.step(Ended("gateway", 0), 2.5) == []
    assert core.states()["gateway"] == ("idle", 0)
    assert core.is_ready


def test_what_is_wanted_again_while_it_ends_comes_again_at_once() -> None:
    core = resting()
    core.step(Wanted("gateway", True), 1.0)
    core.step(Wanted("gateway", False), 2.0)
    assert core.step(Wanted("gateway", True), 2.1) == []
    assert core.step(Ended("gateway", -15), 2.2) == [Spawn("gateway")]


def test_what_is_wanted_no_more_and_does_not_end_is_killed() -> None:
    core = resting()
    core.step(Wanted("gateway", True), 1.0)
    core.step(Wanted("gateway", False), 2.0)
    due = core.next_due()
    assert due is not None
    assert core.step(Tick(), due - 0.1) == []
    assert core.step(Tick(), due) == [Kill("gateway")]
    assert core.step(Ended("gateway", -9), due + 0.1) == []
    assert core.states()["gateway"] == ("idle", 0)


def test_what_is_wanted_and_ends_by_itself_is_begun_anew_unless_it_is_wanted_no_more() -> None:
    core = resting()
    core.step(Wanted("gateway", True), 1.0)
    assert core.step(Ended("gateway", -9), 2.0) == []
    assert (core.states()["gateway"], core.is_ready) == (("waiting", 1), False)
    assert core.step(Tick(), 2.2) == [Spawn("gateway")]
    assert not core.is_ready
    core.step(Ended("gateway", -9), 2.3)
    assert core.step(Wanted("gateway", False), 2.4) == []
    assert (core.states()["gateway"], core.next_due()) == (("idle", 2), None)


def test_what_rests_holds_up_no_end_and_is_not_begun_any_more() -> None:
    core = resting()
    assert core.step(Asked(), 1.0) == [Terminate("server")]
    assert core.step(Wanted("gateway", True), 1.1) == []
    assert core.step(Ended("server", 0), 1.2) == [Finish(0)]


def test_only_what_is_on_demand_may_be_sent_away_and_unknown_names_are_nobodys() -> None:
    core = resting()
    assert core.step(Wanted("server", False), 1.0) == []
    assert core.step(Wanted("nobody", True), 1.0) == []
    assert core.states()["server"] == ("ready", 0)


class World:
    """The processes that there are."""

    def __init__(self) -> None:
        self.alive = set[str]()
        self.finished = False

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(name):
                    assert name not in self.alive
                    assert not self.finished
                    self.alive.add(name)
                case Terminate(name) | Kill(name):
                    assert name in self.alive
                case Finish():
                    assert not self.alive
                    assert not self.finished
                    self.finished = True


@given(
    st.lists(
        st.tuples(st.sampled_from(["end", "ready", "tick", "ask", "want", "let go"]), st.integers(0, 2)), max_size=40
    )
)
def test_processes_are_counted_right_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """One process a part at most, none after the end, and the end is told once all are gone."""
    names, now, world = ["a", "b", "c"], 0.0, World()
    core, alive = Supervision(dict.fromkeys(names, ()), {"c"}), world.alive
    world.carry_out(core.step(Begin(), now))
    for kind, which in steps:
        now += 0.7
        name = names[which]
        event: Event = Tick()
        if kind == "end" and name in alive:
            alive.discard(name)
            event = Ended(name, -9)
        elif kind == "ready" and name in alive:
            event = Ready(name)
        elif kind == "ask":
            event = Asked()
        elif kind in {"want", "let go"}:
            event = Wanted(name, kind == "want")
        world.carry_out(core.step(event, now))
    if not world.finished:
        world.carry_out(core.step(Asked(), now))
        for name in sorted(alive):
            alive.discard(name)
            world.carry_out(core.step(Ended(name, 0), now))
    assert world.finished
