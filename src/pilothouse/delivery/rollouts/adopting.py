"""Which replica sets a rollout takes in, and which it lets go: by its selector, as Deployments and Argo do. Pure."""

from __future__ import annotations

from .actions import Action, AdoptSet, ReleaseSet, Tell
from .names import EXPERIMENT_NAME
from .situation import Situation

__all__ = ["adoptions", "releases"]


def adoptions(sit: Situation) -> list[Action]:
    """Return what takes in sets that nobody controls and that the selector takes; not those of experiments.

    So a rollout that was deleted without its sets, and is made anew, finds them, and so does one that comes after a
    Deployment that was deleted without its own.
    """
    made: list[Action] = []
    for found in sit.view.orphans:
        is_staying = found.metadata.deletion_timestamp is None and EXPERIMENT_NAME not in found.metadata.annotations
        if is_staying and sit.takes(found):
            made += [AdoptSet(found), Tell("ReplicaSetAdopted", f"Adopted ReplicaSet {found.metadata.name}")]
    return made


def releases(sit: Situation) -> list[Action]:
    """Return what lets go of sets that the selector does not take any more."""
    made: list[Action] = []
    for found in sit.view.sets:
        if EXPERIMENT_NAME not in found.metadata.annotations and not sit.takes(found):
            made += [ReleaseSet(found), Tell("ReplicaSetReleased", f"Released ReplicaSet {found.metadata.name}")]
    return made
