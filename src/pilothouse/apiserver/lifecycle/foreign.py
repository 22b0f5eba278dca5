"""What a namespace holds in APIs of other servers: deleted and counted through the proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from pilothouse.apiserver.discovery import AggregatedVersion
from pilothouse.apiserver.http.inprocess import InProcessTransport
from pilothouse.apiserver.lifecycle.calls import controller_user, delete_options
from pilothouse.apiserver.lifecycle.emptying import FINALIZER_SECONDS, Emptying
from pilothouse.apiserver.model import Handler
from pilothouse.apiserver.ports import Object, View
from pilothouse.kinds.status import ApiStatus, MethodNotAllowed, NotFound, from_dict

__all__ = ["ForeignContent"]

_SERVICES: Final = "apiservices.apiregistration.k8s.io"
_REFUSED: Final = 300
_PAGE: Final = 500
"""Objects listed at a time: more than that are counted and deleted in the next look."""
_HEADERS: Final = (("accept", "application/json"), ("user-agent", "kube-controller-manager"))


class ForeignContent:
    """Empties namespaces in the APIs that other servers serve. versions: those APIs as discovery knows them now."""

    def __init__(self, view: View, handler: Handler, versions: Callable[[], Sequence[AggregatedVersion]]) -> None:
        self._view = view
        self._transport = InProcessTransport(handler)
        self._versions = versions
        self._user = controller_user("namespace-controller")

    def undiscovered(self) -> list[str]:
        """Return group/version of the APIs that do not answer: what they hold cannot be known."""
        answering = (each for each in self._versions() if each.available and each.resources is not None)
        known = {(each.group, each.version) for each in answering}
        specs = [service.get("spec") or {} for service in self._view.list(_SERVICES)]
        wanted = [(spec.get("group") or "", spec.get("version") or "") for spec in specs if spec.get("service")]
        return [f"{group}/{version}" for group, version in wanted if (group, version) not in known]

    async def empty(self, namespace: str, found: Emptying) -> None:
        """Delete what a namespace holds there, and note what is left of it."""
        preferred: dict[str, AggregatedVersion] = {}
        for each in sorted(self._versions(), key=lambda each: -each.version_priority):
            if each.available and each.resources:
                preferred.setdefault(each.group, each)
        for each in preferred.values():
            for resource in each.resources or ():
                if resource.get("scope") == "Namespaced" and {"delete", "list"}.issubset(resource.get("verbs") or ()):
                    await self._empty_of(each, resource, namespace, found)

    async def _empty_of(self, api: AggregatedVersion, resource: Object, namespace: str, found: Emptying) -> None:
        plural = resource["resource"]
        path = f"/apis/{api.group}/{api.version}/namespaces/{quote(namespace)}/{plural}"
        try:
            if "deletecollection" in resource["verbs"]:
                await self._call("DELETE", path, delete_options("Background"))
            else:
                await self._delete_each(path)
            left = (await self._call("GET", f"{path}?limit={_PAGE}")).get("items") or []
        except (MethodNotAllowed, NotFound):
            return
        except ApiStatus as error:
            found.failures.append(error.message)
            return
        if not left:
            return
        held = [name for each in left for name in (each.get("metadata") or {}).get("finalizers") or ()]
        found.remaining[plural, api.group] += len(left)
        found.finalizers.update(held)
        found.seconds = max(found.seconds, FINALIZER_SECONDS if held else 0.0)
        if not held:
            gvr = f"{api.group}/{api.version}, Resource={plural}"
            found.failures.append(f"unexpected items still remain in namespace: {namespace} for gvr: {gvr}")

    async def _delete_each(self, path: str) -> None:
        for each in (await self._call("GET", f"{path}?limit={_PAGE}")).get("items") or []:
            try:
                name = quote(each["metadata"]["name"], safe="")
                await self._call("DELETE", f"{path}/{name}", delete_options("Background"))
            except NotFound:
                continue

    async def _call(self, method: str, path: str, body: Object | None = None) -> dict[str, Any]:
        """Send one request and return its decoded answer. Raises ApiStatus, also for what is no JSON object."""
        data = msgspec.json.encode(body) if body is not None else b""
        headers = (*_HEADERS, ("content-type", "application/json")) if data else _HEADERS
        answer = await self._transport.request(method, path, headers, data, self._user)
        try:
            decoded = msgspec.json.decode(await answer.read(), type=dict)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            decoded = {"message": f"{method} {path}: the answer, {answer.status}, is no JSON object"}
            raise from_dict(decoded, code=max(answer.status, 500)) from None
        if answer.status >= _REFUSED:
            raise from_dict(decoded, code=answer.status)
        return decoded
