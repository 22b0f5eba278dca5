"""The example of a database-backup operator: what it makes, when backups are stale, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from pilothouse.client import Client
from pilothouse.client.objects import labels_of
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.status import Invalid, NotFound
from pilothouse.kinds.structs import (
    CronJob,
    Event,
    Job,
    ObjectMeta,
    PersistentVolumeClaim,
    Pod,
    Secret,
    ServiceAccount,
    from_dict,
)
from pilothouse.operator import Harness, Installation, install, manifests_of
from pilothouse.operator.crds import definition
from support.examples import example
from support.operatorkit import plane_and_client

pytest.importorskip("cronsim", reason="cronsim is not installed: pip install cronsim")

START = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
SPEC = {
    "engine": "postgresql",
    "connection": "shop-db",
    "schedule": "0 * * * *",
    "storage": {"claim": {"size": "5Gi"}},
    "retention": {"keepLast": 3, "keepDays": 30},
}


class Running(NamedTuple):
    """The operator and what the test does beside it."""

    client: Client
    harness: Harness

    async def make(self, **changes: Any) -> None:
        made = {"apiVersion": "example.com/v1", "kind": "DatabaseBackup", "metadata": {"name": "shop"}}
        await self.backups.create(made | {"spec": SPEC | changes})
        await self.harness.converge()

    @property
    def backups(self) -> Any:
        return self.client.dynamic("example.com/v1", "DatabaseBackup")

    async def wait(self, minutes: int) -> None:
        for _ in range(minutes // 10):
            await self.harness.clock.run(600)
            await self.harness.converge()

    async def patch(self, **changes: Any) -> None:
        await self.backups.patch("shop", changes)
        await self.harness.converge()

    async def condition(self, kind: str) -> tuple[str, str, str]:
        status = (await self.backups.get("shop"))["status"]
        (found,) = [one for one in status["conditions"] if one["type"] == kind]
        return found["status"], found["reason"], found.get("message", "")

    async def end_job(self, name: str, how: str, *, message: str = "") -> None:
        """Do what the controllers of jobs and CronJobs do: a job with the template's labels, that has ended."""
        now = times.format_seconds(self.harness.clock.now())
        try:
            await self.client.get(Job, name)
        except NotFound:
            template = (await self.client.get(CronJob, "shop")).spec.job_template
            meta = ObjectMeta(name=name, labels=dict(template.metadata.labels))
            await self.client.create(Job(metadata=meta, spec=template.spec))
        before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[how]
        conditions = [
            {"type": each, "status": "True", "reason": "Test", "lastTransitionTime": now, "message": message}
            for each in (before, how)
        ]
        status: dict[str, Any] = {"startTime": now, "conditions": conditions}
        if how == "Complete":
            status |= {"completionTime": now, "succeeded": 1}
        await self.client.patch(Job, name, {"status": status}, subresource="status")
        await self.harness.converge()


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return example("database_backup")


@asynccontextmanager
async def operated(module: ModuleType, *, secret: bool = True, lifecycle: bool = False) -> AsyncIterator[Running]:
    clock = FakeClock(START)
    async with plane_and_client(clock=clock, crd=False, lifecycle=lifecycle) as (_, client):
        await install(client, definition(module.DatabaseBackup))
        if secret:
            await client.create(Secret(metadata=ObjectMeta(name="shop-db")))
        # As the account that its manifests make: a right that is not said fails here.
        harness = Harness(client.as_user("system:serviceaccount:backups:backups"), clock=clock)
        module.build(harness.manager)
        for each in manifests_of(harness.manager, Installation(name="backups", image="backups:1"), module.build):
            await client.dynamic(each["apiVersion"], each["kind"]).apply(each, force=True)
        async with harness:
            yield Running(client, harness)


async def test_what_it_makes(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make(timeZone="Europe/Berlin")
        made = await running.client.get(CronJob, "shop")
        assert (made.spec.schedule, made.spec.time_zone, made.spec.suspend) == ("0 * * * *", "Europe/Berlin", False)
        pod = made.spec.job_template.spec.template.spec
        assert pod.service_account_name == "shop"
        (container,) = pod.containers
        assert container.args == ["backup", "--engine=postgresql", "--to=/backups", "--keep-last=3", "--keep-days=30"]
        assert container.env_from[0].secret_ref.name == "shop-db"  # type: ignore[union-attr]
        claim = await running.client.get(PersistentVolumeClaim, "shop")
        assert str(claim.spec.resources.requests["storage"]) == "5Gi"
        assert not claim.metadata.owner_references  # the backups outlive what asked for them
        owners = (await running.client.get(ServiceAccount, "shop")).metadata.owner_references
        assert [owner.kind for owner in owners] == ["DatabaseBackup"]
        assert (await running.condition("Ready"))[:2] == ("True", "Scheduled")
        assert (await running.backups.get("shop"))["status"]["nextRunTime"] == "2025-06-01T13:00:00Z"
        await running.harness.assert_stable()
        await running.client.patch(CronJob, "shop", {"spec": {"schedule": "1 1 1 1 1"}})
        await running.client.delete(ServiceAccount, "shop")
        await running.harness.converge()
        assert (await running.client.get(CronJob, "shop")).spec.schedule == "0 * * * *"
        assert await running.client.get(ServiceAccount, "shop", raw=True)


async def test_a_bucket_wants_its_own_secret(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make(storage={"bucket": {"name": "vault", "credentials": "s3"}})
        status, reason, message = await running.condition("Ready")
        assert (status, reason) == ("False", "SecretMissing")
        assert "s3" in message
        await running.client.create(Secret(metadata=ObjectMeta(name="s3")))
        await running.harness.converge()
        (container,) = (await running.client.get(CronJob, "shop")).spec.job_template.spec.template.spec.containers
        assert "--to=s3://vault/default/shop" in container.args
        assert [one.secret_ref.name for one in container.env_from if one.secret_ref] == ["shop-db", "s3"]
        with pytest.raises(NotFound):
            await running.client.get(PersistentVolumeClaim, "shop")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": "oracle"}, "spec.engine"),
        ({"schedule": "@daily"}, "spec.schedule"),
        ({"storage": {}}, "want one of claim and bucket"),
        ({"storage": {"claim": {}, "bucket": {"name": "b", "credentials": "c"}}}, "want one of claim and bucket"),
        ({"retention": {"keepLast": 0}}, "spec.retention.keepLast"),
    ],
)
async def test_the_server_refuses(module: ModuleType, changes: dict[str, Any], said: str) -> None:
    async with operated(module) as running:
        with pytest.raises(Invalid, match=said):
            await running.make(**changes)


@pytest.mark.parametrize("changes", [{"schedule": "61 * * * *"}, {"timeZone": "Mars/Olympus"}])
async def test_what_only_the_operator_can_judge_is_a_condition(module: ModuleType, changes: dict[str, str]) -> None:
    async with operated(module) as running:
        await running.make(**changes)
        assert (await running.condition("Ready"))[:2] == ("False", "Refused")
        assert (await running.condition("BackupFresh"))[:2] == ("Unknown", "NotScheduled")
        before = running.harness.reconciles
        await running.harness.advance(120)
        assert running.harness.reconciles == before
        await running.patch(spec={"schedule": "0 * * * *", "timeZone": "Etc/UTC"})
        assert (await running.condition("Ready"))[0] == "True"


async def test_a_secret_that_is_missing_is_said_and_healed_when_it_comes(module: ModuleType) -> None:
    async with operated(module, secret=False) as running:
        await running.make()
        status, reason, message = await running.condition("Ready")
        assert (status, reason, message) == ("False", "SecretMissing", "there is no secret shop-db; create it")
        assert (await running.client.get(CronJob, "shop")).spec.suspend is True
        await running.client.create(Secret(metadata=ObjectMeta(name="shop-db")))
        await running.harness.converge()
        assert (await running.condition("Ready"))[0] == "True"
        assert (await running.client.get(CronJob, "shop")).spec.suspend is False
        await running.client.delete(Secret, "shop-db")
        await running.harness.converge()
        assert (await running.condition("Ready"))[1] == "SecretMissing"
        await running.harness.advance(5)
        events = [one for one in await running.client.list_all(Event) if one.reason == "SecretMissing"]
        assert sum(one.count or 1 for one in events) == 2  # once for each time that it went


async def test_backups_are_stale_when_two_were_missed(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make()
        assert (await running.condition("BackupFresh"))[:2] == ("Unknown", "InTime")
        await running.harness.advance(60)
        await running.wait(60)
        await running.end_job("shop-1", "Complete")
        assert (await running.condition("BackupFresh"))[:2] == ("True", "InTime")
        status = (await running.backups.get("shop"))["status"]
        assert status["lastSuccessfulTime"] == "2025-06-01T13:01:00Z"
        assert status["nextRunTime"] == "2025-06-01T14:00:00Z"
        await running.wait(60)
        assert (await running.condition("BackupFresh"))[0] == "True"  # one was missed
        await running.end_job("shop-2", "Failed", message="no space left")
        assert (await running.backups.get("shop"))["status"]["lastFailedTime"] == "2025-06-01T14:01:00Z"
        await running.client.delete(Job, "shop-1", propagation="Background")  # as the history's limit does
        await running.wait(60)
        assert (await running.condition("BackupFresh"))[:2] == ("False", "Overdue")
        await running.end_job("shop-3", "Complete")
        assert (await running.condition("BackupFresh"))[0] == "True"
        await running.harness.assert_stable()


async def test_who_never_had_a_backup_is_stale_too_and_who_is_suspended_is_not(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make()
        await running.wait(120)
        assert (await running.condition("BackupFresh"))[:2] == ("False", "Overdue")
        await running.patch(spec={"suspend": True})
        assert (await running.condition("BackupFresh"))[:2] == ("Unknown", "NotScheduled")
        assert (await running.client.get(CronJob, "shop")).spec.suspend is True
        assert "nextRunTime" not in (await running.backups.get("shop"))["status"]


async def test_a_backup_on_demand(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make()
        await running.patch(metadata={"annotations": {"backups.example.com/run": "before the upgrade"}})
        (job,) = await running.client.list_all(Job)
        assert job.metadata.name.startswith("shop-run-")
        assert labels_of(job)["backups.example.com/name"] == "shop"
        await running.harness.assert_stable()
        pod = {
            "metadata": {
                "name": "p",
                "labels": {"batch.kubernetes.io/job-name": job.metadata.name, "backups.example.com/name": "shop"},
            },
            "spec": {"serviceAccountName": "shop", "containers": [{"name": "backup", "image": "x"}]},
        }
        await running.client.create(from_dict(pod, Pod))
        ended: dict[str, Any] = {"name": "backup", "state": {"terminated": {"exitCode": 0, "message": "123456\n"}}}
        ended |= {"ready": False, "restartCount": 0, "image": "x", "imageID": "x"}
        await running.client.patch(Pod, "p", {"status": {"containerStatuses": [ended]}}, subresource="status")
        await running.end_job(job.metadata.name, "Complete")
        status = (await running.backups.get("shop"))["status"]
        assert (status["lastSizeBytes"], status["lastRun"]) == (123456, "before the upgrade")
        await running.client.delete(Job, job.metadata.name, propagation="Background")
        await running.harness.converge()
        assert await running.client.list_all(Job) == []  # the same request is not obeyed twice
        await running.patch(metadata={"annotations": {"backups.example.com/run": None}})
        assert await running.client.list_all(Job) == []
        await running.patch(metadata={"annotations": {"backups.example.com/run": "again"}})
        (again,) = await running.client.list_all(Job)
        await running.harness.advance(1)
        await running.end_job(again.metadata.name, "Complete")
        assert "lastSizeBytes" not in (await running.backups.get("shop"))["status"]  # nobody said how big this one is


async def test_backups_are_kept_when_it_is_deleted(module: ModuleType) -> None:
    async with operated(module, lifecycle=True) as running:
        await running.make()
        assert "finalizers" not in (await running.backups.get("shop"))["metadata"]
        await running.backups.delete("shop")
        await running.harness.converge()
        with pytest.raises(NotFound):
            await running.backups.get("shop")
        assert not await running.client.list_all(Job)
        assert (await running.client.get(PersistentVolumeClaim, "shop")).metadata.deletion_timestamp is None


async def test_backups_are_removed_where_the_policy_says_so(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make(deletionPolicy="Delete")
        await running.backups.delete("shop")
        await running.harness.converge()
        job = await running.client.get(Job, "shop-clean")
        (container,) = job.spec.template.spec.containers
        assert container.args == ["clean", "--engine=postgresql", "--to=/backups"]
        assert (await running.client.get(CronJob, "shop")).spec.suspend is True
        assert (await running.backups.get("shop"))["metadata"]["finalizers"]  # it waits for the job
        await running.end_job("shop-clean", "Complete")
        with pytest.raises(NotFound):
            await running.backups.get("shop")
        claims = await running.client.list_all(PersistentVolumeClaim)
        assert all(claim.metadata.deletion_timestamp for claim in claims)


async def test_backups_that_cannot_be_removed_hold_it_until_one_gives_up(module: ModuleType) -> None:
    async with operated(module) as running:
        await running.make(deletionPolicy="Delete")
        await running.backups.delete("shop")
        await running.harness.converge()
        await running.end_job("shop-clean", "Failed", message="forbidden")
        assert (await running.backups.get("shop"))["metadata"]["finalizers"]
        await running.harness.advance(5)
        assert [one for one in await running.client.list_all(Event) if one.reason == "NotCleaned"]
        await running.patch(spec={"deletionPolicy": "Retain"})
        with pytest.raises(NotFound):
            await running.backups.get("shop")


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Etc/UTC"])
def test_due_times_are_those_of_the_zone(module: ModuleType, zone: str) -> None:
    spec = SPEC | {"schedule": "30 2 * * *", "timeZone": zone}
    obj = from_dict({"metadata": {"name": "x"}, "spec": spec}, module.DatabaseBackup)
    due = module.due_times(obj, START, START + timedelta(hours=1))
    offset = timedelta(hours=2 if zone == "Europe/Berlin" else 0)
    assert due.next == datetime(2025, 6, 2, 2, 30, tzinfo=UTC) - offset
    assert due.stale == due.next + timedelta(days=1)


def test_a_schedule_that_never_comes_is_never_stale(module: ModuleType) -> None:
    obj = from_dict({"metadata": {"name": "x"}, "spec": SPEC | {"schedule": "0 0 30 2 *"}}, module.DatabaseBackup)
    with pytest.raises(module.CronSimError):
        module.due_times(obj, START, START)
