"""Whether a rollout was taken back by analysis or a deadline, and the incident that this makes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.delivery.gitops.targets import owner_of, split_instance
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import Incident, IncidentSpec
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds import times
from pilothouse.kinds.structs import ObjectMeta, to_dict

__all__ = [
    "PEOPLE",
    "ROLLOUT_LABEL",
    "Decision",
    "Revisions",
    "application_of",
    "bad_revisions",
    "decision_of",
    "incident_of",
    "known",
    "superfluous",
]

ROLLOUT_LABEL: Final = "pilothouse.dev/rollout"
PEOPLE: Final = "pilothouse.dev/people"
"""The annotation of Rollouts and Applications that says whom to ask, by commas."""
_INSTANCE: Final = "app.kubernetes.io/instance"
_ABORTED: Final = re.compile(r"Rollout aborted update to revision (?P<revision>\d+): (?P<why>.+)", re.DOTALL)
_MOST_PEOPLE: Final = 20
_MOST_REVISIONS: Final = 20
_OF_ROLLOUT: Final = 20
_OF_NAMESPACE: Final = 200


@dataclass(frozen=True, slots=True)
class Decision:
    """A rollback that was decided by itself."""

    version: str
    at: str
    cause: str
    message: str
    revision: str


@dataclass(frozen=True, slots=True)
class Revisions:
    """Commits that contain the bad version, the one that brought it first; good: the one before, where it is known."""

    bad: tuple[str, ...] = ()
    good: str = ""


def decision_of(rollout: Rollout) -> Decision | None:
    """Return the rollback that a rollout is in, None where there is none or a person aborted it.

    Whoever aborts by hand gives no reason; the controller does.
    """
    status = rollout.status
    if not status.abort or not status.aborted_at or not status.current_pod_hash:
        return None
    said = next((one.message for one in status.conditions if one.reason == "RolloutAborted"), "")
    found = _ABORTED.fullmatch(said)
    if found is None:
        return None
    why = found["why"].strip()
    cause = "Analysis"
    if why.endswith("has timed out progressing"):
        cause = "Deadline"
    elif why.startswith("Experiment"):
        cause = "Experiment"
    return Decision(status.current_pod_hash, status.aborted_at, cause, why[:2000], found["revision"])


# The application


def application_of(rollout: Rollout, namespace: str) -> tuple[str, str] | None:
    """Return namespace and name of the application that a rollout is marked as being of.

    namespace: of applications that a mark names without one. A label alone is a guess; `known` checks it.
    """
    tree = {**to_dict(rollout), "apiVersion": rollout.api_version, "kind": rollout.kind}
    instance = owner_of(tree) or rollout.metadata.labels.get(_INSTANCE, "")
    return split_instance(instance, namespace) if instance else None


def known(app: Application, rollout: Rollout) -> bool:
    """Whether an application says itself that a rollout is its."""
    place = (rollout.kind, rollout.metadata.namespace, rollout.metadata.name)
    return any((each.kind, each.namespace, each.name) == place for each in app.status.resources)


def bad_revisions(app: Application, started_at: str | None) -> Revisions:
    """Return the commits that contain a version which began to roll out at a moment.

    What brought it is the last sync that had begun by then; all that were synced since contain it too.
    """
    synced = [(each.deploy_started_at or each.deployed_at, _revision(each)) for each in app.status.history]
    state = app.status.operation_state
    if state is not None and state.sync_result is not None and not (state.operation.sync or _NOTHING).dry_run:
        last = (state.started_at, _revision(state.sync_result))
        if not synced or synced[-1][1] != last[1]:
            synced.append(last)
    synced = [(at, revision) for at, revision in synced if revision]
    if not synced:
        return Revisions()
    first = len(synced) - 1
    if started_at:
        by_then = [number for number, (at, _) in enumerate(synced) if at and _is_by(at, started_at)]
        first = by_then[-1] if by_then else 0
    while first > 0 and synced[first - 1][1] == synced[first][1]:
        first -= 1  # the same commit synced again
    bad = dict.fromkeys(revision for _, revision in synced[first:])
    earlier = [revision for _, revision in synced[:first] if revision not in bad]
    return Revisions((*bad,)[:_MOST_REVISIONS], earlier[-1] if earlier else "")


class _Nothing:
    dry_run = False


_NOTHING: Final = _Nothing()


def _revision(synced: Any) -> str:
    return synced.revision or (synced.revisions[0] if synced.revisions else "")


def _is_by(at: str, moment: str) -> bool:
    try:
        return times.parse(at) <= times.parse(moment)
    except times.TimeError:
        return False


# The incident


def incident_of(
    rollout: Rollout,
    decision: Decision,
    there: Iterable[Incident],
    app: Application | None = None,
) -> Incident | None:
    """Return the incident of a rollback, None where it is there. there: those of the rollout's namespace.

    Its name is that of rollout and version; a version that is taken back a second time has a number behind it.
    """
    listed = [each for each in there if each.spec.rollout == rollout.metadata.name]
    own = [each for each in listed if each.spec.version == decision.version]
    if any(each.spec.decided_at == decision.at for each in own):
        return None
    duration = rollout.status.duration
    started = duration.rollout_started_at if duration is not None else None
    revisions = bad_revisions(app, started) if app is not None else Revisions()
    spec = IncidentSpec(
        rollout=rollout.metadata.name,
        rollout_uid=rollout.metadata.uid or None,
        version=decision.version,
        stable=rollout.status.stable_rs,
        revision=decision.revision,
        cause=decision.cause,
        message=decision.message,
        decided_at=decision.at,
        started_at=started,
        application=f"{app.metadata.namespace}/{app.metadata.name}" if app is not None else None,
        git_revisions=revisions.bad,
        good_revision=revisions.good or None,
        people=_people(rollout.metadata.annotations, app.metadata.annotations if app is not None else {}),
    )
    name = _name(rollout.metadata.name, decision.version, {each.metadata.name for each in listed})
    labels = {ROLLOUT_LABEL: rollout.metadata.name[:63].rstrip("-.")}
    return Incident(metadata=ObjectMeta(name=name, namespace=rollout.metadata.namespace, labels=labels), spec=spec)


def _name(rollout: str, version: str, taken: set[str]) -> str:
    base = f"{rollout[:200]}-{version}"
    number = 1
    while (name := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return name


def _people(*annotations: Mapping[str, str]) -> tuple[str, ...]:
    listed = [each.strip() for found in annotations for each in found.get(PEOPLE, "").split(",")]
    return (*dict.fromkeys(each[:200] for each in listed if each),)[:_MOST_PEOPLE]


def superfluous(there: Sequence[Incident], rollout: str) -> list[Incident]:
    """Return the incidents of a namespace that go when a rollout has a new one: the oldest that are closed.

    20 of a rollout stay, and 200 of a namespace.
    """
    ordered = sorted(there, key=lambda each: (each.spec.decided_at, each.metadata.name), reverse=True)
    own = [each for each in ordered if each.spec.rollout == rollout][_OF_ROLLOUT:]
    old = {each.metadata.name: each for each in (*own, *ordered[_OF_NAMESPACE:])}
    return [each for each in old.values() if each.status.phase == "Closed"]
