"""What an object differs in from what git says, field by field, without asking the server.

Built-in kinds: the apply that a sync would make is played through here, on the object as the cache has it, with the
same merge, the same account of owners and the same defaults as a server has; what it would change is drift. So a
default or a normal form that the server fills in is none. Custom resources, of which the schema is not known here: each
field that git has must be there, and nothing may be there that our last apply owns and git has no more.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pilothouse.delivery.resources.applications import IgnoreDifferences
from pilothouse.kinds.apply import FieldManager
from pilothouse.kinds.defaults import default
from pilothouse.kinds.emptyobjects import empty_object
from pilothouse.kinds.prune import DecodeError, decode
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.table import schema_for
from pilothouse.kinds.typed import TypedError

from .globs import matches
from .selections import remove_expression, remove_pointer
from .targets import Key

__all__ = ["MANAGER", "Drift", "Ignored", "compare", "ignored_for"]

MANAGER: Final = "argocd-controller"
_NOWHEN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SERVERS: Final = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink")
_MAX_DRIFT: Final = 100
_ABSENT: Final = object()
_SECRET: Final = "(hidden)"  # noqa: S105  # what is shown instead of one


class Drift(NamedTuple):
    """One field that differs. wanted, live: None where there is none. Values of Secrets are hidden."""

    path: str
    wanted: Any
    live: Any


class Ignored(NamedTuple):
    """What does not count for one object."""

    pointers: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()


def ignored_for(key: Key, rules: Sequence[IgnoreDifferences]) -> Ignored:
    """Return what the rules of an application say of one object."""
    pointers: list[str] = []
    expressions: list[str] = []
    managers: list[str] = []
    for rule in rules:
        if not (matches(rule.group or "", key.group) and matches(rule.kind or "", key.kind)):
            continue
        if (rule.name and rule.name != key.name) or (rule.namespace and rule.namespace != key.namespace):
            continue
        pointers += rule.json_pointers
        expressions += rule.jq_path_expressions
        managers += rule.managed_fields_managers
    return Ignored(tuple(pointers), tuple(expressions), tuple(managers))


def compare(wanted: dict[str, Any], live: dict[str, Any], ignored: Ignored | None = None) -> list[Drift]:
    """Return the fields in which a live object differs from the wanted one, at most 100.

    Raises ValueError where what is wanted does not fit the kind, and SelectionError.
    """
    group, _, version = str(wanted["apiVersion"]).rpartition("/")
    kind = wanted["kind"]
    schema = schema_for(group, version, kind)
    known = None
    if schema is not None:
        known = _played(wanted, live, schema, (group, version, kind))
    if known is None:
        before, after, owned = live, _without_null(wanted), _owned(live)
    else:
        before, after, owned = *known, None
    before, after = _bare(before), _bare(after)
    _apply_ignored(before, after, live, ignored or Ignored())
    found = _covered(after, before, owned) if owned is not None else _differences(after, before, schema)
    shown = [Drift(path or ".", _plain(one), _plain(other)) for path, one, other in _some(found)]
    return [_hidden(each) for each in shown] if kind == "Secret" and not group else shown


def _some(found: Iterator[tuple[str, Any, Any]]) -> Iterator[tuple[str, Any, Any]]:
    for number, each in enumerate(found):
        if number >= _MAX_DRIFT:
            return
        yield each


def _plain(value: Any) -> Any:
    return None if value is _ABSENT else value


def _hidden(drift: Drift) -> Drift:
    if not drift.path.startswith(("data", "stringData")):
        return drift
    return Drift(drift.path, _SECRET if drift.wanted is not None else None, _SECRET if drift.live is not None else None)


# Built-in kinds


@lru_cache(maxsize=256)
def _manager(group: str, version: str, kind: str) -> FieldManager:
    api_version = f"{group}/{version}" if group else version
    schema = schema_for(group, version, kind)
    assert schema is not None  # noqa: S101  # asked before
    return FieldManager(schema, api_version, empty=empty_object(api_version, kind))


def _played(
    wanted: dict[str, Any], live: dict[str, Any], schema: Schema, gvk: tuple[str, str, str]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the object as it is and as an apply would leave it, both with defaults."""
    if live.get("apiVersion") != wanted["apiVersion"]:
        return None
    try:
        written = decode(schema, wanted)[0]
    except DecodeError as error:
        raise ValueError(f"{wanted['kind']} {wanted['metadata'].get('name')}: {error}") from None
    if gvk == ("", "v1", "Secret"):
        written = _with_data(written)
    try:
        after = _manager(*gvk).apply(live, written, MANAGER, _NOWHEN, force=True)
    except TypedError as error:
        raise ValueError(f"{wanted['kind']} {wanted['metadata'].get('name')}: {error}") from None
    except ValueError:
        return None  # managed fields that cannot be read
    before = default(copy.deepcopy(live), *gvk)
    after = decode(schema, copy.deepcopy(after))[0]
    return decode(schema, before)[0], default(after, *gvk)


def _with_data(secret: dict[str, Any]) -> dict[str, Any]:
    """Return a Secret with its texts as data, as servers keep it."""
    texts = secret.get("stringData")
    if not texts:
        return secret
    data = {name: base64.b64encode(value.encode()).decode() for name, value in texts.items()}
    kept = {name: value for name, value in secret.items() if name != "stringData"}
    return {**kept, "data": {**(secret.get("data") or {}), **data}}


def _bare(obj: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: copy.deepcopy(value) for name, value in obj.items() if name not in {"status", "metadata"}}
    metadata = {name: copy.deepcopy(value) for name, value in obj["metadata"].items() if name not in _SERVERS}
    return {**made, "metadata": metadata}


def _differences(wanted: Any, live: Any, schema: Schema | None, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name in sorted(wanted.keys() | live.keys()):
            one, other = wanted.get(name, _ABSENT), live.get(name, _ABSENT)
            if one is not other and not _same(one, other):
                yield from _differences(one, other, _below(schema, name), _named(path, name))
        return
    if isinstance(wanted, list) and isinstance(live, list):
        yield from _list_differences(wanted, live, schema, path)
        return
    if not _same(wanted, live) and not (_is_empty(wanted) and _is_empty(live)):
        yield path, wanted, live


def _list_differences(
    wanted: list[Any], live: list[Any], schema: Schema | None, path: str
) -> Iterator[tuple[str, Any, Any]]:
    element = schema.element if schema is not None else None
    keys = schema.list_keys if schema is not None and schema.list_type == "map" else ()
    if keys and all(isinstance(each, dict) for each in (*wanted, *live)):
        ones = {_identity(each, keys): each for each in wanted}
        others = {_identity(each, keys): each for each in live}
        for name in dict.fromkeys([*ones, *others]):
            one, other = ones.get(name, _ABSENT), others.get(name, _ABSENT)
            if not _same(one, other):
                yield from _differences(one, other, element, f"{path}[{name}]")
    elif len(wanted) == len(live):
        for number, (one, other) in enumerate(zip(wanted, live, strict=True)):
            if not _same(one, other):
                yield from _differences(one, other, element, f"{path}[{number}]")
    elif not _same(wanted, live):
        yield path, wanted, live


def _identity(item: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ",".join(f"{key}={item.get(key)}" for key in keys if key in item)


def _below(schema: Schema | None, name: str) -> Schema | None:
    if schema is None:
        return None
    return schema.fields.get(name) if schema.shape == "object" else schema.element


def _named(path: str, name: str) -> str:
    if name.replace("_", "").replace("-", "").isalnum():
        return f"{path}.{name}" if path else name
    return f"{path}[{json.dumps(name)}]"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _is_empty(value: Any) -> bool:
    return value is _ABSENT or value is None or value in ({}, [], "")


# Kinds of which the schema is not known


def _owned(live: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that our last apply owns, as `fieldsV1` has them."""
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return dict(entry.get("fieldsV1") or {})
    return {}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    return [_without_null(each) for each in value] if isinstance(value, list) else value


def _covered(wanted: Any, live: Any, owned: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Give what is wanted and not there, and what is owned and not wanted; what is beyond is others'."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name, value in wanted.items():
            yield from _covered(value, live.get(name, _ABSENT), owned.get(f"f:{name}") or {}, _named(path, name))
        for name in _left_over(wanted, live, owned) if path != "metadata" else ():
            yield _named(path, name), _ABSENT, live[name]
    elif isinstance(wanted, list) and isinstance(live, list):
        yield from _covered_list(wanted, live, owned, path)
    elif not _same(wanted, live) and not (_is_empty(wanted) and live is _ABSENT):
        yield path, wanted, live


def _left_over(wanted: Mapping[str, Any], live: Mapping[str, Any], owned: Mapping[str, Any]) -> Iterator[str]:
    """Give the fields that our last apply owns and that are wanted no more."""
    for element in owned:
        name = element[2:]
        if element.startswith("f:") and name not in wanted and name in live and name != "status":
            yield name


def _covered_list(
    wanted: list[Any], live: list[Any], owned: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Any, Any]]:
    keys = _keys_of(owned)
    if keys and all(isinstance(each, dict) for each in (*wanted, *live)):
        yield from _covered_by_key(wanted, live, owned, path, keys)
    elif len(wanted) == len(live):
        for number, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _covered(one, other, {}, f"{path}[{number}]")
    elif not _subset_of_values(wanted, live, owned):
        yield path, wanted, live


def _keys_of(owned: Mapping[str, Any]) -> tuple[str, ...]:
    first = next((element for element in owned if element.startswith("k:")), None)
    return tuple(json.loads(first[2:])) if first else ()


def _covered_by_key(
    wanted: list[Any], live: list[Any], owned: Mapping[str, Any], path: str, keys: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    by_key = {element[2:]: node for element, node in owned.items() if element.startswith("k:")}
    nodes = {_identity(json.loads(text), keys): node for text, node in by_key.items()}
    there = {_identity(each, keys): each for each in live}
    names = {_identity(each, keys) for each in wanted}
    for each in wanted:
        name = _identity(each, keys)
        # Servers may fill in a key, such as a protocol.
        found: Any = there.get(name) or next((one for one in live if _fits(each, one, keys)), _ABSENT)
        yield from _covered(each, found, nodes.get(name) or {}, f"{path}[{name}]")
        if found is not _ABSENT:
            names.add(_identity(found, keys))
    for name in nodes:
        if name not in names and name in there:
            yield f"{path}[{name}]", _ABSENT, there[name]


def _fits(wanted: Mapping[str, Any], live: Mapping[str, Any], keys: Sequence[str]) -> bool:
    given = [key for key in keys if key in wanted]
    return bool(given) and all(wanted[key] == live.get(key) for key in given)


def _subset_of_values(wanted: list[Any], live: list[Any], owned: Mapping[str, Any]) -> bool:
    """Whether a list that is a set has all that is wanted, and nothing else of ours."""
    mine = [json.loads(element[2:]) for element in owned if element.startswith("v:")]
    return bool(mine) and all(each in live for each in wanted) and all(each in wanted for each in mine)


# What does not count


def _apply_ignored(before: dict[str, Any], after: dict[str, Any], live: Mapping[str, Any], ignored: Ignored) -> None:
    for obj in (before, after):
        for pointer in ignored.pointers:
            remove_pointer(obj, pointer)
        for expression in ignored.expressions:
            remove_expression(obj, expression)
    if ignored.managers:
        for entry in live["metadata"].get("managedFields") or ():
            if entry.get("manager") in ignored.managers:
                for obj in (before, after):
                    _remove_fields(obj, entry.get("fieldsV1") or {})


def _remove_fields(value: Any, fields: Mapping[str, Any]) -> None:
    """Take fields out of an object, those whose place `fieldsV1` names."""
    for element, node in fields.items():
        kind, _, text = element.partition(":")
        if kind == "f" and isinstance(value, dict) and text in value:
            inner = {name: each for name, each in node.items() if name != "."}
            if inner and isinstance(value[text], dict | list):
                _remove_fields(value[text], inner)
            else:
                del value[text]
        elif kind == "k" and isinstance(value, list):
            keys = json.loads(text)
            for each in value:
                if isinstance(each, dict) and all(each.get(name) == wanted for name, wanted in keys.items()):
                    own = {name: one for name, one in node.items() if name[2:] not in keys and name != "."}
                    _remove_fields(each, own)
