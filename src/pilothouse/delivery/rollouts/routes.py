"""Routes of Gateway API as JSON has them, rewritten for a split of the traffic: one value, so one write a change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.delivery.errors import RouteInvalid
from pilothouse.delivery.resources.rollouts import HeaderMatch, MirrorMatch, SetHeaderRoute, SetMirrorRoute, StringMatch

from .names import MADE_RULES
from .weights import Managed, Split

__all__ = [
    "RouteWants",
    "Shown",
    "is_regions",
    "is_source",
    "managed_name",
    "region_shares",
    "rewritten",
    "shown",
    "splits",
]

_Tree = Mapping[str, Any]
_MAX_RULES: Final = 16
_REGIONS_GROUP: Final = "pilothouse.dev"
_REGIONS_KIND: Final = "RegionWeights"
_PATHS: Final = {"exact": "Exact", "prefix": "PathPrefix", "regex": "RegularExpression"}


@dataclass(frozen=True, slots=True)
class RouteWants:
    """What a route is to say.

    stable, canary: names of services. names: of routes that steps may make, the strongest first. regions: the name of
    the RegionWeights object. former: services of experiments that had a share.
    """

    stable: str
    canary: str
    split: Split
    names: Sequence[str] = ()
    regions: str = ""
    former: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a route shows users of the canary: its weight, routes that steps have made, whether regions count."""

    weight: int
    managed: frozenset[str]
    has_regions: bool
    additional: int


def rewritten(route: _Tree, wants: RouteWants) -> dict[str, Any]:
    """Return a route with the weights, managed rules and region filter that are wanted; all else stays.

    Rules that name both services are the ones that count. Raises RouteInvalid where there is none, or too many come of
    it.
    """
    rules = (route.get("spec") or {}).get("rules") or []
    names = _names(route, wants)
    own = [rule for rule in rules if not managed_name(rule, names)]
    sources = [rule for rule in own if is_source(rule, wants)]
    if not sources:
        raise RouteInvalid(
            f"{_shown_name(route)}: no rule has backendRefs to both {wants.stable} and {wants.canary}; add both"
        )
    made = [_weighted(rule, wants) if is_source(rule, wants) else dict(rule) for rule in own]
    order = {name: place for place, name in enumerate(wants.names)}
    managed = sorted(wants.split.managed, key=lambda each: order.get(each.name or "", len(order)))
    extra = [_managed_rule(each, rule, n, wants) for each in managed for n, rule in enumerate(sources)]
    if len(extra) + len(made) > _MAX_RULES:
        raise RouteInvalid(
            f"{_shown_name(route)}: {len(extra) + len(made)} rules with those of managedRoutes, and a route has at most"
            f" {_MAX_RULES}; split the route"
        )
    said = _with_names(route, [each.name or "" for each in managed])
    return {**route, **said, "spec": {**route["spec"], "rules": [*extra, *made]}}


def _names(route: _Tree, wants: RouteWants) -> list[str]:
    """Return the names of rules that steps may make, and of those that they have made when they were others."""
    notes = (route.get("metadata") or {}).get("annotations") or {}
    return [*dict.fromkeys([*wants.names, *filter(None, str(notes.get(MADE_RULES) or "").split(","))])]


def _with_names(route: _Tree, names: Sequence[str]) -> dict[str, Any]:
    """Return the metadata of a route that says which rules steps have made; nothing where it says so already."""
    metadata = route.get("metadata") or {}
    notes = metadata.get("annotations") or {}
    text = ",".join(names)
    if (notes.get(MADE_RULES) or "") == text:
        return {}
    kept = {name: value for name, value in notes.items() if name != MADE_RULES} | ({MADE_RULES: text} if text else {})
    made = {name: value for name, value in metadata.items() if name != "annotations"}
    return {"metadata": {**made, "annotations": kept} if kept else made}


def shown(route: _Tree, wants: RouteWants) -> Shown:
    """Return what a route shows of the canary as it is."""
    rules = (route.get("spec") or {}).get("rules") or []
    weights, managed, has_regions, additional = [0], set[str](), False, [0]
    names = _names(route, wants)
    for rule in rules:
        if name := managed_name(rule, names):
            managed.add(name)
        elif is_source(rule, wants):
            weights.append(_weight_of(rule, wants.canary))
            has_regions = has_regions or any(is_regions(each, wants) for each in rule.get("filters") or ())
            others = wants.former | {one.service_name for one in wants.split.additional}
            additional.append(sum(_ref_weight(ref) for ref in _refs(rule) if ref.get("name") in others))
    return Shown(max(weights), frozenset(managed), has_regions, max(additional))


def region_shares(split: Split, stable: str, canary: str) -> tuple[dict[str, Any], ...]:
    """Return `spec.weights` of the RegionWeights object for a split."""
    by_weight: dict[int, list[str]] = {}
    for region, weight in sorted(split.regions.items()):
        by_weight.setdefault(weight, []).append(region)
    return tuple(
        {
            "regions": regions,
            "backends": [{"name": stable, "weight": split.total - weight}, {"name": canary, "weight": weight}],
        }
        for weight, regions in sorted(by_weight.items())
    )


# Rules


def _shown_name(route: _Tree) -> str:
    metadata = route.get("metadata") or {}
    return f"{route.get('kind', 'route')} {metadata.get('namespace', '')}/{metadata.get('name', '')}"


def _refs(rule: _Tree) -> list[_Tree]:
    return [*(rule.get("backendRefs") or ())]


def _ref_weight(ref: _Tree) -> int:
    weight = ref.get("weight")
    return 1 if weight is None else int(weight)


def _weight_of(rule: _Tree, service: str) -> int:
    return sum(_ref_weight(ref) for ref in _refs(rule) if ref.get("name") == service)


def is_source(rule: _Tree, wants: RouteWants) -> bool:
    """Whether a rule is split: it has both services."""
    return {wants.stable, wants.canary} <= {ref.get("name") for ref in _refs(rule)}


def splits(route: _Tree, services: Collection[str]) -> bool:
    """Whether a rule of a route has all of some services."""
    rules = (route.get("spec") or {}).get("rules") or []
    return any(set(services) <= {ref.get("name") for ref in _refs(rule)} for rule in rules)


def managed_name(rule: _Tree, names: Iterable[str]) -> str:
    """Return which of our names a rule has, empty for those of users."""
    present = str(rule.get("name") or "")
    return next((name for name in names if re.fullmatch(rf"{re.escape(name)}(-\d+)?", present)), "") if present else ""


def is_regions(each: _Tree, wants: RouteWants) -> bool:
    """Whether a filter is the rollout's weights by region."""
    ref = each.get("extensionRef") or {}
    return (ref.get("group"), ref.get("kind"), ref.get("name")) == (_REGIONS_GROUP, _REGIONS_KIND, wants.regions)


def _weighted(rule: _Tree, wants: RouteWants) -> dict[str, Any]:
    split = wants.split
    weights = {wants.stable: split.stable, wants.canary: split.canary}
    added = {str(one.service_name): one.weight for one in split.additional}
    kept = [ref for ref in _refs(rule) if ref.get("name") not in wants.former | added.keys()]
    refs = [{**ref, "weight": weights[ref["name"]]} if ref.get("name") in weights else dict(ref) for ref in kept]
    like = next(ref for ref in refs if ref["name"] == wants.canary)
    refs += [{**like, "name": name, "weight": weight} for name, weight in added.items()]
    made = {**rule, "backendRefs": refs}
    filters = [each for each in rule.get("filters") or () if not is_regions(each, wants)]
    if split.regions:
        extension = {"group": _REGIONS_GROUP, "kind": _REGIONS_KIND, "name": wants.regions}
        filters.append({"type": "ExtensionRef", "extensionRef": extension})
    if filters or rule.get("filters"):
        made["filters"] = filters
    if not made.get("filters"):
        made.pop("filters", None)
    return made


# Rules that steps make


def _managed_rule(managed: Managed, source: _Tree, place: int, wants: RouteWants) -> dict[str, Any]:
    name = f"{managed.name}-{place}" if place else managed.name
    filters = [each for each in source.get("filters") or () if not is_regions(each, wants)]
    canary = next(ref for ref in _refs(source) if ref.get("name") == wants.canary)
    present = [*(source.get("matches") or ())] or [{}]
    if isinstance(managed, SetHeaderRoute):
        headers = [_header(one) for one in managed.match]
        matches = [{**match, "headers": [*(match.get("headers") or ()), *headers]} for match in present]
        made: dict[str, Any] = {"name": name, "matches": matches, "backendRefs": [{**canary, "weight": 1}]}
    else:
        matches = [_mirror_match(one, match) for one in managed.match for match in present]
        weighted = _weighted(source, wants)
        filters = [*(weighted.get("filters") or ()), _mirror(managed, canary)]
        made = {"name": name, "matches": matches, "backendRefs": weighted["backendRefs"]}
    if filters:
        made["filters"] = filters
    for field_name in ("timeouts", "retry", "sessionPersistence"):
        if field_name in source:
            made[field_name] = source[field_name]
    return made


def _mirror(managed: SetMirrorRoute, canary: _Tree) -> dict[str, Any]:
    ref = {name: canary[name] for name in ("group", "kind", "name", "namespace", "port") if name in canary}
    mirror: dict[str, Any] = {"backendRef": ref}
    if managed.percentage is not None:
        mirror["percent"] = managed.percentage
    return {"type": "RequestMirror", "requestMirror": mirror}


def _text(match: StringMatch) -> tuple[str, str]:
    """Return the type and the value of a match of texts, as Gateway API has them for headers."""
    if match.exact is not None:
        return "Exact", match.exact
    if match.prefix is not None:
        return "RegularExpression", f"{re.escape(match.prefix)}.*"
    return "RegularExpression", match.regex or ""


def _header(match: HeaderMatch) -> dict[str, Any]:
    kind, value = _text(match.header_value)
    return {"name": match.header_name, "type": kind, "value": value}


def _mirror_match(wanted: MirrorMatch, present: _Tree) -> dict[str, Any]:
    made = dict(present)
    if wanted.path is not None:
        word = next(word for word in _PATHS if getattr(wanted.path, word) is not None)
        made["path"] = {"type": _PATHS[word], "value": getattr(wanted.path, word)}
    if wanted.method is not None and wanted.method.exact is not None:
        made["method"] = wanted.method.exact
    headers = [_header(HeaderMatch(header_name=name, header_value=value)) for name, value in wanted.headers.items()]
    if headers:
        made["headers"] = [*(present.get("headers") or ()), *headers]
    return made
