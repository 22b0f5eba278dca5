"""Flow schemas: which requests one matches, and to which flow of its priority level they belong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilothouse.apiserver.flow.defaults import CATCH_ALL, EXEMPT, FLOW_SCHEMAS
from pilothouse.apiserver.model import RequestInfo, User
from pilothouse.apiserver.ports import Object

__all__ = ["Schema", "in_order"]

_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Schema:
    """One flow schema, read from its object."""

    name: str
    uid: str
    level: str
    precedence: int
    by: str
    """`ByUser`, `ByNamespace` or empty: what tells the flows of this schema apart."""
    rules: Sequence[Object]

    @classmethod
    def of(cls, obj: Object) -> Schema:
        """Read an object, which passed validation."""
        metadata, spec = obj.get("metadata") or {}, obj.get("spec") or {}
        return cls(
            metadata.get("name", ""),
            metadata.get("uid", ""),
            (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
            spec.get("matchingPrecedence", 0),
            (spec.get("distinguisherMethod") or {}).get("type", ""),
            spec.get("rules") or (),
        )

    def matches(self, user: User, info: RequestInfo) -> bool:
        """Whether a request is one of this schema's."""
        return any(_rule(rule, user, info) for rule in self.rules)

    def flow(self, user: User, info: RequestInfo) -> str:
        """Return what tells this request's flow from the others of the schema."""
        if self.by == "ByUser":
            return user.name
        return info.namespace if self.by == "ByNamespace" else ""


def in_order(objects: Iterable[Object], levels: Iterable[str]) -> list[Schema]:
    """Return the schemas in the order in which they are tried; the mandatory ones are added where they are missing.

    Schemas whose priority level does not exist are left out.
    """
    known = frozenset(levels)
    found = [schema for schema in map(Schema.of, objects) if schema.level in known]
    found.sort(key=lambda schema: (schema.precedence, schema.name))
    names = {schema.name for schema in found}
    missing = {obj["metadata"]["name"]: Schema.of(obj) for obj in FLOW_SCHEMAS[:2]}
    first = [] if EXEMPT in names else [missing[EXEMPT]]
    last = [] if CATCH_ALL in names else [missing[CATCH_ALL]]
    return first + found + last


def _rule(rule: Object, user: User, info: RequestInfo) -> bool:
    if not any(_subject(subject, user) for subject in rule.get("subjects") or ()):
        return False
    if info.is_resource:
        return any(_resource(each, info) for each in rule.get("resourceRules") or ())
    return any(_other(each, info) for each in rule.get("nonResourceRules") or ())


def _subject(subject: Object, user: User) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        name = (subject.get("user") or {}).get("name")
        return bool(name) and name in {"*", user.name}
    if kind == "Group":
        name = (subject.get("group") or {}).get("name")
        return bool(name) and (name == "*" or name in user.groups)
    account = subject.get("serviceAccount") or {}
    if kind != "ServiceAccount" or not account:
        return False
    prefix = f"{_ACCOUNT}{account.get('namespace', '')}:"
    if account.get("name") == "*":
        return user.name.startswith(prefix)
    return bool(user.name == prefix + account.get("name", ""))


def _has(values: Sequence[str] | None, value: str) -> bool:
    return values is not None and (value in values or list(values) == ["*"])


def _resource(rule: Object, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("resources"), resource)
        and _has(rule.get("apiGroups"), info.group)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _other(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs"), info.verb):
        return False
    for path in rule.get("nonResourceURLs") or ():
        prefix = path.removesuffix("*")
        if path in {"*", info.path} or info.path.startswith(prefix if prefix.endswith("/") else prefix + "/"):
            return True
    return False
