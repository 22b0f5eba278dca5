"""What the status of a definition says: which names it got, whether it is served, which versions are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse.kinds import conditions
from pilothouse.kinds.fielderrors import quote

__all__ = ["TakenNames", "initial_status", "status_after", "taken_names", "terminating"]

_RESOURCE_FIELDS = ("plural", "singular")
_KIND_FIELDS = ("kind", "listKind")


@dataclass(frozen=True, slots=True)
class TakenNames:
    """Names that other definitions of a group have: of resources (short ones too), and of kinds."""

    resources: frozenset[str] = field(default_factory=frozenset)
    kinds: frozenset[str] = field(default_factory=frozenset)


def taken_names(crds: Iterable[Mapping[str, Any]], group: str, besides: str) -> TakenNames:
    """Return the names accepted for all definitions of a group but one (by its metadata.name)."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for crd in crds:
        if crd["spec"]["group"] != group or crd["metadata"]["name"] == besides:
            continue
        accepted = (crd.get("status") or {}).get("acceptedNames") or {}
        resources.update(accepted.get(name) or "" for name in _RESOURCE_FIELDS)
        resources.update(accepted.get("shortNames") or ())
        kinds.update(accepted.get(name) or "" for name in _KIND_FIELDS)
    return TakenNames(frozenset(resources - {""}), frozenset(kinds - {""}))


def initial_status(crd: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status of a definition that was just created: nothing accepted, the storage version stored."""
    stored = [version["name"] for version in crd["spec"]["versions"] if version.get("storage")]
    return {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored}


def status_after(crd: Mapping[str, Any], taken: TakenNames, now: str) -> dict[str, Any]:
    """Return the status that a definition gets: names accepted or not, established once they were all accepted.

    now: RFC 3339, for conditions that change. Names that were accepted stay until others are free. The storage version
    is added to those stored; none is removed.
    """
    status = dict(crd.get("status") or initial_status(crd))
    accepted, reason, message = _accept(crd["spec"]["names"], status.get("acceptedNames") or {}, taken)
    good = not reason
    kept = list(status.get("conditions") or [])
    naming = {
        "type": "NamesAccepted",
        "status": "True" if good else "False",
        "reason": reason or "NoConflicts",
        "message": message or "no conflicts found",
    }
    kept = _set(kept, naming, now)
    if not conditions.is_true(kept, "Established"):
        established = {
            "type": "Established",
            "status": "True" if good else "False",
            "reason": "InitialNamesAccepted" if good else "NotAccepted",
            "message": "the initial names have been accepted" if good else "not all names are accepted",
        }
        kept = _set(kept, established, now)
    stored = list(status.get("storedVersions") or [])
    stored += [
        version["name"]
        for version in crd["spec"]["versions"]
        if version.get("storage") and version["name"] not in stored
    ]
    return {**status, "conditions": kept, "acceptedNames": accepted, "storedVersions": stored}


_TERMINATING = {
    "InstanceDeletionPending": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    "InstanceDeletionInProgress": "CustomResource deletion is in progress",
    "InstanceDeletionCompleted": "removed all instances",
}


def terminating(status: Mapping[str, Any], reason: str, now: str) -> dict[str, Any]:
    """Return the status of a definition that is being deleted.

    reason: `InstanceDeletionPending` at first, `InstanceDeletionInProgress` while objects go, and
    `InstanceDeletionCompleted` when none is left. Raises KeyError for another.
    """
    condition = {
        "type": "Terminating",
        "status": "False" if reason == "InstanceDeletionCompleted" else "True",
        "reason": reason,
        "message": _TERMINATING[reason],
    }
    return {**status, "conditions": _set(list(status.get("conditions") or ()), condition, now)}


def _set(found: list[Any], condition: dict[str, Any], now: str) -> list[Any]:
    """Put a condition among others; the time changes with its status."""
    old = conditions.find(found, condition["type"])
    time = now
    if old is not None and old.get("status") == condition["status"]:
        time = old.get("lastTransitionTime") or now
    made = {
        "type": condition["type"],
        "status": condition["status"],
        "lastTransitionTime": time,
        "reason": condition["reason"],
        "message": condition["message"],
    }
    if old is None:
        return [*found, made]
    return [made if each.get("type") == condition["type"] else each for each in found]


def _accept(
    wanted: Mapping[str, Any], accepted: Mapping[str, Any], taken: TakenNames
) -> tuple[dict[str, Any], str, str]:
    """Return the names accepted now, and reason and message of the last conflict that keeps others from being so."""
    got = {name: value for name, value in accepted.items() if value}
    reason = message = ""

    def claim(name: str, others: frozenset[str]) -> None:
        nonlocal reason, message
        value = wanted.get(name) or ""
        if value != (accepted.get(name) or "") and value in others:
            reason, message = f"{name[0].upper()}{name[1:]}Conflict", f"{quote(value)} is already in use"
        elif value:
            got[name] = value

    claim("plural", taken.resources)
    claim("singular", taken.resources)
    short = [each for each in wanted.get("shortNames") or () if each not in (accepted.get("shortNames") or ())]
    clashes = [f"{quote(each)} is already in use" for each in short if each in taken.resources]
    if clashes:
        reason = "ShortNamesConflict"
        message = clashes[0] if len(clashes) == 1 else f"[{', '.join(clashes)}]"
    else:
        got.pop("shortNames", None)
        if wanted.get("shortNames"):
            got["shortNames"] = list(wanted["shortNames"])
    claim("kind", taken.kinds)
    claim("listKind", taken.kinds)
    got.pop("categories", None)
    if wanted.get("categories"):
        got["categories"] = list(wanted["categories"])
    order = ("plural", "singular", "shortNames", "kind", "listKind", "categories")
    made = {name: got[name] for name in order if name in got}
    return {"plural": "", "kind": "", **made} if "plural" not in made or "kind" not in made else made, reason, message
