"""The checklist of `docs/informers.md`: each line has a test that shows it; and the lines that no other test shows."""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.leaderelection import LeaderElector, LeaseLock
from pilothouse.client.ratelimit import ExponentialLimiter
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.client.workqueue import WorkQueue
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ConfigMap, Secret
from pilothouse.testing import ControlPlane
from support.informerkit import FakeServer
from support.semantics import SHOWN, missing, rules_of_docs


def test_each_line_of_the_checklist_is_shown_by_a_test() -> None:
    assert list(rules_of_docs()) == list(SHOWN)
    assert [rule for rule, places in SHOWN.items() if not places] == []


@pytest.mark.parametrize("rule", SHOWN)
def test_what_shows_a_line_is_there(rule: str) -> None:
    assert [place for place in SHOWN[rule] if missing(place)] == []


_queue_steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "done", "limited"]), st.sampled_from("abc")),
        st.tuples(st.just("later"), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["get", "time"]), st.just("")),
    ),
    max_size=60,
)


@given(steps=_queue_steps, fair=st.booleans())
def test_queued_keys_are_dirty_and_no_queued_key_is_worked_on(steps: list[tuple[str, str]], fair: bool) -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock, limiter=ExponentialLimiter(), group=str.upper if fair else None)
    working: set[str] = set()
    wanted: set[str] = set()
    """Added, and not taken since; a worker is owed each of them."""
    for step, key in steps:
        match step:
            case "add":
                queue.add(key)
                wanted.add(key)
            case "limited":
                queue.add_rate_limited(key)
            case "later":
                queue.add_after(key, 1.0)
            case "done":
                queue.done(key)
                working.discard(key)
            case "get":
                found = queue.get_nowait()
                if found is not None:
                    assert found not in working  # never to two at once
                    working.add(found)
                    wanted.discard(found)
            case _:
                waiting = queue.waiting
                clock.advance(0.5)
                assert queue.waiting <= waiting
        queued = {key for line in queue._lines.values() for key in _keys_of(line)}
        assert len(queue) == len(queued)
        assert queued <= queue._dirty.keys()
        assert not queued & queue._processing.keys()
        assert queue._processing.keys() == working
        assert wanted <= queue._dirty.keys()
        assert queue._dirty.keys() == queued | (queue._dirty.keys() & working)
    for key in sorted(working):
        queue.done(key)
    clock.advance(2_000)
    left = []
    while (found := queue.get_nowait()) is not None:
        left.append(found)
        queue.done(found)
    assert wanted <= set(left)
    assert len(left) == len(set(left))


def _keys_of(line: Any) -> list[str]:
    if hasattr(line, "_groups"):
        return [key for keys in line._groups.values() for key in keys]
    return list(line._keys)


def test_a_lease_is_renewed_with_client_gos_times() -> None:
    options = ElectionOptions()
    assert (options.lease_seconds, options.renew_seconds, options.retry_seconds) == (15, 10, 2)
    assert options.release


@pytest.mark.parametrize("streams", [True, False])
async def test_no_event_is_lost_or_told_twice_however_often_connections_break(streams: bool) -> None:
    clock, source = FakeClock(), random.Random(11)
    server = FakeServer(clock=clock, streams=streams)
    informer: Informer[Any] = Informer(
        server,
        clock=clock,
        options=InformerOptions(reflector=ReflectorOptions(stream_initial_list=streams)),
        source=random.Random(5),
        metrics=Metrics(),
    )
    told: dict[str, list[int]] = defaultdict(list)
    sent: dict[str, list[int]] = defaultdict(list)

    def note(found: Any) -> None:
        told[found["metadata"]["name"]].append(int(found["metadata"]["resourceVersion"]))

    informer.add_handler(on_add=lambda found, _: note(found), on_update=lambda _, found: note(found), on_delete=note)
    async with informer:
        await clock.run(0)
        for _ in range(600):
            name = f"m{source.randrange(6)}"
            if f"ns/{name}" in server.items and source.random() < 0.3:
                server.remove(name)
            else:
                server.put(name)
            sent[name].append(server.version)
            if source.random() < 0.2:
                server.cut(ConnectionResetError("cut") if source.random() < 0.5 else None)
            if source.random() < 0.3:
                await clock.run(source.choice([0, 0.5, 3]))
        await clock.run(60)
        assert told == sent
        assert informer.core.counts.replaced == 1


async def test_clients_informers_and_electors_begin_no_threads() -> None:
    async with ControlPlane(lifecycle=False) as plane:
        path = plane.kubeconfig
        async with Client.from_kubeconfig(path) as client:
            await client.list_all(ConfigMap)
        before = threading.active_count()
        for _ in range(5):
            async with Client.from_kubeconfig(path) as client:
                factory = SharedInformerFactory(client, metrics=Metrics())
                for kind in (ConfigMap, Secret):
                    factory.informer(kind)
                elector = LeaderElector(LeaseLock(client, "default", "one"), "me", metrics=Metrics())
                leading = asyncio.create_task(elector.run(asyncio.Event().wait))
                async with factory:
                    await factory.wait_for_sync(10)
                    while not elector.is_leader:  # noqa: ASYNC110  no event
                        await asyncio.sleep(0.005)
                    assert threading.active_count() == before
                leading.cancel()
                await asyncio.wait([leading])
        assert threading.active_count() == before


def test_a_resync_is_off_unless_it_is_asked_for_and_may_be_thirty_seconds() -> None:
    assert InformerOptions().resync_seconds == 0
    assert InformerOptions(resync_seconds=30).resync_seconds == 30
    assert "resync_seconds" in inspect.signature(Informer.add_handler).parameters
