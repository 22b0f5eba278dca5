"""What stands for a field that is not there: an object of its own that reads as empty.

Absent and empty are two things in JSON, yet `pod.metadata.labels.get("app")` shall work where there are no labels. So a
default is told from an equal value by identity: what still holds it is not written. Structs cannot be changed, which is
what makes it safe to share defaults, and objects in an informer's cache too.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

__all__ = ["CARRIED_KEY", "EMPTY", "NOTHING", "Carried", "Frozen", "absent", "plain"]

CARRIED_KEY: Final = "\x7f"
"""The name under which msgspec knows what is carried along. It never leaves this package."""


class Frozen(dict[str, Any]):
    """A mapping that cannot be changed; make a new one of it: `{**old, "key": value}`."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError('this mapping is shared and cannot be changed; make a new one: {**old, "key": value}')

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


class Carried(Frozen):
    """Fields by JSON name that a struct does not model, carried along as they came."""

    __slots__ = ()


class _Text(str):
    """A default text, told from an equal one by identity."""

    __slots__ = ()


class _Bytes(bytes):
    """Default bytes, told from equal ones by identity."""

    __slots__ = ()


class _Number(int):
    """A default number, told from an equal one by identity."""


EMPTY: Final = Frozen()
"""The mapping that is not there."""

NOTHING: Final = Carried()
"""What most structs carry."""

_NO_TEXT: Final = _Text()
_NO_BYTES: Final = _Bytes()
_ZERO: Final = _Number()


def absent(default: Any) -> Any:
    """Give the object that stands for the default `default` where its field is absent."""
    if type(default) is str:
        return _Text(default) if default else _NO_TEXT
    if type(default) is int:
        return _Number(default) if default else _ZERO
    if type(default) is bytes:
        return _Bytes(default) if default else _NO_BYTES
    if type(default) is dict and not default:
        return EMPTY
    if type(default) is list and not default:
        return ()
    return default


def plain(value: object) -> object:
    """Give msgspec the value of a default that was copied to a place where it has to be written."""
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, _Bytes):
        return bytes(value)
    if isinstance(value, _Number):
        return int(value)
    kind = type(value)
    raise TypeError(f"a {kind.__qualname__} has no form in JSON; use structs, texts, numbers, lists and mappings")
