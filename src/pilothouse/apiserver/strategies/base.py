"""The rules that most kinds follow: status apart from the rest, a generation that counts changes of what is wanted.

A strategy changes the new object in place. Facts: `pkg/registry/*/strategy.go` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Object
from pilothouse.foundation.ids import Ids

__all__ = ["Context", "Strategy"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy may need: the time of the request, new ids, and who makes an object."""

    now: str
    moment: datetime
    ids: Ids
    user: User | None = None


def _nothing(new: Object, context: Context) -> None:
    """Most kinds need no more than the common rules."""


def _no_change(new: Object, old: Object, context: Context) -> None:
    """Most kinds need no more than the common rules."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How one kind is handled.

    status: what a new object has as its status; None for kinds without one, which is then taken as it comes.
    keeps_status: a new object's status is taken from the request.
    wanted: the fields whose change makes a new generation; none for kinds without a generation.
    counts_annotations, counts_labels: a change of annotations, or of labels, makes a new generation, too.
    creates_on_update, unconditional: whether PUT may create, and may do without a resource version.
    grace: whether deletion waits for the object's own end (pods).
    finish_create, finish_update, finish_status: the rest of the rules.
    """

    status: Object | None = None
    keeps_status: bool = False
    wanted: Sequence[str] = ()
    counts_annotations: bool = False
    counts_labels: bool = False
    creates_on_update: bool = False
    unconditional: bool = True
    status_subresource: bool = False
    grace: bool = False
    orphans_by_default: bool = False
    ttl: int = 0
    finish_create: Callable[[Object, Context], None] = _nothing
    finish_update: Callable[[Object, Object, Context], None] = _no_change
    finish_status: Callable[[Object, Object, Context], None] = _no_change

    def prepare_create(self, new: Object, context: Context) -> None:
        """Make a new object ready to be validated."""
        if self.status is not None and not self.keeps_status:
            new["status"] = _copy(self.status)
        elif self.status_subresource and not self.keeps_status:
            new.pop("status", None)
        if self.wanted:
            new["metadata"]["generation"] = 1
        else:
            new["metadata"].pop("generation", None)
        self.finish_create(new, context)

    def prepare_update(self, new: Object, old: Object, context: Context) -> None:
        """Make an object ready that replaces another; its status stays as it was."""
        if self.status_subresource:
            _keep(new, old, "status")
        self._keep_generation(new, old)
        self.finish_update(new, old, context)
        if self.wanted and self._wants_other(new, old):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def prepare_status(self, new: Object, old: Object, context: Context) -> None:
        """Make an object ready of which only the status may change."""
        for name in {*new, *old} - {"status", "metadata", "kind", "apiVersion"}:
            _keep(new, old, name)
        self._keep_generation(new, old)
        _keep(new["metadata"], old["metadata"], "deletionTimestamp")
        _keep(new["metadata"], old["metadata"], "ownerReferences")
        self.finish_status(new, old, context)

    def _keep_generation(self, new: Object, old: Object) -> None:
        _keep(new["metadata"], old["metadata"], "generation")

    def _wants_other(self, new: Object, old: Object) -> bool:
        if any(new.get(name) != old.get(name) for name in self.wanted):
            return True
        counted = {"annotations": self.counts_annotations, "labels": self.counts_labels}
        before, after = old["metadata"], new["metadata"]
        return any(counts and (after.get(name) or {}) != (before.get(name) or {}) for name, counts in counted.items())


def _keep(new: Object, old: Object, name: str) -> None:
    if name in old:
        new[name] = old[name]
    else:
        new.pop(name, None)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, list) else value
