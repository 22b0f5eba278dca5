"""Rules of controller-runtime that no other test shows by name: defaults, priorities of retries, what a crash costs."""

from __future__ import annotations

import inspect

from pilothouse.client.factory import SYNC_SECONDS
from pilothouse.client.workqueue import LOW_PRIORITY
from pilothouse.foundation.clock import FakeClock
from pilothouse.operator import Context, Harness, Manager, Reconciler, Request, Result, Scheme, controller
from support.operatorkit import Site, plane_and_client, site


def test_caches_have_two_minutes_to_fill_and_a_stop_half_a_minute() -> None:
    defaults = {name: one.default for name, one in inspect.signature(Manager).parameters.items()}
    assert defaults["sync_seconds"] == SYNC_SECONDS == 120
    assert defaults["grace_seconds"] == 30


class Wrong(Reconciler[Site]):
    """Fails as often as it is told for each object."""

    def __init__(self, *failing: str, times: int = 1) -> None:
        self.left = dict.fromkeys(failing, times)
        self.order: list[str] = []
        self.tries: list[int] = []

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        name = obj.metadata.name
        self.order.append(name)
        self.tries.append(context.tries)
        if self.left.get(name):
            self.left[name] -= 1
            raise RuntimeError("not yet")
        return None


async def test_what_was_listed_at_the_start_stays_behind_what_changes_when_it_is_tried_again() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site("listed"))
        harness = Harness(client, scheme=Scheme(Site))
        wrong = Wrong("listed")
        built = controller(harness.manager).for_(Site).build(wrong)
        taken: list[int] = []
        add = built.queue.add_rate_limited

        def added(key: Request, *, priority: int = 0) -> None:
            taken.append(priority)
            add(key, priority=priority)

        built.queue.add_rate_limited = added  # type: ignore[method-assign]
        async with harness:
            await harness.converge()
            assert wrong.order == ["listed", "listed"]
            assert taken == [LOW_PRIORITY]
            wrong.left = {"listed": 1}
            await client.patch(Site, "listed", {"spec": {"page": "x"}})
            await harness.converge()
            assert taken == [LOW_PRIORITY, 0]


async def test_hundreds_that_fail_at_once_do_not_wait_for_each_other() -> None:
    """Each has its own back-off; a bucket for all would let ten a second through."""
    async with plane_and_client() as (_, client):
        names = [f"s{number}" for number in range(150)]
        for name in names:
            await client.create(site(name))
        clock = FakeClock()
        harness = Harness(client, scheme=Scheme(Site), clock=clock)
        wrong = Wrong(*names, times=2)
        controller(harness.manager).for_(Site).build(wrong)
        async with harness:
            await harness.converge()
            assert clock.monotonic() <= 2.0  # 5 ms and 10 ms, in steps of a second
            assert sorted(wrong.tries) == [0] * 150 + [1] * 150 + [2] * 150


async def test_success_begins_the_back_off_anew() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        harness = Harness(client, scheme=Scheme(Site))
        wrong = Wrong("web", times=3)
        built = controller(harness.manager).for_(Site).build(wrong)
        async with harness:
            await harness.converge()
            assert wrong.tries == [0, 1, 2, 3]
            assert built.queue.num_requeues(Request("default", "web")) == 0
