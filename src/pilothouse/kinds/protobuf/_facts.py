"""The messages of Kubernetes' types: their fields by number, and how Go treats each of them.

The numbers lie in `data/protobuf.json`, which `scripts/generate-kinds` writes and describes, and what only the Go types
tell in `data/gowire.json`. A message is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec

from pilothouse.kinds import table

__all__ = ["Field", "fields_of", "kinds_with_messages", "message_of"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message.

    `word` is what it holds, as in `types.json`, and `label` whether that is one, a list or a map by string. Go keeps a
    pointer only where there is a value, and the rest always. `shown` fields are in JSON even where they are empty;
    `omit_zero` ones are not, though they are structs. The fields of an `inline` one stand in JSON in its place.
    """

    number: int
    name: str
    word: str
    label: Literal["", "[]", "{}"]
    pointer: bool
    shown: bool
    omit_zero: bool
    inline: bool


class _Messages(msgspec.Struct, gc=False):
    prefixes: dict[str, str]
    messages: dict[str, msgspec.Raw]


class _Wire(msgspec.Struct, gc=False):
    kinds: dict[str, str]
    types: dict[str, msgspec.Raw]


def _load(name: str, form: Any) -> Any:
    place = resources.files("pilothouse.kinds") / "data" / name
    return msgspec.json.decode(place.read_bytes(), type=form)


@cache
def _messages() -> _Messages:
    made: _Messages = _load("protobuf.json", _Messages)
    return made


@cache
def _wire() -> _Wire:
    made: _Wire = _load("gowire.json", _Wire)
    return made


@cache
def _kinds() -> Mapping[tuple[str, str, str], str]:
    known = _messages()
    letters = {prefix: letter for letter, prefix in known.prefixes.items()}
    found: dict[tuple[str, str, str], str] = {}
    for key, full in table.kinds().items():
        for prefix, letter in letters.items():
            if full.startswith(prefix) and (short := letter + full.removeprefix(prefix)) in known.messages:
                found[key] = short
    for text, short in _wire().kinds.items():
        group, version, kind = text.split("/")
        found[group, version, kind] = short
    return found


def kinds_with_messages() -> Mapping[tuple[str, str, str], str]:
    """Return the short name of the message of each kind, by group, version and kind; `*` stands for every one."""
    return _kinds()


def message_of(group: str, version: str, kind: str) -> str | None:
    """Return the short name of a kind's message, or None where it has none."""
    kinds = _kinds()
    return kinds.get((group, version, kind)) or kinds.get(("*", "*", kind))


def fields_of(message: str) -> tuple[Field, ...]:
    """Return the fields of the message with this short name, by number. Raises KeyError."""
    lines: list[str] = msgspec.json.decode(_messages().messages[message])
    facts: dict[str, Any] = msgspec.json.decode(_wire().types.get(message, b"{}"))
    pointers, shown, zeros = (frozenset(facts.get(key, "").split()) for key in "pkz")
    names = facts.get("n", {})
    made = []
    for line in lines:
        number, name, text = line.split(" ")
        label: Literal["", "[]", "{}"] = "[]" if text.startswith("[]") else "{}" if text.startswith("{}") else ""
        word, called = text.removeprefix(label), names.get(name, name)
        made.append(Field(int(number), called, word, label, name in pointers, name in shown, name in zeros, not called))
    return tuple(made)
