"""Who gets a seat, who waits and who is refused."""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.flow import FLOW_SCHEMAS, PRIORITY_LEVELS, FlowControl, Limits, Rejected, Ticket
from pilothouse.apiserver.flow.queues import deal
from pilothouse.apiserver.model import RequestInfo, User
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics

SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
AUTHENTICATED = ("system:authenticated",)


class Objects:
    """A view of flow schemas and priority levels."""

    def __init__(self, schemas: Sequence[dict[str, Any]], levels: Sequence[dict[str, Any]]) -> None:
        self.held = {SCHEMAS: copy.deepcopy(list(schemas)), LEVELS: copy.deepcopy(list(levels))}
        for objects in self.held.values():
            for obj in objects:
                obj["metadata"]["uid"] = f"uid-{obj['metadata']['name']}"
        self.told: list[Callable[[str, str], None]] = []

    def get(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        return next((each for each in self.held[resource] if each["metadata"]["name"] == name), None)

    def list(self, resource: str, namespace: str = "") -> Sequence[dict[str, Any]]:
        return self.held[resource]

    def version(self, resource: str) -> int:
        return 1

    def subscribe(self, resource: str, changed: Callable[[Any, Any], None]) -> Callable[[], None]:
        raise AssertionError("nothing needs to be decoded")

    def notify(self, resource: str, changed: Callable[[str, str], None]) -> Callable[[], None]:
        self.told.append(changed)
        return lambda: self.told.remove(changed)

    def changed(self) -> None:
        for tell in self.told:
            tell("", "any")


def control(
    total: int = 600,
    *,
    clock: FakeClock | None = None,
    view: Objects | None = None,
    metrics: Metrics | None = None,
) -> FlowControl:
    view = view or Objects(FLOW_SCHEMAS, PRIORITY_LEVELS)
    limits = Limits(total - total // 3, total // 3)
    return FlowControl(view, clock or FakeClock(), limits, metrics or Metrics())


def user(name: str, *groups: str) -> User:
    return User(name, groups=(*groups, *AUTHENTICATED))


def pods(verb: str = "get", namespace: str = "default", **more: Any) -> RequestInfo:
    return RequestInfo(True, verb, "/api/v1/pods", "", "v1", namespace, "pods", **more)


NODE = user("system:node:a", "system:nodes")
CASES = [
    (user("admin", "system:masters"), pods(), "exempt", "exempt"),
    (user("ann"), RequestInfo(False, "get", "/livez"), "probes", "exempt"),
    (user("ann"), RequestInfo(False, "get", "/livez/ping"), "probes", "exempt"),
    (user("ann"), RequestInfo(False, "post", "/livez"), "global-default", "global-default"),
    (user("ann"), pods(), "global-default", "global-default"),
    (User("system:anonymous", groups=("system:unauthenticated",)), pods(), "global-default", "global-default"),
    (NODE, pods(), "system-nodes", "system"),
    (NODE, RequestInfo(True, "patch", "", "", "v1", "", "nodes", "status", "a"), "system-node-high", "node-high"),
    (
        NODE,
        RequestInfo(True, "update", "", "coordination.k8s.io", "v1", "x", "leases", "", "a"),
        "system-node-high",
        "node-high",
    ),
    (
        user("system:kube-scheduler"),
        RequestInfo(True, "update", "", "coordination.k8s.io", "v1", "kube-system", "leases"),
        "system-leader-election",
        "leader-election",
    ),
    (user("system:kube-scheduler"), pods(), "kube-scheduler", "workload-high"),
    (user("system:kube-controller-manager"), pods(), "kube-controller-manager", "workload-high"),
    (
        user("system:serviceaccount:kube-system:gc", "system:serviceaccounts"),
        pods(),
        "kube-system-service-accounts",
        "workload-high",
    ),
    (user("system:serviceaccount:shop:web", "system:serviceaccounts"), pods(), "service-accounts", "workload-low"),
    (User("nobody"), pods(), "catch-all", "catch-all"),
]


@pytest.mark.parametrize(("who", "what", "schema", "level"), CASES)
def test_requests_are_sorted_as_kubernetes_sorts_them(who: User, what: RequestInfo, schema: str, level: str) -> None:
    flow = control()
    assert flow.classify(who, what) == (schema, level)
    assert flow.classify(who, what) == (schema, level)


def now(found: Any) -> Ticket:
    assert isinstance(found, Ticket)
    return found


def test_a_ticket_names_the_objects_by_uid() -> None:
    ticket = now(control().admit(user("ann"), pods()))
    assert dict(ticket.headers) == {
        "X-Kubernetes-PF-PriorityLevel-UID": "uid-global-default",
        "X-Kubernetes-PF-FlowSchema-UID": "uid-global-default",
    }


def test_mandatory_objects_are_imagined_and_dangling_schemas_passed_over() -> None:
    flow = control(view=Objects([each for each in FLOW_SCHEMAS if each["metadata"]["name"] == "probes"], []))
    assert flow.classify(user("admin", "system:masters"), pods()) == ("exempt", "exempt")
    assert flow.classify(user("ann"), pods()) == ("catch-all", "catch-all")
    assert flow.classify(user("ann"), RequestInfo(False, "get", "/readyz")) == ("probes", "exempt")
    view = Objects(FLOW_SCHEMAS, PRIORITY_LEVELS[:2])
    assert control(view=view).classify(user("ann"), pods()) == ("catch-all", "catch-all")


def test_a_changed_configuration_counts_at_once() -> None:
    view = Objects(FLOW_SCHEMAS, PRIORITY_LEVELS)
    flow = control(view=view)
    assert flow.classify(user("ann"), pods())[0] == "global-default"
    mine = copy.deepcopy(view.get(SCHEMAS, "", "service-accounts")) or {}
    mine["metadata"]["name"] = "ann"
    mine["spec"]["matchingPrecedence"] = 3
    mine["spec"]["rules"][0]["subjects"] = [{"kind": "User", "user": {"name": "ann"}}]
    view.held[SCHEMAS].append(mine)
    view.changed()
    assert flow.classify(user("ann"), pods()) == ("ann", "workload-low")
    assert flow.classify(user("bob"), pods())[0] == "global-default"


def test_a_closed_control_follows_no_more() -> None:
    view = Objects(FLOW_SCHEMAS, PRIORITY_LEVELS)
    flow = control(view=view)
    assert len(view.told) == 2
    flow.close()
    assert view.told == []


def test_exempt_and_long_running_requests_always_get_in() -> None:
    flow = control(10)
    admin = user("admin", "system:masters")
    assert all(isinstance(flow.admit(admin, pods()), Ticket) for _ in range(100))
    assert all(isinstance(flow.admit(user("ann"), pods(subresource="exec")), Ticket) for _ in range(100))


def test_a_watch_holds_a_seat_until_it_has_started() -> None:
    flow = control(8, view=Objects(FLOW_SCHEMAS, PRIORITY_LEVELS[:2]))
    tickets = [now(flow.admit(user("ann"), pods("watch"))) for _ in range(8)]
    with pytest.raises(Rejected):
        flow.admit(user("ann"), pods("watch"))
    tickets[0].release()
    now(flow.admit(user("ann"), pods("watch")))


def test_a_refusal_is_the_real_one() -> None:
    flow = control(3, view=Objects(FLOW_SCHEMAS, PRIORITY_LEVELS[:2]))
    for _ in range(3):
        now(flow.admit(user("ann"), pods()))
    with pytest.raises(Rejected) as refused:
        flow.admit(user("ann"), pods())
    answer = refused.value.response()
    assert (answer.status, answer.body) == (429, b"Too many requests, please try again later.\n")
    headers = dict(answer.headers)
    assert headers["Retry-After"] == "1"
    assert headers["X-Kubernetes-PF-PriorityLevel-UID"] == "uid-catch-all"
    assert refused.value.why == "concurrency-limit"


def test_clients_are_told_to_wait_longer_while_many_are_refused() -> None:
    clock = FakeClock()
    flow = control(3, clock=clock, view=Objects(FLOW_SCHEMAS, PRIORITY_LEVELS[:2]))
    for _ in range(3):
        now(flow.admit(user("ann"), pods()))

    def refused() -> int:
        with pytest.raises(Rejected) as found:
            flow.admit(user("ann"), pods())
        return found.value.retry_after_seconds

    waits = []
    for _ in range(80):
        waits.append(max(refused() for _ in range(200)))
        clock.advance(1)
    assert waits[0] == 1
    assert waits == sorted(waits)
    assert waits[-1] == 32
    clock.advance(100)
    assert [refused(), refused()] == [31, 31]


async def test_who_waits_gets_the_seat_that_is_released() -> None:
    clock = FakeClock()
    flow = control(30, clock=clock)
    ann = user("ann")
    tickets: list[Ticket] = []
    while isinstance(found := flow.admit(ann, pods()), Ticket):
        tickets.append(found)
    waiting = asyncio.ensure_future(found)
    await clock.run(1)
    assert not waiting.done()
    tickets.pop().release()
    ticket = await waiting
    assert dict(ticket.headers)["X-Kubernetes-PF-FlowSchema-UID"] == "uid-global-default"
    ticket.release()
    ticket.release()
    assert flow._seats.levels["global-default"].executing == len(tickets)


async def test_waiting_ends_after_fifteen_seconds() -> None:
    clock = FakeClock()
    flow = control(30, clock=clock)
    while isinstance(found := flow.admit(user("ann"), pods()), Ticket):
        pass
    waiting = asyncio.ensure_future(found)
    await clock.run(14.9)
    assert not waiting.done()
    await clock.run(0.2)
    with pytest.raises(Rejected) as refused:
        await waiting
    assert refused.value.why == "time-out"
    assert flow._seats.levels["global-default"].waiting == 0


async def test_a_flood_leaves_the_system_its_seats() -> None:
    clock = FakeClock()
    flow = control(60, clock=clock)
    flood = [flow.admit(user("system:serviceaccount:a:b", "system:serviceaccounts"), pods()) for _ in range(600)]
    tasks = [asyncio.ensure_future(each) for each in flood if not isinstance(each, Ticket)]
    await clock.run(0)
    assert isinstance(flow.admit(NODE, pods()), Ticket)
    lease = RequestInfo(True, "update", "", "coordination.k8s.io", "v1", "kube-system", "leases")
    assert all(isinstance(flow.admit(user("system:kube-scheduler"), lease), Ticket) for _ in range(3))
    # What the level lent comes back first: the system is below its share and the flood above.
    system = [each for each in (flow.admit(NODE, pods()) for _ in range(7)) if not isinstance(each, Ticket)]
    waiting = [asyncio.ensure_future(each) for each in system]
    await clock.run(0)
    for ticket in [each for each in flood if isinstance(each, Ticket)][: len(waiting)]:
        ticket.release()
    await clock.run(0)
    assert all(each.done() for each in waiting)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_queues_are_bounded() -> None:
    clock = FakeClock()
    flow = control(30, clock=clock)
    found = [flow.admit(user("ann"), pods()) for _ in range(500)]
    tasks = [asyncio.ensure_future(each) for each in found if not isinstance(each, Ticket)]
    await clock.run(0)
    refused = [task for task in tasks if task.done()]
    assert len(tasks) - len(refused) == 6 * 50
    assert all(isinstance(task.exception(), Rejected) for task in refused)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert flow._seats.levels["global-default"].waiting == 0


async def test_flows_share_a_level_whatever_they_ask_for() -> None:
    clock = FakeClock()
    flow = control(60, clock=clock)
    served: Counter[str] = Counter()

    async def client(name: str, seconds: float) -> None:
        found = flow.admit(user(name), pods())
        ticket = found if isinstance(found, Ticket) else await found
        await clock.sleep(seconds)
        served[name] += 1
        ticket.release()

    async def loop(name: str) -> None:
        while True:
            await client(name, 0.01)

    tasks = [asyncio.ensure_future(loop("flood")) for _ in range(200)]
    await clock.run(0.1)
    tasks += [asyncio.ensure_future(loop("quiet")) for _ in range(60)]
    await clock.run(0.2)
    served.clear()
    await clock.run(1)
    assert served["quiet"] >= 0.85 * served["flood"]
    assert served["flood"] >= 0.85 * served["quiet"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


STEPS = st.sampled_from(["admit", "cancel", "finish", "expire", "change"])


class Crowd:
    """Some users with requests at every stage, and what must hold at each moment."""

    users = (
        user("ann"),
        user("bob"),
        NODE,
        user("system:serviceaccount:a:b", "system:serviceaccounts"),
        user("system:kube-scheduler"),
        User("nobody"),
    )

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.view = Objects(FLOW_SCHEMAS, PRIORITY_LEVELS)
        self.flow = control(9, clock=self.clock, view=self.view)
        self.tickets: list[Ticket] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def _wait(self, found: Any) -> None:
        self.tickets.append(await found)

    async def admit(self, number: int) -> None:
        try:
            found = self.flow.admit(self.users[number], pods())
        except Rejected:
            return
        if isinstance(found, Ticket):
            self.tickets.append(found)
        else:
            self.tasks.append(asyncio.ensure_future(self._wait(found)))
            await self.clock.run(0) if number % 2 else None

    async def cancel(self, number: int) -> None:
        if self.tickets and number % 2:
            # A seat comes free for the very request that is cancelled.
            self.tickets.pop(number % len(self.tickets)).release()
        if self.tasks:
            self.tasks.pop(number % len(self.tasks)).cancel()
            if number % 3 == 0 and self.tickets:
                self.tickets.pop().release()

    async def finish(self, number: int) -> None:
        if self.tickets:
            self.tickets.pop(number % len(self.tickets)).release()

    async def expire(self, number: int) -> None:
        await self.clock.run(16 if number == 0 else 0.1)

    async def change(self, number: int) -> None:
        self.view.changed()
        self.flow.classify(self.users[number], pods())

    def check(self) -> None:
        levels = [level for level in self.flow._seats.levels.values() if not level.config.exempt]
        nominal = sum(level.nominal for level in levels)
        assert sum(level.executing for level in levels) <= nominal
        assert all(0 <= level.executing <= level.maximum for level in levels)
        assert self.flow._seats._free == nominal - sum(max(level.executing, level.minimum) for level in levels)
        assert sum(level.executing for level in levels) == len(self.tickets)

    async def leave(self) -> None:
        while self.tickets:
            self.tickets.pop().release()
            await self.clock.run(0)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for level in self.flow._seats.levels.values():
            assert (level.executing, level.waiting) == (0, 0)
            assert level.queues is None or not level.queues._active


@given(st.lists(st.tuples(STEPS, st.integers(0, 5)), max_size=80))
@settings(max_examples=60, deadline=None)
def test_seats_and_queues_always_add_up(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        crowd = Crowd()
        for step, number in steps:
            await getattr(crowd, step)(number)
            await crowd.clock.run(0)
            crowd.check()
        await crowd.leave()

    asyncio.run(play())


@given(st.integers(0, 2**64 - 1), st.integers(1, 128), st.integers(1, 6))
def test_a_hand_has_different_cards(value: int, deck: int, hand: int) -> None:
    dealt = deal(value, deck, min(hand, deck))
    assert len(set(dealt)) == len(dealt) == min(hand, deck)
    assert all(0 <= card < deck for card in dealt)


def test_every_hand_is_dealt_equally_often() -> None:
    seen = Counter(deal(value, 5, 3) for value in range(5 * 4 * 3 * 4))
    assert len(seen) == 60
    assert set(seen.values()) == {4}


def test_metrics_tell_levels_and_schemas_apart() -> None:
    metrics = Metrics()
    flow = control(metrics=metrics)
    now(flow.admit(user("ann"), pods()))
    text = metrics.exposition().decode()
    room = "pilothouse_apiserver_flowcontrol"
    labels = '{flow_schema="global-default",priority_level="global-default"}'
    assert f"{room}_dispatched_requests_total{labels} 1.0" in text
    assert f'{room}_executing_requests{{priority_level="global-default"}} 1.0' in text
    assert f'{room}_nominal_seats{{priority_level="workload-low"}} 245.0' in text
