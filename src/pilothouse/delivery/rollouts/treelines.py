"""The pages of `pilothouse rollout get` and `list` as lines of text, from the plain data of `tree`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from pilothouse.delivery.showing import Node, aligned, marked, tree_lines
from pilothouse.foundation.terminal import printable
from pilothouse.kinds import times
from pilothouse.kinds.ages import Ages, human_duration

from .tree import ExperimentView, PodView, RevisionView, RolloutView, RunView, SetView

__all__ = ["LIST_COLUMNS", "page_of", "row_of"]

_TITLES: Final = ("NAME", "KIND", "STATUS", "AGE", "INFO")
_ALPHA: Final = "\N{GREEK SMALL LETTER ALPHA}"
LIST_COLUMNS: Final = (
    "namespace",
    "name",
    "strategy",
    "status",
    "step",
    "set-weight",
    "ready",
    "desired",
    "up-to-date",
    "available",
)
"""The columns of `list`, those of Argo's plugin."""


def page_of(view: RolloutView, now: datetime) -> list[str]:
    """Return the page of one rollout: how far it is, and the tree of its revisions."""
    return [*_head(view), "", *tree_lines(_root(view, _Told(now)), _TITLES)]


def row_of(view: RolloutView) -> dict[str, object]:
    """Return the row of a rollout in a list."""
    return {
        "namespace": view.namespace,
        "name": view.name,
        "strategy": view.strategy,
        "status": view.status,
        "step": _step(view) or "-",
        "set-weight": "-" if view.set_weight is None else view.set_weight,
        "ready": f"{view.ready}/{view.desired}",
        "desired": view.desired,
        "up-to-date": view.updated,
        "available": view.available,
    }


def _step(view: RolloutView) -> str:
    return "" if view.step is None else f"{view.step}/{len(view.steps)}"


# The head


def _head(view: RolloutView) -> list[str]:
    rows = [("Name:", view.name), ("Namespace:", view.namespace), ("Status:", marked(view.status))]
    if view.message:
        rows.append(("Message:", view.message))
    rows.append(("Strategy:", view.strategy))
    if view.strategy == "Canary":
        rows += _weights(view)
    for place, one in enumerate(view.images):
        roles = f" ({', '.join(one.roles)})" if one.roles else ""
        rows.append(("Images:" if not place else "", f"{one.image}{roles}"))
    rows.append(("Replicas:", ""))
    for word in ("desired", "current", "updated", "ready", "available"):
        rows.append((f"  {word.capitalize()}:", str(getattr(view, word))))
    return aligned([(name.ljust(15), printable(value)) for name, value in rows])


def _weights(view: RolloutView) -> Iterable[tuple[str, str]]:
    if view.step is not None:
        what = view.steps[view.step] if view.step < len(view.steps) else ""
        yield "  Step:", f"{_step(view)}{f' ({what})' if what else ''}"
    yield "  SetWeight:", f"{view.set_weight}{_by_region(view.set_region_weights)}"
    yield "  ActualWeight:", f"{view.actual_weight}{_by_region(view.actual_region_weights)}"


def _by_region(weights: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name}: {weight}' for name, weight in sorted(weights.items()))})" if weights else ""


# The tree


class _Told:
    """Tells ages as of one moment."""

    def __init__(self, now: datetime) -> None:
        self._now, self._ages = now, Ages(now)

    def age(self, created: str | None) -> str:
        return self._ages.since(created)

    def left(self, moment: str) -> str:
        """Return the time until a moment."""
        seconds = (times.parse(moment) - self._now).total_seconds()
        return human_duration(seconds) if seconds > 0 else "passed"


def _root(view: RolloutView, told: _Told) -> Node:
    cells = ("Rollout", marked(view.status), told.age(view.created))
    return Node(f"⟳ {view.name}", cells, [_revision(one, told) for one in view.revisions])


def _revision(found: RevisionView, told: _Told) -> Node:
    below = [_set(one, told) for one in found.replica_sets]
    below += [_experiment(one, told) for one in found.experiments]
    below += [_run(one, told) for one in found.analysis_runs]
    return Node(f"# revision:{found.revision}", (), below)


def _set(found: SetView, told: _Told) -> Node:
    info = [*found.roles]
    if found.scale_down_at:
        info.append(f"delay:{told.left(found.scale_down_at)}")
    cells = ("ReplicaSet", marked(found.status), told.age(found.created), ",".join(info))
    return Node(f"⧉ {found.name}", cells, [_pod(one, told) for one in found.pods])


def _pod(found: PodView, told: _Told) -> Node:
    info = f"ready:{found.ready}" + (f",restarts:{found.restarts}" if found.restarts else "")
    ready, _, wanted = found.ready.partition("/")
    mark = "✔" if found.status == "Running" and ready == wanted else ""
    return Node(f"□ {found.name}", ("Pod", marked(found.status, mark), told.age(found.created), info))


def _run(found: RunView, told: _Told) -> Node:
    counts = {"✔": found.successful, "✖": found.failed, "?": found.inconclusive, "⚠": found.error}
    info = [f"{mark} {count}" for mark, count in counts.items() if count]
    told_why = [found.message] if found.message else []
    cells = ("AnalysisRun", marked(found.status), told.age(found.created), ",".join([*info, *told_why]))
    return Node(f"{_ALPHA} {found.name}", cells)


def _experiment(found: ExperimentView, told: _Told) -> Node:
    below = [_set(one, told) for one in found.replica_sets] + [_run(one, told) for one in found.analysis_runs]
    return Node(f"Σ {found.name}", ("Experiment", marked(found.status), told.age(found.created)), below)
