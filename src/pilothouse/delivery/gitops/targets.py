"""The objects that an application shall have, each with its place, its mark of whose it is, and what its sync wants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from .errors import ManifestError
from .hooks import annotations_of, delete_policies_of, options_of, phases_of, wave_of
from .rendering import Rendered

__all__ = [
    "TRACKING",
    "Key",
    "Target",
    "group_of",
    "instance_name",
    "key_of",
    "make_targets",
    "owner_of",
    "split_instance",
]

TRACKING: Final = "argocd.argoproj.io/tracking-id"
_encoder: Final = msgspec.json.Encoder(order="sorted")


class Key(NamedTuple):
    """Which object; the namespace is empty for one of the whole cluster."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


class Target(msgspec.Struct, frozen=True, gc=False):
    """An object that there shall be. data: its JSON, with the mark of whose it is. phases: of a hook."""

    key: Key
    api_version: str
    file: str
    data: bytes
    digest: bytes
    wave: int
    phases: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    policies: tuple[str, ...] = ()
    generate_name: str = ""

    @property
    def object(self) -> dict[str, Any]:
        """The object, made anew each time."""
        found: dict[str, Any] = msgspec.json.decode(self.data)
        return found

    @property
    def is_hook(self) -> bool:
        """Whether it is made in phases of a sync and not kept."""
        return bool(self.phases)


def group_of(api_version: str) -> str:
    """Return the group of an API version."""
    return api_version.rpartition("/")[0]


def key_of(obj: Mapping[str, Any]) -> Key:
    """Return the key of a live object."""
    metadata = obj["metadata"]
    return Key(group_of(obj["apiVersion"]), obj["kind"], metadata.get("namespace") or "", metadata.get("name") or "")


def instance_name(namespace: str, name: str, control_namespace: str) -> str:
    """Return what an application is called in marks: with its namespace where that is not the controller's."""
    return name if namespace == control_namespace else f"{namespace}_{name}"


def split_instance(instance: str, control_namespace: str) -> tuple[str, str]:
    """Return namespace and name of the application of a mark."""
    namespace, sep, name = instance.partition("_")
    return (namespace, name) if sep else (control_namespace, instance)


def owner_of(obj: Mapping[str, Any]) -> str:
    """Return the application that a live object is marked as being of, if the mark is of this very object."""
    mark = annotations_of(obj).get(TRACKING, "")
    instance, _, rest = mark.partition(":")
    return instance if rest and mark == _mark(instance, key_of(obj)) else ""


def _mark(instance: str, key: Key) -> str:
    return f"{instance}:{key.group}/{key.kind}:{key.namespace}/{key.name}"


def make_targets(
    rendered: Iterable[Rendered], instance: str, namespace: str, is_namespaced: Callable[[str, str], bool]
) -> list[Target]:
    """Return the targets of an application. namespace: of objects that name none. is_namespaced: of version and kind.

    Raises ManifestError where an object is there twice, or one of a namespace has none.
    """
    found: dict[tuple[Key, tuple[str, ...]], Target] = {}
    for source in rendered:
        for written in source.objects:
            obj: dict[str, Any] = msgspec.json.decode(written.data)
            made = _target(obj, written.file, written.document, instance, namespace, is_namespaced)
            place = made.key._replace(name=made.key.name or made.generate_name), made.phases
            if place in found:
                raise ManifestError(
                    written.file, f"{made.key} is also in {found[place].file}; leave one out", written.document
                )
            found[place] = made
    return list(found.values())


def _target(
    obj: dict[str, Any],
    file: str,
    document: int,
    instance: str,
    namespace: str,
    is_namespaced: Callable[[str, str], bool],
) -> Target:
    metadata = {name: value for name, value in obj["metadata"].items() if value is not None}
    for name in ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"):
        metadata.pop(name, None)
    if is_namespaced(obj["apiVersion"], obj["kind"]):
        metadata.setdefault("namespace", namespace)
        if not metadata["namespace"]:
            raise ManifestError(
                file,
                f"{obj['kind']} {metadata.get('name')}: no namespace; name it, or spec.destination.namespace",
                document,
            )
    else:
        metadata.pop("namespace", None)
    key = Key(group_of(obj["apiVersion"]), obj["kind"], metadata.get("namespace", ""), metadata.get("name", ""))
    if key.name:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), TRACKING: _mark(instance, key)}
    obj = {name: value for name, value in obj.items() if name != "status"} | {"metadata": metadata}
    data = _encoder.encode(obj)
    phases = phases_of(obj)
    if not key.name and not phases:
        raise ManifestError(file, f"{obj['kind']}: only hooks may have generateName; give it a name", document)
    return Target(
        key=key,
        api_version=obj["apiVersion"],
        file=file,
        data=data,
        digest=hashlib.blake2b(data, digest_size=16).digest(),
        wave=wave_of(obj),
        phases=phases,
        options=options_of(obj),
        policies=delete_policies_of(obj) if phases else (),
        generate_name=metadata.get("generateName", "") if not key.name else "",
    )
