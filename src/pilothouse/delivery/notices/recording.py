"""The controllers of incidents: one makes them, the other follows the rollback in the cluster and brings it to git."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

from pilothouse.client import ignore_not_found
from pilothouse.client.patches import MergePatch
from pilothouse.delivery.analysis.traffic import Numbers, Seen
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import RevisionError, SourceError
from pilothouse.delivery.gitops.rejections import reject_revision
from pilothouse.delivery.gitops.settings import Settings
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import GitReturn, Incident, IncidentStatus
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.delivery.rollouts.routing import route_keys
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists, NotFound
from pilothouse.kinds.structs import Event, ReplicaSet, Resource, replace, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller, needs
from pilothouse.operator.owners import controller_of

from .decisions import application_of, decision_of, incident_of, known, superfluous
from .incidents import CLOSED, GIT_DONE, evidence_of, first_bad, first_failure, followed, timeline
from .reverting import Reverter
from .reverts import Revert, pause_seconds, revert_of

__all__ = ["IncidentFollower", "IncidentMaker", "IncidentOptions", "Samples", "add_incidents"]

_P95_SECONDS: Final = 0.8
_WAIT_SECONDS: Final = 30.0
"""After the decision: git does not wait longer for traffic to be back."""
_LOOK_SECONDS: Final = 5.0
_GIVE_UP: Final = timedelta(hours=24)
"""After the decision nothing begins any more and git is not tried again."""
_SAMPLES: Final = 5
_MOST_TEXT: Final = 2000
_log = get_logger(__name__)


class Samples(Protocol):
    """The port: requests that a version of a route answered badly of late, a line of text each."""

    def __call__(self, route: str, version: str, since: float) -> Sequence[str]:
        """Return them, those that tell most first.

        route: NAMESPACE/NAME; version: name of the Service; since: seconds since 1970 before which none came.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOptions:
    """How incidents are kept. directory: for clones of git, only ours; without one nothing is reverted.

    namespace: of applications and their repositories' Secrets. plain_http: as for `add_gitops`.
    """

    directory: str = ""
    namespace: str = "argocd"
    plain_http: bool = False


@needs("applications.argoproj.io", "get")
class IncidentMaker(Reconciler[Rollout]):
    """Makes an incident when a rollout is taken back, once."""

    def __init__(self, manager: Manager, options: IncidentOptions) -> None:
        self._manager = manager
        self._namespace = options.namespace

    async def reconcile(self, obj: Rollout, context: Context) -> Result | None:
        """Make it, and let old ones go."""
        decision = decision_of(obj)
        if decision is None or context.clock.now() - times.parse(decision.at) > _GIVE_UP:
            return None
        listed = self._manager.cached(Incident).indexer.list()
        there = [each for each in listed if each.metadata.namespace == obj.metadata.namespace]
        if incident_of(obj, decision, there) is None:
            return None
        made = incident_of(obj, decision, there, await _application(obj, context, self._namespace))
        if made is None:
            return None
        with suppress(AlreadyExists):  # the cache is late
            await context.create(made)
            name = made.metadata.name
            _log.info("incident", rollout=str(context.request), incident=name, cause=decision.cause)
            context.recorder.warning(obj, "IncidentRecorded", f"Incident {name}: {decision.message}"[:1000])
        for old in superfluous([*there, made], obj.metadata.name):
            await context.delete(old)
        return None


async def _application(rollout: Rollout, context: Context, namespace: str) -> Application | None:
    """Return the application that a rollout is of; it says so itself where a label is all that there is."""
    place = application_of(rollout, namespace)
    if place is None:
        return None
    app = await ignore_not_found(context.client.get(Application, place[1], place[0]))
    is_marked = "argocd.argoproj.io/tracking-id" in rollout.metadata.annotations
    return app if app is not None and (is_marked or known(app, rollout)) else None


@needs("applications.argoproj.io", "get", "patch")
@needs(Event, "get", "list")
@needs("secrets", "get", "list", "watch")
class IncidentFollower(Reconciler[Incident]):
    """Fills in what is known, waits until traffic is back, and then has git know of it.

    All state is in the incident, so another controller goes on from there. Nothing of the rollback waits for this one.
    """

    def __init__(
        self, options: IncidentOptions, settings: Settings, numbers: Numbers | None, samples: Samples | None
    ) -> None:
        self._options = options
        self._settings = settings
        self._numbers = numbers
        self._samples = samples
        self._reverter = Reverter(options.directory, plain_http=options.plain_http) if options.directory else None

    async def reconcile(self, obj: Incident, context: Context) -> Result | None:
        """Bring it a step further."""
        if obj.status.phase == CLOSED or obj.metadata.deletion_timestamp is not None:
            return None
        rollout = context.get(Rollout, obj.spec.rollout)
        if rollout is not None and obj.spec.rollout_uid not in {None, rollout.metadata.uid}:
            rollout = None
        now = context.clock.now()
        status = obj.status
        if status.phase is None:
            status = self._first(obj, rollout, context)
        status = followed(replace(obj, status=status), rollout, _sets(obj, rollout, context), now)
        obj = await self._write(obj, status, context)
        wait = (times.parse(obj.spec.decided_at) + timedelta(seconds=_WAIT_SECONDS) - now).total_seconds()
        if obj.status.traffic_back_at is None and wait > 0:
            return Result(requeue_after=min(wait, _LOOK_SECONDS))
        again = await self._git(obj, rollout, context)
        return Result(requeue_after=again) if again is not None else None

    async def _write(self, obj: Incident, status: IncidentStatus, context: Context) -> Incident:
        if status == obj.status:
            return obj
        status = replace(status, timeline=timeline(obj, status, await self._events(obj, context)))
        none: dict[str, Any] = dict.fromkeys(GitReturn.__struct_encode_fields__)
        written = {**to_dict(status), "git": {**none, **to_dict(status.git)}}
        return await context.patch(obj, MergePatch({"status": written}), subresource="status")

    async def _events(self, obj: Incident, context: Context) -> list[Event]:
        fields = f"involvedObject.kind=Rollout,involvedObject.name={obj.spec.rollout}"
        found = context.client.list(Event, obj.metadata.namespace, fields=fields)
        return [each async for each in found if each.involved_object.uid in {obj.spec.rollout_uid, ""}]

    # What is known at first

    def _first(self, obj: Incident, rollout: Rollout | None, context: Context) -> IncidentStatus:
        runs = context.owned(AnalysisRun, rollout) if rollout is not None else []
        evidence = evidence_of(runs, obj.spec.version, obj.spec.started_at)
        status = replace(obj.status, evidence=evidence, first_bad_at=first_failure(runs, evidence))
        route, service = _route(rollout)
        if not route:
            return status
        if (found := self._first_bad(obj, route, service, context)) is not None:
            status = replace(status, first_bad_at=found)
        if self._samples is not None:
            since = times.parse(obj.spec.started_at).timestamp() if obj.spec.started_at else 0.0
            texts = [text[:_MOST_TEXT] for text in self._samples(route, service, since)]
            status = replace(status, samples=texts[:_SAMPLES])
        return status

    def _first_bad(self, obj: Incident, route: str, service: str, context: Context) -> str | None:
        numbers, spec = self._numbers, obj.spec
        if numbers is None or not service:
            return None

        last, wait = numbers.last()
        ended = context.clock.now().timestamp() + wait - 1  # when the last second that is known was over

        def look(end: float) -> Seen:
            return numbers.over(1, last - round(ended - end), route=route, version=service, regions=())

        since = times.parse(spec.started_at) if spec.started_at else None
        return first_bad(look, times.parse(spec.decided_at), since, _P95_SECONDS)

    # Git

    async def _git(self, obj: Incident, rollout: Rollout | None, context: Context) -> float | None:
        """Pin the revisions, then revert; return the seconds after which to try again."""
        git = obj.status.git
        if git.state in GIT_DONE:
            return None
        app = await self._app(obj, context)
        if app is None:
            await self._ended(obj, replace(git, state="Off", message="no application of git has the rollout"), context)
            return None
        if git.rejected_at is None:
            obj = await self._reject(obj, app, context)
            git = obj.status.git
        wanted = revert_of(obj, app, self._settings.secrets("repository"))
        if isinstance(wanted, str) or self._reverter is None:
            why = wanted if isinstance(wanted, str) else "this controller has no directory for clones"
            await self._ended(obj, replace(git, state="Off", message=why), context)
            return None
        left = (times.parse(git.next_at) - context.clock.now()).total_seconds() if git.next_at else 0.0
        return left if left > 0 else await self._revert(obj, app, wanted, self._reverter, context)

    async def _app(self, obj: Incident, context: Context) -> Application | None:
        namespace, _, name = (obj.spec.application or "").partition("/")
        return await ignore_not_found(context.client.get(Application, name, namespace)) if name else None

    async def _reject(self, obj: Incident, app: Application, context: Context) -> Incident:
        reason = f"incident {context.request}: {obj.spec.message}"
        now, rejected = context.clock.now(), []
        where = (context.client, app.metadata.namespace, app.metadata.name)
        for revision in obj.spec.git_revisions:
            with suppress(RevisionError, NotFound):
                rejected.append(await reject_revision(*where, revision=revision, reason=reason, now=now))
        git = replace(obj.status.git, rejected=rejected, rejected_at=times.format_micros(now) if rejected else None)
        if rejected:
            context.recorder.warning(obj, "RevisionRejected", f"{', '.join(each[:12] for each in rejected)}: {reason}")
        return await self._write(obj, replace(obj.status, git=git), context)

    async def _revert(
        self, obj: Incident, app: Application, wanted: Revert, reverter: Reverter, context: Context
    ) -> float | None:
        git = obj.status.git
        try:
            access = self._settings.access(parse_address(wanted.url, plain_http=True), app.spec.project or "default")
            outcome = await reverter.revert(wanted, access)
        except SourceError as error:
            return await self._failed(obj, str(error), context)
        changed = replace(
            git, state=outcome.state, message=outcome.message, branch=outcome.branch or None,
            commit=outcome.commit or None, next_at=None,
        )  # fmt: skip
        await self._ended(obj, changed, context)
        _log.info("revert in git", incident=str(context.request), state=outcome.state, commit=outcome.commit)
        return None

    async def _failed(self, obj: Incident, why: str, context: Context) -> float | None:
        """Note that git did not do it, and when to try again."""
        git, now = obj.status.git, context.clock.now()
        pause = pause_seconds(git.attempts)
        _log.warning("revert in git failed", incident=str(context.request), attempts=git.attempts + 1, error=why)
        if now - times.parse(obj.spec.decided_at) > _GIVE_UP:
            await self._ended(obj, replace(git, state="Failed", message=f"given up: {why}", next_at=None), context)
            return None
        next_at = times.format_micros(now + timedelta(seconds=pause))
        changed = replace(git, state="Pending", message=why, attempts=git.attempts + 1, next_at=next_at)
        await self._write(obj, replace(obj.status, git=changed), context)
        return pause

    async def _ended(self, obj: Incident, git: GitReturn, context: Context) -> None:
        if git.state != "Off":
            git = replace(git, ended_at=times.format_micros(context.clock.now()))
            told = context.recorder.warning if git.state == "Failed" else context.recorder.normal
            told(obj, f"Git{git.state}", git.message or "")
        status = replace(obj.status, git=git)
        is_over = status.traffic_back_at and status.replicas_down_at
        await self._write(obj, replace(status, phase=CLOSED if is_over else status.phase), context)


def _sets(obj: Incident, rollout: Rollout | None, context: Context) -> list[ReplicaSet]:
    sets = context.owned(ReplicaSet, rollout) if rollout is not None else []
    return [each for each in sets if each.metadata.labels.get(HASH) == obj.spec.version]


def _route(rollout: Rollout | None) -> tuple[str, str]:
    """Return the route and the service by which users meet a new version."""
    if rollout is None or rollout.spec.strategy.canary is None:
        return "", ""
    try:
        keys = route_keys(rollout)
    except DeliveryError:
        return "", ""
    service = rollout.spec.strategy.canary.canary_service or ""
    return (f"{keys[0].namespace}/{keys[0].name}", service) if keys else ("", "")


def add_incidents(
    manager: Manager,
    options: IncidentOptions | None = None,
    *,
    numbers: Numbers | None = None,
    samples: Samples | None = None,
) -> None:
    """Add the controllers of incidents to a manager; Incident and the kinds of rollouts have to be installed.

    numbers: of the data plane, where it is in this process: they tell the first bad second. samples: see `Samples`.
    Raises BuildError.
    """
    options = options or IncidentOptions()
    manager.scheme.register(Incident, Rollout, AnalysisRun, Application)
    settings = Settings(manager, options.namespace)
    controller(manager, "incidents").for_(Rollout).owns(AnalysisRun).build(IncidentMaker(manager, options))

    def of_rollout(rollout: Resource) -> Iterable[Request]:
        return _open(manager, rollout.metadata.namespace, rollout.metadata.name)

    def of_set(found: ReplicaSet) -> Iterable[Request]:
        owner = controller_of(found)
        if owner is None or owner.kind != "Rollout":
            return []
        return _open(manager, found.metadata.namespace, owner.name)

    def of_run(found: AnalysisRun) -> Iterable[Request]:
        return ()  # their cache is read, that is all

    follower = IncidentFollower(options, settings, numbers, samples)
    (
        controller(manager, "incident-follower")
        .for_(Incident)
        .watches(Rollout, of_rollout)
        .watches(ReplicaSet, of_set)
        .watches(AnalysisRun, of_run)
        .with_options(concurrency=4)
        .build(follower)
    )


def _open(manager: Manager, namespace: str, rollout: str) -> list[Request]:
    listed: Any = manager.cached(Incident).indexer.list()
    return [
        Request.of(each)
        for each in listed
        if each.metadata.namespace == namespace and each.spec.rollout == rollout and each.status.phase != CLOSED
    ]
