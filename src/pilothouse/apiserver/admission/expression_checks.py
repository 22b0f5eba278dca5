"""Expressions of policies and webhook configurations, checked when they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pilothouse.apiserver.admission.plugin import Plugin, object_name, requested
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import ErrorList, Path

if TYPE_CHECKING:
    from pilothouse.apiserver.admission.policy_config import Scope

__all__ = ["ExpressionChecks", "problems"]

_GROUP: Final = "admissionregistration.k8s.io"
_WEBHOOKS: Final = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_POLICIES: Final = ("mutatingadmissionpolicies", "validatingadmissionpolicies")
_TEXT_OR_NULL: Final = frozenset({"string", "null", "dyn"})


class ExpressionChecks(Plugin):
    """Refuses policies and webhooks with expressions that do not compile; what was there before is left alone."""

    OPERATIONS = frozenset({"CREATE", "UPDATE"})
    RESOURCES = frozenset((_GROUP, plural) for plural in (*_WEBHOOKS, *_POLICIES))
    name = "ExpressionChecks"

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Invalid with all expressions that are wrong."""
        item, old = requested(request), request.old or {}
        if all(item.get(field) == old.get(field) for field in ("spec", "webhooks")):
            return
        errors = ErrorList()
        for path, text, why in problems(item, request.resource[2]):
            errors.invalid(path, text, why)
        if errors:
            raise status.invalid(_GROUP, request.kind[2], object_name(request), errors)


def problems(item: Object, plural: str) -> Iterator[tuple[Path, str, str]]:
    """Give place, text and complaint of each expression of a policy or webhook configuration that does not compile."""
    from pilothouse.apiserver.admission.expressions import plain_environment  # noqa: PLC0415 - only where needed
    from pilothouse.apiserver.admission.policy_config import Scope  # noqa: PLC0415
    from pilothouse.apiserver.admission.policy_patches import Mutation  # noqa: PLC0415

    if plural in _WEBHOOKS:
        for number, hook in enumerate(item.get("webhooks") or ()):
            at = Path("webhooks").index(number)
            yield from _each(plain_environment(), hook, at, "matchConditions", "expression", "bool")
        return
    spec, at = item.get("spec") or {}, Path("spec")
    scope = Scope(spec, objects=plural == _POLICIES[0])
    for number, (_, program) in enumerate(scope.variables):
        if isinstance(program, str):
            text = str(spec["variables"][number].get("expression") or "")
            yield at.child("variables").index(number).child("expression"), text, program
    yield from _each(scope.full, spec, at, "matchConditions", "expression", "bool")
    yield from _each(scope.full, spec, at, "validations", "expression", "bool")
    yield from _each(scope.silent, spec, at, "validations", "messageExpression", "string")
    yield from _annotations(scope, spec, at)
    for number, found in enumerate(spec.get("mutations") or ()):
        mutation = Mutation(found, scope)
        if mutation.problem:
            yield (
                at.child("mutations").index(number).child(mutation.field, "expression"),
                mutation.text,
                mutation.problem,
            )


def _each(
    environment: Any, owner: Object, at: Path, listed: str, field: str, result: Any
) -> Iterator[tuple[Path, str, str]]:
    from pilothouse.apiserver.admission.expressions import compiled  # noqa: PLC0415

    for number, one in enumerate(owner.get(listed) or ()):
        text = one.get(field)
        if text:
            program = compiled(environment, str(text), result)
            if isinstance(program, str):
                yield at.child(listed).index(number).child(field), str(text), program


def _annotations(scope: Scope, spec: Object, at: Path) -> Iterator[tuple[Path, str, str]]:
    from pilothouse.apiserver.admission.expressions import compiled  # noqa: PLC0415

    for number, one in enumerate(spec.get("auditAnnotations") or ()):
        text = str(one.get("valueExpression") or "")
        program = compiled(scope.full, text, "any")
        why = program if isinstance(program, str) else ""
        if not isinstance(program, str) and program.type.kind not in _TEXT_OR_NULL:
            why = "must evaluate to one of [string null_type]"
        if why:
            yield at.child("auditAnnotations").index(number).child("valueExpression"), text, why
