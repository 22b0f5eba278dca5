"""The controller of resource quotas: counts anew what is used, as objects go, and now and then in any case."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from pilothouse.client.indexer import NAMESPACE_INDEX
from pilothouse.client.informer import Informer
from pilothouse.client.objects import DeletedFinalStateUnknown, namespace_of, split_key
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import PersistentVolumeClaim, Pod, Resource, ResourceQuota, Service, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.quotas import Measure, frees, kinds_of, measure, needs_count, status_of

__all__ = ["QuotaReconciler", "add_quotas"]

_CONCURRENCY: Final = 5
_RESYNC_SECONDS: Final = 300.0
_UNSERVED_SECONDS: Final = 30.0
"""After which a kind that nobody served is looked for again."""
_AGAIN_SECONDS: Final = 5.0
"""After which a count that changed is checked: a cache may have been behind what admission had reserved."""
_MAX_MEASURED: Final = 50_000
_FULL: Final[dict[tuple[str, str], type[Resource]]] = {
    ("", "pods"): Pod,
    ("", "services"): Service,
    ("", "persistentvolumeclaims"): PersistentVolumeClaim,
}
_log = get_logger("pilothouse.workloads.quota")


class QuotaReconciler(Reconciler[ResourceQuota]):
    """Counts what quotas limit."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._followed: dict[tuple[str, str], Informer[Any]] = {}
        self._unserved: dict[tuple[str, str], float] = {}
        self._measured: dict[str, tuple[str, Measure]] = {}
        self.enqueue: Callable[[Request], None] = _nowhere

    async def reconcile(self, obj: ResourceQuota, context: Context) -> Result | None:
        """Count, and write what has changed."""
        for kind in kinds_of(obj):
            if kind not in _FULL:
                await self._follow(kind, context)
        made = status_of(obj, lambda group, plural: self._list(group, plural, context))
        if made is not obj:
            await context.update_status(made)
            return Result(requeue_after=_AGAIN_SECONDS)
        return Result(requeue_after=_RESYNC_SECONDS)

    def _list(self, group: str, plural: str, context: Context) -> Iterable[Measure] | None:
        typed = _FULL.get((group, plural))
        if typed is not None:
            found = self._manager.informer(typed).lister().namespaced(context.request.namespace).list()
            return [self._measure(group, plural, each, context) for each in found]
        informer = self._followed.get((group, plural))
        if informer is None:
            return None
        count = len(informer.indexer.index_keys(NAMESPACE_INDEX, context.request.namespace))
        return [measure(group, plural, {}, context.clock.now())] * count

    def _measure(self, group: str, plural: str, obj: Resource, context: Context) -> Measure:
        metadata = obj.metadata
        if metadata.deletion_timestamp is not None:  # it may end by time alone
            return measure(group, plural, to_dict(obj), context.clock.now())
        found = self._measured.get(metadata.uid)
        if found is None or found[0] != metadata.resource_version:
            if len(self._measured) >= _MAX_MEASURED:
                self._measured.clear()
            made = measure(group, plural, to_dict(obj), context.clock.now())
            found = self._measured[metadata.uid] = (metadata.resource_version, made)
        return found[1]

    async def _follow(self, kind: tuple[str, str], context: Context) -> None:
        """Have a cache of the metadata of a kind's objects; a kind that nobody serves is looked for again later."""
        if kind in self._followed or self._unserved.get(kind, 0.0) > context.clock.monotonic():
            return
        resource = await _resource_of(context, *kind)
        if resource is None:
            self._unserved[kind] = context.clock.monotonic() + _UNSERVED_SECONDS
            return
        informer = await self._manager.follow(context.client.metadata_of(resource))
        if kind in self._followed:
            return
        self._followed[kind] = informer
        informer.add_handler(on_delete=self._gone, name=f"quotas of {kind[1]}")
        await informer.wait_synced()

    def _gone(self, obj: Any) -> None:
        namespace = split_key(obj.key)[0] if isinstance(obj, DeletedFinalStateUnknown) else namespace_of(obj)
        for quota in self._manager.informer(ResourceQuota).lister().namespaced(namespace).list():
            self.enqueue(Request.of(quota))


def _nowhere(_: Request) -> None:
    return None


async def _resource_of(context: Context, group: str, plural: str) -> type[Resource] | None:
    """Return a class for the objects of a kind, by what the server says; None where nobody serves it."""
    try:
        versions = ["v1"]
        if group:
            found: dict[str, Any] = json.loads(await context.client.request("GET", f"/apis/{group}"))
            versions = [found["preferredVersion"]["version"], *(each["version"] for each in found["versions"])]
        for version in dict.fromkeys(versions):
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            listed: dict[str, Any] = json.loads(await context.client.request("GET", path))
            for each in listed.get("resources") or ():
                if each["name"] == plural and each.get("namespaced") and {"list", "watch"} <= set(each["verbs"]):
                    return _class_of(group, version, plural, each["kind"])
    except ApiStatus as error:
        _log.info("a kind that a quota counts is not served", group=group, resource=plural, error=error.message)
    return None


def _class_of(group: str, version: str, plural: str, kind: str) -> type[Resource]:
    where = {"group": group, "version": version, "plural": plural}
    return types.new_class(kind, (Resource,), where, lambda names: names.update(__module__=__name__))


class _Limits(Predicate[ResourceQuota]):
    """Quotas whose limits changed, not those of which admission reserved something."""

    def update(self, old: ResourceQuota, new: ResourceQuota) -> bool:
        return needs_count(old, new)


class _Freed(Predicate[Any]):
    """Objects that count for less than before."""

    def create(self, obj: Any) -> bool:
        return False

    def update(self, old: Any, new: Any) -> bool:
        return frees(old, new)


class _Claims(Predicate[PersistentVolumeClaim]):
    """Claims that count for something else than before."""

    def create(self, obj: PersistentVolumeClaim) -> bool:
        return False

    def update(self, old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> bool:
        return (
            old.spec.resources != new.spec.resources or old.status.allocated_resources != new.status.allocated_resources
        )


def add_quotas(manager: Manager) -> None:
    """Add the controller of resource quotas."""

    def quotas_of(obj: Resource) -> Iterable[Request]:
        found = manager.informer(ResourceQuota).lister().namespaced(obj.metadata.namespace).list()
        return [Request.of(each) for each in found]

    reconciler = QuotaReconciler(manager)
    made = (
        controller(manager, "resourcequota-controller")
        .for_(ResourceQuota, _Limits())
        .watches(Pod, quotas_of, _Freed())
        .watches(Service, quotas_of, _Freed())
        .watches(PersistentVolumeClaim, quotas_of, _Claims())
        .with_options(concurrency=_CONCURRENCY)
        .build(reconciler)
    )
    reconciler.enqueue = made.queue.add
