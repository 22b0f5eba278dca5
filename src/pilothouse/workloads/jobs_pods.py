"""The pods that a job makes: their finalizer, and what those of an indexed job know of their index. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pilothouse.kinds.structs import Job, Pod, replace
from pilothouse.kinds.structs.core_containers import Container, EnvVar, EnvVarSource
from pilothouse.kinds.structs.core_volumes import ObjectFieldSelector

from .jobs import FINALIZER, limits_indexes
from .jobs_indexes import FAILURES, IGNORED_FAILURES, INDEX, failures, ignored_failures
from .jobs_policies import judge
from .templates import pod_of

__all__ = ["pods_for"]

_ENVIRONMENT: Final = "JOB_COMPLETION_INDEX"
_MAX_PREFIX: Final = 58
"""Characters of a generated name but its random ones, so that a name fits a DNS label."""


def pods_for(job: Job, indexes: Iterable[int | None], replaced: dict[int, Pod]) -> list[Pod]:
    """Return the pods of indexes, or without one. replaced: by index the failed pod that is replaced."""
    given = job.spec.template.metadata.finalizers
    tracking = () if FINALIZER in given else (FINALIZER,)
    return [
        pod_of(job.spec.template, job, finalizers=tracking)
        if index is None
        else _indexed(job, index, replaced.get(index), tracking)
        for index in indexes
    ]


def _indexed(job: Job, index: int, replaced: Pod | None, finalizers: Sequence[str]) -> Pod:
    notes = {INDEX: str(index)}
    if limits_indexes(job):
        notes |= _failure_counts(job, replaced)
    pod = pod_of(job.spec.template, job, labels={INDEX: str(index)}, annotations=notes, finalizers=finalizers)
    suffix = f"-{index}-"
    return replace(
        pod,
        metadata__generate_name=f"{job.metadata.name[: _MAX_PREFIX - len(suffix)]}{suffix}",
        spec__hostname=f"{job.metadata.name}-{index}",
        spec__containers=_knowing_index(pod.spec.containers),
        spec__init_containers=_knowing_index(pod.spec.init_containers),
    )


def _failure_counts(job: Job, replaced: Pod | None) -> dict[str, str]:
    if replaced is None:
        return {FAILURES: "0"}
    counts = judge(job.spec.pod_failure_policy, replaced).counts
    ignored = ignored_failures(replaced) + (not counts)
    notes = {FAILURES: str(failures(replaced) + counts)}
    return notes | {IGNORED_FAILURES: str(ignored)} if ignored else notes


def _knowing_index(containers: Sequence[Container]) -> list[Container]:
    source = EnvVarSource(field_ref=ObjectFieldSelector(field_path=f"metadata.labels['{INDEX}']"))
    given = EnvVar(name=_ENVIRONMENT, value_from=source)
    return [
        one if any(each.name == _ENVIRONMENT for each in one.env) else replace(one, env=[*one.env, given])
        for one in containers
    ]
