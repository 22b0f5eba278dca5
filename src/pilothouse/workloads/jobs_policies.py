"""A job's policies: what a failed pod means by the pod failure policy, and when the success policy is met. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pilothouse.kinds.structs import Job, Pod
from pilothouse.kinds.structs.batch import (
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
    SuccessPolicy,
    SuccessPolicyRule,
)
from pilothouse.kinds.structs.core_pod_status import ContainerStatus, PodCondition

from .jobs_indexes import Indexes

__all__ = ["Judgement", "has_failed", "judge", "replaces_failed_only", "success_by_policy"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the failure policy makes of a failed pod: it counts or not, ends its index, or the job with a message."""

    action: str = ""
    fails_job: str = ""

    @property
    def counts(self) -> bool:
        """Whether the failure counts towards the limits."""
        return self.action != "Ignore"


_NOTHING = Judgement()


def replaces_failed_only(job: Job) -> bool:
    """Whether a pod is replaced only once it has ended, not when it is being deleted."""
    return job.spec.pod_replacement_policy == "Failed" or job.spec.pod_failure_policy is not None


def has_failed(pod: Pod, job: Job) -> bool:
    """Whether a pod counts as failed: it ended so, or it is being deleted and may be replaced already."""
    if pod.status.phase == "Failed":
        return True
    if replaces_failed_only(job):
        return False
    return pod.metadata.deletion_timestamp is not None and pod.status.phase != "Succeeded"


def judge(policy: PodFailurePolicy | None, pod: Pod) -> Judgement:
    """Return what the first rule that fits a failed pod says."""
    for place, rule in enumerate(policy.rules if policy is not None else ()):
        found = _why(rule, pod)
        if found is None or rule.action is None:
            continue
        if rule.action == "FailJob":
            return Judgement("FailJob", f"{found} matching FailJob rule at index {place}")
        return Judgement(rule.action)
    return _NOTHING


def _why(rule: PodFailurePolicyRule, pod: Pod) -> str | None:
    """Return in words why a rule fits, None where it does not."""
    namespace, name = pod.metadata.namespace, pod.metadata.name
    if rule.on_exit_codes is not None:
        ended = _by_exit_code(pod.status.container_statuses, rule.on_exit_codes) or _by_exit_code(
            pod.status.init_container_statuses, rule.on_exit_codes
        )
        if ended is None or ended.state.terminated is None:
            return None
        code = ended.state.terminated.exit_code
        return f"Container {ended.name} for pod {namespace}/{name} failed with exit code {code}"
    condition = _by_condition(pod.status.conditions, rule.on_pod_conditions)
    return None if condition is None else f"Pod {namespace}/{name} has condition {condition.type}"


def _by_exit_code(
    statuses: Iterable[ContainerStatus], wanted: PodFailurePolicyOnExitCodesRequirement
) -> ContainerStatus | None:
    for found in statuses:
        ended = found.state.terminated
        if ended is None or not ended.exit_code or wanted.container_name not in (None, found.name):
            continue
        if (ended.exit_code in wanted.values) == (wanted.operator == "In"):
            return found
    return None


def _by_condition(
    conditions: Iterable[PodCondition], patterns: Iterable[PodFailurePolicyOnPodConditionsPattern]
) -> PodCondition | None:
    wanted = {(pattern.type, pattern.status) for pattern in patterns}
    return next((found for found in conditions if (found.type, found.status) in wanted), None)


def success_by_policy(policy: SuccessPolicy | None, completions: int, succeeded: Indexes) -> str:
    """Return which rule says that a job has succeeded, in words; empty where none does."""
    if policy is None or not succeeded:
        return ""
    for place, rule in enumerate(policy.rules):
        if _is_met(rule, completions, succeeded):
            return f"Matched rules at index {place}"
    return ""


def _is_met(rule: SuccessPolicyRule, completions: int, succeeded: Indexes) -> bool:
    if rule.succeeded_indexes is None:
        return rule.succeeded_count is not None and len(succeeded) >= rule.succeeded_count
    wanted = Indexes.read(rule.succeeded_indexes, completions)
    done = wanted.common(succeeded)
    return bool(wanted) and (done == len(wanted) or (rule.succeeded_count is not None and done >= rule.succeeded_count))
