"""What the conditions of a namespace say while it is being emptied. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pilothouse.apiserver.ports import Object

__all__ = ["Emptying", "grace_left"]

_FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}
FINALIZER_SECONDS = 15
"""What is left is thought to need so long where finalizers hold it."""


@dataclass(slots=True)
class Emptying:
    """What one look at a namespace's content found.

    remaining: objects left, by plural and group. finalizers: by name, how many objects they hold. failures: what went
    wrong with the content. undiscovered: group/version of APIs whose resources are not known now. seconds: until it
    is worth looking again.
    """

    remaining: Counter[tuple[str, str]] = field(default_factory=Counter)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    undiscovered: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether nothing is left, and nothing may have been overlooked."""
        return not (self.remaining or self.failures or self.undiscovered)

    def conditions(self, old: Sequence[Object], now: str) -> list[Object]:
        """Return the conditions of the namespace, the old list where nothing changes. now: RFC 3339."""
        told = self._told()
        made = [dict(each) for each in old]
        changed = False
        for kind, (reason, message) in _FINE.items():
            new = told.get(kind, {"type": kind, "status": "False", "reason": reason, "message": message})
            known = next((each for each in made if each.get("type") == kind), None)
            if known is None:
                made.append({"type": kind, "status": new["status"], "lastTransitionTime": now, **new})
                changed = True
            elif any(known.get(name) != value for name, value in new.items()):
                if known.get("status") != new["status"]:
                    known["lastTransitionTime"] = now
                known.update(new)
                changed = True
        return made if changed else list(old)

    def _told(self) -> dict[str, Object]:
        told: dict[str, Object] = {}

        def tell(kind: str, reason: str, message: str) -> None:
            told[kind] = {"type": kind, "status": "True", "reason": reason, "message": message}

        if self.undiscovered:
            each = ", ".join(f"{name}: stale GroupVersion discovery: {name}" for name in sorted(self.undiscovered))
            count = len(self.undiscovered)
            why = f"unable to retrieve the complete list of server APIs: {each}"
            text = f"Discovery failed for some groups, {count} failing: {why}"
            tell("NamespaceDeletionDiscoveryFailure", "DiscoveryFailed", text)
        if self.failures:
            why = ", ".join(sorted(self.failures))
            text = f"Failed to delete all resource types, {len(self.failures)} remaining: {why}"
            tell("NamespaceDeletionContentFailure", "ContentDeletionFailed", text)
        if self.remaining:
            lines = [
                f"{name}.{group} has {count} resource instances" for (name, group), count in self.remaining.items()
            ]
            text = f"Some resources are remaining: {', '.join(sorted(lines))}"
            tell("NamespaceContentRemaining", "SomeResourcesRemain", text)
        if self.finalizers:
            lines = [f"{name} in {count} resource instances" for name, count in self.finalizers.items()]
            text = f"Some content in the namespace has finalizers remaining: {', '.join(sorted(lines))}"
            tell("NamespaceFinalizersRemaining", "SomeFinalizersRemain", text)
        return told


def grace_left(pods: Sequence[Object], passed: float) -> float:
    """Return the seconds that pods need to end, 0 where they have had that time since the namespace was deleted."""
    running = (pod for pod in pods if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"})
    grace = max(((pod.get("spec") or {}).get("terminationGracePeriodSeconds") or 0 for pod in running), default=0)
    return float(grace) if passed < grace else 0.0
