"""The pages of `pilothouse app`: an application with its objects, its operation and its history. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pilothouse.delivery.resources.applications import Application, History, ResourceStatus, Source
from pilothouse.delivery.showing import Node, aligned, marked, tree_lines
from pilothouse.foundation.terminal import printable

from .evaluation import Evaluation, sources_of
from .rejections import read_rejections

__all__ = [
    "HISTORY_COLUMNS",
    "LIST_COLUMNS",
    "AppView",
    "ChangeView",
    "DifferenceView",
    "differences_of",
    "fields_of",
    "fields_page",
    "history_rows",
    "is_settled",
    "operation_ended",
    "page_of",
    "row_of",
    "state_of",
    "view_of",
]

LIST_COLUMNS: Final = ("namespace", "name", "project", "sync", "health", "revision", "repository", "path", "conditions")
HISTORY_COLUMNS: Final = ("id", "deployed", "revision", "by", "source")
_SHORT: Final = 7
_MOST_MESSAGE: Final = 120


class DifferenceView(msgspec.Struct, frozen=True, kw_only=True):
    """An object that is not as git says. what: Missing, Extra (to be pruned) or OutOfSync."""

    what: str
    kind: str
    namespace: str
    name: str
    message: str = ""


class AppView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An application as users read it."""

    namespace: str
    name: str
    project: str
    destination: str
    sources: Sequence[str]
    sync: str
    health: str
    revisions: Sequence[str]
    automated: str
    operation: str = ""
    conditions: Sequence[str] = ()
    rejected: Sequence[str] = ()
    images: Sequence[str] = ()
    resources: Sequence[ResourceStatus] = ()


def view_of(app: Application) -> AppView:
    """Return what there is to see of an application."""
    spec, status = app.spec, app.status
    where = spec.destination.name or spec.destination.server or "this cluster"
    return AppView(
        namespace=app.metadata.namespace,
        name=app.metadata.name,
        project=spec.project or "default",
        destination=f"{where}, namespace {spec.destination.namespace}" if spec.destination.namespace else where,
        sources=[_source(one) for one in sources_of(app)],
        sync=status.sync.status or "Unknown",
        health=status.health.status or "Unknown",
        revisions=[one for one in status.sync.revisions or (status.sync.revision,) if one],
        automated=_automated(app),
        operation=state_of(app),
        conditions=[f"{one.type}: {one.message}" for one in status.conditions],
        rejected=[f"{one.revision[:_SHORT]}{f': {one.reason}' if one.reason else ''}" for one in read_rejections(app)],
        images=[str(one) for one in (status.summary or {}).get("images", ())],
        resources=list(status.resources),
    )


def _source(source: Source) -> str:
    place = source.path or source.chart or (f"as ${source.ref}" if source.ref else ".")
    return f"{source.repo_url} {place} at {source.target_revision or 'HEAD'}"


def _automated(app: Application) -> str:
    policy = app.spec.sync_policy
    if policy is None or policy.automated is None or policy.automated.enabled is False:
        return "no"
    words = [
        word for word, is_on in (("prune", policy.automated.prune), ("self-heal", policy.automated.self_heal)) if is_on
    ]
    return f"yes ({', '.join(words)})" if words else "yes"


# How far it is


def state_of(app: Application) -> str:
    """Return how the last operation goes or went, in one line; empty where there was none."""
    if app.operation is not None and not _is_running(app):
        return "Pending: it was asked for"
    state = app.status.operation_state
    if state is None or not state.phase:
        return ""
    revision = state.sync_result.revision[:_SHORT] if state.sync_result is not None else ""
    where = f" (to {revision})" if revision else ""
    return f"{state.phase}{where}{f': {state.message[:_MOST_MESSAGE]}' if state.message else ''}"


def _is_running(app: Application) -> bool:
    state = app.status.operation_state
    return state is not None and state.phase in {"Running", "Terminating"}


def operation_ended(app: Application) -> bool:
    """Whether nothing that was asked for is waited for or under way."""
    return app.operation is None and not _is_running(app)


def is_settled(app: Application, *, sync: bool = True, health: bool = True) -> bool:
    """Whether an application is synced, healthy, or both, with no operation under way."""
    status = app.status
    return (
        operation_ended(app)
        and (not sync or status.sync.status == "Synced")
        and (not health or status.health.status == "Healthy")
    )


# Lines


def row_of(app: Application) -> dict[str, object]:
    """Return the row of a list."""
    view = view_of(app)
    sources = sources_of(app)
    return {
        "namespace": view.namespace,
        "name": view.name,
        "project": view.project,
        "sync": view.sync,
        "health": view.health,
        "revision": ", ".join(one[:_SHORT] for one in view.revisions),
        "repository": ", ".join(one.repo_url for one in sources),
        "path": ", ".join(one.path or one.chart for one in sources),
        "conditions": ", ".join(dict.fromkeys(one.partition(":")[0] for one in view.conditions)),
    }


def page_of(app: Application) -> list[str]:
    """Return the page of an application: how it is, and the tree of its objects."""
    view = view_of(app)
    rows = [
        ("Name:", view.name),
        ("Namespace:", view.namespace),
        ("Project:", view.project),
        ("Destination:", view.destination),
        *(("Source:", one) for one in view.sources),
        ("Automated:", view.automated),
        ("Sync:", f"{marked(view.sync)}{' at ' + ', '.join(view.revisions) if view.revisions else ''}"),
        ("Health:", marked(view.health)),
    ]
    rows += [("Operation:", view.operation)] if view.operation else []
    rows += [("Condition:", one) for one in view.conditions]
    rows += [("Rejected:", one) for one in view.rejected]
    rows += [("Image:", one) for one in view.images]
    head = aligned([(name.ljust(12), printable(value)) for name, value in rows])
    tree = Node(
        view.name, ("Application", marked(view.sync), marked(view.health)), [_node(one) for one in view.resources]
    )
    return [*head, "", *tree_lines(tree, ("NAME", "KIND", "SYNC", "HEALTH", "MESSAGE"))]


def _node(found: ResourceStatus) -> Node:
    health = found.health
    name = f"{found.namespace}/{found.name}" if found.namespace else found.name
    message = "to be pruned" if found.requires_pruning else ""
    if health is not None and health.message:
        message = f"{message}; {health.message}" if message else health.message
    cells = (found.kind, marked(found.status), marked(health.status) if health is not None else "", message)
    return Node(name, cells)


def history_rows(history: Sequence[History]) -> list[dict[str, object]]:
    """Return the syncs that went well, the newest first."""
    return [
        {
            "id": one.id,
            "deployed": one.deployed_at,
            "revision": ", ".join(one.revisions) or one.revision,
            "by": "automated" if one.initiated_by.automated else one.initiated_by.username,
            "source": ", ".join(_source(each) for each in one.sources or ([one.source] if one.source else [])),
        }
        for one in reversed(history)
    ]


def differences_of(app: Application) -> list[DifferenceView]:
    """Return the objects that are not as git says."""
    made = []
    for one in app.status.resources:
        health = one.health
        if one.status == "Synced":
            continue
        missing = health is not None and health.status == "Missing"
        made.append(
            DifferenceView(
                what="Extra" if one.requires_pruning else "Missing" if missing else "OutOfSync",
                kind=f"{one.kind}.{one.group}" if one.group else one.kind,
                namespace=one.namespace,
                name=one.name,
                message=health.message if health is not None else "",
            )
        )
    return made


# Field by field


class FieldView(msgspec.Struct, frozen=True, kw_only=True):
    """A field that differs. wanted, live: None where there is none."""

    path: str
    wanted: Any = None
    live: Any = None


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync would change of an object. what: Missing, Extra or OutOfSync. problem: why it cannot be compared."""

    what: str
    object: str
    fields: Sequence[FieldView] = ()
    problem: str = ""


def fields_of(evaluation: Evaluation) -> list[ChangeView]:
    """Return what differs in an evaluation, object by object; values of Secrets are hidden already."""
    return [
        ChangeView(
            what="Extra" if state.is_extra else "Missing" if state.live is None else "OutOfSync",
            object=str(state.key),
            fields=[FieldView(path=one.path, wanted=one.wanted, live=one.live) for one in state.drift],
            problem=state.problem,
        )
        for state in evaluation.states
        if not state.synced
    ]


def fields_page(changes: Sequence[ChangeView]) -> list[str]:
    """Return what differs as lines: `-` is what there is, `+` what git says."""
    lines = []
    for change in changes:
        lines.append(printable(f"{change.what}: {change.object}{f': {change.problem}' if change.problem else ''}"))
        for one in change.fields:
            lines.append(f"  {printable(one.path)}")
            lines += [f"  - {printable(one.live)}"] if one.live is not None else []
            lines += [f"  + {printable(one.wanted)}"] if one.wanted is not None else []
    return lines
