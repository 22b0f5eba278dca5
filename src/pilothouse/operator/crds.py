"""Custom resources from Python classes: the CustomResourceDefinition that servers are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from pilothouse.kinds import names
from pilothouse.kinds.structs import Resource
from pilothouse.operator.crd_conversion import ConversionWebhook
from pilothouse.operator.crd_defaults import plain_json
from pilothouse.operator.crd_errors import DefinitionError
from pilothouse.operator.crd_paths import check_path, column_type, schema_at
from pilothouse.operator.crd_schema import object_schema

__all__ = ["PrinterColumn", "Scale", "custom_resource", "definition", "facts_of"]

_FACTS: Final = "__crd_facts__"
_R = TypeVar("_R", bound=type[Resource])
ColumnType = Literal["string", "integer", "number", "boolean", "date"]


@dataclass(frozen=True)
class PrinterColumn:
    """A column of `kubectl get`.

    json_path: what it shows, `.status.ready`. type: of its values; found in the schema where none is given.
    priority: those above 0 are shown with `-o wide` only.
    """

    name: str
    json_path: str
    type: ColumnType | None = None
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Scale:
    """Where `kubectl scale` and autoscalers find the replicas wanted and there, and the selector of pods as text."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ""


@dataclass(frozen=True)
class _Facts:
    """What `custom_resource` was told of a class; None where the schema or the other versions decide."""

    short_names: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    singular: str | None = None
    storage: bool | None = None
    served: bool = True
    deprecated: bool | str = False
    status: bool | None = None
    scale: Scale | None = None
    columns: tuple[PrinterColumn, ...] = ()
    selectable: tuple[str, ...] = ()
    conversion: ConversionWebhook | None = None


def custom_resource(  # noqa: PLR0913  the words of a definition
    *,
    short_names: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    singular: str | None = None,
    storage: bool | None = None,
    served: bool = True,
    deprecated: bool | str = False,
    status: bool | None = None,
    scale: Scale | None = None,
    columns: Sequence[PrinterColumn] = (),
    selectable: Sequence[str] = (),
    conversion: ConversionWebhook | None = None,
) -> Callable[[_R], _R]:
    """Say of a class of whole objects what its fields cannot.

    short_names, categories, singular: other names for kubectl. storage: the one version of several in which objects
    are stored. served: whether clients may use this version. deprecated: True, or the warning that clients get.
    status: whether status is written apart from the rest; as a rule where there is a field `status`. scale, columns,
    selectable: of this version; the last are paths for field selectors. conversion: who converts between versions.
    """
    facts = _Facts(
        short_names=_texts("short_names", short_names),
        categories=_texts("categories", categories),
        singular=singular,
        storage=storage,
        served=served,
        deprecated=deprecated,
        status=status,
        scale=scale,
        columns=tuple(columns),
        selectable=_texts("selectable", selectable) or (),
        conversion=conversion,
    )

    def tell(kind: _R) -> _R:
        if not _is_resource(kind):
            raise DefinitionError(f"{kind} is no whole object; decorate the Resource that holds it")
        setattr(kind, _FACTS, facts)
        return kind

    return tell


def _is_resource(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Resource)


def _texts(name: str, given: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(given, str):
        raise DefinitionError(f"custom_resource({name}={given!r}) is one text; write a list: [{given!r}]")
    return None if given is None else tuple(given)


def facts_of(kind: type[Resource]) -> _Facts:
    """Return what `custom_resource` was told of the class itself."""
    found: _Facts = kind.__dict__.get(_FACTS) or _Facts()
    return found


def definition(*versions: type[Resource], conversion: ConversionWebhook | None = None) -> dict[str, Any]:
    """Return the CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind, as JSON has it.

    versions: the class of each version, in the order in which they are written; the same classes always give the same.
    conversion: the webhook that converts between them, instead of the one that the storage version names; without one
    only apiVersion changes. Raises DefinitionError, which names class and field and the way out.
    """
    stored = _stored(versions)
    facts = facts_of(stored)
    webhook = conversion or facts.conversion
    spec: dict[str, Any] = {
        "group": stored.group,
        "names": _names(stored, versions),
        "scope": "Namespaced" if stored.namespaced else "Cluster",
        "versions": [_version(kind, stored=kind is stored) for kind in versions],
    }
    if webhook is not None:
        spec["conversion"] = webhook.manifest()
    made: dict[str, Any] = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{stored.plural}.{stored.group}"},
        "spec": spec,
    }
    plain: dict[str, Any] = plain_json(made)
    return plain


def _stored(versions: tuple[type[Resource], ...]) -> type[Resource]:
    """Return the class in whose version objects are stored, having compared all of them."""
    if not versions:
        raise DefinitionError("definition() of nothing; give it the class of each version: definition(Website)")
    for kind in versions:
        _check(kind)
    first = versions[0]
    for other in versions[1:]:
        for name in ("group", "plural", "namespaced"):
            _same(first, other, name, getattr(first, name), getattr(other, name))
        _same(first, other, "kind", first.gvk[2], other.gvk[2])
    if len({kind.version for kind in versions}) < len(versions):
        raise DefinitionError(f"{first.gvk[2]}: two classes are of the same version; give each its own version=...")
    wanted = [kind for kind in versions if facts_of(kind).storage]
    if len(versions) == 1 and not wanted and facts_of(first).storage is None:
        wanted = [first]
    if len(wanted) != 1:
        told = " and ".join(kind.version for kind in wanted) or "none"
        raise DefinitionError(
            f"{first.gvk[2]}: {told} of its versions is for storage; write @custom_resource(storage=True) above one"
        )
    return wanted[0]


def _same(first: type[Resource], other: type[Resource], name: str, one: object, another: object) -> None:
    if one != another:
        raise DefinitionError(
            f"{first.__qualname__} and {other.__qualname__} have {name} {one!r} and {another!r}; versions of one"
            " definition share it"
        )


def _check(kind: type[Resource]) -> None:
    if not _is_resource(kind):
        raise DefinitionError(f"{kind!r} is no class of whole objects; subclass Resource, with group and plural")
    name = kind.__qualname__
    if not kind.version:
        raise DefinitionError(
            f"{name} has no version; write class {name}(Resource, version='v1', group=..., plural=...)"
        )
    for word, value, rule in (
        ("group", kind.group, names.dns1123_subdomain),
        ("version", kind.version, names.dns1035_label),
        ("plural", kind.plural, names.dns1035_label),
        ("kind", kind.gvk[2].lower(), names.dns1035_label),
    ):
        if problems := rule(value):
            raise DefinitionError(f"{name}: {word}={value!r} is none: {'; '.join(problems)}")
    if "." not in kind.group:
        raise DefinitionError(f"{name}: group={kind.group!r} is no domain; take one of yours, such as example.com")


def _names(stored: type[Resource], versions: tuple[type[Resource], ...]) -> dict[str, Any]:
    kind = stored.gvk[2]
    made: dict[str, Any] = {"kind": kind, "listKind": f"{kind}List", "plural": stored.plural}
    for name, word in (("singular", "singular"), ("short_names", "shortNames"), ("categories", "categories")):
        given = {other: value for other in versions if (value := getattr(facts_of(other), name)) is not None}
        for other, value in given.items():
            _same(next(iter(given)), other, name, next(iter(given.values())), value)
        if value := next(iter(given.values()), None):
            made[word] = value if isinstance(value, str) else list(value)
    made.setdefault("singular", kind.lower())
    return made


def _version(kind: type[Resource], *, stored: bool) -> dict[str, Any]:
    facts = facts_of(kind)
    schema = object_schema(kind)
    made: dict[str, Any] = {"name": kind.version, "served": facts.served, "storage": stored}
    if facts.deprecated:
        made["deprecated"] = True
        if isinstance(facts.deprecated, str):
            made["deprecationWarning"] = facts.deprecated
    made["schema"] = {"openAPIV3Schema": schema}
    if subresources := _subresources(kind, facts, schema):
        made["subresources"] = subresources
    if facts.columns:
        made["additionalPrinterColumns"] = [_column(kind, each, schema) for each in facts.columns]
    if facts.selectable:
        for path in facts.selectable:
            check_path(kind, "selectable", path, schema)
        made["selectableFields"] = [{"jsonPath": path} for path in facts.selectable]
    return made


def _subresources(kind: type[Resource], facts: _Facts, schema: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    there = "status" in schema["properties"]
    if facts.status and not there:
        raise DefinitionError(f"{kind.__qualname__}: status=True and there is no field of that name; add one")
    if there if facts.status is None else facts.status:
        made["status"] = {}
    if (scale := facts.scale) is not None:
        replicas = {"specReplicasPath": scale.spec_replicas, "statusReplicasPath": scale.status_replicas}
        for path in replicas.values():
            if check_path(kind, "scale", path, schema).get("type") != "integer":
                raise DefinitionError(f"{kind.__qualname__}: scale: {path} is no int, and replicas are counted")
        made["scale"] = dict(replicas)
        if scale.selector:
            check_path(kind, "scale", scale.selector, schema)
            made["scale"]["labelSelectorPath"] = scale.selector
    return made


def _column(kind: type[Resource], column: PrinterColumn, schema: dict[str, Any]) -> dict[str, Any]:
    where = f"column {column.name!r}"
    check_path(kind, where, column.json_path, schema)
    found = column.type or column_type(schema_at(schema, column.json_path))
    made: dict[str, Any] = {"name": column.name, "type": found, "jsonPath": column.json_path}
    for name in ("format", "description", "priority"):
        if value := getattr(column, name):
            made[name] = value
    return made
