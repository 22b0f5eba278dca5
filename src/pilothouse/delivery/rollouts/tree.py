"""What `pilothouse rollout get` shows, as plain data: a rollout with its revisions and what belongs to each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod, ReplicaSet, Resource

from .names import EXPERIMENT_TEMPLATE, REVISION
from .podstatus import ready_of, restarts_of, status_of
from .situation import Situation, available, deadline_of, hash_label, size
from .steps import step_text
from .view import View
from .weights import split_at

__all__ = [
    "ExperimentView",
    "Image",
    "PodView",
    "RevisionView",
    "RolloutView",
    "RunView",
    "SetView",
    "phase_now",
    "progress_of",
    "view_of",
    "weights_of_regions",
]

_SETTLING: Final = {
    "abort": "the abort was not seen by the controller yet",
    "full": "the promotion was not seen by the controller yet",
    "spec": "the specification was not seen by the controller yet",
}


class _Data(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Data that JSON and YAML show with Kubernetes' way of names."""


class PodView(_Data, frozen=True):
    """A pod. ready: containers, such as 1/2."""

    name: str
    status: str
    ready: str
    restarts: int = 0
    created: str | None = None


class SetView(_Data, frozen=True):
    """A replica set. roles: stable, canary, active, preview, ping, pong. scale_down_at: when it loses its pods."""

    name: str
    status: str
    hash: str
    roles: Sequence[str] = ()
    template: str = ""
    replicas: int = 0
    available: int = 0
    images: Sequence[str] = ()
    scale_down_at: str | None = None
    created: str | None = None
    pods: Sequence[PodView] = ()


class RunView(_Data, frozen=True):
    """An analysis run, with its measurements by outcome."""

    name: str
    status: str
    type: str = ""
    message: str = ""
    successful: int = 0
    failed: int = 0
    inconclusive: int = 0
    error: int = 0
    created: str | None = None


class ExperimentView(_Data, frozen=True):
    """An experiment with the sets and runs of its own."""

    name: str
    status: str
    message: str = ""
    created: str | None = None
    replica_sets: Sequence[SetView] = ()
    analysis_runs: Sequence[RunView] = ()


class RevisionView(_Data, frozen=True):
    """A revision, and what was made for it."""

    revision: int
    replica_sets: Sequence[SetView] = ()
    experiments: Sequence[ExperimentView] = ()
    analysis_runs: Sequence[RunView] = ()


class Image(_Data, frozen=True):
    """An image that runs, and as what."""

    image: str
    roles: Sequence[str] = ()


class RolloutView(_Data, frozen=True):
    """A rollout as users read it. Weights are the canary's; those of regions only where they are others.

    step: how many steps are done, None without steps.
    """

    name: str
    namespace: str
    status: str
    strategy: str
    message: str = ""
    step: int | None = None
    steps: Sequence[str] = ()
    set_weight: int | None = None
    actual_weight: int | None = None
    set_region_weights: Mapping[str, int] = {}
    actual_region_weights: Mapping[str, int] = {}
    images: Sequence[Image] = ()
    desired: int = 0
    current: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    created: str | None = None
    revisions: Sequence[RevisionView] = ()


# The rollout


def phase_now(rollout: Rollout) -> tuple[str, str]:
    """Return the phase and why; Progressing while the controller has not seen yet what was asked of it."""
    status = rollout.status
    if status.observed_generation != str(rollout.metadata.generation):
        return "Progressing", _SETTLING["spec"]
    if status.abort and not status.aborted_at:
        return "Progressing", _SETTLING["abort"]
    if status.promote_full and not status.abort:
        return "Progressing", status.message or _SETTLING["full"]
    return status.phase or "Progressing", status.message or ""


def progress_of(rollout: Rollout) -> str:
    """Return in one line how far a rollout is."""
    phase, message = phase_now(rollout)
    canary, index = rollout.spec.strategy.canary, rollout.status.current_step_index
    steps = () if canary is None or rollout.spec.strategy.blue_green is not None else canary.steps
    step = ""
    if steps and index is not None and phase in {"Progressing", "Paused"}:
        step = f" at step {index}/{len(steps)}" + (f" ({step_text(steps[index])})" if index < len(steps) else "")
    return f"{phase}{step}{f': {message}' if message else ''}"


def view_of(view: View, pods: Iterable[Pod], now: datetime) -> RolloutView:
    """Return what there is to see of a rollout. pods: of its replica sets and of those of its experiments."""
    sit = Situation(view, now)
    rollout, status = view.rollout, view.rollout.status
    phase, message = phase_now(rollout)
    by_owner = _by_owner(pods)
    revisions = _revisions(sit, by_owner)
    split = None if sit.canary is None else split_at(sit.steps, sit.index, sit.max_weight)
    return RolloutView(
        name=sit.name,
        namespace=sit.namespace,
        status=phase,
        message=message,
        strategy="BlueGreen" if sit.blue_green is not None else "Canary",
        step=sit.index,
        steps=[step_text(step) for step in sit.steps],
        set_weight=None if split is None else (0 if sit.is_aborted else split.canary),
        actual_weight=_actual_weight(sit),
        set_region_weights={} if split is None or sit.is_aborted else dict(split.regions),
        actual_region_weights=weights_of_regions(sit),
        images=_images(revisions),
        desired=sit.replicas,
        current=status.replicas or 0,
        updated=status.updated_replicas or 0,
        ready=status.ready_replicas or 0,
        available=status.available_replicas or 0,
        created=rollout.metadata.creation_timestamp,
        revisions=revisions,
    )


def _actual_weight(sit: Situation) -> int | None:
    """Return the canary's share as it is: of the routes, or of the pods where no routes split the traffic."""
    if sit.canary is None:
        return None
    if sit.is_promoted:
        return sit.max_weight
    if sit.is_routed:
        weights = sit.status.canary.weights
        return 0 if weights is None else weights.canary.weight
    total = sum(available(found) for found in sit.sets)
    return available(sit.set_of(sit.status.current_pod_hash or "")) * sit.max_weight // total if total else 0


def weights_of_regions(sit: Situation) -> dict[str, int]:
    """Return the canary's weight by region, as the RegionWeights object has it."""
    spec = (sit.view.regions or {}).get("spec") or {}
    _, canary = sit.services
    found: dict[str, int] = {}
    for share in spec.get("weights") or ():
        weights = [int(one.get("weight") or 0) for one in share.get("backends") or () if one.get("name") == canary]
        found |= dict.fromkeys(map(str, share.get("regions") or ()), sum(weights))
    return found


def _images(revisions: Iterable[RevisionView]) -> list[Image]:
    roles: dict[str, dict[str, None]] = {}
    for revision in revisions:
        own = [(one, one.roles) for one in revision.replica_sets]
        tried = [(one, (f"Σ:{one.template}",)) for each in revision.experiments for one in each.replica_sets]
        for found, words in [*own, *tried]:
            for image in found.images if found.replicas else ():
                roles.setdefault(image, {}).update(dict.fromkeys(words))
    return [Image(image=image, roles=[*words]) for image, words in roles.items()]


# What belongs to it


def _by_owner(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        for owner in pod.metadata.owner_references:
            if owner.kind == "ReplicaSet":
                found.setdefault(owner.name, []).append(pod)
    return found


def _revision_in(found: Resource) -> int:
    text = found.metadata.annotations.get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def _owned(one: Resource, owner: Resource) -> bool:
    return any(ref.uid == owner.metadata.uid for ref in one.metadata.owner_references)


def _revisions(sit: Situation, pods: Mapping[str, Sequence[Pod]]) -> list[RevisionView]:
    view = sit.view
    trials = sorted(view.experiments, key=_birth, reverse=True)
    runs = [run for run in view.runs if not any(_owned(run, each) for each in trials)]
    numbers = {_revision_in(one) for one in (*sit.sets, *trials, *runs)}
    return [
        RevisionView(
            revision=number,
            replica_sets=[_set(sit, one, pods) for one in reversed(sit.sets) if _revision_in(one) == number],
            experiments=[_experiment(sit, one, pods) for one in trials if _revision_in(one) == number],
            analysis_runs=[_run(one) for one in sorted(runs, key=_birth) if _revision_in(one) == number],
        )
        for number in sorted(numbers, reverse=True)
    ]


def _birth(one: Resource) -> tuple[str, str]:
    return one.metadata.creation_timestamp or "", one.metadata.name


def _set(sit: Situation, found: ReplicaSet, pods: Mapping[str, Sequence[Pod]]) -> SetView:
    deadline = deadline_of(found)
    template = found.metadata.annotations.get(EXPERIMENT_TEMPLATE, "")
    own = sorted(pods.get(found.metadata.name, ()), key=_birth)
    return SetView(
        name=found.metadata.name,
        status=_set_status(found),
        hash=hash_label(found),
        roles=() if template else _roles(sit, hash_label(found)),
        template=template,
        replicas=found.status.replicas,
        available=found.status.available_replicas,
        images=[one.image or "" for one in found.spec.template.spec.containers],
        scale_down_at=times.format_seconds(deadline) if deadline else None,
        created=found.metadata.creation_timestamp,
        pods=[_pod(pod) for pod in own],
    )


def _set_status(found: ReplicaSet) -> str:
    seen = (found.status.observed_generation or 0) >= (found.metadata.generation or 0)
    if seen and any(one.type == "ReplicaFailure" and one.status == "True" for one in found.status.conditions):
        return "ReplicaFailure"
    if not seen or found.status.available_replicas < size(found):
        return "Progressing"
    return "Healthy" if size(found) else "ScaledDown"


def _roles(sit: Situation, text: str) -> list[str]:
    status = sit.status
    if not text:
        return []
    if sit.blue_green is not None:
        words = {
            "stable": status.stable_rs,
            "active": status.blue_green.active_selector,
            "preview": status.blue_green.preview_selector,
        }
        found = [word for word, value in words.items() if value == text]
        return [word for word in found if word != "preview" or "active" not in found]
    is_stable = text == status.stable_rs
    if not is_stable and text != status.current_pod_hash:
        return []
    made = ["stable" if is_stable else "canary"]
    if sit.canary is not None and sit.canary.ping_pong is not None:
        made.append("ping" if (status.canary.stable_ping_pong == "ping") == is_stable else "pong")
    return made


def _pod(pod: Pod) -> PodView:
    return PodView(
        name=pod.metadata.name,
        status=status_of(pod),
        ready=ready_of(pod),
        restarts=restarts_of(pod),
        created=pod.metadata.creation_timestamp,
    )


def _run(run: AnalysisRun) -> RunView:
    counts: dict[str, int] = {}
    for word in ("successful", "failed", "inconclusive", "error"):
        counts[word] = sum(getattr(one, word) or 0 for one in run.status.metric_results)
    return RunView(
        name=run.metadata.name,
        status=run.status.phase or "Pending",
        type=run.metadata.labels.get("rollout-type", ""),
        message=run.status.message or _seen(run),
        created=run.metadata.creation_timestamp,
        **counts,
    )


def _seen(run: AnalysisRun) -> str:
    """Return what measurements that go on say of what they have seen."""
    last = [one.measurements[-1] for one in run.status.metric_results if one.measurements]
    return "; ".join(one.message for one in last if one.phase == "Running" and one.message)


def _experiment(sit: Situation, found: Experiment, pods: Mapping[str, Sequence[Pod]]) -> ExperimentView:
    sets = sorted((one for one in sit.view.sets if _owned(one, found)), key=_birth)
    runs = sorted((one for one in sit.view.runs if _owned(one, found)), key=_birth)
    return ExperimentView(
        name=found.metadata.name,
        status=found.status.phase or "Pending",
        message=found.status.message or "",
        created=found.metadata.creation_timestamp,
        replica_sets=[_set(sit, one, pods) for one in sets],
        analysis_runs=[_run(one) for one in runs],
    )
