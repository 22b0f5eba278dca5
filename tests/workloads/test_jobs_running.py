"""The controller of jobs on a server: pods come, end and are counted, whatever fails and whoever is restarted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.client.errors import TransportError
from pilothouse.client.inprocess import InProcess
from pilothouse.client.transport import Answer, Transport
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Job, Pod, ServiceAccount, from_dict
from pilothouse.operator import Harness
from pilothouse.workloads.jobs import FINALIZER, is_tracked
from pilothouse.workloads.reconcilers.job import add_jobs
from support.operatorkit import plane_and_client


def job(**spec: Any) -> Job:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    wanted = {"metadata": {"name": "j", "namespace": "default"}, "spec": {"template": template, **spec}}
    return from_dict(wanted, Job)


class _World:
    def __init__(self, client: Client, harness: Harness) -> None:
        self.client = client
        self.harness = harness

    async def pods(self) -> list[Pod]:
        found = await self.client.list_all(Pod, "default")
        return sorted(found, key=lambda pod: pod.metadata.name)

    async def job(self) -> Job:
        return await self.client.get(Job, "j", "default")

    async def end(self, pods: Iterable[Pod], phase: str = "Succeeded") -> None:
        for pod in pods:
            status = {"status": {"phase": phase}}
            await self.client.patch(Pod, pod.metadata.name, status, "default", subresource="status")

    async def conditions(self) -> set[tuple[str, str]]:
        return {(one.type, one.reason) for one in (await self.job()).status.conditions if one.status == "True"}


@asynccontextmanager
async def world() -> AsyncIterator[_World]:
    clock = FakeClock()
    async with plane_and_client(clock=clock, crd=False) as (_, client):
        await client.create(from_dict({"metadata": {"name": "default", "namespace": "default"}}, ServiceAccount))
        harness = Harness(client, clock=clock)
        add_jobs(harness.manager)
        async with harness:
            yield _World(client, harness)


async def test_a_failed_pod_is_replaced_ten_seconds_later() -> None:
    async with world() as there:
        await there.client.create(job(backoffLimit=1))
        await there.harness.advance(1)
        await there.end(await there.pods(), "Failed")
        await there.harness.advance(5)
        assert len(await there.pods()) == 1
        assert (await there.job()).status.failed == 1
        await there.harness.advance(10)
        first, second = await there.pods()
        assert is_tracked(first) + is_tracked(second) == 1
        await there.end([first if is_tracked(first) else second], "Failed")
        await there.harness.advance(2)
        assert await there.conditions() == {
            ("FailureTarget", "BackoffLimitExceeded"),
            ("Failed", "BackoffLimitExceeded"),
        }
        assert (await there.job()).status.failed == 2
        await there.harness.assert_stable()


async def test_pods_lose_their_finalizer_when_their_job_goes() -> None:
    async with world() as there:
        await there.client.create(job(parallelism=3))
        await there.harness.advance(1)
        assert [pod.metadata.finalizers for pod in await there.pods()] == [[FINALIZER]] * 3
        await there.client.delete(Job, "j", "default", propagation="Background")
        await there.harness.advance(2)
        assert not any(map(is_tracked, await there.pods()))


async def test_a_job_of_another_controller_is_left_alone() -> None:
    async with world() as there:
        await there.client.create(job(managedBy="example.com/other"))
        await there.harness.advance(2)
        assert await there.pods() == []
        assert (await there.job()).status == Job().status


async def test_the_deadline_comes_by_the_clock() -> None:
    async with world() as there:
        await there.client.create(job(activeDeadlineSeconds=100))
        await there.harness.advance(95)
        assert await there.conditions() == set()
        await there.harness.advance(10)
        assert ("Failed", "DeadlineExceeded") in await there.conditions()


class _Flaky:
    """A transport on which writes get lost, or their answers."""

    def __init__(self, inner: Transport, source: random.Random) -> None:
        self._inner = inner
        self._source = source
        self.lost = 0

    async def request(self, method: str, *rest: Any, **more: Any) -> Answer:
        dice = self._source.random() if method != "GET" else 1.0
        if dice < 0.1:
            self.lost += 1
            raise TransportError("the request was lost")
        answer = await self._inner.request(method, *rest, **more)
        if dice < 0.2:
            self.lost += 1
            raise TransportError("the answer was lost")
        return answer

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", ["NonIndexed", "Indexed"])
async def test_no_pod_is_lost_or_counted_twice(mode: str, seed: int) -> None:
    """Writes and answers get lost and the controller is started anew, while pods end well and badly."""
    source, clock = random.Random(seed), FakeClock()
    ended: Counter[str] = Counter()
    async with plane_and_client(clock=clock, crd=False) as (plane, client):
        await client.create(from_dict({"metadata": {"name": "default", "namespace": "default"}}, ServiceAccount))
        await client.create(job(parallelism=6, completions=12, backoffLimit=1000, completionMode=mode))
        flaky = _Flaky(InProcess(plane.transport, plane.user), source)
        for _ in range(40):
            async with Client.for_transport(flaky) as unsure:
                harness = Harness(unsure, clock=clock)
                add_jobs(harness.manager)
                async with harness:
                    there = _World(client, harness)
                    for _ in range(source.randint(1, 4)):
                        await harness.advance(source.choice([1, 3, 15]))
                        for pod in await there.pods():
                            if pod.status.phase == "Pending" and source.random() < 0.5:
                                phase = "Failed" if source.random() < 0.2 else "Succeeded"
                                ended[phase] += 1
                                await there.end([pod], phase)
            if any(one.type == "Complete" for one in (await client.get(Job, "j", "default")).status.conditions):
                break
        found = (await client.get(Job, "j", "default")).status
        assert ("Complete", "True") in {(one.type, one.status) for one in found.conditions}
        assert (found.succeeded, found.failed) == (ended["Succeeded"], ended["Failed"])
        assert flaky.lost > 3
        assert not any(map(is_tracked, await client.list_all(Pod, "default")))
