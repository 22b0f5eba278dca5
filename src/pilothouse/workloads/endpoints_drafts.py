"""Slices while they are planned: what one is to hold, and whether that is other than what it holds now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilothouse.kinds.structs import EndpointSlice
from pilothouse.kinds.structs.discovery import Endpoint, EndpointPort

__all__ = ["Draft", "Plan", "identity_of", "is_same"]


@dataclass(slots=True)
class Draft:
    """A slice to be made, where there is none at present, or one that may be changed."""

    ports: Sequence[EndpointPort]
    endpoints: list[Endpoint] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)
    present: EndpointSlice | None = None
    is_changed: bool = False

    def set(self, endpoints: list[Endpoint]) -> None:
        """Have other endpoints, which is a change."""
        self.endpoints = endpoints
        self.is_changed = True


@dataclass(slots=True)
class Plan:
    """Which slices to make, to change and to delete."""

    create: list[EndpointSlice] = field(default_factory=list)
    update: list[EndpointSlice] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)


def identity_of(endpoint: Endpoint) -> tuple[object, ...]:
    """Return what makes an endpoint the same one though it changes."""
    target = endpoint.target_ref
    about = ("", "") if target is None else (target.namespace, target.name)
    return (*sorted(endpoint.addresses), endpoint.hostname or "", *about)


def is_same(one: Endpoint, other: Endpoint) -> bool:
    """Whether an endpoint, the same by identity, has not changed; hints are no matter."""

    def seen(endpoint: Endpoint) -> tuple[object, ...]:
        target, state = endpoint.target_ref, endpoint.conditions
        about = None if target is None else (target.kind, target.namespace, target.name, target.uid, target.field_path)
        return endpoint.node_name, endpoint.zone, state.ready, state.serving, state.terminating, about

    return seen(one) == seen(other)
