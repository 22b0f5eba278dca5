"""What mutation from outside leaves: the object decoded and defaulted anew, and how to tell whether it changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from pilothouse.apiserver.ports import Gvk, Object
from pilothouse.kinds.defaults import default
from pilothouse.kinds.prune import DecodeError, decode
from pilothouse.kinds.table import schema_for

__all__ = ["Settle", "SettleError", "fingerprint", "kind_of", "settle"]

Settle: TypeAlias = Callable[[Object, Gvk], Object]
"""Gives the object as it is decoded and defaulted. Raises SettleError for a value of a wrong type."""


class SettleError(ValueError):
    """A changed object is no longer one of its kind; the message is that of Go's decoder."""


def kind_of(item: Object, otherwise: Gvk) -> Gvk:
    """Return what an object says it is: that of a subresource (a Scale, a Binding) is not of the resource's kind."""
    version, kind = item.get("apiVersion"), item.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or not version or not kind:
        return otherwise
    group, _, number = version.rpartition("/")
    return group, number, kind


def settle(item: Object, kind: Gvk) -> Object:
    """Decode and default an object of a built-in kind anew; leave others as they are."""
    schema = schema_for(*kind)
    if schema is None:
        return item
    try:
        decoded, _ = decode(schema, item)
    except DecodeError as error:
        raise SettleError(str(error)) from None
    return default(decoded, *kind)


def fingerprint(item: Object | None) -> bytes:
    """Return bytes that are equal for equal objects, whatever the order of their fields."""
    return msgspec.json.encode(item, order="deterministic")
