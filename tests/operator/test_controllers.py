"""Controllers against the real API server in process: what is reconciled when, and what failures lead to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from pilothouse.client.ratelimit import ExponentialLimiter
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta
from pilothouse.operator import (
    BuildError,
    Context,
    Harness,
    Manager,
    NotConverged,
    NotRegistered,
    Reconciler,
    Request,
    Result,
    Scheme,
    TerminalError,
    controller,
)
from pilothouse.operator.loop import LoopOptions
from pilothouse.operator.predicates import generation_changed
from support.operatorkit import Site, plane_and_client, site


def page(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


class Pages(Reconciler[Site]):
    """Makes one config map, and notes its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.gone: list[str] = []

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        self.calls.append(obj.metadata.name)
        await context.apply(page(f"{obj.metadata.name}-page", text=obj.spec.page), obj)
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        assert context.request == request
        self.gone.append(str(request))
        return None


async def test_an_object_what_it_owns_and_what_is_mapped_lead_to_reconciles() -> None:
    def named(found: Namespace) -> Iterable[Request]:
        return [Request("default", found.metadata.labels.get("site", "none"))]

    async with plane_and_client() as (_, client):
        await client.create(site("early", page="one"))
        harness = Harness(client, scheme=Scheme(Site))
        reconciler = Pages()
        built = controller(harness.manager).for_(Site).owns(ConfigMap).watches(Namespace, named).build(reconciler)
        async with harness:
            await harness.converge()
            assert "early" in reconciler.calls
            made = await client.get(ConfigMap, "early-page")
            (owner,) = made.metadata.owner_references
            assert (owner.kind, owner.name, owner.controller) == ("Site", "early", True)
            assert made.metadata.managed_fields[0].manager == "site"

            await client.patch(ConfigMap, "early-page", {"data": {"text": "changed by hand"}})
            await harness.converge()
            assert (await client.get(ConfigMap, "early-page")).data == {"text": "one"}

            await client.delete(ConfigMap, "early-page")
            await harness.converge()
            assert (await client.get(ConfigMap, "early-page")).data == {"text": "one"}

            before = len(reconciler.calls)
            await client.create(Namespace(metadata=ObjectMeta(name="x", labels={"site": "early"})))
            await harness.converge()
            assert len(reconciler.calls) == before + 1

            await client.delete(Site, "early")
            await harness.converge()
            assert "default/early" in reconciler.gone
            assert built.metrics.results["error"] == 0


async def test_nothing_is_written_where_nothing_changes() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site(page="one"))
        harness = Harness(client, scheme=Scheme(Site))
        built = controller(harness.manager, "pages").for_(Site).owns(ConfigMap).build(Pages())
        async with harness:
            await harness.converge()
            sent = built._applier.applied
            await harness.assert_stable()
            assert built._applier.applied == sent
            assert built._applier.skipped
            await client.patch(Site, "web", {"spec": {"page": "two"}})
            await harness.converge()
            assert (await client.get(ConfigMap, "web-page")).data == {"text": "two"}


async def test_failures_are_tried_again_by_the_clock_and_said() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        tries: list[tuple[int, float]] = []

        async def flaky(_: Site, context: Context) -> Result | None:
            tries.append((context.tries, context.clock.monotonic()))
            if len(tries) <= 4:
                raise RuntimeError("not yet")
            return None

        harness = Harness(client, scheme=Scheme(Site))
        built = (
            controller(harness.manager)
            .for_(Site)
            .with_options(rate_limit=ExponentialLimiter(1, 60), loop=LoopOptions(failures=3))
            .build(flaky)
        )
        async with harness:
            await harness.settle()
            with pytest.raises(
                NotConverged, match=r"default/web does not converge: .* last error: RuntimeError: not yet"
            ):
                await harness.converge(5)
            assert [str(one.key) for one in built.unconverged()] == ["default/web"]
            assert any("default/web does not converge" in problem for problem in harness.manager.problems())
            await harness.converge()
            assert [count for count, _ in tries] == [0, 1, 2, 3, 4]
            assert [round(now) for _, now in tries] == [0, 1, 3, 7, 15]
            assert harness.manager.problems() == []
            assert built.metrics.results == {"success": 1, "error": 4, "requeue": 0, "requeue_after": 0}
            page = harness.manager.metrics.exposition().decode() if harness.manager.metrics else ""
            for line in (
                'controller_runtime_reconcile_total{controller="site",result="success"} 1.0',
                'controller_runtime_reconcile_errors_total{controller="site"} 4.0',
                'controller_runtime_active_workers{controller="site"} 0.0',
                'controller_runtime_reconcile_time_seconds_count{controller="site"} 5.0',
            ):
                assert line in page


async def test_terminal_errors_wait_for_a_change() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site(page="bad"))

        async def strict(obj: Site, _: Context) -> Result | None:
            if obj.spec.page == "bad":
                raise TerminalError("page: this will not do")
            return None

        harness = Harness(client, scheme=Scheme(Site))
        built = controller(harness.manager).for_(Site).build(strict)
        async with harness:
            await harness.advance(100)
            assert (built.metrics.terminal, built.metrics.total) == (1, 1)
            with pytest.raises(NotConverged, match="this will not do"):
                await harness.converge(3)
            await client.patch(Site, "web", {"spec": {"page": "good"}})
            await harness.converge()


async def test_requeue_after_and_a_reconcile_that_blocks() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site("polls"))
        await client.create(site("blocks"))
        polled: list[float] = []

        async def mixed(obj: Site, context: Context) -> Result | None:
            if obj.metadata.name == "blocks" and not context.tries:
                await asyncio.Event().wait()
            if obj.metadata.name == "polls":
                polled.append(context.clock.monotonic())
                return Result(requeue_after=30)
            return None

        clock = FakeClock()
        harness = Harness(client, scheme=Scheme(Site), clock=clock)
        built = controller(harness.manager).for_(Site).with_options(concurrency=2, timeout_seconds=10).build(mixed)
        async with harness:
            for _ in range(100):
                await clock.run(1)
                await asyncio.sleep(0.001)
            await harness.converge()
            assert built.metrics.timeouts == 1
            assert len(polled) in {3, 4}
            assert polled[1] - polled[0] == pytest.approx(30)


async def test_two_controllers_that_undo_each_other_are_reported() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        harness = Harness(client, scheme=Scheme(Site), patience_seconds=0.7)

        def writer(text: str) -> Reconciler[Site]:
            class Writer(Reconciler[Site]):
                async def reconcile(self, obj: Site, context: Context) -> Result | None:
                    await context.apply(page("shared", text=text), obj)
                    return None

            return Writer()

        for name in ("one", "two"):
            options = LoopOptions(rounds=20)
            controller(harness.manager, name).for_(Site).owns(ConfigMap).with_options(loop=options).build(writer(name))
        async with harness:
            with pytest.raises(
                NotConverged, match=r"default/web does not converge: .*without an error, so something und"
            ):
                await harness.converge()


async def test_a_result_of_another_type_and_a_cancellation_from_within_are_failures() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site("cancels"))
        await client.create(site("returns"))
        seen: set[str] = set()

        async def odd(obj: Site, _: Context) -> Result | None:
            name = obj.metadata.name
            if name in seen:
                return None
            seen.add(name)
            if name == "cancels":
                raise asyncio.CancelledError
            return 5  # type: ignore[return-value]

        harness = Harness(client, scheme=Scheme(Site))
        built = controller(harness.manager).for_(Site).build(odd)
        async with harness:
            await harness.converge()
            assert built.metrics.results["error"] == 2
            assert built.metrics.results["success"] == 2


async def test_a_worker_that_is_ended_from_outside_is_begun_anew() -> None:
    async with plane_and_client() as (_, client):
        harness = Harness(client, scheme=Scheme(Site))
        reconciler = Pages()
        built = controller(harness.manager).for_(Site).owns(ConfigMap).build(reconciler)
        async with harness:
            for worker in [*built._workers]:
                worker.cancel()
            await asyncio.sleep(0)
            await client.create(site())
            await harness.converge()
            assert reconciler.calls


async def test_predicates_leave_events_out() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        harness = Harness(client, scheme=Scheme(Site))
        reconciler = Pages()
        controller(harness.manager).for_(Site, generation_changed).build(reconciler)
        async with harness:
            await harness.converge()
            await client.patch(Site, "web", {"metadata": {"labels": {"a": "b"}}})
            await harness.converge()
            assert len(reconciler.calls) == 1
            await client.patch(Site, "web", {"spec": {"page": "new"}})
            await harness.converge()
            assert len(reconciler.calls) == 2


async def test_what_cannot_work_is_refused_when_it_is_built() -> None:
    async with plane_and_client(crd=False) as (_, client):
        manager = Manager(client)
        with pytest.raises(NotRegistered, match=r"register\(Site\)"):
            controller(manager).for_(Site)
        manager.scheme.register(Site)
        described = controller(manager).for_(Site)
        with pytest.raises(BuildError, match=r"Namespace is of the whole cluster, so no Site .*watches\(Namespace"):
            described.owns(Namespace)
        with pytest.raises(BuildError, match="said twice"):
            described.owns(ConfigMap).owns(ConfigMap)
        with pytest.raises(BuildError, match="concurrency: 0"):
            described.with_options(concurrency=0)
        with pytest.raises(BuildError, match=r"pass Pages\(\)"):
            described.build(Pages)  # type: ignore[arg-type]
        with pytest.raises(BuildError, match="controller name 'A B'"):
            controller(manager, "A B")
        described.build(Pages())
        with pytest.raises(BuildError, match="there is one of this name"):
            controller(manager).for_(Site).build(Pages())
        with pytest.raises(BuildError, match=r"there is no cache of Namespace: say owns"):
            manager.cached(Namespace)


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(ValueError, match="requeue_after: -1"):
        Result(requeue_after=-1)
