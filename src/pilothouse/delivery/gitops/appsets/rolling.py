"""Progressive syncs of a set: step by step, each once the applications of the step before are healthy. Pure.

All that is known between reconciles is in the set's `status.applicationStatus`, as in Argo CD.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.delivery.gitops.addresses import normalised
from pilothouse.delivery.gitops.errors import TemplateError
from pilothouse.delivery.resources.applications import Application
from pilothouse.kinds.labels import from_label_selector
from pilothouse.kinds.structs import to_dict

__all__ = ["RollingStep", "Turn", "is_rolling", "roll", "steps_of"]

_WAITING, _PENDING, _PROGRESSING, _HEALTHY = "Waiting", "Pending", "Progressing", "Healthy"
_FAILED: Final = frozenset({"Failed", "Error"})


@dataclass(frozen=True, slots=True)
class RollingStep:
    """Applications that are synced together. expressions: of their labels. most: at a time, None for all of them.

    percent: whether most is a share of them.
    """

    expressions: Sequence[Mapping[str, Any]]
    most: int | None = None
    percent: bool = False

    def limit(self, count: int) -> int:
        """Return how many of its applications may be on their way at a time."""
        if self.most is None:
            return count
        return max(count * self.most // 100, min(self.most, 1)) if self.percent else self.most


@dataclass(frozen=True, slots=True)
class Turn:
    """How an application stands. entry: of status.applicationStatus. sync: whether it is to be synced now."""

    entry: dict[str, Any]
    sync: bool = False

    @property
    def is_done(self) -> bool:
        """Whether it is where it shall be."""
        return bool(self.entry["status"] == _HEALTHY)


def is_rolling(strategy: Mapping[str, Any] | None) -> bool:
    """Whether a set's applications are synced step by step."""
    return bool(strategy) and str((strategy or {}).get("type")) == "RollingSync"


def steps_of(strategy: Mapping[str, Any]) -> list[RollingStep]:
    """Return the steps of a strategy. Raises TemplateError."""
    made = []
    for number, step in enumerate((strategy.get("rollingSync") or {}).get("steps") or []):
        field = f"strategy.rollingSync.steps[{number}]"
        expressions = step.get("matchExpressions") or []
        if any(each.get("operator") not in {"In", "NotIn"} for each in expressions):
            raise TemplateError(f"{field}.matchExpressions: the operator is In or NotIn")
        most, percent = _most(f"{field}.maxUpdate", step.get("maxUpdate"))
        made.append(RollingStep(expressions, most, percent))
    if not made:
        raise TemplateError("strategy.rollingSync.steps: there are none; say which applications go first")
    return made


def _most(field: str, given: Any) -> tuple[int | None, bool]:
    text = "" if given is None else str(given)
    number = text.removesuffix("%")
    if text and not (number.isascii() and number.isdigit()):
        raise TemplateError(f"{field}: {text[:50]!r} is no number and no share such as 25%")
    return (int(number) if text else None), text.endswith("%")


def roll(
    steps: Sequence[RollingStep], apps: Sequence[Application], before: Sequence[Mapping[str, Any]], now: str
) -> list[Turn]:
    """Return how each application of a step stands, and which are to be synced now; those of no step are left out."""
    known = {str(each.get("application")): each for each in before}
    by_step: dict[int, list[Application]] = {}
    for app in apps:
        number = _step_of(steps, app)
        if number is not None:
            by_step.setdefault(number, []).append(app)
    made: list[Turn] = []
    open_ = True
    seen: dict[tuple[str, str], set[str]] = {}
    for number, step in enumerate(steps):
        own = by_step.get(number, [])
        turns = [_looked(app, known.get(app.metadata.name), number, now) for app in own]
        if open_:
            ready = {app.metadata.name for app in own if _agrees(app, seen)}
            turns = _begun(turns, ready, step.limit(len(own)), now)
        open_ = open_ and all(turn.is_done for turn in turns)
        made += turns
        for app in own:
            for place, revision in _compared(app):
                seen.setdefault(place, set()).add(revision)
    return made


def _compared(app: Application) -> list[tuple[tuple[str, str], str]]:
    """Return which commit of each source an application was compared with."""
    sources = app.spec.sources or ([app.spec.source] if app.spec.source is not None else [])
    revisions = [*app.status.sync.revisions] or [app.status.sync.revision]
    places = [(normalised(each.repo_url), each.target_revision) for each in sources if not each.chart]
    return [*zip(places, revisions, strict=False)]


def _agrees(app: Application, seen: Mapping[tuple[str, str], set[str]]) -> bool:
    """Whether the steps before were compared with the same commits; one that is late may have changes too."""
    return all(seen.get(place, {revision}) == {revision} for place, revision in _compared(app))


def _step_of(steps: Sequence[RollingStep], app: Application) -> int | None:
    labels = dict(app.metadata.labels or {})
    for number, step in enumerate(steps):
        if from_label_selector({"matchExpressions": [dict(each) for each in step.expressions]}).matches(labels):
            return number
    return None


def _looked(app: Application, before: Mapping[str, Any] | None, number: int, now: str) -> Turn:
    """Return how an application stands by itself."""
    status, state = app.status, app.status.operation_state
    revisions = [*status.sync.revisions] or ([status.sync.revision] if status.sync.revision else [])
    known = dict(before or {})
    phase = str(known.get("status") or _WAITING)
    running = app.operation is not None or (state is not None and state.phase == "Running")
    message = str(known.get("message") or "waits for its step")
    healthy = status.health.status == "Healthy"
    if status.sync.status == "Synced" and healthy and not running:
        phase, message = _HEALTHY, "synced and healthy"
    elif before is None or list(known.get("targetRevisions") or []) != revisions or _is_other(app):
        if phase not in {_PENDING, _PROGRESSING} or not running:
            phase, message = _WAITING, "has changes that are not synced, and waits for its step"
    elif running and phase in {_WAITING, _PENDING}:
        phase, message = _PROGRESSING, "is being synced"
    elif phase in {_PENDING, _PROGRESSING} and state is not None and not running:
        phase = _HEALTHY if state.phase == "Succeeded" and healthy else _PROGRESSING
        message = _ended(state.phase, state.message, status.health.status)
    return Turn(_entry(app.metadata.name, number, phase, message, revisions, known, now))


def _ended(phase: str, message: str, health: str) -> str:
    if phase in _FAILED:
        return f"its sync failed, and the steps after wait: {message}"[:500]
    return f"is synced, and its health is {health or 'not known yet'}"


def _is_other(app: Application) -> bool:
    """Whether its sources are others than those that were synced last."""
    state = app.status.operation_state
    if state is None or state.sync_result is None or state.phase == "Running":
        return False
    result = state.sync_result
    if app.spec.sources:
        return [to_dict(each) for each in result.sources] != [to_dict(each) for each in app.spec.sources]
    return result.source is not None and app.spec.source is not None and result.source != app.spec.source


def _entry(
    name: str, number: int, phase: str, message: str, revisions: Sequence[str], known: Mapping[str, Any], now: str
) -> dict[str, Any]:
    same = known.get("status") == phase
    return {
        "application": name,
        "status": phase,
        "step": str(number + 1),
        "message": message,
        "targetRevisions": list(revisions),
        "lastTransitionTime": known["lastTransitionTime"] if same and known.get("lastTransitionTime") else now,
    }


def _begun(turns: Sequence[Turn], ready: Container[str], limit: int, now: str) -> list[Turn]:
    """Return the turns of the step whose turn it is, with as many of those ready begun as may be on their way."""
    free = limit - sum(turn.entry["status"] in {_PENDING, _PROGRESSING} for turn in turns)
    made = []
    for turn in turns:
        # What has not been compared yet is not synced either: nobody knows what it would be.
        waits = turn.entry["status"] == _WAITING and turn.entry["targetRevisions"]
        if waits and free > 0 and turn.entry["application"] in ready:
            free -= 1
            begun = {"status": _PENDING, "message": "is about to be synced", "lastTransitionTime": now}
            made.append(Turn({**turn.entry, **begun}, sync=True))
        else:
            made.append(turn)
    return made
