"""Subresources through which a part of an object is written: all else stays as it is."""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.strategies.base import Context

__all__ = ["PARTS", "keep_decision"]


def _stamp_conditions(new: Object, old: Object, context: Context) -> None:
    """Fill the times that the conditions of a signing request came without, as its approval and status writes do.

    A condition that was there already, with the same status, keeps the time at which it came to that.
    """
    before = (old.get("status") or {}).get("conditions") or ()
    since = {(each.get("type"), each.get("status")): each.get("lastTransitionTime") for each in reversed(before)}
    for condition in (new.get("status") or {}).get("conditions") or ():
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = context.now
        if not condition.get("lastTransitionTime"):
            known = since.get((condition.get("type"), condition.get("status")))
            condition["lastTransitionTime"] = known or context.now


def keep_decision(new: Object, old: Object, context: Context) -> None:
    """Keep the decision about a signing request as it is, which only its approval changes, and stamp it.

    A condition too many or too few is left for the validation to refuse.
    """
    before, after = ((obj.get("status") or {}).get("conditions") or [] for obj in (old, new))
    for kind in ("Approved", "Denied"):
        kept = [condition for condition in before if condition.get("type") == kind]
        places = [place for place, condition in enumerate(after) if condition.get("type") == kind]
        if len(kept) == len(places):
            for place, condition in zip(places, kept, strict=True):
                after[place] = dict(condition)
    _stamp_conditions(new, old, context)


def _approval(new: Object, old: Object, context: Context) -> None:
    """Of a signing request take the conditions."""
    _stamp_conditions(new, old, context)
    conditions = (new.get("status") or {}).get("conditions")
    status = dict(old.get("status") or {})
    if conditions is None:
        status.pop("conditions", None)
    else:
        status["conditions"] = conditions
    new["spec"], new["status"] = old["spec"], status


def _ephemeral_containers(new: Object, old: Object, context: Context) -> None:
    """Of a pod take the ephemeral containers."""
    given = (new.get("spec") or {}).get("ephemeralContainers")
    spec = dict(old["spec"])
    if given:
        spec["ephemeralContainers"] = given
    new["spec"] = spec
    _keep_status(new, old)


def _resize(new: Object, old: Object, context: Context) -> None:
    """Of a pod take the resources of its containers."""
    spec = dict(old["spec"])
    sent = new.get("spec") or {}
    for part in ("containers", "initContainers"):
        wanted = {each.get("name"): each for each in sent.get(part) or ()}
        if part in spec:
            spec[part] = [_resized(each, wanted.get(each.get("name"))) for each in spec[part]]
    if "resources" in sent:
        spec["resources"] = sent["resources"]
    new["spec"] = spec
    _keep_status(new, old)


def _resized(container: Object, wanted: Object | None) -> Object:
    if wanted is None:
        return container
    made = dict(container)
    for name in ("resources", "resizePolicy"):
        if name in wanted:
            made[name] = wanted[name]
    return made


def _keep_status(new: Object, old: Object) -> None:
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)


PARTS: dict[str, Callable[[Object, Object, Context], None]] = {
    "approval": _approval,
    "ephemeralcontainers": _ephemeral_containers,
    "resize": _resize,
}
"""By subresource: makes the new object differ from the old one in its part only, in place."""
