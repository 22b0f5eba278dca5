"""The definitions of a group of kinds, installed where a cluster has none of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pilothouse.client import Client, ignore_not_found
from pilothouse.kinds.structs import Resource
from pilothouse.operator.crds import definition
from pilothouse.operator.installing import install

from .analyses import AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate
from .experiments import Experiment
from .rollouts import Rollout

__all__ = ["ROLLOUT_KINDS", "definitions", "install_kinds"]

ROLLOUT_KINDS: Final[tuple[type[Resource], ...]] = (
    Rollout,
    AnalysisTemplate,
    ClusterAnalysisTemplate,
    AnalysisRun,
    Experiment,
)
_OURS: Final = {"app.kubernetes.io/managed-by": "pilothouse"}


def definitions(kinds: Sequence[type[Resource]] = ROLLOUT_KINDS) -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions of kinds, as JSON has them, marked as ours."""
    made = [definition(kind) for kind in kinds]
    return [{**one, "metadata": {**one["metadata"], "labels": dict(_OURS)}} for one in made]


async def install_kinds(client: Client, kinds: Sequence[type[Resource]] = ROLLOUT_KINDS) -> list[str]:
    """Install the definitions of kinds that are ours or not there; return the names of those that another one made.

    Argo's own definitions are used as they are. Raises OperatorError, ApiStatus and OSError.
    """
    handle = client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    wanted, others = [], []
    for one in definitions(kinds):
        name = one["metadata"]["name"]
        found = await ignore_not_found(handle.get(name))
        labels = {} if found is None else found["metadata"].get("labels") or {}
        if found is None or _OURS.items() <= labels.items():
            wanted.append(one)
        else:
            others.append(name)
    await install(client, *wanted)
    return others
