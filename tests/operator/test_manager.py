"""The manager: leading, stopping in time, what it says of itself, and what becomes of watchers that die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.leaderelection import LeadershipLostError
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ConfigMap, Lease, ObjectMeta
from pilothouse.operator import (
    BuildError,
    Context,
    Harness,
    LeaderElection,
    Manager,
    OperatorError,
    Reconciler,
    Result,
    Scheme,
    controller,
)
from pilothouse.operator.health import HealthServer, Page, run_checks
from support.operatorkit import Site, plane_and_client, site


class Slow(Reconciler[Site]):
    """Waits until it may go on, and notes what becomes of it."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.finished = 0
        self.cancelled = 0

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return None


class Nothing(Reconciler[Site]):
    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        return None


def manager_of(client: Client, reconciler: Reconciler[Site], **options: object) -> Manager:
    made = Manager(client, scheme=Scheme(Site), metrics=Metrics(), **options)  # type: ignore[arg-type]
    controller(made).for_(Site).build(reconciler)
    return made


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(manager.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_stop_waits_for_what_goes_on() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        slow = Slow()
        manager = manager_of(client, slow)
        async with running(manager) as task:
            await slow.began.wait()
            assert manager.is_leading
            manager.stop()
            await asyncio.sleep(0.01)
            assert not task.done()
            slow.go_on.set()
            await asyncio.wait_for(task, 5)
        assert (slow.finished, slow.cancelled) == (1, 0)
        assert "running" in repr(manager)
        with pytest.raises(RuntimeError, match="make a new one"):
            await manager.run()


async def test_a_stop_takes_no_longer_than_the_grace_and_a_cancellation_no_time() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        slow, clock = Slow(), FakeClock()
        manager = manager_of(client, slow, clock=clock)
        async with running(manager) as task:
            await slow.began.wait()
            manager.stop()
            await clock.run(23)
            assert not task.done()
            await clock.run(7)
            await asyncio.wait_for(task, 5)
        assert (slow.finished, slow.cancelled) == (0, 1)

        slow = Slow()
        manager = manager_of(client, slow, clock=FakeClock())
        async with running(manager) as task:
            await slow.began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
        assert slow.cancelled == 1
        assert not [each for each in asyncio.all_tasks() if "controller" in each.get_name()]


async def test_one_of_two_leads_and_the_other_takes_over_when_it_stops() -> None:
    async with plane_and_client() as (_, client):
        clock = FakeClock()
        first, second = (
            manager_of(client, Nothing(), clock=clock, leader_election=LeaderElection(name="sites", identity=name))
            for name in ("first", "second")
        )
        async with running(first) as leading:
            await first.wait_started()
            async with running(second) as waiting:
                for _ in range(5):
                    await clock.run(1)
                    await asyncio.sleep(0.01)
                assert (first.is_leading, second.is_leading) == (True, False)
                assert (await client.get(Lease, "sites", "default")).spec.holder_identity == "first"
                first.stop()
                await asyncio.wait_for(leading, 5)
                for _ in range(50):
                    await clock.run(0.2)
                    await asyncio.sleep(0.005)
                assert second.is_leading
                page = second.metrics.exposition().decode() if second.metrics else ""
                assert 'leader_election_master_status{name="second"} 1.0' in page
                second.stop()
                await asyncio.wait_for(waiting, 5)
        assert (await client.get(Lease, "sites", "default")).spec.holder_identity in {"", None}


async def test_one_that_waits_to_lead_stops_at_once() -> None:
    async with plane_and_client() as (_, client):
        await client.create(Lease(metadata=ObjectMeta(name="sites", namespace="default")))
        await client.patch(
            Lease,
            "sites",
            {
                "spec": {
                    "holderIdentity": "somebody",
                    "leaseDurationSeconds": 15,
                    "renewTime": "2025-01-01T00:00:00.000000Z",
                }
            },
        )
        manager = manager_of(client, Nothing(), leader_election=LeaderElection(name="sites"), clock=FakeClock())
        async with manager:
            await asyncio.sleep(0.05)
            assert not manager.is_leading
        assert manager.failure is None


async def test_who_loses_the_lease_stops_its_work_before_it_says_so() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        clock, slow = FakeClock(), Slow()
        options = ElectionOptions(lease_seconds=15, renew_seconds=10, retry_seconds=2)
        election = LeaderElection(name="sites", identity="me", options=options)
        manager = manager_of(client, slow, clock=clock, leader_election=election)
        async with running(manager) as task:
            await slow.began.wait()
            spec = {"spec": {"holderIdentity": "thief", "renewTime": "2030-01-01T00:00:00.000000Z"}}
            await client.patch(Lease, "sites", spec)
            for _ in range(40):
                await clock.run(0.5)
                await asyncio.sleep(0.005)
                if task.done():
                    break
            with pytest.raises(LeadershipLostError, match="the leader last seen is thief"):
                await asyncio.wait_for(task, 5)
        assert slow.cancelled == 1


async def fetched(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


async def test_health_readiness_and_metrics_are_served() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        manager = manager_of(client, Nothing(), health_address="127.0.0.1:0")
        well = ""
        manager.add_check("disk", lambda: well)
        async with manager:
            assert manager.health is not None
            port = manager.health.port
            assert await fetched(port, "/healthz") == (200, "ok")
            assert await fetched(port, "/healthz", "HEAD") == (200, "")
            assert (await fetched(port, "/readyz?verbose=1"))[1] == (
                "[+]caches ok\n[+]watchers ok\n[+]stopping ok\nreadyz check passed\n"
            )
            status, page = await fetched(port, "/metrics")
            assert status == 200
            assert 'controller_runtime_max_concurrent_reconciles{controller="site"} 1.0' in page
            assert "pilothouse_client_workqueue_depth" in page
            well = "it is full"
            status, page = await fetched(port, "/healthz")
            assert status == 500
            assert "[-]disk failed: it is full" in page
            assert (await fetched(port, "/nothing"))[0] == 404
            assert (await fetched(port, "/healthz", "POST"))[0] == 405
        with pytest.raises(OSError, match="Connect call failed"):
            await fetched(port, "/healthz")


async def test_an_address_that_will_not_do_is_refused_with_the_way_out() -> None:
    async with plane_and_client(crd=False) as (_, client):
        with pytest.raises(ValueError, match=r"plain text is for loopback only; pass `health_tls`"):
            Manager(client, health_address="0.0.0.0:8081")
        Manager(client, health_address="0.0.0.0:8081", health_tls=ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
        for address in ("8081", "host:", "host:99999", "host:x"):
            with pytest.raises(ValueError, match="want HOST"):
                HealthServer(address, {})
        taken = HealthServer("127.0.0.1:0", {})
        await taken.start()
        manager = Manager(client, health_address=f"127.0.0.1:{taken.port}")
        with pytest.raises(OperatorError, match=r"cannot listen there .* choose another"):
            await manager.run()
        await taken.stop()


def test_a_check_that_raises_fails() -> None:
    def broken() -> str:
        raise RuntimeError("no such disk")

    assert run_checks("healthz", {"disk": broken}) == Page(
        500, b"[-]disk failed: RuntimeError('no such disk')\nhealthz check failed\n"
    )


async def test_requests_that_are_none_are_answered_or_dropped() -> None:
    def broken(_: bool) -> Page:
        raise RuntimeError("no page")

    server = HealthServer("127.0.0.1:0", {"/": broken})
    await server.start()
    assert (await fetched(server.port, "/"))[0] == 500
    assert (await fetched(server.port, "/ x"))[0] == 400
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"x" * 20_000)
    with contextlib.suppress(ConnectionError):
        assert not await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await server.stop()


async def test_caches_that_cannot_be_filled_are_named() -> None:
    async with plane_and_client(crd=False) as (_, client):
        manager = manager_of(client, Nothing(), sync_seconds=0.3)
        with pytest.raises(
            CacheSyncError, match=r"caches not filled within 0.3 s: sites.operator.example.com \(NotFound"
        ):
            async with manager:
                pytest.fail("it started")


async def test_a_watcher_that_dies_is_begun_anew_and_named() -> None:
    async with plane_and_client() as (_, client):
        harness = Harness(client, scheme=Scheme(Site))
        built = controller(harness.manager).for_(Site).build(Nothing())
        async with harness:
            await harness.converge()
            watcher = harness.manager.cached(Site)._task
            assert watcher is not None
            watcher.cancel()
            await asyncio.wait([watcher])
            (problem,) = harness.manager.problems()
            assert "its watcher had ended (cancelled from outside) and was begun anew" in problem
            await client.create(site())
            await harness.converge()
            assert built.metrics.total >= 1
            assert harness.manager.problems() == []


async def test_signals_stop_it_the_second_at_once() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        slow = Slow()
        manager = manager_of(client, slow)
        task = asyncio.ensure_future(manager.run(signals=True))
        await slow.began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert not task.done()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert slow.cancelled == 1


async def test_events_are_written_before_it_ends() -> None:
    class Says(Reconciler[Site]):
        async def reconcile(self, obj: Site, context: Context) -> Result | None:
            context.recorder.normal(obj, "Seen", "it was seen")
            said.set()
            return None

    said = asyncio.Event()

    async with plane_and_client() as (plane, client):
        await client.create(site())
        manager = manager_of(client, Says())
        async with manager:
            await said.wait()
        events = (await plane.call("GET", "/api/v1/namespaces/default/events"))["items"]
        assert [(each["reason"], each["involvedObject"]["name"]) for each in events] == [("Seen", "web")]


async def test_no_controller_comes_late() -> None:
    async with plane_and_client() as (_, client):
        manager = manager_of(client, Nothing())
        async with manager:
            with pytest.raises(BuildError, match="the manager runs already"):
                controller(manager, "late").for_(ConfigMap).build(Late())


class Late(Reconciler[ConfigMap]):
    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        return None
