"""Install definitions of custom resources and wait until the server serves them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.client.deadline import within
from pilothouse.client.errors import UnknownKind
from pilothouse.client.resourceclient import ResourceClient
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds import conditions
from pilothouse.kinds.status import Forbidden, NotFound, TooManyRequests

from .errors import OperatorError

__all__ = ["install"]

_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 0.1


async def install(
    client: Client, *definitions: Mapping[str, Any], seconds: float = _SECONDS, clock: Clock | None = None
) -> None:
    """Apply CustomResourceDefinitions, as `definition` makes them, and wait until their objects are served.

    For tests, examples and operators that may do so; elsewhere whoever installs the operator applies them. Raises
    OperatorError where a name is taken or it takes longer than `seconds`; ApiStatus for what the server refuses.
    """
    handle = client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    for wanted in definitions:
        name = wanted["metadata"]["name"]
        made = await handle.apply(dict(wanted), force=True)
        ticking = clock or SystemClock()
        try:
            async with within(ticking, seconds, f"definition {name}"):
                if not _is_established(made):
                    await _until_established(handle, name)
                await _until_served(client, wanted, ticking)
        except TimeoutError:
            raise OperatorError(f"definition {name}: not established within {seconds:g} s; see its status") from None


async def _until_established(handle: ResourceClient[dict[str, Any]], name: str) -> None:
    async with aclosing(handle.watch(fields={"metadata.name": name}, resume=True)) as events:
        async for event in events:
            if _is_established(event.object):
                return


async def _until_served(client: Client, wanted: Mapping[str, Any], clock: Clock) -> None:
    """Wait until objects can be listed: for a moment after it is established, kube-apiserver says 404, then 429."""
    spec = wanted["spec"]
    for version in spec["versions"]:
        while version["served"]:
            objects = client.dynamic(f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            try:
                async with aclosing(objects.list("*", limit=1)) as listed:
                    await anext(listed, None)
                break
            except Forbidden:
                break  # who may define a kind need not be allowed to read it
            except (NotFound, TooManyRequests, UnknownKind):
                await clock.sleep(_AGAIN_SECONDS)


def _is_established(found: Mapping[str, Any]) -> bool:
    listed = found.get("status", {}).get("conditions")
    if conditions.is_false(listed, "NamesAccepted"):
        refused = conditions.find(listed, "NamesAccepted") or {}
        raise OperatorError(f"definition {found['metadata']['name']}: {refused.get('message')}; choose other names")
    return conditions.is_true(listed, "Established")
