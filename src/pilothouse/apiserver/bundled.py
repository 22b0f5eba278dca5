"""Objects that come with the program: put into the store as they are, where they are missing, before it serves.

The file has an object a line, as this server made it once: with its defaults and its status, and valid. So nothing has
to be checked or compiled, which for definitions of custom resources would cost more than all else at a start. What has
none of its mark in the cluster is somebody's own and stays as it is; of what has, definitions are brought up to date.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.storing import ChangedError
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.times import format_seconds

if TYPE_CHECKING:
    from pilothouse.apiserver.rest.served import Served
    from pilothouse.apiserver.server import ApiServer

__all__ = ["MARK", "ensure_bundled"]

_log = get_logger(__name__)

MARK: Final = "pilothouse.dev/bundled"
"""The annotation of what came with the program; its value changes with the object."""
_DEFINITION: Final = "CustomResourceDefinition"


async def ensure_bundled(server: ApiServer, path: str) -> None:
    """Put in what is missing of a file's objects, and replace definitions of another program.

    An object of a kind that is not served, as somebody has defined it otherwise, is left out. Raises OSError and
    ApiStatus.
    """
    for line, wanted in _read(path):
        served = _served(server, wanted)
        if served is None:
            _log.warning(
                "what comes with the program is left out", kind=wanted["kind"], name=wanted["metadata"]["name"]
            )
            continue
        digest = hashlib.sha256(line).hexdigest()[:16]
        entry = served.cache.get(wanted["metadata"]["name"])
        try:
            if entry is None:
                await server.storage.create(served.cache, *_new(server, wanted, digest), served.stored_form)
            elif wanted["kind"] == _DEFINITION:
                before = entry.decoded()
                mark = (before["metadata"].get("annotations") or {}).get(MARK)
                if mark not in {None, digest} and not before["metadata"].get("deletionTimestamp"):
                    after = _replaced(before, wanted, digest)
                    await server.storage.replace(served.cache, entry, after, served.stored_form)
        except ChangedError:
            continue  # another server on the same store was first


def _read(path: str) -> Iterator[tuple[bytes, Object]]:
    with open(path, "rb") as file:
        for line in file:
            yield line, msgspec.json.decode(line)


def _served(server: ApiServer, wanted: Object) -> Served | None:
    group, _, version = wanted["apiVersion"].rpartition("/")
    resource = server.catalogue.registry.by_kind(group, version, wanted["kind"])
    return server.catalogue.served(*resource.key) if resource is not None else None


def _new(server: ApiServer, wanted: Object, digest: str) -> tuple[str, Object]:
    now = format_seconds(server.options.clock.now())
    own = {"uid": server.options.ids.uuid(), "creationTimestamp": now, "generation": 1}
    metadata = _marked({**wanted["metadata"], **own}, digest)
    made = {**wanted, "metadata": metadata}
    if conditions := (wanted.get("status") or {}).get("conditions"):
        made["status"] = {
            **wanted["status"],
            "conditions": [{**each, "lastTransitionTime": now} for each in conditions],
        }
    return metadata["name"], made


def _replaced(before: Object, wanted: Object, digest: str) -> Object:
    """Return a definition in the place of an older one; what is stored in older versions is still said."""
    kept = {name: value for name, value in before["metadata"].items() if name != "resourceVersion"}
    generation = kept.get("generation", 0) + (before["spec"] != wanted["spec"])
    merged = {
        name: {**(kept.get(name) or {}), **(wanted["metadata"].get(name) or {})} for name in ("labels", "annotations")
    }
    metadata = _marked({**kept, **{k: v for k, v in merged.items() if v}, "generation": generation}, digest)
    status = before.get("status") or {}
    stored = dict.fromkeys((*(status.get("storedVersions") or ()), *wanted["status"]["storedVersions"]))
    return {**wanted, "metadata": metadata, "status": {**status, "storedVersions": list(stored)}}


def _marked(metadata: Object, digest: str) -> Object:
    return {**metadata, "annotations": {**(metadata.get("annotations") or {}), MARK: digest}}
