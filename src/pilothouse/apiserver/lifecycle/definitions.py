"""A deleted CustomResourceDefinition takes its objects with it before it goes."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from pilothouse.apiserver.ports import Local, Object
from pilothouse.foundation.clock import Clock
from pilothouse.kinds import conditions
from pilothouse.kinds.status import ApiStatus, ServiceUnavailable
from pilothouse.kinds.times import format_seconds

__all__ = ["CLEANUP", "clean_up"]

CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
_PATH: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_PAGE: Final = 500
_OVERLAPPING: Final = frozenset(
    {"apiservices.apiregistration.k8s.io", "customresourcedefinitions.apiextensions.k8s.io"}
)
"""Built-in resources that a definition could name; their objects are not its own."""


async def clean_up(definition: Object, local: Local, clock: Clock) -> None:
    """Delete the objects of a definition that is being deleted, then take its finalizer away. Does nothing to others.

    Raises ServiceUnavailable while objects are left that wait for finalizers: call it again after a while. Other
    refusals come as they are; the condition `Terminating` says what they were.
    """
    metadata = definition["metadata"]
    if not metadata.get("deletionTimestamp") or CLEANUP not in (metadata.get("finalizers") or ()):
        return
    found = await _terminating(
        definition, local, clock, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"
    )
    if metadata["name"] in _OVERLAPPING:
        said = ("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
    elif conditions.is_true((found.get("status") or {}).get("conditions"), "Established"):
        await _delete_instances(found, local, clock)
        said = ("InstanceDeletionCompleted", "removed all instances")
    else:
        said = ("NeverEstablished", "resource was never established")
    left = [name for name in found["metadata"].get("finalizers") or () if name != CLEANUP]
    done = {**found, "metadata": {**found["metadata"], "finalizers": left}}
    await _terminating(done, local, clock, "False", *said)


async def _delete_instances(definition: Object, local: Local, clock: Clock) -> None:
    name, path = definition["metadata"]["name"], _objects(definition)
    try:
        if path:
            await _delete_all(path, local)
            left = await local.call("GET", f"{path}?limit=1")
    except ApiStatus as error:
        why = f"could not issue all deletes: {error.message}"
        await _terminating(definition, local, clock, "True", "InstanceDeletionFailed", why)
        raise
    if path and left.get("items"):
        why = "could not confirm zero CustomResources remaining: timed out waiting for the condition"
        await _terminating(definition, local, clock, "True", "InstanceDeletionCheck", why)
        count = len(left["items"]) + int(left["metadata"].get("remainingItemCount") or 0)
        raise ServiceUnavailable(f'customresourcedefinition "{name}": {count} of its objects wait for their finalizers')


async def _delete_all(path: str, local: Local) -> None:
    token = ""
    while True:
        more = f"&continue={quote(token)}" if token else ""
        answer = await local.call("DELETE", f"{path}?limit={_PAGE}{more}")
        token = answer["metadata"].get("continue") or ""
        if not token:
            return


def _objects(definition: Object) -> str:
    """Return the path of all objects, in the version that is kept if it is served; empty where none is."""
    spec = definition["spec"]
    served = [each for each in spec["versions"] if each.get("served")]
    served.sort(key=lambda each: not each.get("storage"))
    plural = ((definition.get("status") or {}).get("acceptedNames") or {}).get("plural") or spec["names"]["plural"]
    return f"/apis/{spec['group']}/{served[0]['name']}/{plural}" if served else ""


async def _terminating(
    definition: Object, local: Local, clock: Clock, status: str, reason: str, message: str
) -> Object:
    """Write the condition, unless it says so already; return the definition as it is then."""
    old = (definition.get("status") or {}).get("conditions") or []
    known: Object = next((each for each in old if each.get("type") == "Terminating"), {})
    made = {"type": "Terminating", "status": status, "reason": reason, "message": message}
    if status == "True" and {name: known.get(name) for name in made} == made:
        return definition
    now = format_seconds(clock.now())
    made["lastTransitionTime"] = known.get("lastTransitionTime", now) if known.get("status") == status else now
    kept = [each for each in old if each.get("type") != "Terminating"]
    changed = {**definition, "status": {**(definition.get("status") or {}), "conditions": [*kept, made]}}
    return await local.call("PUT", f"{_PATH}/{definition['metadata']['name']}/status", changed)
