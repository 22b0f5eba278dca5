"""Pod templates: what names one, which set is of one, and what sets are made of."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from pilothouse.delivery.resources.rollouts import AntiAffinity, PodMetadata
from pilothouse.kinds.defaults import default
from pilothouse.kinds.structs import PodTemplateSpec, ReplicaSet, decode, encode, from_dict, replace, to_dict

from .names import EPHEMERAL_METADATA, HASH

__all__ = ["hash_of", "hash_text", "is_of", "marked", "marks_of", "with_anti_affinity", "without_injected"]

_SAFE: Final = "bcdfghjklmnpqrstvwxz2456789"
_OFFSET: Final = 0x811C9DC5
_PRIME: Final = 0x01000193
_MEMO: Final = 512
_HOST: Final = "kubernetes.io/hostname"


def hash_text(data: bytes, collisions: int | None = None) -> str:
    """Return a short name for bytes: FNV-1a of 32 bits in letters that make no words, as Kubernetes names things."""
    value = _OFFSET
    for byte in data + (b"" if not collisions else collisions.to_bytes(8, "little")):
        value = ((value ^ byte) * _PRIME) & 0xFFFFFFFF
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(value))


def hash_of(template: PodTemplateSpec, collisions: int | None = None) -> str:
    """Return what names a template: the same for all that servers make the same of by their defaults."""
    return hash_text(_canonical(encode(template)), collisions)


def is_of(found: ReplicaSet, template: PodTemplateSpec) -> bool:
    """Whether a set's pods are those of a template, apart from what rollouts put into sets themselves."""
    bare = without_injected(found)
    labels = {name: value for name, value in bare.metadata.labels.items() if name != HASH}
    bare = replace(bare, metadata__labels=labels)
    return _canonical(encode(bare)) == _canonical(encode(template))


@lru_cache(_MEMO)
def _canonical(template: bytes) -> bytes:
    tree = {"metadata": {}, "spec": {"template": msgspec.json.decode(template)}}
    filled = default(copy.deepcopy(tree), "apps", "v1", "ReplicaSet")["spec"]["template"]
    metadata = filled.get("metadata") or {}
    kept = {name: metadata[name] for name in ("labels", "annotations") if metadata.get(name)}
    return msgspec.json.encode({**filled, "metadata": kept}, order="deterministic")


# What comes and goes with a set's part


def marks_of(found: ReplicaSet) -> PodMetadata:
    """Return which labels and annotations a rollout has put into a set's template."""
    text = found.metadata.annotations.get(EPHEMERAL_METADATA, "")
    try:
        return decode(text, PodMetadata) if text else PodMetadata()
    except ValueError:
        return PodMetadata()


def marked(found: ReplicaSet, marks: PodMetadata) -> ReplicaSet:
    """Return a set whose new pods carry these labels and annotations instead of those put in before."""
    before = marks_of(found)
    if before == marks:
        return found
    template = found.spec.template.metadata
    notes = {name: value for name, value in found.metadata.annotations.items() if name != EPHEMERAL_METADATA}
    if marks != PodMetadata():
        notes[EPHEMERAL_METADATA] = encode(marks).decode()
    return replace(
        found,
        metadata__annotations=notes,
        spec__template__metadata__labels=_exchanged(template.labels, before.labels, marks.labels),
        spec__template__metadata__annotations=_exchanged(template.annotations, before.annotations, marks.annotations),
    )


def _exchanged(present: Mapping[str, str], old: Iterable[str], new: Mapping[str, str]) -> dict[str, str]:
    gone = {*old}
    return {name: value for name, value in present.items() if name not in gone} | dict(new)


def without_injected(found: ReplicaSet) -> PodTemplateSpec:
    """Return a set's template without what a rollout put into it: labels that come and go, and anti-affinity."""
    bare = marked(found, PodMetadata()).spec.template
    tree = to_dict(bare)
    affinity = tree.get("spec", {}).get("affinity") or {}
    anti = affinity.get("podAntiAffinity")
    if not anti:
        return bare
    kept = {name: [term for term in terms if not _is_injected(term)] for name, terms in anti.items()}
    affinity = {**affinity, "podAntiAffinity": {name: terms for name, terms in kept.items() if terms}}
    affinity = {name: value for name, value in affinity.items() if value}
    spec = {**tree["spec"], "affinity": affinity}
    if not affinity:
        del spec["affinity"]
    return from_dict({**tree, "spec": spec}, PodTemplateSpec)


def _is_injected(term: Mapping[str, Any]) -> bool:
    inner = term.get("podAffinityTerm", term)
    expressions = inner.get("labelSelector", {}).get("matchExpressions") or ()
    return any(each.get("key") == HASH for each in expressions)


def with_anti_affinity(
    template: PodTemplateSpec, wanted: AntiAffinity | None, stable: str, namespace: str
) -> PodTemplateSpec:
    """Return a template whose pods keep away from nodes that run those of the stable hash."""
    if wanted is None or not stable:
        return template
    term = {
        "labelSelector": {"matchExpressions": [{"key": HASH, "operator": "In", "values": [stable]}]},
        "namespaces": [namespace],
        "topologyKey": _HOST,
    }
    tree = to_dict(template)
    anti = tree.setdefault("spec", {}).setdefault("affinity", {}).setdefault("podAntiAffinity", {})
    preferred = wanted.preferred_during_scheduling_ignored_during_execution
    if preferred is not None:
        listed = anti.setdefault("preferredDuringSchedulingIgnoredDuringExecution", [])
        listed.append({"weight": preferred.weight, "podAffinityTerm": term})
    elif wanted.required_during_scheduling_ignored_during_execution is not None:
        anti.setdefault("requiredDuringSchedulingIgnoredDuringExecution", []).append(term)
    else:
        return template
    return from_dict(tree, PodTemplateSpec)
