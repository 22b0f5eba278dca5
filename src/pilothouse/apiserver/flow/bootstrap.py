"""Creates the default flow schemas and priority levels."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.flow.defaults import AUTO_UPDATE, FLOW_SCHEMAS, MANDATORY, PRIORITY_LEVELS
from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.kinds.status import AlreadyExists, Conflict, NotFound

__all__ = ["ensure_defaults"]

_PATH = "/apis/flowcontrol.apiserver.k8s.io/v1"
_GROUP = "flowcontrol.apiserver.k8s.io"


async def ensure_defaults(local: Local, view: View) -> int:
    """Create the default objects that are missing and renew those that the server keeps; return how many it wrote.

    An object is renewed if its spec differs and it is mandatory, its annotation `apf.kubernetes.io/autoupdate-spec`
    is `true`, or it lacks the annotation and was never changed. One that somebody changes meanwhile is left alone.
    """
    written = 0
    for resource, objects in (("prioritylevelconfigurations", PRIORITY_LEVELS), ("flowschemas", FLOW_SCHEMAS)):
        for wanted in objects:
            current = view.get(f"{resource}.{_GROUP}", "", wanted["metadata"]["name"])
            written += await _ensure(local, f"{_PATH}/{resource}", wanted, current)
    return written


async def _ensure(local: Local, path: str, wanted: Object, current: Object | None) -> bool:
    name = wanted["metadata"]["name"]
    try:
        if current is None:
            await local.call("POST", path, wanted)
            return True
        if not _ours(name, current) or _contains(current.get("spec"), wanted["spec"]):
            return False
        metadata = dict(current["metadata"])
        metadata["annotations"] = {**(metadata.get("annotations") or {}), AUTO_UPDATE: "true"}
        await local.call("PUT", f"{path}/{name}", {**current, "metadata": metadata, "spec": wanted["spec"]})
    except (AlreadyExists, Conflict, NotFound):
        return False
    return True


def _ours(name: str, current: Object) -> bool:
    metadata: Object = current.get("metadata") or {}
    told = (metadata.get("annotations") or {}).get(AUTO_UPDATE)
    if name in MANDATORY:
        return True
    return told == "true" if told is not None else metadata.get("generation") == 1


def _contains(found: Any, wanted: Any) -> bool:
    """Whether what is there says what is wanted; fields that defaults added do not count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(_contains(have, want) for have, want in zip(found, wanted, strict=True))
    return bool(found == wanted)
