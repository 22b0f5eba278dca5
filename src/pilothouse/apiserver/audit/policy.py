"""Audit policies: how much is told of which request (audit.k8s.io/v1, Policy)."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from pilothouse.apiserver.model import RequestInfo, User
from pilothouse.foundation import logs
from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["STAGES", "AuditLevel", "AuditPolicy", "AuditPolicyError", "Config", "recommended_policy"]

STAGES: Final = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_REMEMBERED = 8192
_REMEMBERED_LENGTH = 1024
_log = logs.get_logger(__name__)


class AuditPolicyError(ValueError):
    """A policy cannot be used; the message names the file and the field."""


class AuditLevel(enum.IntEnum):
    """How much of a request is told."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3


_LEVELS: Final = {
    "None": AuditLevel.NONE,
    "Metadata": AuditLevel.METADATA,
    "Request": AuditLevel.REQUEST,
    "RequestResponse": AuditLevel.REQUEST_RESPONSE,
}
_LISTS: Final = ("users", "userGroups", "verbs", "namespaces", "nonResourceURLs", "omitStages")
_RULE_FIELDS: Final = frozenset({*_LISTS, "level", "resources", "omitManagedFields"})
_POLICY_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"})
_RESOURCE_FIELDS: Final = frozenset({"group", "resources", "resourceNames"})


@dataclass(frozen=True, slots=True)
class Config:
    """What a policy says about one request."""

    level: AuditLevel
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class _Resources:
    group: str
    resources: tuple[str, ...]
    names: frozenset[str]

    def match(self, info: RequestInfo) -> bool:
        if self.group not in {info.group, "*"}:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        full = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        wanted = {full, "*", f"{info.resource}/*"}
        if info.subresource:
            wanted.add(f"*/{info.subresource}")
        return not wanted.isdisjoint(self.resources)


@dataclass(frozen=True, slots=True)
class _Rule:
    config: Config
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    namespaces: frozenset[str]
    resources: tuple[_Resources, ...]
    paths: tuple[str, ...]

    def match(self, user: User | None, info: RequestInfo) -> bool:
        if self.users and (user is None or user.name not in self.users):
            return False
        if self.groups and (user is None or self.groups.isdisjoint(user.groups)):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return self._match_resource(info)
        if self.paths:
            return not info.is_resource and any(_path(info.path, wanted) for wanted in self.paths)
        return True

    def _match_resource(self, info: RequestInfo) -> bool:
        if not info.is_resource or (self.namespaces and info.namespace not in self.namespaces):
            return False
        return not self.resources or any(each.match(info) for each in self.resources)


def _path(path: str, wanted: str) -> bool:
    return wanted in {"*", path} or (wanted.endswith("*") and path.startswith(wanted.rstrip("*")))


class AuditPolicy:
    """The rules of one policy, tried in order; a request that none matches is not told of."""

    def __init__(self, rules: Sequence[_Rule], default: Config) -> None:
        self._rules = tuple(rules)
        self._default = default
        self._by_name = any(each.names for rule in rules for each in rule.resources)
        self._memo: dict[tuple[Any, ...], Config] = {}

    @classmethod
    def load(cls, path: str) -> AuditPolicy:
        """Read a policy from a YAML or JSON file. Raises AuditPolicyError, which names the file and the field."""
        import yaml  # noqa: PLC0415 - only servers with a policy need it

        try:
            data = yaml.safe_load(FilePath(path).read_bytes())
        except OSError as error:
            raise AuditPolicyError(f"audit policy {path}: {error.strerror or error}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise AuditPolicyError(f"audit policy {path}: no YAML: {error}") from error
        return cls.from_dict(data, source=path)

    @classmethod
    def from_dict(cls, data: object, source: str = "(given)") -> AuditPolicy:
        """Read a decoded policy. Raises AuditPolicyError. Unknown fields are passed over with a warning, as in Go."""
        if not isinstance(data, Mapping) or (data.get("apiVersion"), data.get("kind")) != ("audit.k8s.io/v1", "Policy"):
            raise AuditPolicyError(f"audit policy {source}: want apiVersion audit.k8s.io/v1 and kind Policy")
        shape = _shape(data)
        errors = shape or _check(data)
        if errors:
            raise AuditPolicyError(f"audit policy {source}: {errors.message()}")
        if not data.get("rules"):
            raise AuditPolicyError(f"audit policy {source}: rules: loaded illegal policy with 0 rules")
        unknown = _unknown(data)
        if unknown:
            _log.warning("unknown fields in the audit policy are passed over", file=source, fields=unknown)
        omit = frozenset(data.get("omitStages") or ())
        quiet = bool(data.get("omitManagedFields"))
        rules = [_rule(rule, omit, quiet) for rule in data["rules"]]
        return cls(rules, Config(AuditLevel.NONE, omit, quiet))

    def evaluate(self, user: User | None, info: RequestInfo) -> Config:
        """Return what is to be told of a request; remembered by user, verb, resource and namespace."""
        name = info.name if self._by_name else ""
        key = (
            user and (user.name, user.groups),
            info.verb,
            info.group,
            info.resource,
            info.subresource,
            info.namespace,
            name if info.is_resource else info.path,
            info.is_resource,
        )
        found = self._memo.get(key)
        if found is None:
            found = next((rule.config for rule in self._rules if rule.match(user, info)), self._default)
            if len(info.path) <= _REMEMBERED_LENGTH:
                if len(self._memo) >= _REMEMBERED:
                    self._memo.clear()
                self._memo[key] = found
        return found


def _rule(rule: Mapping[str, Any], omit: frozenset[str], quiet: bool) -> _Rule:
    lists = {field: tuple(rule.get(field) or ()) for field in _LISTS}
    own = rule.get("omitManagedFields")
    config = Config(_LEVELS[rule["level"]], omit | set(lists["omitStages"]), quiet if own is None else bool(own))
    resources = tuple(
        _Resources(
            each.get("group") or "", tuple(each.get("resources") or ()), frozenset(each.get("resourceNames") or ())
        )
        for each in rule.get("resources") or ()
    )
    users, groups, verbs, namespaces = (frozenset(lists[field]) for field in _LISTS[:4])
    return _Rule(config, users, groups, verbs, namespaces, resources, lists["nonResourceURLs"])


def _shape(data: Mapping[str, Any]) -> ErrorList:
    """Check the types of all fields, so that what follows need not."""
    errors = ErrorList()
    _strings(errors, Path("omitStages"), data.get("omitStages"))
    _boolean(errors, Path("omitManagedFields"), data.get("omitManagedFields"))
    for position, rule in enumerate(_objects(errors, Path("rules"), data.get("rules"))):
        at = Path("rules").index(position)
        for field in _LISTS:
            _strings(errors, at.child(field), rule.get(field))
        _boolean(errors, at.child("omitManagedFields"), rule.get("omitManagedFields"))
        if not isinstance(rule.get("level") or "", str):
            errors.type_invalid(at.child("level"), str(rule.get("level")), "must be a string")
        for index, each in enumerate(_objects(errors, at.child("resources"), rule.get("resources"))):
            place = at.child("resources").index(index)
            if not isinstance(each.get("group") or "", str):
                errors.type_invalid(place.child("group"), str(each.get("group")), "must be a string")
            for field in ("resources", "resourceNames"):
                _strings(errors, place.child(field), each.get(field))
    return errors


def _strings(errors: ErrorList, at: Path, value: object) -> None:
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        errors.type_invalid(at, str(value), "must be a list of strings")


def _boolean(errors: ErrorList, at: Path, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        errors.type_invalid(at, str(value), "must be true or false")


def _objects(errors: ErrorList, at: Path, value: object) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        errors.type_invalid(at, str(value), "must be a list of objects")
        return []
    return value


def _check(data: Mapping[str, Any]) -> ErrorList:
    errors = ErrorList()
    _stages(errors, Path("omitStages"), data.get("omitStages"))
    for position, rule in enumerate(data.get("rules") or ()):
        _check_rule(errors, Path("rules").index(position), rule)
    return errors


def _check_rule(errors: ErrorList, at: Path, rule: Mapping[str, Any]) -> None:
    level = rule.get("level") or ""
    if not level:
        errors.required(at.child("level"))
    elif level not in _LEVELS:
        errors.not_supported(at.child("level"), level, _LEVELS)
    paths = rule.get("nonResourceURLs") or []
    for position, path in enumerate(paths):
        place = at.child("nonResourceURLs").index(position)
        if path != "*" and not path.startswith("/"):
            errors.invalid(place, path, "non-resource URL rules must begin with a '/' character")
        if "*" in path[:-1]:
            errors.invalid(place, path, "non-resource URL wildcards '*' must be the final character of the rule")
    for each in rule.get("resources") or ():
        group, place = each.get("group") or "", at.child("resources")
        problems = names.dns1123_subdomain(group) if group not in {"", "*"} else ()
        if problems:
            errors.invalid(place.child("group"), group, ",".join(problems))
        if each.get("resourceNames") and not each.get("resources"):
            text = "using resourceNames requires at least one resource"
            errors.invalid(place.child("resourceNames"), each["resourceNames"], text)
    _stages(errors, at.child("omitStages"), rule.get("omitStages"))
    if paths and (rule.get("resources") or rule.get("namespaces")):
        text = "rules cannot apply to both regular resources and non-resource URLs"
        errors.invalid(at.child("nonResourceURLs"), paths, text)


def _stages(errors: ErrorList, at: Path, stages: Sequence[str] | None) -> None:
    for position, stage in enumerate(stages or ()):
        if stage not in STAGES:
            errors.invalid(at.index(position), stage, f"allowed stages are {','.join(STAGES)}")


def _unknown(data: Mapping[str, Any]) -> list[str]:
    found = [str(field) for field in data if field not in _POLICY_FIELDS]
    for position, rule in enumerate(data["rules"]):
        found += [f"rules[{position}].{field}" for field in rule if field not in _RULE_FIELDS]
        for index, each in enumerate(rule.get("resources") or ()):
            found += [
                f"rules[{position}].resources[{index}].{field}" for field in each if field not in _RESOURCE_FIELDS
            ]
    return found


def recommended_policy() -> dict[str, Any]:
    """Return a policy for who has none: all writes with their bodies, reads by name, nothing secret, no chatter."""
    secret = [
        {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
        {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
    ]
    chatter = [{"group": "coordination.k8s.io", "resources": ["leases"]}, {"group": "", "resources": ["events"]}]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*"]},
            {"level": "None", "resources": chatter},
            {"level": "Metadata", "resources": secret},
            {"level": "Request", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata"},
        ],
    }
