"""Rules of roles: whether one allows a request, and whether some rules cover others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from pilothouse.apiserver.ports import Attributes
from pilothouse.kinds.fielderrors import quote

__all__ = ["PolicyRule", "Rule", "compact", "covers", "described", "quoted"]

PolicyRule: TypeAlias = dict[str, Any]
"""A rule as it stands in a role."""

_ALL: Final = "*"


class Rule:
    """One rule, compiled for matching.

    source: as it stands in the role.
    """

    __slots__ = ("_groups", "_names", "_prefixes", "_resources", "_urls", "_verbs", "source")

    def __init__(self, source: PolicyRule) -> None:
        self.source: Final = source
        self._verbs = _set(source.get("verbs"))
        self._groups = _set(source.get("apiGroups"))
        self._resources = _set(source.get("resources"))
        names = source.get("resourceNames")
        self._names = frozenset(names) if names else None
        urls = source.get("nonResourceURLs") or ()
        self._urls = _set(urls)
        self._prefixes = tuple(url.rstrip(_ALL) for url in urls if url.endswith(_ALL))

    @property
    def named(self) -> bool:
        """Whether the rule is for some names of objects only."""
        return self._names is not None

    def allows(self, wanted: Attributes) -> bool:
        """Whether the rule allows a request; of whom and where is not asked."""
        if self._names is not None and wanted.is_resource and wanted.name not in self._names:
            return False
        return self.concerns(wanted)

    def concerns(self, wanted: Attributes) -> bool:
        """Whether the rule allows a request for an object of some name."""
        if self._verbs is not None and wanted.verb not in self._verbs:
            return False
        if not wanted.is_resource:
            return self._urls is None or wanted.path in self._urls or wanted.path.startswith(self._prefixes)
        if self._groups is not None and wanted.group not in self._groups:
            return False
        resources = self._resources
        if resources is None:
            return True
        if not wanted.subresource:
            return wanted.resource in resources
        return f"{wanted.resource}/{wanted.subresource}" in resources or f"*/{wanted.subresource}" in resources


def _set(values: Sequence[str] | None) -> frozenset[str] | None:
    """Return the values as a set, None for all there are."""
    found = frozenset(values or ())
    return None if _ALL in found else found


def covers(owned: Iterable[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Return what `wanted` allows beyond `owned`, as rules of one verb and one resource each."""
    holders = list(owned)
    return [part for part in _parts(wanted) if not any(_covers(holder, part) for holder in holders)]


def _parts(rules: Iterable[PolicyRule]) -> Iterator[PolicyRule]:
    for rule in rules:
        verbs = rule.get("verbs") or ()
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                for verb in verbs:
                    part = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                    names = rule.get("resourceNames")
                    yield from ({**part, "resourceNames": [name]} for name in names) if names else (part,)
        for url in rule.get("nonResourceURLs") or ():
            yield from ({"nonResourceURLs": [url], "verbs": [verb]} for verb in verbs)


def _covers(holder: PolicyRule, part: PolicyRule) -> bool:
    return (
        _has(holder.get("verbs"), part["verbs"])
        and _has(holder.get("apiGroups"), part.get("apiGroups"))
        and _has_resources(holder.get("resources"), part.get("resources"))
        and _has_urls(holder.get("nonResourceURLs"), part.get("nonResourceURLs"))
        and _has_names(holder.get("resourceNames"), part.get("resourceNames"))
    )


def _has(held: Sequence[str] | None, wanted: Sequence[str] | None) -> bool:
    held = held or ()
    return _ALL in held or all(one in held for one in wanted or ())


def _has_resources(held: Sequence[str] | None, wanted: Sequence[str] | None) -> bool:
    held = held or ()
    return _has(held, wanted) or all(
        one in held or ("/" in one and f"*/{one.split('/', 1)[1]}" in held) for one in wanted or ()
    )


def _has_urls(held: Sequence[str] | None, wanted: Sequence[str] | None) -> bool:
    return all(any(_has_url(one, url) for one in held or ()) for url in wanted or ())


def _has_url(held: str, wanted: str) -> bool:
    return held == wanted or (held.endswith(_ALL) and wanted.startswith(held.rstrip(_ALL)))


def _has_names(held: Sequence[str] | None, wanted: Sequence[str] | None) -> bool:
    return not held or (bool(wanted) and all(one in held for one in wanted or ()))


def compact(rules: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Join rules that differ in nothing but their verbs and name one resource of one group each."""
    joined: dict[tuple[str, str], PolicyRule] = {}
    others: list[PolicyRule] = []
    for rule in rules:
        groups: Sequence[str] = rule.get("apiGroups") or ()
        resources: Sequence[str] = rule.get("resources") or ()
        if rule.get("resourceNames") or rule.get("nonResourceURLs") or len(groups) != 1 or len(resources) != 1:
            others.append(rule)
            continue
        key = (groups[0], resources[0])
        if key in joined:
            joined[key]["verbs"].extend(rule.get("verbs") or ())
        else:
            joined[key] = {**rule, "verbs": list(rule.get("verbs") or ())}
    return [*others, *joined.values()]


_TITLES: Final = (
    ("APIGroups", "apiGroups"),
    ("Resources", "resources"),
    ("NonResourceURLs", "nonResourceURLs"),
    ("ResourceNames", "resourceNames"),
    ("Verbs", "verbs"),
)


def described(rule: PolicyRule) -> str:
    """Write a rule on one line, as Kubernetes shows it in messages."""
    parts = [f"{title}:{quoted(rule[field])}" for title, field in _TITLES if rule.get(field)]
    return "{" + ", ".join(parts) + "}"


def quoted(texts: Iterable[str]) -> str:
    """Write texts as Go's `%q` writes a slice of them."""
    return f"[{' '.join(quote(text) for text in texts)}]"
