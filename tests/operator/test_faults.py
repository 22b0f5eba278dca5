"""What goes wrong around an operator in process, by a clock that jumps where that matters: told, counted, overcome."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse.client import Client
from pilothouse.client import informer as informers
from pilothouse.client.config import ClientConfig
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.informer import InformerOptions
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.client.transport import Answer, Transport
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.retry import Backoff
from pilothouse.foundation.tls import make_ca
from pilothouse.kinds.structs import ConfigMap, Lease, ObjectMeta
from pilothouse.operator import (
    Context,
    Harness,
    LeaderElection,
    Manager,
    NotConverged,
    Reconciler,
    Result,
    Scheme,
    controller,
    controllers,
)
from pilothouse.testing import ControlPlane
from support.gate import Gate
from support.loglines import logged
from support.operatorkit import Site, plane_and_client, site
from support.watchscenes import until


class Pages(Reconciler[Site]):
    """Each site gets a page; and it does what it is told to do wrong."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.wrong: dict[str, str] = {}

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        name = obj.metadata.name
        self.calls.append(name)
        match self.wrong.get(name):
            case "raises":
                raise ValueError("no such image")
            case "blocks":
                await asyncio.Event().wait()
            case "never rests":
                data = {"n": str(len(self.calls))}
                await context.client.patch(Site, name, {"metadata": {"annotations": data}}, obj.metadata.namespace)
        await context.apply(ConfigMap(metadata=ObjectMeta(name=name), data={"page": obj.spec.page}), owner=obj)
        return None


def shown(manager: Manager, name: str) -> float:
    """Return a figure, all of its labels together."""
    assert manager.metrics is not None
    lines = manager.metrics.exposition().decode().splitlines()
    found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    assert found, name
    return sum(float(line.rpartition(" ")[2]) for line in found)


def watchers() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks() if not task.done()]
    return sorted(name for name in names if name.startswith("informer "))


async def pages(client: Client) -> dict[str, str]:
    found = await client.list_all(ConfigMap, "default")
    return {one.metadata.name: one.data["page"] for one in found if "page" in one.data}


class Storm:
    """Answers 429 to everything while it lasts."""

    def __init__(self, inner: Transport) -> None:
        self.lasts = False
        self.refused = 0
        self._inner = inner

    async def request(self, method: str, target: str, headers: Any = (), body: bytes = b"", **options: Any) -> Answer:
        if not self.lasts:
            return await self._inner.request(method, target, headers, body, **options)
        self.refused += 1
        status = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "too many requests, go away"}
        return Answer(429, [("content-type", "application/json"), ("retry-after", "2")], msgspec.json.encode(status))

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_storm_of_429_is_waited_out_and_not_answered_with_one_of_our_own() -> None:
    async with plane_and_client() as (plane, direct):
        clock, gate = FakeClock(), Gate()
        gate.plane = plane
        storm = Storm(Client.for_transport(gate, plane.user).transport)
        harness = Harness(Client(storm, clock=clock), scheme=Scheme(Site), clock=clock)
        reconciler = Pages()
        controller(harness.manager).for_(Site).owns(ConfigMap).build(reconciler)
        async with harness:
            await direct.create(site("a", page="1"))
            await harness.converge()
            storm.lasts = True
            await direct.patch(Site, "a", {"spec": {"page": "2"}})
            await until(lambda: storm.refused)
            gate.fall_silent()
            await direct.patch(Site, "a", {"spec": {"page": "3"}})
            await asyncio.sleep(0.02)
            gate.cut_off()
            for _ in range(300):
                await clock.run(1)
                await asyncio.sleep(0)
            problems = "\n".join(harness.manager.problems())
            assert "informer sites.operator.example.com: list and watch fail, " in problems
            assert "times in a row: too many requests, go away for" in problems
            assert 20 < storm.refused < 200  # waited for as the server asks, not hammered
            assert shown(harness.manager, "pilothouse_operator_failing_requests") == 1
            assert shown(harness.manager, "pilothouse_client_failing_reflectors") >= 1
            storm.lasts = False
            for _ in range(100):
                await clock.run(1)
                await asyncio.sleep(0.001)
            await harness.converge(1_000)
            assert await pages(direct) == {"a": "3"}
            assert harness.manager.problems() == []
            assert len(watchers()) == 2


async def test_three_that_misbehave_are_named_and_hold_up_no_other() -> None:
    async with plane_and_client() as (_, client):
        harness = Harness(client, scheme=Scheme(Site))
        reconciler = Pages()
        reconciler.wrong = {"bad": "raises", "stuck": "blocks", "busy": "never rests"}
        built = controller(harness.manager, "pages").for_(Site).owns(ConfigMap)
        built.with_options(concurrency=4, timeout_seconds=20).build(reconciler)
        with logged(controllers) as lines:
            async with harness:
                for name in ("bad", "stuck", "busy", "good"):
                    await client.create(site(name, page=name))
                for _ in range(3_000):
                    await harness.clock.run(1)
                    await asyncio.sleep(0.001)
                    if len(harness.manager.problems()) == 3:
                        break
                problems = "\n".join(harness.manager.problems())
                assert "controller pages: default/bad does not converge: reconciled" in problems
                assert "last error: ValueError: no such image" in problems
                assert "last error: it did not return within 20 s and was cancelled" in problems
                assert "default/busy does not converge" in problems
                assert "something undoes it" in problems
                assert "default/good" not in problems
                assert (await pages(client))["good"] == "good"
                assert shown(harness.manager, "pilothouse_operator_unconverged_requests") == 3
                assert shown(harness.manager, "controller_runtime_reconcile_errors_total") >= 20
                assert shown(harness.manager, "controller_runtime_reconcile_timeouts_total") >= 10
                assert len(watchers()) == 2
                reconciler.wrong = {}
                for _ in range(400):
                    await harness.clock.run(5)
                    await asyncio.sleep(0.001)
                    if not harness.manager.problems():
                        break
                await harness.converge(3_000)
                assert await pages(client) == {name: name for name in ("bad", "stuck", "busy", "good")}
                assert harness.manager.problems() == []
        told = [line for line in lines if line["event"] == "an object does not converge"]
        assert {line["request"] for line in told} == {"default/bad", "default/stuck", "default/busy"}
        assert all(line["count"] >= 10 for line in told)


async def test_a_harness_says_which_object_does_not_converge_and_why() -> None:
    async with plane_and_client() as (_, client):
        harness = Harness(client, scheme=Scheme(Site))
        reconciler = Pages()
        reconciler.wrong = {"bad": "raises"}
        controller(harness.manager).for_(Site).build(reconciler)
        async with harness:
            await client.create(site("bad"))
            with pytest.raises(NotConverged, match=r"default/bad does not converge.*ValueError: no such image"):
                await harness.converge(30)


async def test_an_object_that_does_not_fit_is_skipped_and_counted_and_fitting_again_is_seen() -> None:
    async with plane_and_client() as (plane, client):
        harness = Harness(client, scheme=Scheme(Site))
        controller(harness.manager).for_(Site).owns(ConfigMap).build(Pages())
        path = "/apis/operator.example.com/v1/namespaces/default/sites"
        with logged(informers) as lines:
            async with harness:
                wrong = {"spec": {"replicas": "many"}}
                kind = {"apiVersion": "operator.example.com/v1", "kind": "Site"}
                await plane.call("POST", path, {**kind, "metadata": {"name": "odd"}, **wrong})
                await client.create(site("even", page="1"))
                await until(lambda: harness.manager.cached(Site).indexer.get("default/even"))
                informer = harness.manager.cached(Site)
                assert informer.indexer.get("default/odd") is None
                assert shown(harness.manager, "pilothouse_client_skipped_events_total") == 1
                assert informer.core.phase == "watching"
                await plane.call("PATCH", f"{path}/odd", {"spec": {"replicas": 2, "page": "2"}})
                await harness.converge()
                assert await pages(client) == {"even": "1", "odd": "2"}
                assert informer.core.counts.watches == 1  # the stream survived
        (line,) = [line for line in lines if line["event"] == "object skipped: it does not fit"]
        assert "replicas" in line["reason"]
        assert line["informer"] == "sites.operator.example.com"


class JumpingClock(FakeClock):
    """A clock whose wall time somebody sets."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = timedelta()

    def now(self) -> datetime:
        return super().now() + self.offset


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(hours=-1), timedelta(hours=1), timedelta(days=400)])
async def test_a_wall_clock_that_is_set_changes_no_leader_and_no_delay(jump: timedelta) -> None:
    async with plane_and_client() as (_, client):
        clock = JumpingClock()
        first, second = (
            Manager(
                client,
                scheme=Scheme(Site),
                clock=clock,
                metrics=Metrics(),
                leader_election=LeaderElection(name="sites", identity=name),
            )
            for name in ("first", "second")
        )
        reconcilers = [Later(), Later()]
        for manager, reconciler in zip((first, second), reconcilers, strict=True):
            controller(manager).for_(Site).build(reconciler)
        await client.create(site())
        async with first:
            await moved(clock, 5)
            async with second:
                await moved(clock, 5)
                assert (first.is_leading, second.is_leading) == (True, False)
                calls = len(reconcilers[0].at)
                clock.offset = jump
                await moved(clock, 60)
                assert (first.is_leading, second.is_leading) == (True, False)
                assert len(reconcilers[0].at) == calls + 6  # every ten seconds, as before
                assert first.problems() == []
                lease = await client.get(Lease, "sites", "default")
                assert (lease.spec.holder_identity, lease.spec.lease_transitions) == ("first", 0)


class Later(Reconciler[Site]):
    """Wants to be called again after ten seconds."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        self.at.append(context.clock.monotonic())
        return Result(requeue_after=10)


async def moved(clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds * 4):
        await clock.run(0.25)
        await asyncio.sleep(0.002)


async def test_a_process_that_stood_still_for_an_hour_goes_on_and_two_never_lead() -> None:
    async with plane_and_client() as (_, client):
        clock, other = FakeClock(), FakeClock()
        options = ElectionOptions(lease_seconds=15, renew_seconds=10, retry_seconds=2)
        managers = [
            Manager(
                client,
                scheme=Scheme(Site),
                clock=each,
                metrics=Metrics(),
                informers=InformerOptions(resync_seconds=30),
                leader_election=LeaderElection(name="sites", identity=name, options=options),
            )
            for name, each in (("first", clock), ("second", other))
        ]
        reconcilers = [Pages(), Pages()]
        for manager, reconciler in zip(managers, reconcilers, strict=True):
            controller(manager).for_(Site).owns(ConfigMap).build(reconciler)
        await client.create(site("a", page="1"))
        first, second = managers
        async with first:
            await moved(clock, 5)
            async with second:
                await moved(other, 3)
                assert (first.is_leading, second.is_leading) == (True, False)
                # The first stands still: nobody moves its clock, while the other one's hour passes.
                await moved(other, 40)
                assert second.is_leading
                await client.patch(Site, "a", {"spec": {"page": "2"}})
                await moved(other, 5)
                calls = len(reconcilers[0].calls)
                clock.advance(3_600)
                assert first.elector is not None
                assert not first.elector.is_leader
                await moved(clock, 5)
                assert not first.is_leading
                assert "the leader last seen is second" in str(first.failure)
                assert len(reconcilers[0].calls) == calls  # not one more, though the resync was due at once
                assert await pages(client) == {"a": "2"}
                assert second.problems() == []


async def test_a_resync_after_a_jump_comes_once_and_not_for_each_time_that_was_missed() -> None:
    async with plane_and_client() as (_, client):
        await client.create(site())
        harness = Harness(client, scheme=Scheme(Site), informers=InformerOptions(resync_seconds=30))
        controller(harness.manager).for_(Site).build(Pages())
        told: list[str] = []
        harness.manager.cached(Site).add_handler(on_update=lambda _, new: told.append(new.metadata.name))
        async with harness:
            await harness.converge()
            told.clear()
            harness.clock.advance(29)
            await harness.settle()
            assert told == []
            await harness.clock.run(1)
            await harness.settle()
            assert told == ["web"]
            # A machine that slept: the timer fires late, once.
            harness.clock._elapsed += 86_400
            await harness.clock.run(30)
            await harness.settle()
            assert 1 <= len(told) - 1 <= 2
            assert harness.manager.problems() == []


def wrong_token(config: ClientConfig) -> ClientConfig:
    return dataclasses.replace(config, token="nobody-knows-it")


def wrong_authority(config: ClientConfig) -> ClientConfig:
    return dataclasses.replace(config, ca_data=make_ca("another").certificate)


def wrong_port(config: ClientConfig) -> ClientConfig:
    return dataclasses.replace(config, server="https://127.0.0.1:1")


def wrong_name(config: ClientConfig) -> ClientConfig:
    return dataclasses.replace(config, tls_server_name="elsewhere.example.com")


def wrong_scheme(config: ClientConfig) -> ClientConfig:
    return dataclasses.replace(config, server=config.server.replace("https", "http"), ca_data=b"")


WRONG = {
    "token": (wrong_token, r"Unauthorized"),
    "authority": (wrong_authority, r"certificate"),
    "port": (wrong_port, r"127\.0\.0\.1:1 .*cannot be reached"),
    "name": (wrong_name, r"elsewhere\.example\.com"),
    "scheme": (wrong_scheme, r"http://127\.0\.0\.1:\d+"),
}


@pytest.mark.parametrize("part", WRONG)
async def test_an_operator_with_a_wrong_kubeconfig_ends_with_what_is_wrong(part: str) -> None:
    change, said = WRONG[part]
    quick = Backoff(base=0.05, factor=2.0, jitter=0.5, cap=0.2, attempts=None)
    async with ControlPlane(lifecycle=False) as plane:
        config = change(load_kubeconfig(plane.kubeconfig))
        async with Client.from_config(config, backoff=None) as client:
            manager = Manager(
                client,
                sync_seconds=0.5,
                metrics=Metrics(),
                informers=InformerOptions(reflector=ReflectorOptions(backoff=quick)),
            )
            controller(manager).for_(ConfigMap).build(Nothing())
            with pytest.raises(CacheSyncError, match=rf"caches not filled within 0.5 s: configmaps.*{said}") as error:
                await manager.run()
            assert "nobody-knows-it" not in str(error.value)
            assert shown(manager, "pilothouse_client_reflector_failures_total") >= 1


class Nothing(Reconciler[ConfigMap]):
    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        return None


async def test_a_server_that_lost_everything_is_filled_again(tmp_path: Path) -> None:
    """A server that begins anew, with lower versions: what is wanted there is made, and the caches are its own."""
    gate = Gate()
    quick = InformerOptions(
        reflector=ReflectorOptions(backoff=Backoff(base=0.02, factor=2.0, jitter=0.5, cap=0.2, attempts=None))
    )
    async with ControlPlane(lifecycle=False, data_dir=tmp_path / "first") as plane:
        gate.plane = plane
        client = Client.for_transport(gate, plane.user, backoff=None)
        manager = Manager(client, namespace="default", informers=quick, metrics=Metrics())
        controller(manager).for_(ConfigMap).build(Copies())
        await client.create(ConfigMap(metadata=ObjectMeta(name="a", labels={"copy": "b"}), data={"v": "1"}))
        running = asyncio.create_task(manager.run())
        await until(lambda: manager.known(ConfigMap) and manager.cached(ConfigMap).indexer.get("default/b"))
        gate.plane = None
    async with ControlPlane(lifecycle=False, data_dir=tmp_path / "second") as plane:
        gate.plane = plane
        await client.create(ConfigMap(metadata=ObjectMeta(name="c", labels={"copy": "d"}), data={"v": "1"}))
        await until(lambda: manager.cached(ConfigMap).indexer.get("default/d"))
        await until(lambda: sorted(manager.cached(ConfigMap).indexer.keys()) == ["default/c", "default/d"])
        assert manager.cached(ConfigMap).restarts == 0
        manager.stop()
        await running


class Copies(Reconciler[ConfigMap]):
    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        if name := obj.metadata.labels.get("copy"):
            await context.apply(ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=obj.data))
        return None
