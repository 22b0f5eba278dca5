"""Parts of a configuration as plain values, which can be sent to workers."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

__all__ = ["plain"]

_P = TypeVar("_P", bound=msgspec.Struct)


def plain(part: _P) -> _P:
    """Return the same of plain values alone: defaults of structs are no exact texts and numbers, which cannot be sent.

    A server fills defaults in, so that there are none; files leave them out.
    """
    try:
        msgspec.msgpack.encode(part)
    except TypeError:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(part, enc_hook=_exact), type=type(part))
    return part


def _exact(value: Any) -> Any:
    kinds: tuple[type[Any], ...] = (str, bytes, int, float)
    for kind in kinds:
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} is no part of a configuration")
