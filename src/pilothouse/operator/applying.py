"""Server-side apply that asks the server only where something would change.

What was applied last is remembered with what the server made of it. As long as the same is wanted and the object in
the cache still looks as the server left it, status and version aside, there is nothing to do. After a restart each
object is applied once, which changes nothing on the server.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pilothouse.client import Client
from pilothouse.client.patches import APPLY
from pilothouse.client.resources import mapping_of
from pilothouse.client.selecting import query
from pilothouse.kinds.structs import Resource, decode, encode, to_dict

__all__ = ["Applier"]

R = TypeVar("R", bound=Resource)

_MAX_REMEMBERED: Final = 100_000
_encoder: Final = msgspec.json.Encoder(order="sorted")


class _Applied(NamedTuple):
    wanted: bytes
    left: bytes


class Applier:
    """Writes objects by server-side apply as one field manager.

    force: whether it takes over fields that others own, as controllers should. max_remembered: objects whose last
    apply is remembered; beyond, the one applied longest ago is applied again.
    """

    def __init__(
        self, client: Client, field_manager: str, *, force: bool = True, max_remembered: int = _MAX_REMEMBERED
    ) -> None:
        self.applied = 0
        """Requests sent."""
        self.skipped = 0
        """Applies that would have changed nothing."""
        self.field_manager: Final = field_manager
        self._client = client
        self._force = force
        self._max = max_remembered
        self._last: OrderedDict[tuple[Any, ...], _Applied] = OrderedDict()

    async def apply(self, wanted: R, live: R | None = None) -> R:
        """Make an object's fields those that are set; return it as it is then.

        live: as the cache has it; without one the server is asked each time. Raises ApiStatus and OSError.
        """
        key, digest = self._key(wanted, ""), _digest(encode(wanted))
        known = self._last.get(key)
        if live is not None and known is not None and known == (digest, _fingerprint(live, self.field_manager)):
            self.skipped += 1
            return live
        handle = self._client.of(type(wanted))
        made = await handle.apply(wanted, force=self._force, field_manager=self.field_manager)
        self._remember(key, _Applied(digest, _fingerprint(made, self.field_manager)))
        return made

    async def apply_status(self, obj: R, status: dict[str, Any]) -> R:
        """Make an object's status these fields, by its subresource; return the object as it is then.

        Asks the server only where the status of `obj` lacks something of it, or something that was applied before is
        left out. Raises ApiStatus and OSError.
        """
        wanted = _status_of(obj, status)
        key, digest = self._key(obj, "status"), _digest(_encoder.encode(status))
        known = self._last.get(key)
        if _covers(to_dict(obj).get("status"), status) and (known is None or known.wanted == digest):
            self.skipped += 1
            return obj
        # Not as a struct: those of a kind may have fields that are required, and a status alone has none of them.
        target = mapping_of(type(obj)).item(obj.metadata.name, obj.metadata.namespace, "status")
        target += query(fieldManager=self.field_manager, force=self._force)
        made = await self._client.request("PATCH", target, _encoder.encode(wanted), content_type=APPLY)
        self._remember(key, _Applied(digest, b""))
        return decode(made, type(obj))

    def forget(self, obj: Resource) -> None:
        """Forget what was applied to an object, such as one that was deleted."""
        for part in ("", "status"):
            self._last.pop(self._key(obj, part), None)

    @staticmethod
    def _key(obj: Resource, part: str) -> tuple[Any, ...]:
        return type(obj).gvk, obj.metadata.namespace, obj.metadata.name, part

    def _remember(self, key: tuple[Any, ...], applied: _Applied) -> None:
        self.applied += 1
        self._last[key] = applied
        self._last.move_to_end(key)
        if len(self._last) > self._max:
            self._last.popitem(last=False)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _fingerprint(obj: Resource, field_manager: str) -> bytes:
    """Return a digest of all that an apply may change: not of the status, versions, and what others own."""
    tree = to_dict(obj)
    tree.pop("status", None)
    metadata = tree["metadata"]
    metadata.pop("resourceVersion", None)
    metadata.pop("generation", None)
    entries = metadata.pop("managedFields", ())
    own = [
        entry.get("fieldsV1")
        for entry in entries
        if entry.get("manager") == field_manager and entry.get("operation") == "Apply" and not entry.get("subresource")
    ]
    return _digest(_encoder.encode([tree, own]))


def _status_of(obj: Resource, status: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": obj.metadata.name}
    if obj.metadata.namespace:
        metadata["namespace"] = obj.metadata.namespace
    return {"apiVersion": str(obj.api_version), "kind": str(obj.kind), "metadata": metadata, "status": status}


def _covers(present: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; what is beyond may be others'."""
    if isinstance(wanted, dict):
        return isinstance(present, dict) and all(_covers(present.get(name), each) for name, each in wanted.items())
    if isinstance(wanted, list) and isinstance(present, list):
        return len(wanted) == len(present) and all(map(_covers, present, wanted))
    return bool(present == wanted)
