"""Fields of services and routes that rollouts write: what git says of an object, with these as they are. Pure.

While a rollout names a service, its selector has the rollout's hash; while it names a route, the weights of its two
services there, the rules and the filters that its steps add are its own. Git's word in such a field counts when it
changes while no update is on its way. What git said last is kept in an annotation, for nothing else tells a change of
git from one of the rollout.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pilothouse.delivery.rollouts.claims import HASH, ROUTE_GROUP, ROUTE_KINDS, Claim, claims_of
from pilothouse.delivery.rollouts.names import MADE_RULES
from pilothouse.delivery.rollouts.routes import RouteWants, is_regions, is_source, managed_name

from .targets import Key, Target

__all__ = ["MARK", "ROLLOUT", "compared", "is_shared", "noted", "planned_claims", "written"]

MARK: Final = "pilothouse.dev/git-traffic"
"""The annotation with what git said last of the fields that a rollout writes."""
ROLLOUT: Final = ("argoproj.io/v1alpha1", "Rollout")
_Tree = dict[str, Any]


def noted(wanted: _Tree, live: Mapping[str, Any]) -> _Tree:
    """Return an object that replaces another with the rollouts' note on it, which an apply leaves to them."""
    note = (live["metadata"].get("annotations") or {}).get(MADE_RULES)
    if note is None:
        return wanted
    annotations = {**(wanted["metadata"].get("annotations") or {}), MADE_RULES: note}
    return {**wanted, "metadata": {**wanted["metadata"], "annotations": annotations}}


def is_shared(key: Key) -> bool:
    """Whether rollouts may write into objects of a kind."""
    return (not key.group and key.kind == "Service") or (key.group == ROUTE_GROUP and key.kind in ROUTE_KINDS)


def planned_claims(targets: Iterable[Target]) -> dict[Key, tuple[Claim, ...]]:
    """Return what the rollouts among targets will write, by object."""
    found: dict[Key, tuple[Claim, ...]] = {}
    for target in targets:
        if target.key.kind != "Rollout" or target.api_version != ROLLOUT[0]:
            continue
        for (kind, namespace, name), claim in claims_of(target.object).items():
            key = Key(ROUTE_GROUP if kind in ROUTE_KINDS else "", kind, namespace, name)
            found[key] = (*found.get(key, ()), claim)
    return found


def compared(wanted: _Tree, live: Mapping[str, Any], claims: Sequence[Claim]) -> _Tree:
    """Return what an object is compared with: git's, with the rollouts' fields as they are. The mark never differs."""
    made = _with_mark(wanted, _mark_text(live))
    return made if _git_counts(wanted, live, claims) else _kept(made, live, claims)


def written(
    wanted: _Tree, live: Mapping[str, Any] | None, claims: Sequence[Claim], planned: Sequence[Claim] = ()
) -> _Tree:
    """Return what a sync writes. planned: of rollouts that come with it, for these are not there at first."""
    said = _said(wanted, [*claims, *planned])
    if live is None or not claims:
        return _with_mark(wanted, _text(said))
    if _git_counts(wanted, live, claims):
        return _with_mark(wanted, _text(said))
    before = _mark(live)
    if wanted["kind"] == "Service":
        said = before
    elif any(claim.busy for claim in claims):
        said |= {name: before[name] for name in said if name in before}  # it counts once the update is over
    return _kept(_with_mark(wanted, _text(said)), live, claims)


# What git said last


def _git_counts(wanted: Mapping[str, Any], live: Mapping[str, Any], claims: Sequence[Claim]) -> bool:
    """Whether git's own values hold: nobody writes there, or git has changed them while no update is on its way."""
    if not claims:
        return True
    if any(claim.busy for claim in claims):
        return False
    now, before = _said(wanted, claims), _mark(live)
    if wanted["kind"] == "Service":
        return now != before
    return any(name in before and before[name] != value for name, value in now.items())


def _said(wanted: Mapping[str, Any], claims: Sequence[Claim]) -> dict[str, str]:
    """Return what git says in the fields that rollouts write: a hash, or weights by service."""
    if wanted["kind"] == "Service":
        value = (_spec(wanted).get("selector") or {}).get(HASH)
        return {HASH: str(value)} if value and claims else {}
    names = {name for claim in claims for name in claim.services}
    found: dict[str, set[str]] = {}
    for rule in _rules(wanted):
        for ref in rule.get("backendRefs") or ():
            if ref.get("name") in names:
                weight = ref.get("weight")
                found.setdefault(ref["name"], set()).add("1" if weight is None else str(weight))
    return {name: ",".join(sorted(weights)) for name, weights in sorted(found.items())}


def _text(said: Mapping[str, str]) -> str:
    return json.dumps(said, sort_keys=True, separators=(",", ":")) if said else ""


def _mark_text(obj: Mapping[str, Any]) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(MARK) or "")


def _mark(live: Mapping[str, Any]) -> dict[str, str]:
    try:
        found = json.loads(_mark_text(live) or "{}")
    except ValueError:
        return {}
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _with_mark(wanted: _Tree, text: str) -> _Tree:
    annotations = {name: each for name, each in (wanted["metadata"].get("annotations") or {}).items() if name != MARK}
    if text:
        annotations[MARK] = text
    metadata = {name: each for name, each in wanted["metadata"].items() if name != "annotations"}
    return {**wanted, "metadata": {**metadata, **({"annotations": annotations} if annotations else {})}}


# The fields as they are


def _spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    found = obj.get("spec")
    return found if isinstance(found, Mapping) else {}


def _rules(obj: Mapping[str, Any]) -> list[_Tree]:
    return [rule for rule in _spec(obj).get("rules") or () if isinstance(rule, dict)]


def _kept(wanted: _Tree, live: Mapping[str, Any], claims: Sequence[Claim]) -> _Tree:
    if wanted["kind"] == "Service":
        return _kept_selector(wanted, live)
    for claim in claims:
        if claim.services:
            wanted = _kept_rules(wanted, live, claim)
    return wanted


def _kept_selector(wanted: _Tree, live: Mapping[str, Any]) -> _Tree:
    selector = {name: each for name, each in (_spec(wanted).get("selector") or {}).items() if name != HASH}
    present = (_spec(live).get("selector") or {}).get(HASH)
    if present is not None:
        selector[HASH] = present
    return {**wanted, "spec": {**_spec(wanted), "selector": selector}}


def _kept_rules(wanted: _Tree, live: Mapping[str, Any], claim: Claim) -> _Tree:
    """Return a route with one rollout's weights, rules and filters as the live one has them, which come first there."""
    wants = claim.wants
    own = [rule for rule in _rules(wanted) if not managed_name(rule, wants.names)]
    added = [copy.deepcopy(rule) for rule in _rules(live) if managed_name(rule, wants.names)]
    sources = [each for each in _rules(live) if not managed_name(each, wants.names) and is_source(each, wants)]
    made, place = [], 0
    for rule in own:
        if sources and is_source(rule, wants):
            made.append(_kept_rule(rule, _like(rule, place, sources), claim, wants))
            place += 1
        else:
            made.append(rule)
    return {**wanted, "spec": {**_spec(wanted), "rules": [*added, *made]}}


def _like(rule: _Tree, place: int, sources: Sequence[_Tree]) -> _Tree:
    """Return the live rule that one of git is: by name, by matches, or by place; the first one for a new rule."""
    for field in ("name", "matches"):
        found = [each for each in sources if rule.get(field) and each.get(field) == rule.get(field)]
        if found:
            return found[0]
    return sources[place] if place < len(sources) else sources[0]


def _kept_rule(rule: _Tree, live: _Tree, claim: Claim, wants: RouteWants) -> _Tree:
    present = {ref.get("name"): ref for ref in live.get("backendRefs") or ()}
    refs = [_weighted(ref, present) if ref.get("name") in claim.services else ref for ref in rule["backendRefs"]]
    named = {ref.get("name") for ref in refs}
    refs += [copy.deepcopy(present[name]) for name in claim.additional if name in present and name not in named]
    filters = [each for each in rule.get("filters") or () if not is_regions(each, wants)]
    filters += [copy.deepcopy(each) for each in live.get("filters") or () if is_regions(each, wants)]
    made = {name: each for name, each in rule.items() if name != "filters"} | {"backendRefs": refs}
    return {**made, "filters": filters} if filters else made


def _weighted(ref: _Tree, present: Mapping[Any, Mapping[str, Any]]) -> _Tree:
    found = {name: each for name, each in ref.items() if name != "weight"}
    weight = present.get(ref.get("name"), {}).get("weight")
    return found if weight is None else {**found, "weight": weight}
