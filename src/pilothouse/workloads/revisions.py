"""Controller revisions: the templates that a set had, numbered, named by a hash, and which of them are kept. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from pilothouse.kinds.structs import ControllerRevision, ObjectMeta, Resource, from_dict, to_dict
from pilothouse.kinds.structs.core_pods import PodTemplateSpec
from pilothouse.operator.owners import owner_reference

from .templates import safe_encode

__all__ = [
    "HASH_LABEL",
    "POD_LABEL",
    "by_revision",
    "data_hash",
    "data_of",
    "has_data",
    "new_revision",
    "next_number",
    "revision_name",
    "surplus",
    "template_of",
]

R = TypeVar("R", bound=Resource)

HASH_LABEL: Final = "controller.kubernetes.io/hash"
"""What tells a stateful set's revisions apart."""
POD_LABEL: Final = "controller-revision-hash"
"""Of which revision a pod is; what tells a daemon set's revisions apart."""
_LONGEST_PREFIX: Final = 223
_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193
_MASK: Final = 0xFFFFFFFF
_EXACT: Final = 2**53
"""Integers up to it keep all digits where Go reads them as floating-point numbers."""
_encoder: Final = msgspec.json.Encoder(order="sorted")
_ESCAPED: Final = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}


def data_of(template: PodTemplateSpec) -> dict[str, Any]:
    """Return what a revision keeps: the strategic merge patch that brings a template back.

    Names stand in the order of letters: kube-controller-manager compares the bytes.
    """
    return {"spec": {"template": _in_order({**to_dict(template), "$patch": "replace"})}}


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [*map(_in_order, value)] if isinstance(value, list) else value


def template_of(revision: ControllerRevision) -> PodTemplateSpec:
    """Return the template that a revision keeps, an empty one where it keeps none. Raises StructError."""
    data: Any = revision.data if isinstance(revision.data, Mapping) else {}
    tree = dict((data.get("spec") or {}).get("template") or {})
    tree.pop("$patch", None)
    return from_dict(tree, PodTemplateSpec)


def has_data(revision: ControllerRevision, data: Mapping[str, Any]) -> bool:
    """Whether a revision keeps this."""
    found: bool = revision.data == data
    return found


def data_hash(data: Mapping[str, Any], probe: int | None = None) -> str:
    """Return the hash of what a revision keeps, as Kubernetes' history has it. probe: the collision count."""
    text = _encoder.encode(_as_go_reads(data))
    for sign, escaped in _ESCAPED.items():
        text = text.replace(sign, escaped)
    value = _FNV_OFFSET
    for byte in text if probe is None else text + str(probe).encode():
        value = ((value * _FNV_PRIME) & _MASK) ^ byte
    return safe_encode(str(value))


def _as_go_reads(value: Any) -> Any:
    """Return data as Go writes it after having read it without types: numbers are of floating point."""
    if isinstance(value, Mapping):
        return {name: _as_go_reads(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_go_reads(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return msgspec.Raw(f"{Decimal(repr(float(value))):f}".encode())
    return value


def revision_name(owner: str, digest: str) -> str:
    """Return the name of an owner's revision."""
    return f"{owner[:_LONGEST_PREFIX]}-{digest}"


def new_revision(
    owner: Resource, name: str, labels: Mapping[str, str], data: Mapping[str, Any], number: int
) -> ControllerRevision:
    """Return a revision of an owner, with the owner's annotations."""
    return ControllerRevision(
        metadata=ObjectMeta(
            name=name,
            namespace=owner.metadata.namespace,
            labels=labels,
            annotations=owner.metadata.annotations,
            owner_references=(owner_reference(owner),),
        ),
        data=data,
        revision=number,
    )


def by_revision(revision: ControllerRevision) -> tuple[int, str, str]:
    """Sort revisions by it: the first comes first."""
    return revision.revision, revision.metadata.creation_timestamp or "", revision.metadata.name


def next_number(revisions: Iterable[ControllerRevision]) -> int:
    """Return the number that follows all others."""
    return max((each.revision for each in revisions), default=0) + 1


def surplus(
    revisions: Iterable[ControllerRevision], limit: int | None, *, idle: Sequence[ControllerRevision]
) -> list[ControllerRevision]:
    """Return the oldest of the idle revisions, as many as there are of all beyond the limit; none without a limit."""
    count = sum(1 for _ in revisions) - (limit if limit is not None else 0)
    if limit is None or limit < 0 or count <= 0:
        return []
    return sorted(idle, key=by_revision)[:count]
