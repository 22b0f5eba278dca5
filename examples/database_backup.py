"""An operator for backups of databases: a CronJob and what it wants, runs on demand, and whether backups are fresh.

Secrets are watched by their metadata alone, so that no copy of a password is in this program. Time is the controller's
clock: a reconcile says when it wants to be called again, and a test moves that clock by hand. The image is a stand-in
for one of your own: `backup` and `clean` are its commands, and it ends with the size in bytes as termination message.
It wants the library cronsim besides.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from pilothouse.client import Client
from pilothouse.client.codecs import PartialObject
from pilothouse.client.objects import key_of, labels_of
from pilothouse.kinds import times
from pilothouse.kinds.status import Invalid
from pilothouse.kinds.structs import (
    Condition,
    CronJob,
    Job,
    ObjectMeta,
    PersistentVolumeClaim,
    Pod,
    Resource,
    Secret,
    ServiceAccount,
    Struct,
    from_dict,
    to_dict,
)
from pilothouse.operator import (
    Context,
    Controller,
    Manager,
    Minimum,
    MinLength,
    Pattern,
    PrinterColumn,
    Reconciler,
    Request,
    Result,
    Rule,
    Timestamp,
    controller,
    custom_resource,
    definition,
    install,
    needs,
)
from pilothouse.operator.finalizers import add_finalizer, has_finalizer, is_being_deleted, remove_finalizer
from pilothouse.operator.readiness import readiness_of
from pilothouse.operator.status import condition_of, set_condition
from pilothouse.testing import ControlPlane

LABEL = "backups.example.com/name"
RUN = "backups.example.com/run"
"""An annotation: a backup is made at once, whenever it gets a new value."""
FINALIZER = "backups.example.com/clean"
NEVER = datetime.max.replace(tzinfo=UTC)
MAX_SECONDS = 86_400.0

Name = Annotated[str, MinLength(1)]


class Claim(Struct):
    """A volume claim that is made and kept, or with `existing` one of others."""

    size: str = "10Gi"
    existing: str = ""


class Bucket(Struct):
    """A bucket of an object store; the secret named by `credentials` says how."""

    name: Name
    credentials: Name


@Rule("has(self.claim) != has(self.bucket)", message="want one of claim and bucket")
class Storage(Struct):
    """Where backups are kept."""

    claim: Claim | None = None
    bucket: Bucket | None = None


class Retention(Struct):
    """Which backups are kept; the others are removed after the next one."""

    keep_last: Annotated[int, Minimum(1)] = 7
    keep_days: Annotated[int, Minimum(1)] | None = None


class DatabaseBackupSpec(Struct):
    """What is to be kept of a database, and how often."""

    engine: Literal["postgresql", "mysql"]
    connection: Name
    """The secret that says where the database is, and who may read it."""
    schedule: Annotated[str, Pattern(r"^([0-9A-Za-z*/,-]+ ){4}[0-9A-Za-z*/,-]+$")]
    storage: Storage
    time_zone: Name = "Etc/UTC"
    retention: Retention = Retention()
    suspend: bool = False
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    image: str = "registry.example.com/database-backup:1"


class DatabaseBackupStatus(Struct):
    """What has become of it."""

    last_successful_time: Timestamp | None = None
    last_size_bytes: int | None = None
    last_failed_time: Timestamp | None = None
    next_run_time: Timestamp | None = None
    last_run: str = ""
    """The value of the annotation that was obeyed last."""
    observed_generation: int = 0
    conditions: Sequence[Condition] = ()


@custom_resource(
    short_names=["dbb"],
    columns=[PrinterColumn("Schedule", ".spec.schedule"), PrinterColumn("Last", ".status.lastSuccessfulTime")],
)
class DatabaseBackup(Resource, group="example.com", version="v1", plural="databasebackups"):
    """Backups of a database."""

    spec: DatabaseBackupSpec
    status: DatabaseBackupStatus = DatabaseBackupStatus()


def secrets_of(obj: DatabaseBackup) -> list[str]:
    """Return the secrets that a backup wants, as namespace/name."""
    bucket = obj.spec.storage.bucket
    names = [obj.spec.connection, *([bucket.credentials] if bucket else [])]
    return [f"{obj.metadata.namespace}/{name}" for name in names]


def backup_of(obj: Any) -> Iterable[Request]:
    """Map what carries the label to its backup; jobs belong to the CronJob, so an owner would not do."""
    found = labels_of(obj).get(LABEL)
    return [Request(obj.metadata.namespace, found)] if found else []


def job_spec(obj: DatabaseBackup, command: str) -> dict[str, Any]:
    """Return what a job runs: a backup, or the removal of all backups."""
    spec, storage = obj.spec, obj.spec.storage
    keep = [f"--keep-last={spec.retention.keep_last}"]
    keep += [f"--keep-days={spec.retention.keep_days}"] if spec.retention.keep_days else []
    container: dict[str, Any] = {"name": "backup", "image": spec.image}
    container["envFrom"] = [{"secretRef": {"name": name.partition("/")[2]}} for name in secrets_of(obj)]
    pod: dict[str, Any] = {"serviceAccountName": obj.metadata.name, "restartPolicy": "Never"}
    to = "/backups"
    if storage.bucket:
        to = f"s3://{storage.bucket.name}/{obj.metadata.namespace}/{obj.metadata.name}"
    elif storage.claim:
        claim = storage.claim.existing or obj.metadata.name
        pod["volumes"] = [{"name": "backups", "persistentVolumeClaim": {"claimName": claim}}]
        container["volumeMounts"] = [{"name": "backups", "mountPath": to}]
    container["args"] = [command, f"--engine={spec.engine}", f"--to={to}", *(keep if command == "backup" else ())]
    template = {"metadata": {"labels": {LABEL: obj.metadata.name}}, "spec": {**pod, "containers": [container]}}
    return {"backoffLimit": 2, "template": template}


def children(obj: DatabaseBackup, *, suspend: bool) -> Iterable[ServiceAccount | CronJob]:
    """Return what goes with the backup. The claim does not: it has what the backups are for."""
    meta = {"name": obj.metadata.name, "labels": {LABEL: obj.metadata.name}}
    yield from_dict({"metadata": meta}, ServiceAccount)
    template = {"metadata": {"labels": meta["labels"]}, "spec": job_spec(obj, "backup")}
    spec = {"schedule": obj.spec.schedule, "timeZone": obj.spec.time_zone, "suspend": suspend, "jobTemplate": template}
    yield from_dict({"metadata": meta, "spec": {**spec, "concurrencyPolicy": "Forbid"}}, CronJob)


def claim_of(obj: DatabaseBackup) -> PersistentVolumeClaim | None:
    """Return the claim that is to be made, if any."""
    claim = obj.spec.storage.claim
    if claim is None or claim.existing:
        return None
    meta = {"name": obj.metadata.name, "namespace": obj.metadata.namespace, "labels": {LABEL: obj.metadata.name}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": claim.size}}}
    return from_dict({"metadata": meta, "spec": spec}, PersistentVolumeClaim)


def job_of(obj: DatabaseBackup, suffix: str, command: str) -> Job:
    """Return a job beside those of the CronJob."""
    meta = {"name": f"{obj.metadata.name}-{suffix}", "labels": {LABEL: obj.metadata.name}}
    return from_dict({"metadata": meta, "spec": job_spec(obj, command)}, Job)


class Due(NamedTuple):
    """When the next backup is due, and when the last one is stale: as the second one after it is due."""

    next: datetime
    stale: datetime


def due_times(obj: DatabaseBackup, last: datetime, now: datetime) -> Due:
    """Return when what is due. Raises CronSimError and ZoneInfoNotFoundError."""
    zone = ZoneInfo(obj.spec.time_zone)
    after = CronSim(obj.spec.schedule, last.astimezone(zone))
    next(after, NEVER)
    return Due(next(CronSim(obj.spec.schedule, now.astimezone(zone)), NEVER), next(after, NEVER))


async def size_of(job: Job, context: Context) -> dict[str, int]:
    """Return what a job's pod said in the end. Asked for once a job, so there is no cache of all pods for it."""
    labels = {"batch.kubernetes.io/job-name": job.metadata.name}
    for pod in await context.client.list_all(Pod, job.metadata.namespace, labels=labels):
        for container in pod.status.container_statuses:
            ended = container.state.terminated
            if ended is not None and ended.exit_code == 0 and ended.message.strip().isdecimal():
                return {"lastSizeBytes": int(ended.message)}
    return {}


def freshness(last: str | None, due: Due | None, now: datetime) -> tuple[Literal["True", "False", "Unknown"], str, str]:
    """Return status, reason and message of the condition BackupFresh."""
    if due is None:
        return "Unknown", "NotScheduled", "no backups are made"
    if now >= due.stale:
        return "False", "Overdue", f"two backups were due since {last or 'it was made'}"
    return ("True", "InTime", f"the last is of {last}") if last else ("Unknown", "InTime", "the first is to come")


@needs(Secret, "list", "watch")
@needs(Pod, "list")
@needs(PersistentVolumeClaim, "create", "delete", "patch")
@needs(Job, "create", "patch")
class DatabaseBackupReconciler(Reconciler[DatabaseBackup]):
    """Keeps what makes the backups, and says how they are."""

    controller: Controller[DatabaseBackup]
    owned = (ServiceAccount, CronJob)

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def reconcile(self, obj: DatabaseBackup, context: Context) -> Result | None:
        if is_being_deleted(obj):
            return await self._leave(obj, context)
        if obj.spec.deletion_policy == "Delete":
            obj = await add_finalizer(context.client, obj, FINALIZER)
        else:
            obj = await remove_finalizer(context.client, obj, FINALIZER) or obj
        status, due = await self._ended(obj, context), None
        last = times.parse(status.get("lastSuccessfulTime") or obj.metadata.creation_timestamp or "")
        missing = await self._missing(obj, context)
        problem = ("SecretMissing", f"there is no secret {' and '.join(missing)}; create it") if missing else None
        try:
            due = due_times(obj, last, context.clock.now())
            if claim := claim_of(obj):
                await context.apply(claim)
            for child in children(obj, suspend=obj.spec.suspend or bool(missing)):
                await context.apply(child, obj)
            requested = obj.metadata.annotations.get(RUN, "")
            if requested and requested != obj.status.last_run and not missing:
                digest = hashlib.sha256(requested.encode()).hexdigest()[:8]
                await context.apply(job_of(obj, f"run-{digest}", "backup"), obj)
                context.recorder.normal(obj, "Started", f"a backup that was asked for: {requested}")
                status["lastRun"] = requested
        except (CronSimError, ZoneInfoNotFoundError, Invalid) as error:
            problem = ("Refused", str(error))
        return await self._report(obj, context, status, problem, due)

    async def _missing(self, obj: DatabaseBackup, context: Context) -> list[str]:
        """Return the secrets that are wanted and not there; one that comes later is told."""

        def wanting(secret: PartialObject) -> Iterable[Request]:
            return map(Request.of, self._manager.cached(DatabaseBackup).indexer.by_index("secret", key_of(secret)))

        secrets = await self.controller.watch(context.client.metadata_of(Secret), wanting)
        await secrets.wait_synced()
        return [key.partition("/")[2] for key in secrets_of(obj) if key not in secrets.indexer]

    async def _ended(self, obj: DatabaseBackup, context: Context) -> dict[str, Any]:
        """Return the status with what jobs said in the end; it is kept there, for jobs are removed after a while."""
        status = to_dict(obj.status)
        for job in context.indexed(Job, "backup", str(Request.of(obj))):
            for condition in job.status.conditions:
                field = {"Complete": "lastSuccessfulTime", "Failed": "lastFailedTime"}.get(condition.type)
                moment = condition.last_transition_time or ""
                if field is None or condition.status != "True" or moment <= status.get(field, ""):
                    continue
                status[field] = moment
                if condition.type == "Complete":
                    status.pop("lastSizeBytes", None)
                    status |= await size_of(job, context)
                else:
                    context.recorder.warning(obj, "Failed", f"job {job.metadata.name}: {condition.message}")
        return status

    async def _report(
        self,
        obj: DatabaseBackup,
        context: Context,
        status: dict[str, Any],
        problem: tuple[str, str] | None,
        due: Due | None,
    ) -> Result | None:
        now, conditions = context.clock.now(), obj.status.conditions
        before = condition_of(conditions, "Ready")
        reason, message = problem or ("Scheduled", f"backups are made at {obj.spec.schedule}, {obj.spec.time_zone}")
        if problem and (before is None or before.reason != reason):
            context.recorder.warning(obj, reason, message)
        conditions = set_condition(conditions, "Ready", not problem, reason=reason, message=message, now=now)
        waits = due is not None and not obj.spec.suspend
        fresh, reason, message = freshness(status.get("lastSuccessfulTime"), due if waits else None, now)
        conditions = set_condition(conditions, "BackupFresh", fresh, reason=reason, message=message, now=now)
        status |= {"conditions": [to_dict(one) for one in conditions], "observedGeneration": obj.metadata.generation}
        status.pop("nextRunTime", None)
        if due is None or not waits:
            await context.apply_status(obj, status)
            return None
        await context.apply_status(obj, status | {"nextRunTime": times.format_seconds(due.next)})
        coming = min(moment for moment in due if moment > now)
        return Result(requeue_after=min((coming - now).total_seconds(), MAX_SECONDS))

    async def _leave(self, obj: DatabaseBackup, context: Context) -> Result | None:
        """Remove the backups of one that is being deleted, if that is wanted, and let it go."""
        if obj.spec.deletion_policy == "Delete" and has_finalizer(obj, FINALIZER):
            for child in children(obj, suspend=True):  # no new backup while they are removed
                await context.apply(child, obj)
            state = readiness_of(await context.apply(job_of(obj, "clean", "clean"), obj))
            if state.failed:
                text = f"backups are left: {state.message}; delete job {obj.metadata.name}-clean to try again"
                context.recorder.warning(obj, "NotCleaned", f"{text}, or set deletionPolicy to Retain")
            if not state.ready:
                return None
            if (made := claim_of(obj)) and (claim := context.get(PersistentVolumeClaim, made.metadata.name)):
                await context.delete(claim)
        await remove_finalizer(context.client, obj, FINALIZER)
        return None


def build(manager: Manager) -> None:
    """Describe the operator."""
    manager.scheme.register(DatabaseBackup)
    manager.index(DatabaseBackup, "secret", secrets_of)
    manager.index(Job, "backup", lambda job: map(str, backup_of(job)))
    reconciler = DatabaseBackupReconciler(manager)
    described = controller(manager, "database-backup").for_(DatabaseBackup)
    described.watches(Job, backup_of).watches(PersistentVolumeClaim, backup_of)
    reconciler.controller = described.with_options(concurrency=4).build(reconciler)


async def main() -> None:
    """Run the operator, and make a backup of which the secret comes late."""
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install(client, definition(DatabaseBackup))
        manager = Manager(client)
        build(manager)
        async with manager:
            storage = Storage(claim=Claim(size="1Gi"))
            spec = DatabaseBackupSpec(engine="postgresql", connection="shop-db", schedule="0 2 * * *", storage=storage)
            await client.create(DatabaseBackup(metadata=ObjectMeta(name="shop"), spec=spec))
            async for event in client.watch(DatabaseBackup):
                ready = condition_of(event.object.status.conditions, "Ready")
                if ready is not None:
                    print(f"Ready {ready.status}: {ready.message}; next: {event.object.status.next_run_time}")
                if ready is not None and ready.reason == "SecretMissing":
                    await client.create(Secret(metadata=ObjectMeta(name="shop-db")))
                elif ready is not None and ready.status == "True":
                    break


if __name__ == "__main__":
    asyncio.run(main())
