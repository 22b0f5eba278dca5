"""Cron jobs: what is due and missed, and what the controller does by a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.structs import CronJob, Event, Job, from_dict, replace
from pilothouse.kinds.structs.batch import JobCondition, JobStatus
from pilothouse.operator import Harness
from pilothouse.workloads.cronjobs import InvalidSchedule, due, is_too_late, job_for, seconds_to_next, surplus
from pilothouse.workloads.reconcilers.cronjob import add_cronjobs
from pilothouse.workloads.reconcilers.ttl import add_ttl
from pilothouse.workloads.schedules import schedule
from support.operatorkit import plane_and_client

NOW = datetime(2025, 1, 1, 12, 0, 30, tzinfo=UTC)


def cron_job(text: str = "*/10 * * * *", created: str = "2025-01-01T11:00:00Z", **more: Any) -> CronJob:
    status = more.pop("status", {})
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    wanted = {"schedule": text, "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": template}}}
    metadata = {"name": "c", "namespace": "default", "uid": "u", "creationTimestamp": created}
    return from_dict({"metadata": metadata, "spec": {**wanted, **more}, "status": status}, CronJob)


@pytest.mark.parametrize(
    ("of", "at", "many"),
    [
        (cron_job(created="2025-01-01T11:55:00Z"), "12:00", False),
        (cron_job(created="2025-01-01T12:00:10Z"), None, False),
        (cron_job(), "12:00", False),
        (cron_job(status={"lastScheduleTime": "2025-01-01T12:00:00Z"}), None, False),
        (cron_job(created="2024-12-30T00:00:00Z"), "12:00", True),
        (cron_job("0 9 * * *", created="2024-12-30T00:00:00Z"), "09:00", False),
        (cron_job(created="2024-12-30T00:00:00Z", startingDeadlineSeconds=3600), "12:00", False),
        (cron_job(startingDeadlineSeconds=10), None, False),
    ],
)
def test_what_is_due(of: CronJob, at: str | None, many: bool) -> None:
    found = due(of, schedule(of.spec.schedule), NOW)
    assert (found.at and found.at.strftime("%H:%M")) == at
    assert found.many is many


def test_a_schedule_that_never_comes_is_told() -> None:
    of = cron_job("59 23 31 2 *")
    with pytest.raises(InvalidSchedule, match="less than 1 second"):
        due(of, schedule(of.spec.schedule), NOW)
    assert seconds_to_next(of, schedule(of.spec.schedule), NOW) is None


def test_the_next_look_is_a_little_after_the_moment() -> None:
    of = cron_job(status={"lastScheduleTime": "2025-01-01T12:00:00Z"})
    assert seconds_to_next(of, schedule(of.spec.schedule), NOW) == pytest.approx(570.1)


def test_a_start_may_be_late() -> None:
    at = NOW - timedelta(seconds=30)
    assert not is_too_late(cron_job(), at, NOW)
    assert not is_too_late(cron_job(startingDeadlineSeconds=30), at, NOW)
    assert is_too_late(cron_job(startingDeadlineSeconds=29), at, NOW)


@pytest.mark.parametrize(("zone", "told"), [(None, "12:00:00Z"), ("Europe/Berlin", "13:00:00+01:00")])
def test_a_job_knows_its_moment(zone: str | None, told: str) -> None:
    made = job_for(cron_job(timeZone=zone), datetime(2025, 1, 1, 12, tzinfo=UTC))
    assert made.metadata.name == "c-28928880"
    assert made.metadata.labels == {"a": "b"}
    assert made.metadata.annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] == f"2025-01-01T{told}"
    (owner,) = made.metadata.owner_references
    assert (owner.kind, owner.name, owner.controller) == ("CronJob", "c", True)


def _ended(name: str, kind: str, began: str) -> Job:
    job = from_dict({"metadata": {"name": name}, "status": {"startTime": f"2025-01-01T{began}Z"}}, Job)
    return replace(job, status__conditions=[JobCondition(type=kind, status="True")])


def test_the_oldest_go() -> None:
    jobs = [_ended("b", "Complete", "02:00:00"), _ended("a", "Complete", "01:00:00"), _ended("f", "Failed", "00:00:00")]
    of = cron_job(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=1)
    assert [job.metadata.name for job in surplus(of, jobs)] == ["a"]
    assert [job.metadata.name for job in surplus(replace(of, spec__failed_jobs_history_limit=0), jobs)] == ["a", "f"]


class _World:
    def __init__(self, client: Client, harness: Harness) -> None:
        self.client = client
        self.harness = harness

    async def jobs(self) -> list[Job]:
        return sorted(await self.client.list_all(Job, "default"), key=lambda job: job.metadata.name)

    async def cron_job(self) -> CronJob:
        return await self.client.get(CronJob, "c", "default")

    async def told(self, *reasons: str) -> bool:
        """Whether there are events of these reasons; they are written a little later than what they tell of."""
        for _ in range(200):
            if {*reasons} <= {event.reason for event in await self.client.list_all(Event, "default")}:
                return True
            await asyncio.sleep(0.005)
        return False

    async def end(self, job: Job, kind: str = "Complete") -> None:
        moment = times.format_seconds(self.harness.clock.now())
        conditions = [
            JobCondition(type=each, status="True", last_probe_time=moment, last_transition_time=moment)
            for each in ("SuccessCriteriaMet" if kind == "Complete" else "FailureTarget", kind)
        ]
        status = JobStatus(
            start_time=moment,
            completion_time=moment if kind == "Complete" else None,
            conditions=conditions,
            succeeded=int(kind == "Complete"),
        )
        await self.client.update_status(replace(job, status=status))


@asynccontextmanager
async def world(of: CronJob) -> AsyncIterator[_World]:
    clock = FakeClock(datetime(2025, 1, 1, 11, 59, 30, tzinfo=UTC))
    async with plane_and_client(clock=clock, crd=False) as (_, client):
        harness = Harness(client, clock=clock)
        add_cronjobs(harness.manager)
        add_ttl(harness.manager)
        async with harness:
            await client.create(replace(of, metadata__uid="", metadata__creation_timestamp=None))
            yield _World(client, harness)


async def test_a_job_a_time() -> None:
    async with world(cron_job("* * * * *")) as there:
        await there.harness.advance(29)
        assert await there.jobs() == []
        await there.harness.advance(3)
        (job,) = await there.jobs()
        assert job.metadata.name == "c-28928880"
        status = (await there.cron_job()).status
        assert status.last_schedule_time == "2025-01-01T12:00:00Z"
        assert [(one.kind, one.name, one.uid) for one in status.active] == [("Job", "c-28928880", job.metadata.uid)]
        await there.end(job)
        await there.harness.advance(2)
        status = (await there.cron_job()).status
        assert not status.active
        assert status.last_successful_time is not None
        await there.harness.advance(60)
        assert len(await there.jobs()) == 2
        assert await there.told("SuccessfulCreate", "SawCompletedJob")


@pytest.mark.parametrize(("policy", "left"), [("Allow", 2), ("Forbid", 1), ("Replace", 1)])
async def test_jobs_that_run_still(policy: str, left: int) -> None:
    async with world(cron_job("* * * * *", concurrencyPolicy=policy)) as there:
        await there.harness.advance(32)
        (first,) = await there.jobs()
        await there.harness.advance(60)
        jobs = await there.jobs()
        assert len(jobs) == left
        assert (first.metadata.uid in {job.metadata.uid for job in jobs}) is (policy != "Replace")
        expected = {"Allow": "SuccessfulCreate", "Forbid": "JobAlreadyActive", "Replace": "SuccessfulDelete"}
        assert await there.told(expected[policy])


async def test_history_suspension_and_missing_jobs() -> None:
    async with world(cron_job("* * * * *", successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0)) as there:
        for _ in range(3):
            await there.harness.advance(60)
            for job in await there.jobs():
                if not job.status.conditions:
                    await there.end(job)
        await there.harness.advance(5)
        assert len(await there.jobs()) == 1
        await there.client.patch(CronJob, "c", {"spec": {"suspend": True}}, "default")
        await there.harness.advance(130)
        assert len(await there.jobs()) == 1
        await there.client.patch(CronJob, "c", {"spec": {"suspend": False}}, "default")
        await there.harness.advance(2)
        jobs = await there.jobs()
        assert len(jobs) == 2  # one for what was missed meanwhile
        await there.client.delete(Job, jobs[-1].metadata.name, "default", propagation="Background")
        await there.harness.advance(2)
        assert not (await there.cron_job()).status.active
        assert await there.told("MissingJob", "SuccessfulDelete")


async def test_a_new_schedule_makes_up_for_nothing() -> None:
    async with world(cron_job("0 0 1 1 *")) as there:
        await there.harness.advance(130)
        await there.client.patch(CronJob, "c", {"spec": {"schedule": "* * * * *"}}, "default")
        await there.harness.advance(5)
        assert await there.jobs() == []
        await there.harness.advance(30)
        assert [job.metadata.name for job in await there.jobs()] == ["c-28928882"]


async def test_a_finished_job_goes_when_its_time_is_over() -> None:
    async with world(cron_job(suspend=True)) as there:
        template = cron_job().spec.job_template.spec
        body = {"metadata": {"name": "j", "namespace": "default"}, "spec": {"ttlSecondsAfterFinished": 60}}
        wanted = replace(from_dict(body, Job), spec=replace(template, ttl_seconds_after_finished=60))
        job = await there.client.create(wanted)
        await there.harness.advance(100)
        await there.end(job, "Failed")
        await there.harness.advance(55)
        assert await there.jobs()
        await there.harness.advance(10)
        assert not [one for one in await there.jobs() if one.metadata.deletion_timestamp is None]
