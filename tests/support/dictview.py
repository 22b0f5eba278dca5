"""A view of objects that a test puts there itself, and a local API over it that only keeps what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from typing import Any

from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Attributes, Decision, Object, Operation
from pilothouse.kinds import status
from pilothouse.kinds.registry import builtin

Changed = Callable[[Object | None, Object | None], None]

ADMIN = User("admin", groups=("system:masters", "system:authenticated"))


class DictView:
    """Implements `ports.View` over a dictionary; `put` and `drop` are what the store would do."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._versions: dict[str, int] = {}
        self._watchers: dict[str, list[Changed]] = {}

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def list(self, resource: str, namespace: str = "") -> Sequence[Object]:
        found = self._objects.get(resource, {})
        return [one for (place, _), one in sorted(found.items()) if not namespace or place == namespace]

    def version(self, resource: str) -> int:
        return self._versions.get(resource, 0)

    def subscribe(self, resource: str, changed: Changed) -> Callable[[], None]:
        watchers = self._watchers.setdefault(resource, [])
        watchers.append(changed)
        return lambda: watchers.remove(changed)

    def notify(self, resource: str, changed: Callable[[str, str], None]) -> Callable[[], None]:
        def told(old: Object | None, new: Object | None) -> None:
            metadata = (new or old or {})["metadata"]
            changed(metadata.get("namespace", ""), metadata["name"])

        return self.subscribe(resource, told)

    def put(self, resource: str, item: Object) -> Object:
        """Keep an object, with the next resource version."""
        metadata = item.setdefault("metadata", {})
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self._objects.setdefault(resource, {}).get(key)
        self._versions[resource] = self.version(resource) + 1
        metadata["resourceVersion"] = str(sum(self._versions.values()))
        metadata.setdefault("uid", f"uid-{resource}-{key[0]}-{key[1]}")
        self._objects[resource][key] = item
        for watcher in list(self._watchers.get(resource, ())):
            watcher(old, item)
        return item

    def drop(self, resource: str, namespace: str, name: str) -> None:
        """Forget an object."""
        old = self._objects[resource].pop((namespace, name))
        self._versions[resource] = self.version(resource) + 1
        for watcher in list(self._watchers.get(resource, ())):
            watcher(old, None)

    def namespace(self, name: str, labels: dict[str, str] | None = None, phase: str = "Active") -> Object:
        """Put a namespace."""
        meta: Object = {"name": name, "labels": labels or {}}
        return self.put(
            "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta, "status": {"phase": phase}}
        )


class DictLocal:
    """Implements `ports.Local` for status updates and reads of quotas, with conflicts where a test wants them."""

    def __init__(self, view: DictView) -> None:
        self.view = view
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[], Awaitable[None]] | None = None
        self.conflicts = 0
        self.lag = False
        self.stored: dict[str, Object] = {}

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        self.calls.append((method, path))
        if self.before is not None:
            await self.before()
        parts = path.removesuffix("/status").split("/")
        namespace, resource, name = parts[4], parts[5], parts[6]
        found = self.stored.get(name) or self.view.get(resource, namespace, name)
        if found is None:
            raise status.not_found("", resource, name)
        if method == "GET":
            return deepcopy(found)
        assert body is not None
        if self.conflicts:
            self.conflicts -= 1
            raise status.conflict("", resource, name)
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise status.conflict("", resource, name)
        kept = deepcopy(body)
        if self.lag:
            kept["metadata"]["resourceVersion"] = str(int(kept["metadata"]["resourceVersion"]) + 1)
            self.stored[name] = kept
            return deepcopy(kept)
        return deepcopy(self.view.put(resource, kept))


class Rules:
    """Implements `ports.Authorizer` over a set of (user, verb, resource, name); keeps what it was asked."""

    def __init__(self, *allowed: tuple[str, str, str, str]) -> None:
        self.allowed = set(allowed)
        self.asked: list[Attributes] = []

    def authorize(self, attributes: Attributes) -> Decision:
        self.asked.append(attributes)
        key = (attributes.user.name, attributes.verb, attributes.resource, attributes.name)
        return Decision(key in self.allowed, "" if key in self.allowed else "no rule")


class Told:
    """What a request's warnings and audit annotations were."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.annotations: dict[str, str] = {}

    def annotate(self, name: str, text: str) -> None:
        self.annotations[name] = text


def write(
    operation: Operation,
    resource: str,
    item: Object | None,
    *,
    old: Object | None = None,
    subresource: str = "",
    user: User = ADMIN,
    told: Told | None = None,
    dry_run: bool = False,
    **more: Any,
) -> AdmissionRequest:
    """Make a request of admission for a built-in resource, by its full name."""
    found = next(one for one in builtin() if one.full_name == resource and one.storage)
    shown = item or old or {}
    metadata = shown.get("metadata") or {}
    namespaced = found.namespaced
    name = metadata.get("name", "")
    return AdmissionRequest(
        operation,
        found.gvk,
        found.key,
        subresource,
        metadata.get("namespace", "") if namespaced else name if resource == "namespaces" else "",
        name,
        item,
        old,
        more.pop("options", {}),
        dry_run,
        user,
        namespaced,
        told.warnings.append if told else _ignore,
        told.annotate if told else _ignore,
        **more,
    )


def _ignore(*texts: str) -> None:
    """Hear nothing."""
