"""What `up` shows of a start, told by events: lines as parts get ready, one table, and what is begun anew."""

from __future__ import annotations

import io
from collections.abc import Mapping

from pilothouse.foundation.clock import FakeClock
from pilothouse.platform.core import Asked, Begin, Ended, Event, Ready, Tick, Wanted
from pilothouse.platform.progress import Progress, table
from pilothouse.platform.supervisor import Part, Supervisor


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Shown:
    """Progress of a platform whose processes are only told of."""

    def __init__(self, *names: str, errors: io.StringIO | None = None) -> None:
        self.clock = FakeClock()
        self.out, self.errors = io.StringIO(), errors or io.StringIO()
        self.progress = Progress(self.out, self.errors, clock=self.clock.monotonic)
        self.supervisor = Supervisor([Part(name, ("none",)) for name in names])
        self.tell(Begin())

    @property
    def interval(self) -> float | None:
        return self.progress.interval

    def tell(self, *events: Event) -> None:
        for event in events:
            self.supervisor.core.step(event, self.clock.monotonic())
            self.progress.changed(self.supervisor, event)


SERVER = {"url": "https://x", "kubeconfig": "k"}


def test_what_rests_is_named_apart_and_comes_and_goes_with_a_word() -> None:
    shown = Shown("apiserver")
    shown.supervisor = Supervisor([Part("apiserver", ("none",)), Part("gateway", ("none",), on_demand=True)])
    shown.tell(Begin(), Ready("apiserver", SERVER))
    assert shown.out.getvalue().splitlines()[-2:] == [
        "  parts       apiserver (in 0.0 s)",
        "  when wanted gateway",
    ]
    shown.tell(Wanted("gateway", True), Ready("gateway"), Wanted("gateway", False), Ended("gateway", 0))
    shown.tell(Wanted("gateway", True), Ready("gateway"), Ended("gateway", -9), Tick())
    assert shown.errors.getvalue().splitlines()[1:] == [
        "gateway: ready, as it is wanted",
        "gateway: ended, as it is not wanted any more",
        "gateway: ready, as it is wanted",
        "gateway ended with -9 and is started again",
    ]


def test_each_part_has_a_line_and_all_have_a_table() -> None:
    shown = Shown("apiserver", "agent")
    assert shown.progress.interval is None
    shown.clock.advance(0.5)
    shown.tell(Ready("apiserver", SERVER))
    assert (shown.out.getvalue(), shown.errors.getvalue()) == ("", "apiserver: ready after 0.5 s\n")
    shown.clock.advance(0.25)
    shown.tell(Ready("agent", {"node": "n", "dns": "10.96.0.10", "missing": ""}))
    assert shown.out.getvalue().splitlines() == [
        "ready: serving Kubernetes on https://x, kubeconfig in k",
        "  API         https://x",
        "  kubeconfig  k",
        "  node        n",
        "  DNS         10.96.0.10",
        "  parts       apiserver, agent (in 0.8 s)",
    ]
    shown.tell(Ended("agent", -9))
    assert shown.errors.getvalue().splitlines()[2:] == ["agent ended with -9 and is started again"]
    shown.clock.advance(1)
    shown.tell(Tick(), Ready("agent", {"node": "n"}))
    assert shown.errors.getvalue().splitlines()[3:] == ["agent: ready again"]
    assert shown.out.getvalue().count("ready: ") == 1


def test_a_terminal_shows_who_is_waited_for_until_all_are_ready() -> None:
    shown = Shown("apiserver", "agent", errors=Terminal())
    shown.clock.advance(1)
    shown.tell(Tick())
    assert shown.errors.getvalue().endswith("\r\x1b[Kwaiting for apiserver, agent (1.0 s)")
    assert (shown.interval or 0.0) == 0.1
    shown.tell(Ready("agent"))
    assert "\r\x1b[Kagent: ready after 1.0 s\n" in shown.errors.getvalue()
    assert shown.errors.getvalue().endswith("waiting for apiserver (1.0 s)")
    shown.tell(Ready("apiserver", SERVER))
    assert shown.errors.getvalue().endswith("\r\x1b[Kapiserver: ready after 1.0 s\n")
    assert shown.interval is None
    shown.tell(Asked())
    assert shown.errors.getvalue().endswith("stopping; pods run on\n")


def test_one_that_is_stopped_while_it_starts_is_not_ready() -> None:
    shown = Shown("apiserver", errors=Terminal())
    shown.tell(Tick(), Asked(), Ended("apiserver", -15))
    assert shown.out.getvalue() == ""
    assert "ended with" not in shown.errors.getvalue()
    assert shown.progress.interval is None


def test_a_node_of_a_cluster_elsewhere_says_which_it_is() -> None:
    shown = Shown("agent")
    shown.tell(Ready("agent", {"node": "n2"}))
    assert shown.out.getvalue().splitlines()[:2] == ["ready: running pods as node n2", "  node        n2"]


def test_what_the_machine_does_not_allow_is_short() -> None:
    told: Mapping[str, Mapping[str, str]] = {"agent": {"missing": f"pods of this node do without: {'x' * 200}\nsecond"}}
    first, second = table(told, "1.0 s")[-2:]
    assert first == f"  without     {'x' * 99}…"
    assert second == "              second"
