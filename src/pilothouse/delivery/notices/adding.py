"""The controllers of notifications: look at rollouts and applications, send what is to be told, remember it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pilothouse.client.informer import Informer
from pilothouse.client.patches import MergePatch
from pilothouse.delivery.errors import NoticeError
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import ConfigMap, Resource, Secret, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller, needs

from .messages import Message
from .occasions import Occasion, occasions
from .planning import NOTIFIED, Destination, Notice, Plan, destinations, plan, read_told, told_text
from .sending import Sender
from .settings import Settings, read_settings
from .stock import STOCK

__all__ = ["APPLICATIONS_CONFIG", "ROLLOUTS_CONFIG", "NoticeOptions", "NoticeReconciler", "Place", "add_notices"]

K = TypeVar("K", Rollout, Application)

ROLLOUTS_CONFIG: Final = ("argo-rollouts-notification-configmap", "argo-rollouts-notification-secret")
APPLICATIONS_CONFIG: Final = ("argocd-notifications-cm", "argocd-notifications-secret")
_INCIDENTS: Final = "incidents of rollout"
_FIRST_PAUSE: Final = 2.0
_MOST_PAUSE: Final = 300.0
_MOST_RESTING: Final = 1000
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NoticeOptions:
    """Where Argo's ConfigMaps and Secrets of notifications are. concurrency: of objects told about at a time."""

    rollouts_namespace: str = "argo-rollouts"
    applications_namespace: str = "argocd"
    concurrency: int = 8


class Place:
    """The settings in a ConfigMap and a Secret, read from caches, parsed once for each version of them.

    A Secret of the ConfigMap's own name is taken too where there is none of Argo's name.
    """

    def __init__(self, manager: Manager, namespace: str, names: tuple[str, str]) -> None:
        self._namespace, self._names = namespace, names
        one = f"metadata.name={names[0]}"
        self._map: Informer[Any] = manager.factory.informer(ConfigMap, namespace=namespace, fields=one)
        self._secrets: list[Informer[Any]] = [
            manager.factory.informer(Secret, namespace=namespace, fields=f"metadata.name={name}")
            for name in (names[1], names[0])
        ]
        self._read: tuple[object, Settings] = (None, Settings())

    def settings(self) -> Settings:
        """Return what is set now."""
        found = self._map.indexer.get(f"{self._namespace}/{self._names[0]}")
        secrets = (each.indexer.get(f"{self._namespace}/{name}") for each, name in self._named())
        secret = next((each for each in secrets if each is not None), None)
        versions = tuple(None if each is None else each.metadata.resource_version for each in (found, secret))
        if self._read[0] != versions:
            data = {} if found is None else found.data
            made = read_settings(data, {} if secret is None else secret.data, STOCK)
            self._read = versions, made
            for problem in made.problems:
                _log.warning("a setting of notifications is left out", config=self._names[0], problem=problem)
        return self._read[1]

    def _named(self) -> Iterable[tuple[Any, str]]:
        return zip(self._secrets, (self._names[1], self._names[0]), strict=True)

    def on_change(self, changed: Callable[[], None], name: str) -> None:
        """Call back when it has changed."""
        for informer in (self._map, *self._secrets):
            informer.add_handler(
                on_add=lambda *_: changed(), on_update=lambda *_: changed(), on_delete=lambda *_: changed(), name=name
            )


@dataclass(slots=True)
class _Rest:
    """A destination that did not answer. failures: in a row; until: it is left alone, by the monotonic clock."""

    failures: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """values: what expressions and templates see. given: as `plan` wants it."""

    values: Mapping[str, Any]
    given: Sequence[Occasion] | None = None


@needs("configmaps", "get", "list", "watch")
@needs("secrets", "get", "list", "watch")
@needs("rollouts.argoproj.io", "patch")
@needs("applications.argoproj.io", "patch")
class NoticeReconciler(Reconciler[K], Generic[K]):
    """Tells of one object at a time, in parallel whom it concerns; what was told is written when it was taken.

    What is to be told follows from the object, so nothing waits in memory: a destination that fails is left alone for a
    growing while, 2 s to 5 minutes, and the object comes again. A controller that is killed between sending and writing
    tells once more.
    """

    def __init__(self, place: Place, sender: Sender, seen: Callable[[K, Context], _Seen]) -> None:
        self._place = place
        self._sender = sender
        self._seen: Callable[[K, Context], _Seen] = seen
        self._resting: OrderedDict[tuple[str, str], _Rest] = OrderedDict()
        self._said: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    async def reconcile(self, obj: K, context: Context) -> Result | None:
        """Tell what was not told yet."""
        if obj.metadata.deletion_timestamp is not None:
            return None
        settings = self._place.settings()
        if not destinations(obj.metadata, settings) and NOTIFIED not in obj.metadata.annotations:
            return None
        seen, now = self._seen(obj, context), context.clock.now().timestamp()
        made = plan(obj.metadata, seen.values, settings, given=seen.given, now=now)
        self._tell_problems(obj, made, context)
        told = read_told(obj.metadata)
        due, wait = self._due(made.notices, context.clock.monotonic())
        for notice, error in zip(due, await asyncio.gather(*(self._send(each.message) for each in due)), strict=True):
            if error is None:
                told[notice.key] = int(now)
                self._resting.pop(_place_of(notice.destination), None)
                _log.info("notification sent", object=str(context.request), **_shown(notice.destination))
            else:
                wait = min(wait or _MOST_PAUSE, self._rest(notice.destination, context))
                self._tell_failure(obj, notice, error, context)
        await self._remember(obj, told_text(told, made, now), context)
        return Result(requeue_after=wait) if wait else None

    async def _remember(self, obj: K, text: str | None, context: Context) -> None:
        if (obj.metadata.annotations.get(NOTIFIED) or None) != text:
            await context.patch(obj, MergePatch({"metadata": {"annotations": {NOTIFIED: text}}}))

    async def _send(self, message: Message) -> NoticeError | None:
        try:
            await self._sender.send(message)
        except NoticeError as error:
            return error
        return None

    def _due(self, notices: Sequence[Notice], now: float) -> tuple[list[Notice], float]:
        """Return what may be sent now, and the seconds after which the first of the rest may."""
        due, wait = [], 0.0
        for notice in notices:
            rest = self._resting.get(_place_of(notice.destination))
            left = rest.until - now if rest is not None else 0.0
            if left <= 0:
                due.append(notice)
            else:
                wait = min(wait or left, left)
        return due, wait

    def _rest(self, destination: Destination, context: Context) -> float:
        place = _place_of(destination)
        rest = self._resting.setdefault(place, _Rest())
        self._resting.move_to_end(place)
        while len(self._resting) > _MOST_RESTING:
            self._resting.popitem(last=False)
        pause: float = min(_FIRST_PAUSE * 2**rest.failures, _MOST_PAUSE)
        rest.failures, rest.until = min(rest.failures + 1, 16), context.clock.monotonic() + pause
        return pause

    def _tell_problems(self, obj: K, made: Plan, context: Context) -> None:
        """Tell what is wrong, once as long as it stays the same."""
        if self._said.get(obj.metadata.uid, ()) == made.problems:
            return
        for problem in made.problems:
            context.recorder.warning(obj, "NotificationInvalid", problem[:1000])
        self._said[obj.metadata.uid] = made.problems
        while len(self._said) > _MOST_RESTING:
            self._said.popitem(last=False)

    def _tell_failure(self, obj: K, notice: Notice, error: NoticeError, context: Context) -> None:
        shown = _shown(notice.destination)
        _log.warning("notification failed", object=str(context.request), error=str(error), **shown)
        to = f"{shown['trigger']} by {shown['service']}"
        context.recorder.warning(obj, "NotificationFailed", f"{to}: {error}; it is tried again")


def _place_of(destination: Destination) -> tuple[str, str]:
    return destination.service, destination.recipient


def _shown(destination: Destination) -> Mapping[str, str]:
    return {"trigger": destination.trigger, "service": destination.service}


# What there is of each kind


def _of_rollout(obj: Rollout, context: Context) -> _Seen:
    return _Seen({"rollout": to_dict(obj)}, occasions(obj, context.owned(AnalysisRun, obj)))


def _with_incidents(obj: Rollout, context: Context) -> _Seen:
    incidents = context.indexed(Incident, _INCIDENTS, f"{obj.metadata.namespace}/{obj.metadata.name}")
    return _Seen({"rollout": to_dict(obj)}, occasions(obj, context.owned(AnalysisRun, obj), incidents))


def _rollout_of(incident: Incident) -> Iterable[str]:
    return (f"{incident.metadata.namespace}/{incident.spec.rollout}",)


def _requests_of(incident: Incident) -> Iterable[Request]:
    return (Request(incident.metadata.namespace, incident.spec.rollout),)


def _of_application(obj: Application, context: Context) -> _Seen:
    tree = to_dict(obj)
    # Conditions of triggers go into these without asking whether they are there.
    status = {"health": {}, "sync": {}, "operationState": None, **(tree.get("status") or {})}
    return _Seen({"app": {**tree, "status": status}})


def add_notices(
    manager: Manager,
    options: NoticeOptions | None = None,
    *,
    rollouts: bool = True,
    applications: bool = True,
    incidents: bool = False,
    sender: Sender | None = None,
) -> None:
    """Add the controllers of notifications to a manager; their kinds have to be installed. Raises BuildError.

    rollouts, applications: which kinds are told of. incidents: whether incidents of rollouts are too.
    """
    options, sender = options or NoticeOptions(), sender or Sender()
    if rollouts:
        manager.scheme.register(Rollout, AnalysisRun)
        place = Place(manager, options.rollouts_namespace, ROLLOUTS_CONFIG)
        seen = _with_incidents if incidents else _of_rollout
        teller: NoticeReconciler[Rollout] = NoticeReconciler(place, sender, seen)
        building = controller(manager, "rollout-notices").for_(Rollout).owns(AnalysisRun)
        if incidents:
            manager.scheme.register(Incident)
            manager.index(Incident, _INCIDENTS, _rollout_of)
            building = building.watches(Incident, _requests_of)
        made = building.with_options(concurrency=options.concurrency).build(teller)
        place.on_change(lambda: _all(manager, Rollout, made.queue.add), "rollout notices")
    if applications:
        manager.scheme.register(Application)
        where = Place(manager, options.applications_namespace, APPLICATIONS_CONFIG)
        other: NoticeReconciler[Application] = NoticeReconciler(where, sender, _of_application)
        built = (
            controller(manager, "application-notices")
            .for_(Application)
            .with_options(concurrency=options.concurrency)
            .build(other)
        )
        where.on_change(lambda: _all(manager, Application, built.queue.add), "application notices")


def _all(manager: Manager, kind: type[Resource], add: Callable[[Request], object]) -> None:
    """Have all of a kind looked at: what was not told since it could not be may be told now."""
    if manager.is_leading:
        for found in manager.cached(kind).indexer.list():
            add(Request.of(found))
