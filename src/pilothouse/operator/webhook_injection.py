"""Keeps webhook configurations as they shall be, with the authorities that servers have to trust.

Every copy of the operator sees to it that what is missing is made and that the caBundle is right, as servers need it
before any copy leads. The rest of a configuration is kept right by the copy that leads, so that during an upgrade old
and new copies do not undo each other's work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pilothouse.client import Client
from pilothouse.client.informer import Informer
from pilothouse.client.patches import APPLY
from pilothouse.client.resources import mapping_of
from pilothouse.client.selecting import query
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, Conflict, Forbidden, Unauthorized
from pilothouse.kinds.structs import Resource, to_dict

from .webhook_configurations import covers

__all__ = ["Injector", "Target", "bundle_patch"]

_JSON_PATCH: Final = "application/json-patch+json"
_WRITES: Final = 5
_WRITES_SECONDS: Final = 60.0

_log = get_logger("pilothouse.operator.webhooks")


@dataclass(frozen=True, slots=True)
class Target:
    """An object that says where webhooks are.

    wanted: what it shall say, by the bundle. is_there_first: whether somebody else makes the object. informer: of it
    alone.
    """

    kind: type[Resource]
    name: str
    wanted: Callable[[bytes], dict[str, Any]]
    informer: Informer[Any]
    is_there_first: bool = False
    writes: deque[float] = field(default_factory=deque)

    def __str__(self) -> str:
        return f"{self.kind.gvk[2]} {self.name}"

    def present(self) -> dict[str, Any] | None:
        """Return the object as the cache has it, None without one."""
        found = self.informer.indexer.get(self.name)
        return None if found is None else to_dict(found)


def bundle_patch(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON patch that puts the bundle wanted where our webhooks are; empty if it is there already."""
    bundles = {name: config.get("caBundle") for name, config, _ in _places(wanted)}
    made = [
        {"op": "add", "path": f"{path}/caBundle", "value": bundles[name]}
        for name, config, path in _places(present)
        if bundles.get(name) and config.get("caBundle") != bundles[name]
    ]
    version = (present.get("metadata") or {}).get("resourceVersion")
    return [{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, *made] if made else []


def _places(obj: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """Return the client configurations of an object with their names and paths."""
    if "webhooks" in obj:
        return [
            (str(one.get("name")), one["clientConfig"], f"/webhooks/{index}/clientConfig")
            for index, one in enumerate(obj["webhooks"] or ())
            if one.get("clientConfig")
        ]
    conversion = (obj.get("spec") or {}).get("conversion") or {}
    config = (conversion.get("webhook") or {}).get("clientConfig")
    return [("conversion", config, "/spec/conversion/webhook/clientConfig")] if config else []


class Injector:
    """Writes configurations. leads: whether this copy keeps all of them right. field_manager: whose the fields are."""

    def __init__(
        self,
        client: Client,
        targets: Sequence[Target],
        *,
        field_manager: str,
        clock: Clock,
        leads: Callable[[], bool],
    ) -> None:
        self.targets: Final = targets
        self.writes = 0
        """Requests sent."""
        self._client = client
        self._manager = field_manager
        self._clock = clock
        self._leads = leads

    def is_injected(self, bundle: bytes) -> bool:
        """Whether servers know of webhooks here, and have this bundle wherever ours are, as far as caches know.

        What a leading copy of another version still has to write does not count, or an upgrade would wait for itself.
        """
        return all(self._has(target, bundle) for target in self.targets)

    @staticmethod
    def _has(target: Target, bundle: bytes) -> bool:
        present = target.present()
        return present is not None and bool(_places(present)) and not bundle_patch(present, target.wanted(bundle))

    async def sync(self, bundle: bytes) -> list[str]:
        """Write what is not as it shall be; return what cannot be made right now, with the way out."""
        problems = [await self._sync(target, bundle) for target in self.targets]
        return [problem for problem in problems if problem]

    async def _sync(self, target: Target, bundle: bytes) -> str:
        if not target.informer.has_synced:
            error = target.informer.core.last_error
            why = f"{error}; {_grant(target)}" if error else "not read yet"
            return f"{target}: {why}"
        present, wanted = target.present(), target.wanted(bundle)
        if present is None and target.is_there_first:
            return f"{target}: there is none; install the definition, then its conversion is set"
        if present is not None and covers(present, wanted):
            return ""
        patch = None
        if present is not None and _places(present) and not self._leads():
            patch = bundle_patch(present, wanted)
            if not patch:
                return ""
        if self._is_contested(target):
            return f"{target}: it is changed again and again; see in its managedFields who else writes it"
        return await self._write(target, wanted, patch)

    def _is_contested(self, target: Target) -> bool:
        now, writes = self._clock.monotonic(), target.writes
        while writes and writes[0] <= now - _WRITES_SECONDS:
            writes.popleft()
        if len(writes) >= _WRITES:
            return True
        writes.append(now)
        return False

    async def _write(self, target: Target, wanted: dict[str, Any], patch: list[dict[str, Any]] | None) -> str:
        path = mapping_of(target.kind).item(target.name, "")
        manager = self._manager
        try:
            if patch is None:
                body = msgspec.json.encode(wanted)
                options = query(fieldManager=manager, force=True)
                await self._client.request("PATCH", path + options, body, content_type=APPLY)
            else:
                body, options = msgspec.json.encode(patch), query(fieldManager=manager)
                await self._client.request("PATCH", path + options, body, content_type=_JSON_PATCH)
        except Conflict:
            return f"{target}: it changed meanwhile"
        except (Forbidden, Unauthorized) as error:
            return f"{target}: {error.message}; {_grant(target)}"
        except ApiStatus as error:
            return f"{target}: {error.message}"
        self.writes += 1
        _log.info("webhook configuration written", object=str(target), what="all" if patch is None else "caBundle")
        return ""


def _grant(target: Target) -> str:
    verbs = "get, list, watch and patch" if target.is_there_first else "get, list, watch, create and patch"
    return f"grant {verbs} of {target.kind.plural} to the operator, or say configure=False"
