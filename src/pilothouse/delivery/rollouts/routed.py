"""What routes say now against what they are to say: the writes that are missing, and whether they show users more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pilothouse.delivery.resources.rollouts import SetHeaderRoute

from .actions import Action, WriteRegions, WriteRoute
from .routes import RouteWants, Shown, region_shares, rewritten, shown
from .routing import has_requests, managed_names, regions_name, route_keys, takes_headers
from .situation import Situation
from .view import RouteKey
from .weights import Split

__all__ = ["Routed", "keys_missing", "routed", "weight_shown"]


@dataclass(frozen=True, slots=True)
class Routed:
    """What is to be written for a split. writes: in order. rest: what goes when nothing names it any more.

    is_away: whether the canary gets more nowhere, so that it may be done before all else. is_drained: whether nothing
    goes there once it is done.
    """

    writes: list[Action] = field(default_factory=list)
    rest: list[Action] = field(default_factory=list)
    is_away: bool = True
    is_drained: bool = True

    @property
    def is_done(self) -> bool:
        """Whether routes say what they are to say."""
        return not self.writes


def routed(sit: Situation, split: Split) -> Routed:
    """Return what is missing for a split. Raises RouteInvalid for a route that cannot carry it."""
    stable, canary = sit.services
    weights = sit.view.rollout.status.canary.weights
    former = frozenset(one.service_name for one in (weights.additional if weights else ()) if one.service_name)
    wants = RouteWants(stable, canary, split, managed_names(sit.rollout), regions_name(sit.rollout), former)
    changes: list[Action] = []
    is_away = True
    present = _present_regions(sit, canary)
    for key in route_keys(sit.rollout):
        route = sit.view.routes.get(key)
        if route is None:
            continue
        own = replace(wants, split=_split_of(sit, key, split))
        wanted = rewritten(route, own)
        is_away = is_away and not _shows_more(own.split, shown(route, own), present)
        if wanted != route:
            changes.append(WriteRoute(key, wanted))
    regions, rest = _regions(sit, split, stable, canary)
    return Routed([*regions, *changes], rest, is_away, not split.shows_canary)


def _split_of(sit: Situation, key: RouteKey, split: Split) -> Split:
    """Return what of a split a route can carry: connections have neither headers nor regions."""
    if not has_requests(key):
        return replace(split, regions={}, managed=())
    if takes_headers(sit.rollout, key):
        return split
    return replace(split, managed=tuple(each for each in split.managed if not isinstance(each, SetHeaderRoute)))


def _regions(sit: Situation, split: Split, stable: str, canary: str) -> tuple[list[Action], list[Action]]:
    """Return what sets the weights of regions, and what removes them."""
    namespace = next((key.namespace for key in route_keys(sit.rollout)), sit.namespace)
    name, found = regions_name(sit.rollout), sit.view.regions
    if not split.regions:
        return [], [] if found is None else [WriteRegions(namespace, name)]
    shares = region_shares(split, stable, canary)
    if found is not None and _same(found.get("spec", {}).get("weights") or (), shares):
        return [], []
    return [WriteRegions(namespace, name, shares)], []


def _same(present: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]) -> bool:
    return [dict(one) for one in present] == [dict(one) for one in wanted]


def _present_regions(sit: Situation, canary: str) -> dict[str, int]:
    """Return the canary's weight by region, as the object has it."""
    made: dict[str, int] = {}
    for share in ((sit.view.regions or {}).get("spec") or {}).get("weights") or ():
        weight = next((int(one["weight"]) for one in share["backends"] if one["name"] == canary), 0)
        made |= dict.fromkeys(share["regions"], weight)
    return made


def _shows_more(split: Split, present: Shown, regions: Mapping[str, int]) -> bool:
    """Whether a split gives the canary, or an experiment, more than a route does now, anywhere."""
    before = regions if present.has_regions else {}
    names = {*split.regions, *before}
    return (
        split.canary > present.weight
        or any(split.regions.get(name, split.canary) > before.get(name, present.weight) for name in names)
        or not {each.name or "" for each in split.managed} <= present.managed
        or sum(one.weight for one in split.additional) > present.additional
    )


def weight_shown(sit: Situation) -> int:
    """Return the canary's weight as routes have it."""
    stable, canary = sit.services
    wants = RouteWants(stable, canary, Split(sit.max_weight), managed_names(sit.rollout))
    routes = [sit.view.routes[key] for key in route_keys(sit.rollout) if key in sit.view.routes]
    return max((shown(route, wants).weight for route in routes), default=0)


def keys_missing(sit: Situation) -> list[RouteKey]:
    """Return the routes that a rollout names and that are not there."""
    return [key for key in route_keys(sit.rollout) if key not in sit.view.routes]
