"""The controller that says of admission policies which generation of them was looked at."""

from __future__ import annotations

from pilothouse.client import ignore_not_found
from pilothouse.kinds.structs import ValidatingAdmissionPolicy, replace
from pilothouse.kinds.structs.admissionregistration import TypeChecking
from pilothouse.operator import Context, Manager, Reconciler, Result, controller
from pilothouse.operator.predicates import Predicate

__all__ = ["PolicyStatusReconciler", "add_policy_status"]


class PolicyStatusReconciler(Reconciler[ValidatingAdmissionPolicy]):
    """Brings the status of policies up to date.

    Expressions were checked when they were written; that they do not fit a kind is found when they are used.
    """

    async def reconcile(self, obj: ValidatingAdmissionPolicy, context: Context) -> Result | None:
        """Say that the policy as it is now has been seen."""
        generation = obj.metadata.generation
        if generation > obj.status.observed_generation:
            made = replace(obj, status__observed_generation=generation, status__type_checking=TypeChecking())
            await ignore_not_found(context.update_status(made))
        return None


class _Unseen(Predicate[ValidatingAdmissionPolicy]):
    """Policies of which a new generation is there."""

    def create(self, obj: ValidatingAdmissionPolicy) -> bool:
        return obj.metadata.generation > obj.status.observed_generation

    def update(self, old: ValidatingAdmissionPolicy, new: ValidatingAdmissionPolicy) -> bool:
        return self.create(new)

    def delete(self, obj: ValidatingAdmissionPolicy) -> bool:
        return False


def add_policy_status(manager: Manager) -> None:
    """Add the controller of the status of admission policies."""
    (
        controller(manager, "validatingadmissionpolicy-status-controller")
        .for_(ValidatingAdmissionPolicy, _Unseen())
        .build(PolicyStatusReconciler())
    )
