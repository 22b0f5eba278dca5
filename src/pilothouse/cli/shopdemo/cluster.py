"""What the demo asks the platform about the shop: its application, its rollout, its judgement and its address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.foundation.terminal import CommandError
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists

__all__ = ["REJECTED", "Object", "ShopCluster", "step_said"]

Object = dict[str, Any]
REJECTED: Final = "pilothouse.dev/rejected-revisions"
"""An annotation of the Application: which commits are not applied any more."""
_ARGO: Final = "argoproj.io/v1alpha1"
_OWN: Final = "pilothouse.dev/v1alpha1"
_REGIONS: Final = "pilothouse.dev/regions"
_CONTROL: Final = "argocd"
_NAMESPACE: Final = "shop"
_MAX_WARNINGS: Final = 5
_ALL: Final = 100


class ShopCluster:
    """The shop on a cluster. What is waited for is said by a CommandError if it does not come in time."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def deliver(self, application: Object) -> None:
        """Have the platform keep what a repository says."""
        namespaces = self._client.dynamic("v1", "Namespace")
        with contextlib.suppress(AlreadyExists):
            await namespaces.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _CONTROL}})
        await self._client.dynamic(_ARGO, "Application").apply(application, field_manager="pilothouse-demo", force=True)

    async def allow_reverts(self, url: str) -> None:
        """Have a repository's bad commits reverted in it."""
        data = {"type": "git", "url": url, "pilothouseRevert": "commit"}
        labels = {"argocd.argoproj.io/secret-type": "repository"}
        metadata = {"name": "shop-repository", "labels": labels}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
        await self._client.dynamic("v1", "Secret").apply(secret, _CONTROL, field_manager="pilothouse-demo", force=True)

    async def incident(self, true: Callable[[Object], bool], what: str, seconds: float) -> Object:
        """Wait until something is so of an incident; return it."""
        return await self._until(self.changes(_OWN, "Incident", _NAMESPACE), true, what, seconds)

    async def refresh(self) -> None:
        """Have the repository looked at now, as a webhook of its server would."""
        asked = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}
        await self._client.dynamic(_ARGO, "Application").patch("shop", asked, _CONTROL)

    async def application(self, true: Callable[[Object], bool], what: str, seconds: float) -> Object:
        """Wait until something is so of the application; return it."""
        return await self._until(self.changes(_ARGO, "Application", _CONTROL, "shop"), true, what, seconds)

    async def rollout(self, true: Callable[[Object], bool], what: str, seconds: float) -> Object:
        """Wait until something is so of the rollout; return it. `true` sees each change that is seen."""
        return await self._until(self.changes(_ARGO, "Rollout", _NAMESPACE, "front"), true, what, seconds)

    async def url(self, seconds: float) -> str:
        """Wait until the gateway is programmed; return where it is."""

        def programmed(gateway: Object) -> bool:
            found = gateway.get("status", {})
            is_there = any(each["type"] == "Programmed" and each["status"] == "True" for each in found["conditions"])
            return is_there and bool(found.get("addresses"))

        changes = self.changes("gateway.networking.k8s.io/v1", "Gateway", _NAMESPACE, "shop")
        gateway = await self._until(changes, programmed, "the gateway to be programmed", seconds)
        return f"http://{gateway['status']['addresses'][0]['value']}:{gateway['spec']['listeners'][0]['port']}"

    async def verdict(self, since: datetime) -> tuple[datetime, str]:
        """Return when the judge last spoke against a version, and what it said; now and nothing where it did not.

        since: when that version was committed.
        """
        runs = await self._client.dynamic(_ARGO, "AnalysisRun").list_all(_NAMESPACE)
        metrics = [metric for run in runs for metric in run.get("status", {}).get("metricResults", ())]
        failed = [
            (times.parse(each["finishedAt"]), str(each.get("message", "")))
            for metric in metrics
            for each in metric.get("measurements", ())
            if each["phase"] == "Failed" and each.get("finishedAt")
        ]
        return max((each for each in failed if each[0] >= since), default=(datetime.now(UTC), ""))

    async def changes(
        self, api_version: str, kind: str, namespace: str, name: str = ""
    ) -> AsyncGenerator[Object, None]:
        """Give an object as it is now, and at each change; without a name all objects of a namespace."""
        of, fields = self._client.dynamic(api_version, kind), f"metadata.name={name}" if name else ""
        async with aclosing(of.pages(namespace, fields=fields, limit=0)) as pages:
            page = await anext(pages)
        for each in page.items:
            yield each
        since = page.metadata.resource_version
        async with aclosing(of.watch(namespace, fields=fields, since=since, resume=True)) as events:
            async for event in events:
                if event.type != "DELETED":
                    yield event.object

    async def _until(
        self, changes: AsyncGenerator[Object, None], true: Callable[[Object], bool], what: str, seconds: float
    ) -> Object:
        last: Object = {}
        try:
            async with asyncio.timeout(seconds), aclosing(changes) as objects:
                async for last in objects:
                    if last.get("status") and true(last):
                        return last
        except TimeoutError:
            hint = "\n".join([*_told(last), *await self._warnings()]) or "nothing is known of it"
            raise CommandError(f"waited {seconds:g} s for {what}, in vain", hint=hint) from None
        raise CommandError(f"the server stopped telling of {what}")

    async def _warnings(self) -> list[str]:
        events = await self._client.dynamic("v1", "Event").list_all(_NAMESPACE)
        warnings = [each for each in events if each.get("type") == "Warning"]
        warnings.sort(key=lambda each: each.get("lastTimestamp") or "")
        return [f"{each['involvedObject']['name']}: {each['message']}" for each in warnings[-_MAX_WARNINGS:]]


def _told(obj: Object) -> list[str]:
    """Return what an application or a rollout says of itself."""
    status = obj.get("status", {})
    found = [status.get("message"), status.get("operationState", {}).get("message")]
    found += [each.get("message") for each in status.get("conditions", ()) if each.get("status", "True") != "True"]
    health, sync = status.get("health", {}), status.get("sync", {})
    if health or sync:
        found.append(f"{sync.get('status', '')}, {health.get('status', '')} {health.get('message', '')}".strip())
    for each in status.get("resources", ()):
        if (each.get("health") or {}).get("status", "Healthy") != "Healthy" or each.get("status") == "OutOfSync":
            found.append(f"{each['kind']} {each['name']}: {each.get('status', '')} {each.get('health') or ''}")
    return [each for each in found if each]


def step_said(step: Object) -> str:
    """Return what a step of a rollout does to traffic, in words; empty where it does nothing to it."""
    if "setWeight" in step:
        return f"{step['setWeight']} % of all"
    plugin = step.get("plugin") or {}
    if plugin.get("name") != _REGIONS:
        return ""
    regions, weight = plugin["config"]["regions"], plugin["config"]["weight"]
    where = "all regions" if "*" in regions else ", ".join(regions)
    if weight == _ALL:
        return where if "*" in regions else f"all of {where}"
    return f"{weight} % of {where}"
