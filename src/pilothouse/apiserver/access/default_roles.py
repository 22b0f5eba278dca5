"""The roles and bindings that Kubernetes has from its first start, and how they are kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal, TypeAlias

from pilothouse.apiserver.access.aggregation import aggregated
from pilothouse.apiserver.access.rbac import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, ROLE_BINDINGS, ROLES
from pilothouse.apiserver.access.rules import PolicyRule, covers
from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.kinds.status import AlreadyExists, Conflict, NotFound

__all__ = ["AUTOUPDATE", "Change", "changes", "default_objects", "reconcile"]

AUTOUPDATE: Final = "rbac.authorization.kubernetes.io/autoupdate"
"""The annotation that, set to `false`, keeps a default role or binding as it is."""

_LABELS: Final = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE: Final = "rbac.authorization.k8s.io/aggregate-to-"
_CONTROLLER: Final = "system:controller:"
_SYSTEM: Final = "kube-system"
_AT_ONCE: Final = 32
"""Writes under way at once, so that the store can join them."""
_VERBS: Final = {
    "read": ("get", "list", "watch"),
    "write": ("create", "delete", "deletecollection", "patch", "update"),
    "all": ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"),
}
_EVENTS: Final = ("create", "patch", "update")
_SUBJECTS: Final = {"u": "User", "g": "Group"}

Lookup: TypeAlias = Callable[[str, str, str], Object | None]
"""Finds an object by resource, namespace and name."""


def default_objects(*, platform: bool = False) -> list[tuple[str, Object]]:
    """Return the default roles and bindings with their resources, roles first.

    platform: with those for the platform's own processes, the nodes that join it and what those ask for.
    """
    roles, bindings = _parsed("default_roles.txt")
    if platform:
        more, bound = _parsed("platform_roles.txt")
        # those who wait for the server's answers are let in by the last bindings, when they have all others
        roles, bindings = roles + more, bound + bindings
    return roles + bindings


def _parsed(name: str) -> tuple[list[tuple[str, Object]], list[tuple[str, Object]]]:
    text = resources.files(__package__).joinpath(f"data/{name}").read_text(encoding="utf-8")
    found: list[tuple[str, Object]] = []
    bindings: list[tuple[str, Object]] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("  "):
            found[-1][1].setdefault("rules", []).append(_rule(line.strip()))
            continue
        kind, name, *rest = line.split()
        if kind == "controller":
            bindings.append((CLUSTER_ROLE_BINDINGS, _binding(_CONTROLLER + name, [f"s:{name}"])))
            found.append((CLUSTER_ROLES, _role(_CONTROLLER + name, rest)))
        elif kind in {"clusterrole", "role"}:
            found.append((CLUSTER_ROLES if kind == "clusterrole" else ROLES, _role(name, rest)))
        else:
            resource = CLUSTER_ROLE_BINDINGS if kind == "clusterbinding" else ROLE_BINDINGS
            bindings.append((resource, _binding(name, rest)))
    return found, bindings


def _rule(text: str) -> PolicyRule:
    if text == "events":
        return {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": list(_EVENTS)}
    words = [part.split() for part in text.split("|")]
    verbs = sorted({verb for word in words[0] for verb in _VERBS.get(word, (word,))})
    if len(words) == 2:
        return {"nonResourceURLs": words[1], "verbs": verbs}
    groups = ["" if group == "core" else group for group in words[1]]
    names = {"resourceNames": words[3]} if len(words) > 3 else {}
    return {"apiGroups": groups, **names, "resources": words[2], "verbs": verbs}


def _metadata(name: str, words: Sequence[str]) -> Object:
    labels = dict(_LABELS)
    metadata: Object = {"name": name}
    for word in words:
        if word.startswith("+"):
            labels[_AGGREGATE + word[1:]] = "true"
        elif word.startswith("@"):
            metadata["namespace"] = word[1:]
    return {**metadata, "labels": labels, "annotations": {AUTOUPDATE: "true"}}


def _role(name: str, words: Sequence[str]) -> Object:
    metadata = _metadata(name, words)
    kind = "Role" if "namespace" in metadata else "ClusterRole"
    made: Object = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata}
    gathered = [word[1:] for word in words if word.startswith("*")]
    if gathered:
        selectors = [{"matchLabels": {_AGGREGATE + word: "true"}} for word in gathered]
        made["aggregationRule"] = {"clusterRoleSelectors": selectors}
    return made


def _binding(name: str, words: Sequence[str]) -> Object:
    metadata = _metadata(name, words)
    local = "namespace" in metadata
    role = next((word[1:] for word in words if word.startswith("=")), name)
    made: Object = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding" if local else "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "Role" if local else "ClusterRole", "name": role},
    }
    subjects = [_subject(*word.split(":", 1)) for word in words if word[1:2] == ":"]
    return {**made, "subjects": subjects} if subjects else made


def _subject(kind: str, name: str) -> Object:
    if kind == "s":
        return {"kind": "ServiceAccount", "name": name, "namespace": _SYSTEM}
    return {"apiGroup": GROUP, "kind": _SUBJECTS[kind], "name": name}


@dataclass(frozen=True, slots=True)
class Change:
    """A write that brings a default role or binding up to date. `replace`: delete first, since a role stays bound."""

    action: Literal["create", "update", "replace"]
    resource: str
    object: Object

    @property
    def collection(self) -> str:
        """The path to create it at."""
        namespace = self.object["metadata"].get("namespace")
        scope = f"namespaces/{namespace}/" if namespace else ""
        return f"/apis/{GROUP}/v1/{scope}{self.resource.partition('.')[0]}"

    @property
    def path(self) -> str:
        """The object's own path."""
        return f"{self.collection}/{self.object['metadata']['name']}"


def changes(existing: Lookup, *, platform: bool = False) -> Iterator[Change]:
    """Say what is to be written: what is missing, and rules and subjects that were lost.

    What was added to the defaults stays, and so does all of an object annotated `AUTOUPDATE: false`. Roles that gather
    others are made with what they gather of the defaults, so that they are of use from the first moment on.
    """
    for resource, wanted in _gathered(default_objects(platform=platform)):
        metadata = wanted["metadata"]
        found = existing(resource, metadata.get("namespace") or "", metadata["name"])
        if found is None:
            yield Change("create", resource, wanted)
        elif (found["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
            continue
        elif wanted.get("roleRef") != found.get("roleRef"):
            yield Change("replace", resource, wanted)
        else:
            merged = _merged(found, wanted)
            if merged != found:
                yield Change("update", resource, merged)


def _gathered(objects: list[tuple[str, Object]]) -> list[tuple[str, Object]]:
    roles = [obj for resource, obj in objects if resource == CLUSTER_ROLES]
    while wanting := list(aggregated(roles)):
        filled = {role["metadata"]["name"]: role for role in wanting}
        roles = [filled.get(role["metadata"]["name"], role) for role in roles]
    by_name = {role["metadata"]["name"]: role for role in roles}
    return [
        (resource, by_name[obj["metadata"]["name"]] if resource == CLUSTER_ROLES else obj) for resource, obj in objects
    ]


def _merged(found: Object, wanted: Object) -> Object:
    metadata = dict(found["metadata"])
    for field in ("labels", "annotations"):
        metadata[field] = {**wanted["metadata"][field], **(metadata.get(field) or {})}
    merged = {**found, "metadata": metadata}
    if "aggregationRule" in wanted:
        merged["aggregationRule"] = _gathering(found.get("aggregationRule"), wanted["aggregationRule"])
    elif (found.get("rules") or []) == (wanted.get("rules") or []):
        pass  # as almost always at a restart, which waits for this
    elif missing := covers(found.get("rules") or (), wanted.get("rules") or ()):
        merged["rules"] = [*(found.get("rules") or ()), *missing]
    held = found.get("subjects") or []
    if lost := [subject for subject in wanted.get("subjects") or () if not _named(subject, held)]:
        merged["subjects"] = [*held, *lost]
    return merged


def _gathering(found: Object | None, wanted: Object) -> Object:
    held = (found or {}).get("clusterRoleSelectors") or []
    lost = [selector for selector in wanted["clusterRoleSelectors"] if selector not in held]
    return {**(found or {}), "clusterRoleSelectors": [*held, *lost]} if lost or found is None else found


def _named(subject: Object, subjects: Sequence[Object]) -> bool:
    fields = ("kind", "name", "namespace")
    return any(all((one.get(field) or "") == (subject.get(field) or "") for field in fields) for one in subjects)


async def reconcile(view: View, local: Local, *, platform: bool = False) -> int:
    """Bring the default roles and bindings (with the platform's, or not) up to date; return how many were written.

    The namespaces `kube-system` and `kube-public` must be there. What another server writes at the same time is left
    to it. Raises ApiStatus where a write is refused.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def write(change: Change) -> int:
        async with gate:
            return await _write(local, change)

    return sum(await asyncio.gather(*(write(change) for change in changes(view.get, platform=platform))))


async def _write(local: Local, change: Change) -> int:
    try:
        if change.action == "update":
            await local.call("PUT", change.path, change.object)
            return 1
        if change.action == "replace":
            await _delete(local, change.path)
        await local.call("POST", change.collection, change.object)
    except (AlreadyExists, Conflict):
        return 0
    return 1


async def _delete(local: Local, path: str) -> None:
    try:
        await local.call("DELETE", path)
    except NotFound:
        return
