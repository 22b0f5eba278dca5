"""ValidatingAdmissionPolicy: expressions that refuse, warn or tell the audit log."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pilothouse.apiserver.admission.expressions import (
    ConditionsFailed,
    EvaluationFailed,
    OutOfBudget,
    activation,
    compiled,
    evaluate,
)
from pilothouse.apiserver.admission.matching import Match
from pilothouse.apiserver.admission.plugin import Plugin, forbid, warn
from pilothouse.apiserver.admission.policy_config import (
    Binding,
    ConfigurationFailed,
    FindResource,
    Policies,
    Policy,
    at_once,
    namespace_object,
    needs_conversion,
)
from pilothouse.apiserver.ports import AdmissionRequest, Authorizer, Gvr, Object, Operation, View
from pilothouse.kinds import status

__all__ = ["ValidatingPolicies"]

_GROUP: Final = "admissionregistration.k8s.io"
_CODES: Final = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413, "Invalid": 422}
_MESSAGE_BYTES: Final = 5 * 1024
_ANNOTATION_CHARACTERS: Final = 10 * 1024
_MOST_FAILURES: Final = 50
_FAILURES: Final = "validation.policy.admission.k8s.io/validation_failure"


class _Validating(Policy):
    """A policy with its validations compiled."""

    def __init__(self, found: Object, find: FindResource) -> None:
        super().__init__(found, find)
        self._validations: list[_Validation] | None = None
        self._annotations: list[tuple[str, str, Any]] | None = None

    @property
    def validations(self) -> list[_Validation]:
        if self._validations is None:
            self._validations = [
                _Validation(
                    one, compiled(self.scope.full, str(one.get("expression") or ""), "bool"), self._message(one)
                )
                for one in self.spec.get("validations") or ()
            ]
        return self._validations

    def _message(self, validation: Object) -> Any:
        text = validation.get("messageExpression")
        return compiled(self.scope.silent, str(text), "string") if text else None

    @property
    def annotations(self) -> list[tuple[str, str, Any]]:
        if self._annotations is None:
            found = [
                (str(one.get("key") or ""), str(one.get("valueExpression") or ""))
                for one in self.spec.get("auditAnnotations") or ()
            ]
            self._annotations = [(key, text, compiled(self.scope.full, text, "any")) for key, text in found]
        return self._annotations


@dataclass(frozen=True, slots=True)
class _Validation:
    spec: Object
    program: Any
    message: Any


@dataclass(frozen=True, slots=True)
class _Denial:
    policy: str
    binding: str
    message: str
    reason: str = ""

    def __str__(self) -> str:
        bound = f" with binding '{self.binding}'" if self.binding else ""
        return f"ValidatingAdmissionPolicy '{self.policy}'{bound} denied request: {self.message}"


@dataclass(slots=True)
class _Findings:
    """What the policies said of one request."""

    denials: list[_Denial] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def misconfigured(self, policy: Policy, binding: Binding | None, why: str) -> None:
        if not policy.ignores_failure:
            what = "policy" if binding is None else "binding"
            name = "" if binding is None else binding.name
            self.denials.append(_Denial(policy.name, name, f"failed to configure {what}: {why}"))


class ValidatingPolicies(Plugin):
    """Evaluates the policies that match a request, for each of their bindings and parameters.

    find: finds the resource of a kind of parameters. authorizer: answers expressions.
    """

    POLICIES: Final = f"validatingadmissionpolicies.{_GROUP}"
    BINDINGS: Final = f"validatingadmissionpolicybindings.{_GROUP}"
    name = "ValidatingAdmissionPolicy"

    def __init__(self, view: View, find: FindResource, authorizer: Authorizer | None = None) -> None:
        self._view = view
        self._authorizer = authorizer
        self.revision = 0
        self._policies = Policies(
            view, self.POLICIES, self.BINDINGS, lambda found: _Validating(found, find), self._reconfigured
        )

    def _reconfigured(self) -> None:
        self.revision += 1

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether a policy with a binding may match."""
        return self._policies.concerned(operation, resource, subresource)

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Raise what the first policy that denies says: code and reason as it tells, Invalid by default."""
        findings = _Findings()
        matched: list[tuple[_Validating, list[Binding], Match]] = []
        for policy, bindings in self._policies.all():
            try:
                match = policy.criteria.match(request, self._view)
                if match is None:
                    continue
                policy.check()
            except (status.ApiStatus, ConfigurationFailed) as error:
                findings.misconfigured(policy, None, str(error))
                continue
            if isinstance(policy, _Validating):
                matched.append((policy, bindings, match))
        if not matched and not findings.denials:
            return None
        work = self._decide(request, matched, findings)
        if any(needs_conversion(request, match) for _, _, match in matched):
            return work
        at_once(work)
        return None

    async def _decide(
        self,
        request: AdmissionRequest,
        matched: list[tuple[_Validating, list[Binding], Match]],
        findings: _Findings,
    ) -> None:
        namespace = namespace_object(request, self._view)
        versions: dict[str, tuple[Object | None, Object | None]] = {}
        for policy, bindings, match in matched:
            annotations: dict[str, list[str]] = {}
            for binding in bindings:
                try:
                    if not binding.takes(request, self._view):
                        continue
                    params = binding.params(policy, request, self._view)
                    if params and match.api_version not in versions:
                        versions[match.api_version] = await _converted(request, match)
                except (status.ApiStatus, ConfigurationFailed) as error:
                    findings.misconfigured(policy, binding, str(error))
                    continue
                for param in params:
                    item, old = versions[match.api_version]
                    evaluation = _Evaluation(policy, binding, request, findings, annotations)
                    evaluation.run(activation(request, match, item, old, self._authorizer), param, namespace)
            for key, texts in annotations.items():
                request.annotate(f"{policy.name}/{key}", ", ".join(texts))
        self._tell(request, findings)

    @staticmethod
    def _tell(request: AdmissionRequest, findings: _Findings) -> None:
        if findings.failures:
            request.annotate(_FAILURES, msgspec.json.encode(findings.failures[:_MOST_FAILURES]).decode())
        if findings.denials:
            raise _refusal(request, findings.denials[0])


async def _converted(request: AdmissionRequest, match: Match) -> tuple[Object | None, Object | None]:
    if not needs_conversion(request, match) or request.convert is None:
        return request.object, request.old
    try:
        return (
            None if request.object is None else await request.convert(request.object, match.api_version),
            None if request.old is None else await request.convert(request.old, match.api_version),
        )
    except status.ApiStatus as error:
        raise ConfigurationFailed(f"failed to convert object version: {error}") from None


def _refusal(request: AdmissionRequest, denial: _Denial) -> status.ApiStatus:
    plain = forbid(request, str(denial)).to_dict()
    reason = denial.reason or "Invalid"
    plain["reason"], plain["code"] = reason, _CODES.get(reason, 422)
    plain["details"]["causes"] = [{"message": str(denial)}]
    return status.from_dict(plain)


@dataclass(slots=True)
class _Evaluation:
    """One policy with one binding and one parameter on one request."""

    policy: _Validating
    binding: Binding
    request: AdmissionRequest
    findings: _Findings
    annotations: dict[str, list[str]]

    def run(self, values: dict[str, Any], param: Object | None, namespace: Object | None) -> None:
        """Evaluate the conditions, the validations, their messages and the annotations."""
        from pilothouse.apiserver.cel import Budget  # noqa: PLC0415 - only where there are policies

        budget = Budget()
        scoped = self.policy.scope.values(values, param, namespace, budget)
        try:
            if self.policy.conditions and not self.policy.conditions.hold(scoped):
                return
        except ConditionsFailed as error:
            self._deny(0, str(error), failed=True)
            return
        try:
            self._validate(scoped, budget)
        except OutOfBudget as error:
            self._deny(0, str(error), failed=True)
            return
        # Annotations have a budget of their own.
        own = Budget()
        scoped = self.policy.scope.values(scoped, param, namespace, own)
        try:
            self._annotate(scoped, own)
        except OutOfBudget as error:
            self._deny(0, str(error), failed=True)

    def _validate(self, values: dict[str, Any], budget: Any) -> None:
        failures: list[tuple[int, str]] = []
        for position, one in enumerate(self.policy.validations):
            try:
                if evaluate(one.program, str(one.spec.get("expression")), values, budget) is not True:
                    failures.append((position, ""))
            except OutOfBudget:
                raise
            except EvaluationFailed as error:
                failures.append((position, str(error)))
        for position, why in failures:
            if why:
                self._deny(position, why, failed=True)
            else:
                reason = str(self.policy.validations[position].spec.get("reason") or "Invalid")
                self._deny(position, self._message(position, values, budget), reason=reason)

    def _message(self, position: int, values: dict[str, Any], budget: Any) -> str:
        """Word a validation that failed: by its expression, its message, else by what failed."""
        one = self.policy.validations[position]
        if one.message is not None and not isinstance(one.message, str):
            try:
                text = evaluate(one.message, str(one.spec.get("messageExpression")), values, budget)
            except OutOfBudget as error:
                return f"failed messageExpression: {error}"
            except EvaluationFailed:
                text = ""
            text = text.strip() if isinstance(text, str) else ""
            if text and len(text.encode()) <= _MESSAGE_BYTES and "\n" not in text:
                return text
        plain = str(one.spec.get("message") or "").strip()
        return plain or f"failed expression: {str(one.spec.get('expression') or '').strip()}"

    def _annotate(self, values: dict[str, Any], budget: Any) -> None:
        for key, text, program in self.policy.annotations:
            try:
                value = evaluate(program, text, values, budget)
            except OutOfBudget:
                raise
            except EvaluationFailed as error:
                self._annotation_failed(str(error))
                continue
            if value is None:
                continue
            if not isinstance(value, str):
                self._annotation_failed(
                    f"valueExpression '{text}' resulted in unsupported return type: {type(value).__name__}. "
                    "Return type must be either string or null.",
                    always=True,
                )
                continue
            told = value.strip()[:_ANNOTATION_CHARACTERS]
            kept = self.annotations.setdefault(key, [])
            if told and told not in kept:
                kept.append(told)
            if not kept:
                del self.annotations[key]

    def _annotation_failed(self, why: str, *, always: bool = False) -> None:
        if always or not self.policy.ignores_failure:
            self.findings.denials.append(_Denial(self.policy.name, self.binding.name, why))

    def _deny(self, position: int, message: str, *, reason: str = "", failed: bool = False) -> None:
        """Do what the binding says should follow, unless the failure is to be ignored."""
        if failed and self.policy.ignores_failure:
            return
        name, bound = self.policy.name, self.binding.name
        for action in self.binding.actions:
            if action == "Deny":
                self.findings.denials.append(_Denial(name, bound, message, reason))
            elif action == "Warn":
                said = f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {message}"
                warn(self.request, said)
            elif action == "Audit":
                self.findings.failures.append(
                    {
                        "message": message,
                        "policy": name,
                        "binding": bound,
                        "expressionIndex": position,
                        "validationActions": list(self.binding.actions),
                    }
                )
