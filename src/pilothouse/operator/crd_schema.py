"""Classes of typed structs as structural schemas: what a field may hold, wants and defaults to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from pilothouse.kinds.structs import Resource, Struct
from pilothouse.operator.crd_defaults import check_default, json_default
from pilothouse.operator.crd_docs import class_text, field_texts
from pilothouse.operator.crd_errors import DefinitionError
from pilothouse.operator.crd_hints import Hint, Place, enum_schema, literal_schema, read_hint, scalar_schema
from pilothouse.operator.crd_kubernetes import INT_OR_STRING, QUANTITY, kubernetes_name, kubernetes_schema
from pilothouse.operator.crd_markers import RULES, ListType, Marker, RawSchema, Rule

__all__ = ["object_schema"]

_KEEP: Final[dict[str, Any]] = {"x-kubernetes-preserve-unknown-fields": True}
_CONDITION: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.Condition"
_HEAD: Final[dict[str, str]] = {"api_version": "string", "kind": "string", "metadata": "object"}
_FORMS: Final[tuple[tuple[frozenset[Any], dict[str, Any]], ...]] = (
    (frozenset({int, str}), INT_OR_STRING),
    (frozenset({int, float, str}), QUANTITY),
    (frozenset({int, float}), {"type": "number"}),
)
_ONE_FORM: Final = (
    "a field has one form in a schema: give each its own optional field, with a Rule that one of them is set,"
    " or say it yourself with Annotated[..., RawSchema({...})]"
)


def object_schema(kind: type[Resource]) -> dict[str, Any]:
    """Return the schema of whole objects of a class. Raises DefinitionError that names class, field and way out."""
    made = _struct(kind, kind, (), root=True)
    made.pop("x-kubernetes-embedded-resource", None)
    return made


def _struct(hint: Any, kind: type, above: tuple[Any, ...], *, root: bool = False) -> dict[str, Any]:
    """Return the schema of a class. hint: the class, or a generic one with its parameters."""
    if hint in above:
        raise DefinitionError(
            f"{kind.__qualname__} holds itself, and a schema cannot; take Annotated[dict[str, Any], PreserveUnknown()]"
            " for the inner one, which servers keep as it is"
        )
    config = kind.__struct_config__  # type: ignore[attr-defined]  # of each struct class
    if config.array_like:
        raise DefinitionError(f"{kind.__qualname__} is written as a list (array_like), and a schema names fields")
    required, properties = [], {}
    if config.tag is not None:
        properties[config.tag_field] = {"type": "string", "enum": [config.tag]}
        required.append(config.tag_field)
    for info in _fields(hint, kind):
        place = Place(kind, info.name, (*above, hint))
        try:
            found = _head(kind, info) or _property(info, place, root=root)
        except TypeError as error:
            raise place.error(str(error)) from error
        if info.required:
            required.append(info.encode_name)
        properties[info.encode_name] = found
    text = class_text(kind)
    made: dict[str, Any] = {"description": text} if text else {}
    made |= {"type": "object", "required": required, "properties": properties}
    if not required:
        del made["required"]
    if rules := [rule for each in reversed(kind.__mro__) for rule in each.__dict__.get(RULES, ())]:
        _mark(made, rules, Place(kind, "", above))
    if issubclass(kind, Resource):
        made["x-kubernetes-embedded-resource"] = True
    return made


def _fields(hint: Any, kind: type) -> list[msgspec.structs.FieldInfo]:
    try:
        found = msgspec.structs.fields(hint)
    except NameError as error:
        raise DefinitionError(
            f"{kind.__qualname__}: a field's type is not found: {error}; define it in the module, outside of functions"
        ) from error
    return [info for info in found if info.name != "carried" or not issubclass(kind, Struct)]


def _head(kind: type, info: msgspec.structs.FieldInfo) -> dict[str, Any] | None:
    """Return what the server itself checks of a whole object."""
    if not issubclass(kind, Resource) or info.name not in _HEAD:
        return None
    return {"type": _HEAD[info.name]}


def _property(info: msgspec.structs.FieldInfo, place: Place, *, root: bool) -> dict[str, Any]:
    status = root and info.name == "status"
    if status and info.required:
        raise place.error("an object has no status when it is made; give the field a default")
    made = _schema(info.type, place)
    if text := field_texts(place.kind).get(info.name):
        made = {"description": text} | made if _marked(info.type) else {**made, "description": text}
    if info.default is None:
        # What holds its default is not written, so that there never is a null.
        made.pop("nullable", None)
        if None in made.get("enum", ()):
            made["enum"] = [one for one in made["enum"] if one is not None]
    if "default" in made:
        if made["default"] is None:
            del made["default"]
    elif not info.required and not status:
        _add_default(made, info, place)
    if "default" in made:
        check_default(made, made["default"], place)
    return {name: made[name] for name in ("description", *made) if name in made}


def _marked(hint: Any) -> bool:
    """Whether a field's own annotation describes it."""
    return any("description" in marker.keywords("string") for marker in read_hint(hint).markers if _tells(marker))


def _tells(marker: Marker) -> bool:
    return not marker.fits and not isinstance(marker, Rule)


def _add_default(made: dict[str, Any], info: msgspec.structs.FieldInfo, place: Place) -> None:
    value = json_default(info, place)
    if isinstance(value, dict) and not value:
        # An empty object is filled in where it brings the defaults below it to life.
        if any("default" in part for part in made.get("properties", {}).values()):
            made["default"] = {}
    elif value is not None and value not in ("", []):
        made["default"] = value


def _schema(hint: Any, place: Place) -> dict[str, Any]:
    """Return the schema of a type with what was written beside it."""
    found = read_hint(hint)
    for marker in found.markers:
        if isinstance(marker, RawSchema):
            return marker.keywords("")
    made = _bare(found, place)
    _mark(made, found.markers, place)
    if found.nullable:
        made["nullable"] = True
        if "enum" in made and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    return made


def _bare(found: Hint, place: Place) -> dict[str, Any]:
    if len(found.types) == 1:
        return _single(found.types[0], place)
    literals = literal_schema([hint for hint in found.types if read_hint(hint).literal], place)
    if literals and all(read_hint(hint).literal for hint in found.types):
        return literals
    for types, schema in _FORMS:
        if types == set(found.types):
            return dict(schema)
    names = ", ".join(getattr(hint, "__name__", str(hint)) for hint in found.types) or "nothing but None"
    raise place.error(f"it may be {names}, but {_ONE_FORM}")


def _single(hint: Any, place: Place) -> dict[str, Any]:
    found = read_hint(hint)
    if hint is Any or hint in (object, msgspec.Raw):
        return dict(_KEEP)
    if found.literal:
        return literal_schema([hint], place)
    if (scalar := scalar_schema(hint)) is not None:
        return scalar
    kind = found.origin
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _inner(hint, kind, place)
    if (enum := enum_schema(hint, place)) is not None:
        return enum
    if found.container:
        makers: dict[str, Callable[[Any, Place], dict[str, Any]]] = {"map": _map, "list": _list, "set": _set}
        return makers[found.container](hint, place)
    raise place.error(found.refusal())


def _inner(hint: Any, kind: type, place: Place) -> dict[str, Any]:
    if kind is Resource:
        return {"type": "object", "x-kubernetes-embedded-resource": True} | _KEEP
    if name := kubernetes_name(kind):
        try:
            return kubernetes_schema(name)
        except DefinitionError as error:
            raise place.error(str(error)) from error
    return _struct(hint, kind, place.above)


def _map(hint: Any, place: Place) -> dict[str, Any]:
    key, value = get_args(hint) or (str, Any)
    if read_hint(key).types != (str,) or read_hint(key).markers:
        name = getattr(key, "__name__", str(key))
        raise place.error(f"keys of a map are plain str, not {name}: JSON has no others, and a schema limits none")
    if value is Any:
        return {"type": "object"} | _KEEP
    return {"type": "object", "additionalProperties": _schema(value, place)}


def _list(hint: Any, place: Place) -> dict[str, Any]:
    arguments = [part for part in get_args(hint) if part is not Ellipsis]
    if len(arguments) > 1 or (read_hint(hint).origin is tuple and Ellipsis not in get_args(hint) and arguments):
        raise place.error("a tuple of several types has no schema; take a Struct with a field for each")
    item = arguments[0] if arguments else Any
    made: dict[str, Any] = {"type": "array", "items": _schema(item, place)}
    kind = read_hint(item).types[0]
    if isinstance(kind, type) and kubernetes_name(kind) == _CONDITION:
        made |= ListType("map", keys=("type",)).keywords("array")
    return made


def _set(hint: Any, place: Place) -> dict[str, Any]:
    return _list(hint, place) | {"x-kubernetes-list-type": "set"}


def _mark(made: dict[str, Any], markers: list[Any] | tuple[Marker, ...], place: Place) -> None:
    """Add what markers say to a schema."""
    kind = made.get("type", "")
    for marker in markers:
        if marker.fits and kind not in marker.fits:
            wanted = " or ".join(name or "any" for name in marker.fits)
            raise place.error(f"{type(marker).__name__} is for {wanted} and this is {kind or 'of no single type'}")
        try:
            words = marker.keywords(kind)
        except DefinitionError as error:
            raise place.error(str(error)) from error
        if isinstance(marker, Rule):
            made.setdefault("x-kubernetes-validations", []).append(words)
            continue
        if isinstance(marker, ListType):
            made.pop("x-kubernetes-list-map-keys", None)
        made |= words
    _check_list(made, place)


def _check_list(made: dict[str, Any], place: Place) -> None:
    items = made.get("items", {})
    if made.get("x-kubernetes-list-type") == "set" and _is_open(items):
        raise place.error("elements of a set are texts, numbers or booleans; take ListType('map', keys=...) for others")
    if made.get("x-kubernetes-list-type") in {"set", "map"} and items.get("nullable"):
        raise place.error("elements of a set or map cannot be null; leave None out of their type")
    for key in made.get("x-kubernetes-list-map-keys", ()):
        fields = items.get("properties", {})
        if key not in fields:
            raise place.error(f"the key {key!r} of the list is no field of its elements; take {', '.join(fields)}")
        if key not in items.get("required", ()) and "default" not in fields[key]:
            raise place.error(f"the key {key!r} of the list may be absent; give it no default, or a filled one")
        if fields[key].get("nullable") or fields[key].get("type") in {None, "array", "object"}:
            raise place.error(f"the key {key!r} of the list is no plain text, number or boolean; take another field")


def _is_open(items: dict[str, Any]) -> bool:
    """Whether several appliers may each have a part of a value."""
    whole = "atomic" in {items.get("x-kubernetes-map-type"), items.get("x-kubernetes-list-type")}
    return items.get("type") in {None, "array", "object"} and not whole
