"""The queue as a trace: what is done to it, and what it then holds. `at` moves the clock to that second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Pod, replace
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import PreEnqueuePlugin, Reject
from pilothouse.scheduling.plugins.simple import PrioritySort, SchedulingGates
from pilothouse.scheduling.queue import Queue

from .kit import pod

NODE_ADDED = ClusterEvent(Kind.NODE, Action.ADD)
POD_GONE = ClusterEvent(Kind.ASSIGNED_POD, Action.DELETE)


def only_for(name: str) -> Callable[[Pod, Any, Any], Hint]:
    return lambda waiting, _old, _new: Hint.QUEUE if waiting.metadata.name == name else Hint.SKIP


HINTS = {
    "default-scheduler": {
        "Fit": (Interest(NODE_ADDED), Interest(ClusterEvent(Kind.POD, Action.DELETE))),
        "Picky": (Interest(NODE_ADDED, only_for("a")),),
        "Permit": (Interest(POD_GONE),),
        "SchedulingGates": (Interest(ClusterEvent(Kind.POD, Action.UPDATE_POD_GATES_GONE)),),
    }
}


class Stage:
    """A queue and its clock, and a trace of what is done to them."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.queue = Queue(
            self.clock.monotonic,
            PrioritySort().sort_key,
            hints=HINTS,
            gates={"default-scheduler": [SchedulingGates()]},
            **options,
        )

    def do(self, step: str) -> str:  # noqa: C901  one line a verb
        """Carry out one step; give what it says."""
        verb, *words = step.split()
        match verb:
            case "add":
                name, priority = (*words, "0")[:2]
                return self.queue.add(pod(name, priority=int(priority))).place
            case "gated":
                return self.queue.add(pod(words[0], schedulingGates=[{"name": "quota"}])).gate
            case "ungate":
                old = self.queue.get(words[0])
                assert old is not None
                return self.queue.update(old.pod, pod(words[0])).place
            case "pop":
                queued = self.queue.pop()
                return "-" if queued is None else queued.pod.metadata.name
            case "fails":
                found = self.queue.get(words[0])
                assert found is not None
                pending = [one[1:] for one in words[1:] if one.startswith("~")]
                self.queue.requeue(found, [one for one in words[1:] if not one.startswith("~")], pending)
                return found.place
            case "done":
                self.queue.done(words[0])
            case "delete":
                self.queue.delete(words[0])
            case "activate":
                return str(self.queue.activate(words[0]))
            case "event":
                return str(self.queue.event({"node": NODE_ADDED, "gone": POD_GONE}[words[0]]))
            case "at":
                self.clock.advance(float(words[0]) - self.clock.monotonic())
                self.queue.flush()
            case "where":
                found = self.queue.get(words[0])
                return "-" if found is None else found.place
            case "next":
                return str(self.queue.next_flush())
        return ""


TRACES = {
    "the most important pod comes first, then the one that waits longest": """
        add a 1 → active | add b 5 → active | add c 1 → active
        pop → b | pop → a | pop → c | pop → -
    """,
    "a pod that nothing woke waits, then backs off for a second, then for two": """
        add a → active | pop → a | fails a Fit → unschedulable | pop → -
        event node → 1 | where a → backoff | next → 1.0 | at 0.9 | where a → backoff | at 1 | where a → active
        pop → a | fails a Fit → unschedulable | event node → 1 | next → 2.0 | at 2.9 | where a → backoff
        at 3 | where a → active
    """,
    "back-off is ten seconds at most": """
        add a → active
        pop → a | fails a Fit → unschedulable | activate a → True | pop → a | fails a Fit → unschedulable
        activate a → True | pop → a | fails a Fit → unschedulable | activate a → True | pop → a
        fails a Fit → unschedulable | activate a → True | pop → a | fails a Fit → unschedulable
        event node → 1 | next → 10.0 | at 9.9 | where a → backoff | at 10 | where a → active
    """,
    "after an error a pod backs off without waiting for an event": """
        add a → active | pop → a | fails a → backoff | at 1 | where a → active
        pop → a | fails a → backoff | at 2.9 | where a → backoff | at 3 | where a → active
    """,
    "an event wakes only pods that a plugin which waits for it refused, and for which it is of use": """
        add a → active | add b → active | add c → active | pop → a | pop → b | pop → c
        fails a Picky → unschedulable | fails b Picky → unschedulable | fails c Other → unschedulable
        at 60 | event node → 1 | where a → active | where b → unschedulable | where c → unschedulable
        event gone → 0
    """,
    "an event that happens while a pod is tried is not lost": """
        add a → active | pop → a | event node → 0 | fails a Fit → backoff
        add b → active | pop → b | event gone → 0 | fails b Picky → unschedulable
    """,
    "events from before a pod was tried do not count": """
        event node → 0 | add a → active | pop → a | fails a Fit → unschedulable
    """,
    "what a plugin waits for has the pod tried at once": """
        add a → active | pop → a | fails a ~Permit → unschedulable | event gone → 1 | where a → active
    """,
    "of several events during a try the one that matters most counts": """
        add a → active | pop → a | event gone → 0 | event node → 0 | fails a Fit ~Permit → active
    """,
    "a pod that nothing wakes is tried again after five minutes": """
        add a → active | pop → a | fails a Other → unschedulable | next → 30.0
        at 300 | where a → unschedulable | at 330 | where a → active
    """,
    "a gated pod is in no one's way, and comes when its gates are gone": """
        gated a → SchedulingGates | where a → unschedulable | pop → - | activate a → False | at 400
        where a → unschedulable | ungate a → active | pop → a
    """,
    "a pod that is done or gone is forgotten": """
        add a → active | add b → active | pop → a | done a | where a → - | delete b | pop → -
    """,
    "what was woken twice is there once": """
        add a → active | pop → a | fails a Fit → unschedulable | at 5 | event node → 1 | event node → 0 | pop → a
        pop → -
    """,
}


@pytest.mark.parametrize("name", TRACES)
def test_the_queue_does_as_its_trace_says(name: str) -> None:
    stage = Stage(idle_ignores_backoff=False)
    for step in TRACES[name].replace("\n", "|").split("|"):
        what, _, expected = (part.strip() for part in step.partition("→"))
        if what:
            assert stage.do(what) == expected, what


def test_where_nothing_else_is_to_do_back_off_is_cut_short() -> None:
    stage = Stage()
    for step in ("add a", "pop", "fails a Fit", "event node"):
        stage.do(step)
    assert stage.do("where a") == "backoff"
    assert stage.do("pop") == "a"
    assert stage.do("fails a") == "backoff"
    assert stage.do("pop") == "-"


def test_a_pod_that_became_more_important_is_tried_sooner() -> None:
    stage = Stage()
    stage.do("add a 3")
    stage.do("add b 1")
    old = stage.queue.get("b")
    assert old is not None
    stage.queue.update(old.pod, replace(old.pod, spec__priority=9))
    assert [stage.do("pop"), stage.do("pop"), stage.do("pop")] == ["b", "a", "-"]


def test_counts_tell_where_pods_are() -> None:
    stage = Stage()
    for step in ("add a", "add b", "add c", "pop", "pop", "fails a Fit", "fails b", "gated d"):
        stage.do(step)
    assert stage.queue.counts() == {"active": 1, "backoff": 1, "unschedulable": 1, "gated": 1}
    assert [one.gate_reason for one in stage.queue.gated()] == ["waiting for scheduling gates: [quota]"]


def test_too_many_events_have_a_pod_tried_again() -> None:
    stage = Stage(idle_ignores_backoff=False)
    stage.do("add a")
    stage.do("pop")
    for _ in range(10_001):
        stage.queue.event(POD_GONE)
    assert stage.do("fails a Other") == "backoff"


def test_a_gate_that_opens_may_be_followed_by_another() -> None:
    class Second:
        name: ClassVar[str] = "Second"

        def pre_enqueue(self, waiting: Pod) -> Reject | None:
            return Reject("not yet") if "wait" in waiting.metadata.labels else None

    clock = FakeClock()
    gates: dict[str, list[PreEnqueuePlugin]] = {"default-scheduler": [SchedulingGates(), Second()]}
    queue = Queue(clock.monotonic, PrioritySort().sort_key, hints=HINTS, gates=gates)
    first = pod("a", schedulingGates=[{"name": "g"}], labels={"wait": "yes"})
    assert queue.add(first).gate == "SchedulingGates"
    second = pod("a", labels={"wait": "yes"})
    queued = queue.update(first, second)
    assert (queued.gate, queued.gate_reason, queued.place) == ("Second", "not yet", "unschedulable")
