"""APIService objects of what is served here, so that `kubectl get apiservices` shows the whole API."""

from __future__ import annotations

import asyncio
import contextlib

from pilothouse.apiserver.discovery import group_priority
from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.apiserver.proxying.aggregation import API_SERVICES
from pilothouse.apiserver.rest.catalogue import Catalogue
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.registry import version_order
from pilothouse.kinds.status import AlreadyExists, ApiStatus, NotFound

__all__ = ["LocalApis"]

_log = get_logger(__name__)

_PATH = "/apis/apiregistration.k8s.io/v1/apiservices"
_MANAGED = "kube-aggregator.kubernetes.io/automanaged"
_VERSION = "apiregistration.k8s.io/v1"
_CORE_PRIORITY, _CUSTOM_PRIORITY = 18000, 1000
_VERSION_PRIORITY = 100
_RETRY_SECONDS = 5.0


class LocalApis:
    """Keeps one APIService for each group and version that this server serves itself."""

    def __init__(self, catalogue: Catalogue, view: View, local: Local, clock: Clock) -> None:
        self._catalogue = catalogue
        self._view = view
        self._local = local
        self._clock = clock
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Write what is missing and delete what is no longer served, now and after each change, until cancelled."""
        self._changed.set()
        self._catalogue.changed.append(self._changed.set)
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self._settle()
                except ApiStatus as error:
                    _log.info("APIServices will be written again", error=error.message)
                    self._clock.call_later(_RETRY_SECONDS, self._changed.set)
        finally:
            self._catalogue.changed.remove(self._changed.set)

    async def _settle(self) -> None:
        wanted = {made["metadata"]["name"]: made for made in self._wanted()}
        for name, made in wanted.items():
            if self._view.get(API_SERVICES, "", name) is None:
                with contextlib.suppress(AlreadyExists):
                    await self._local.call("POST", _PATH, made)
        for found in list(self._view.list(API_SERVICES)):
            labels = found["metadata"].get("labels") or {}
            name = found["metadata"]["name"]
            if labels.get(_MANAGED) == "true" and name not in wanted:
                with contextlib.suppress(NotFound):
                    await self._local.call("DELETE", f"{_PATH}/{name}")

    def _wanted(self) -> list[Object]:
        registry = self._catalogue.registry
        found = []
        for group in registry.groups():
            versions = sorted(registry.versions(group), key=version_order)
            custom = all(each.custom for version in versions for each in registry.resources(group, version))
            priority = _CUSTOM_PRIORITY if custom else group_priority(group) if group else _CORE_PRIORITY
            for place, version in enumerate(versions):
                spec = {
                    "group": group,
                    "version": version,
                    "groupPriorityMinimum": priority,
                    "versionPriority": _VERSION_PRIORITY - place,
                }
                metadata = {"name": f"{version}.{group}", "labels": {_MANAGED: "true" if custom else "onstart"}}
                found.append({"apiVersion": _VERSION, "kind": "APIService", "metadata": metadata, "spec": spec})
        return found
