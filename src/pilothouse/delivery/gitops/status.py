"""The status of an application, in Argo CD's shape, from what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pilothouse.delivery.resources.applications import Application, OperationState
from pilothouse.kinds.structs import to_dict

from .evaluation import Evaluation, State
from .hooks import annotations_of

__all__ = ["history_with", "status_of", "status_without"]

_HISTORY: Final = 10
_MAX_IMAGES: Final = 100


def status_of(
    app: Application,
    evaluation: Evaluation,
    *,
    operation: Mapping[str, Any] | None,
    conditions: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    now: str,
    refreshed: bool,
) -> dict[str, Any]:
    """Return the whole status. refreshed: whether `reconciledAt` is to be renewed though nothing else has changed."""
    health = evaluation.health()
    before = app.status.health
    changed = before.last_transition_time if before.status == health and before.last_transition_time else now
    made: dict[str, Any] = {
        "sync": _sync(app, evaluation),
        "health": {"status": health, "lastTransitionTime": changed},
        "resources": [_resource(state) for state in evaluation.states],
        "controllerNamespace": app.status.controller_namespace or app.metadata.namespace,
        "summary": _summary(evaluation),
    }
    if app.spec.sources:
        made["sourceTypes"] = list(evaluation.kinds)
    elif evaluation.kinds:
        made["sourceType"] = evaluation.kinds[0]
    return _finished(app, made, operation, conditions, history, now, refreshed=refreshed)


def status_without(
    app: Application,
    *,
    operation: Mapping[str, Any] | None,
    conditions: Sequence[Mapping[str, Any]],
    now: str,
    sync: str = "Unknown",
    refreshed: bool = False,
) -> dict[str, Any]:
    """Return the status of an application that could not be compared: what was known stays."""
    before: dict[str, Any] = to_dict(app.status)
    made = {
        **before,
        "sync": {**before.get("sync", {}), "status": sync, "comparedTo": _compared_to(app)},
        "health": before.get("health") or {"status": "Unknown", "lastTransitionTime": now},
    }
    return _finished(app, made, operation, conditions, before.get("history", ()), now, refreshed=refreshed)


def _finished(
    app: Application,
    made: dict[str, Any],
    operation: Mapping[str, Any] | None,
    conditions: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    now: str,
    *,
    refreshed: bool,
) -> dict[str, Any]:
    before: dict[str, Any] = to_dict(app.status)
    made = {**made, "conditions": list(conditions), "history": list(history)}
    if operation is not None:
        made["operationState"] = dict(operation)
    made = {name: value for name, value in made.items() if value not in ([], {}, None, "")}
    made["reconciledAt"] = before.get("reconciledAt", now)
    if refreshed or {name: value for name, value in before.items() if name != "reconciledAt"} != {
        name: value for name, value in made.items() if name != "reconciledAt"
    }:
        made["reconciledAt"] = now
    return made


def _compared_to(app: Application) -> dict[str, Any]:
    spec: dict[str, Any] = to_dict(app.spec)
    return {name: spec[name] for name in ("source", "sources", "destination", "ignoreDifferences") if name in spec}


def _sync(app: Application, evaluation: Evaluation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "status": "OutOfSync" if evaluation.out_of_sync else "Synced",
        "comparedTo": _compared_to(app),
    }
    if app.spec.sources:
        made["revisions"] = list(evaluation.revisions)
    else:
        made["revision"] = evaluation.revisions[0]
    return made


def _resource(state: State) -> dict[str, Any]:
    version = state.target.api_version if state.target is not None else str((state.live or {}).get("apiVersion", ""))
    made: dict[str, Any] = {
        "group": state.key.group,
        "version": version.rpartition("/")[2],
        "kind": state.key.kind,
        "namespace": state.key.namespace,
        "name": state.key.name,
        "status": "Synced" if state.synced else "OutOfSync",
    }
    if state.health is not None:
        made["health"] = {"status": state.health.status, "message": state.health.message}
        made["health"] = {name: value for name, value in made["health"].items() if value}
    if state.is_extra:
        made["requiresPruning"] = True
    if state.target is not None and state.target.wave:
        made["syncWave"] = state.target.wave
    return {name: value for name, value in made.items() if value != ""}


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    images: set[str] = set()
    links: set[str] = set()
    for state in evaluation.states:
        if state.live is not None and not state.is_extra:
            images.update(_images(state.live.get("spec")))
            for name, value in annotations_of(state.live).items():
                if name.startswith("link.argocd.argoproj.io/"):
                    links.add(value)
    made: dict[str, Any] = {"images": sorted(images)[:_MAX_IMAGES], "externalURLs": sorted(links)[:_MAX_IMAGES]}
    return {name: value for name, value in made.items() if value}


def _images(spec: Any) -> Iterable[str]:
    if not isinstance(spec, Mapping):
        return
    for name in ("containers", "initContainers"):
        for each in spec.get(name) or ():
            if isinstance(each, Mapping) and each.get("image"):
                yield str(each["image"])
    for name in ("template", "jobTemplate"):
        inner = spec.get(name)
        if isinstance(inner, Mapping):
            yield from _images(inner.get("spec"))


def history_with(app: Application, state: OperationState, now: str) -> list[dict[str, Any]]:
    """Return the history with a sync that went well at its end, as long as the application says, 10 by default."""
    before: list[dict[str, Any]] = list(to_dict(app.status).get("history", ()))
    result: dict[str, Any] = to_dict(state).get("syncResult") or {}
    limit = app.spec.revision_history_limit
    entry = {
        "id": max((int(each.get("id", 0)) for each in before), default=-1) + 1,
        "revision": result.get("revision", ""),
        "deployedAt": now,
        "deployStartedAt": state.started_at,
        "initiatedBy": to_dict(state.operation.initiated_by),
    }
    entry |= {name: result[name] for name in ("source", "sources", "revisions") if result.get(name)}
    entry = {name: value for name, value in entry.items() if value not in ({}, None) or name == "revision"}
    keep = _HISTORY if limit is None else limit
    return [*before, entry][-keep:] if keep > 0 else []
