"""What steps of admission have in common: their empty methods, and how they refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import quote

__all__ = [
    "Plugin",
    "annotations",
    "containers",
    "forbid",
    "joined",
    "labels_of",
    "not_found_text",
    "object_name",
    "requested",
    "warn",
    "with_cause",
]


class Plugin:
    """A step that does nothing. Those that override neither `mutate` nor `validate` cost nothing in the chain.

    A subclass names the writes it looks at in `OPERATIONS`, `RESOURCES` (group and plural) and `SUBRESOURCES`.
    """

    OPERATIONS: ClassVar[frozenset[str]] = frozenset()
    RESOURCES: ClassVar[frozenset[tuple[str, str]]] = frozenset()
    SUBRESOURCES: ClassVar[frozenset[str]] = frozenset({""})

    name = ""
    revision = 0

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether the class' lists name this write."""
        return (
            operation in self.OPERATIONS
            and subresource in self.SUBRESOURCES
            and (resource[0], resource[2]) in self.RESOURCES
        )

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Leave the object as it is."""

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Allow it."""


def object_name(request: AdmissionRequest) -> str:
    """Return the name that messages use: of the request, else what the object has or will be named after."""
    if request.name:
        return request.name
    metadata = (request.object or {}).get("metadata") or {}
    return str(metadata.get("name") or metadata.get("generateName") or "Unknown")


def forbid(request: AdmissionRequest, why: str) -> status.Forbidden:
    """Make the refusal of a request."""
    group, _, resource = request.resource
    return status.forbidden(group, resource, object_name(request), why)


def with_cause(refusal: status.Forbidden, cause: Mapping[str, str]) -> status.Forbidden:
    """Return a refusal that names a cause as well, which clients tell refusals apart by."""
    told = refusal.details or status.Details()
    return status.Forbidden(refusal.message, replace(told, causes=[*told.causes, cause]))


def warn(request: AdmissionRequest, text: str) -> None:
    """Warn the caller; what could end a header line is left out, as the text may come from anybody."""
    clean = text if text.isprintable() else "".join(letter for letter in text if letter.isprintable())
    if clean:
        request.warn(clean)


def requested(request: AdmissionRequest) -> Object:
    """Return the object of a request that has one; an empty one else."""
    return request.object if request.object is not None else {}


def annotations_of(item: Mapping[str, Any]) -> Mapping[str, str]:
    """Return an object's annotations, possibly none."""
    return (item.get("metadata") or {}).get("annotations") or {}


def labels_of(item: Mapping[str, Any] | None) -> Mapping[str, str]:
    """Return an object's labels, possibly none."""
    if not item:
        return {}
    return (item.get("metadata") or {}).get("labels") or {}


def containers(spec: Mapping[str, Any], *, ephemeral: bool = True) -> Sequence[Object]:
    """Return all containers of a pod's spec: init containers, containers, ephemeral ones."""
    fields = ("initContainers", "containers", "ephemeralContainers") if ephemeral else ("initContainers", "containers")
    return [one for field in fields for one in spec.get(field) or ()]


def joined(texts: Sequence[str]) -> str:
    """Write several errors as Go's aggregate does: each once, in brackets where there are several."""
    once = list(dict.fromkeys(texts))
    return once[0] if len(once) == 1 else f"[{', '.join(once)}]"


def not_found_text(group: str, resource: str, name: str) -> str:
    """Write that an object is not there, as one error inside another."""
    return f"{status.qualified(group, resource)} {quote(name)} not found"
