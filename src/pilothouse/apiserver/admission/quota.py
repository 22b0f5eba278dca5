"""ResourceQuota: what a namespace may use in all, reserved before anything is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, NamedTuple

from pilothouse.apiserver.admission.plugin import Plugin, forbid, requested
from pilothouse.apiserver.admission.podresources import Resources, add, quantities
from pilothouse.apiserver.admission.quota_usage import matches, missing, relevant, usage
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Local, Object, Operation, View
from pilothouse.foundation.clock import Clock
from pilothouse.kinds import status
from pilothouse.kinds.quantity import ZERO, Quantity

__all__ = ["ResourceQuota", "charge"]

_QUOTAS: Final = "resourcequotas"
_RETRIES: Final = 3
_MOST_WRITTEN: Final = 4096
_PATIENCE: Final = 10.0
"""Seconds for which a request waits for its usage to be reserved."""
_IGNORED: Final = frozenset({
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
})  # fmt: skip
_UPDATED: Final = frozenset({("", "services"), ("", "persistentvolumeclaims")})
"""Resources whose usage may grow with an update."""


class _Waiter(NamedTuple):
    request: AdmissionRequest
    done: asyncio.Future[None]


class ResourceQuota(Plugin):
    """Refuses what would exceed a quota, and writes what is used into the quotas' status first.

    Requests of one namespace that come while a status is written share the next write. local: writes the status.
    A request that fails after its usage was reserved leaves it reserved until the controller counts anew.
    """

    name = "ResourceQuota"

    def __init__(self, view: View, local: Local, clock: Clock) -> None:
        self._view = view
        self._local = local
        self._clock = clock
        self._waiting: dict[str, list[_Waiter]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._written: dict[tuple[str, str], Object] = {}

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Look at what can use more than before: creations, updates of services and claims, resized pods."""
        kind = (resource[0], resource[2])
        if kind in _IGNORED or kind == ("", "namespaces"):
            return False
        if operation == "CREATE":
            return not subresource
        if operation == "UPDATE":
            return (not subresource and kind in _UPDATED) or (kind == ("", "pods") and subresource == "resize")
        return False

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Reserve what the object uses. Raises Forbidden for more than is left, at once or when awaited."""
        if not request.namespace:
            return None
        quotas = self._current(request.namespace)
        if not quotas:
            return None
        changed = charge(quotas, request, self._clock)
        if not changed or request.dry_run:
            return None
        return self._reserve(request)

    async def _reserve(self, request: AdmissionRequest) -> None:
        namespace = request.namespace
        waiter = _Waiter(request, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(namespace, []).append(waiter)
        if namespace not in self._workers:
            self._workers[namespace] = asyncio.create_task(self._work(namespace))

        def give_up() -> None:
            if not waiter.done.done():
                waiter.done.set_exception(status.internal_error("resource quota evaluation timed out"))

        timer = self._clock.call_later(_PATIENCE, give_up)
        try:
            await waiter.done
        finally:
            timer.cancel()

    async def _work(self, namespace: str) -> None:
        """Serve the waiting requests of a namespace, all that are there at a time, until none are left."""
        try:
            while waiters := self._waiting.pop(namespace, None):
                try:
                    await self._serve(namespace, self._current(namespace), waiters, _RETRIES)
                except Exception as error:  # noqa: BLE001 - told to all who wait
                    _fail(waiters, error if isinstance(error, status.ApiStatus) else status.internal_error(str(error)))
        finally:
            del self._workers[namespace]
            _fail(self._waiting.pop(namespace, []), status.internal_error("resource quota evaluation was stopped"))

    async def _serve(self, namespace: str, quotas: Sequence[Object], waiters: Sequence[_Waiter], retries: int) -> None:
        """Charge all waiting requests, write what changed, and try again with those whose write was refused."""
        running = {quota["metadata"]["name"]: quota for quota in quotas}
        before = dict(running)
        for waiter in waiters:
            if waiter.done.done():
                continue
            try:
                changed = charge(list(running.values()), waiter.request, self._clock)
            except status.ApiStatus as error:
                waiter.done.set_exception(error)
                continue
            running.update({quota["metadata"]["name"]: quota for quota in changed})
        refused: list[str] = []
        failure: status.ApiStatus | None = None
        for name, quota in running.items():
            if quota is before[name]:
                continue
            try:
                await self._write(quota)
            except status.ApiStatus as error:
                refused.append(name)
                failure = error
        if failure is None:
            _succeed(waiters)
        elif retries <= 0:
            _fail(waiters, failure)
        else:
            fetched = [await self._fetch(namespace, name) for name in refused]
            again = [quota for quota in fetched if quota is not None]
            await self._serve(namespace, again, [one for one in waiters if not one.done.done()], retries - 1)

    async def _write(self, quota: Object) -> None:
        metadata = quota["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/{_QUOTAS}/{metadata['name']}/status"
        self._remember(await self._local.call("PUT", path, quota))

    async def _fetch(self, namespace: str, name: str) -> Object | None:
        """Read a quota from the store, as what is remembered was out of date."""
        try:
            found = await self._local.call("GET", f"/api/v1/namespaces/{namespace}/{_QUOTAS}/{name}")
        except status.NotFound:
            self._written.pop((namespace, name), None)
            return None
        self._remember(found)
        return found

    def _remember(self, quota: Object) -> None:
        metadata = quota["metadata"]
        if len(self._written) >= _MOST_WRITTEN:
            # Those of namespaces that are gone; the view has long caught up with the others.
            self._written.clear()
        self._written[metadata["namespace"], metadata["name"]] = quota

    def _current(self, namespace: str) -> list[Object]:
        """Return a namespace's quotas, those that this step wrote itself in the version written if that is newer."""
        if not self._written:
            return list(self._view.list(_QUOTAS, namespace))
        found = []
        for quota in self._view.list(_QUOTAS, namespace):
            key = (namespace, quota["metadata"]["name"])
            written = self._written.get(key)
            if written is not None and _version(written) > _version(quota):
                found.append(written)
                continue
            if written is not None:
                del self._written[key]
            found.append(quota)
        return found


def _version(item: Object) -> int:
    text = str(item["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdecimal() else 0


def _succeed(waiters: Sequence[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done.done():
            waiter.done.set_result(None)


def _fail(waiters: Sequence[_Waiter], error: status.ApiStatus) -> None:
    for waiter in waiters:
        if not waiter.done.done():
            waiter.done.set_exception(error)


def _pretty(found: Mapping[str, Quantity]) -> str:
    return ",".join(f"{name}={found[name]}" for name in sorted(found))


def charge(quotas: Sequence[Object], request: AdmissionRequest, clock: Clock) -> list[Object]:
    """Return copies of those quotas that the request uses more of, with the usage it would leave.

    Raises Forbidden where a quota would be exceeded, is not counted yet, or counts what the object does not state.
    """
    group, _, plural = request.resource
    item = requested(request)
    concerned = [quota for quota in quotas if matches(quota, group, plural, item)]
    if not concerned:
        return []
    for quota in concerned:
        _check_stated(quota, request, item)
    now = clock.now()
    used = usage(group, plural, item, now)
    if negative := sorted(name for name, value in used.items() if value < ZERO):
        raise forbid(request, f"quota usage is negative for resource(s): {','.join(negative)}")
    old = request.old if request.operation == "UPDATE" else None
    before = usage(group, plural, old, now) if old is not None else {}
    changed = []
    for quota in concerned:
        counted_before = before if old is not None and matches(quota, group, plural, old) else {}
        delta = {name: _more(value, counted_before.get(name)) for name, value in used.items()}
        charged = _charge_one(quota, {name: value for name, value in delta.items() if value}, request)
        if charged is not None:
            changed.append(charged)
    return changed


def _more(value: Quantity, before: Quantity | None) -> Quantity:
    if before is None:
        return value
    rest = value - before
    return max(ZERO, rest)


def _check_stated(quota: Object, request: AdmissionRequest, item: Object) -> None:
    group, _, plural = request.resource
    state, name = quota.get("status") or {}, quota["metadata"]["name"]
    names = relevant(group, plural, state.get("hard") or {})
    if plural == "pods" and (lacking := missing(item, names)):
        raise forbid(request, f"failed quota: {name}: {lacking}")
    used = state.get("used") or {}
    if any(one not in used for one in names):
        raise forbid(request, f"status unknown for quota: {name}, resources: {','.join(names)}")


def _charge_one(quota: Object, delta: Resources, request: AdmissionRequest) -> Object | None:
    state = quota.get("status") or {}
    hard, used = quantities(state.get("hard")), quantities(state.get("used"))
    asked = {name: value for name, value in delta.items() if name in hard}
    if not asked:
        return None
    total = add(used, asked)
    if request.subresource != "status":
        exceeded = [name for name in asked if total[name] > hard[name]]
        if exceeded:
            shown = [_pretty({name: one[name] for name in exceeded if name in one}) for one in (asked, used, hard)]
            raise forbid(
                request,
                f"exceeded quota: {quota['metadata']['name']}, requested: {shown[0]}, used: {shown[1]}, "
                f"limited: {shown[2]}",
            )
    return {**quota, "status": {**state, "used": {name: str(value) for name, value in total.items()}}}
