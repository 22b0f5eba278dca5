"""MutatingAdmissionPolicy: expressions that change objects."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final

from pilothouse.apiserver.admission.chain import AGAIN, NEEDED
from pilothouse.apiserver.admission.changing import Settle, fingerprint, kind_of, settle
from pilothouse.apiserver.admission.expressions import ConditionsFailed, EvaluationFailed, activation
from pilothouse.apiserver.admission.matching import Match
from pilothouse.apiserver.admission.plugin import Plugin, forbid
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
from pilothouse.apiserver.admission.policy_patches import FindSchema, Mutation, PatchFailed
from pilothouse.apiserver.ports import AdmissionRequest, Authorizer, Gvr, Object, Operation, View
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.table import schema_for

__all__ = ["MutatingPolicies"]

_GROUP: Final = "admissionregistration.k8s.io"


class _Mutating(Policy):
    """A policy with its mutations compiled."""

    OBJECTS = True

    def __init__(self, found: Object, find: FindResource) -> None:
        super().__init__(found, find)
        self.reinvoked = self.spec.get("reinvocationPolicy") == "IfNeeded"
        self._mutations: list[Mutation] | None = None

    @property
    def mutations(self) -> list[Mutation]:
        if self._mutations is None:
            self._mutations = [Mutation(one, self.scope) for one in self.spec.get("mutations") or ()]
        return self._mutations


@dataclass(frozen=True, slots=True)
class _Invocation:
    """A policy with one binding and one parameter. key: tells it from all others of a request."""

    policy: _Mutating
    binding: Binding
    param: Object | None
    match: Match

    @property
    def key(self) -> tuple[str, ...]:
        metadata = (self.param or {}).get("metadata") or {}
        return self.policy.name, self.binding.name, metadata.get("namespace", ""), metadata.get("name", "")


@dataclass(slots=True)
class _Memory:
    """What is remembered of one request between its first round and the second."""

    output: bytes = b""
    called: set[tuple[str, ...]] = field(default_factory=set)
    again: set[tuple[str, ...]] = field(default_factory=set)

    def changed(self) -> None:
        """Have those called before called once more."""
        self.again |= self.called
        self.called.clear()


@dataclass(slots=True)
class _Errors:
    """What went wrong, in order: message and reason."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, policy: Policy, binding: Binding | None, why: str, reason: str = "") -> None:
        """Note an error, unless the policy says that it is to be ignored."""
        if policy.ignores_failure:
            return
        if binding is None:
            self.found.append((f"policy {quote(policy.name)} denied request: {why}", reason))
        else:
            message = f"policy '{policy.name}' with binding '{binding.name}' denied request: {why}"
            self.found.append((message, reason))

    def check(self, request: AdmissionRequest) -> None:
        """Raise the first error; its message stands alone, all are listed as causes."""
        if not self.found:
            return
        body = forbid(request, "admission request denied by policy").to_dict()
        message, reason = self.found[0]
        body["message"] = message
        body["reason"] = reason or body["reason"]
        body["details"]["causes"] = [{"message": told} for told, _ in self.found]
        raise status.from_dict(body)


class MutatingPolicies(Plugin):
    """Applies the mutations of the policies that match, and those that wish it once more after later changes.

    find: finds the resource of a kind of parameters. schemas: gives the schema by which apply configurations are
    merged. settle: decodes and defaults what a mutation left.
    """

    POLICIES: Final = f"mutatingadmissionpolicies.{_GROUP}"
    BINDINGS: Final = f"mutatingadmissionpolicybindings.{_GROUP}"
    name = "MutatingAdmissionPolicy"

    def __init__(
        self,
        view: View,
        find: FindResource,
        authorizer: Authorizer | None = None,
        schemas: FindSchema = schema_for,
        settle: Settle = settle,
    ) -> None:
        self._view = view
        self._authorizer = authorizer
        self._tools = (schemas, settle)
        self.revision = 0
        self._policies = Policies(
            view, self.POLICIES, self.BINDINGS, lambda found: _Mutating(found, find), self._reconfigured
        )

    def _reconfigured(self) -> None:
        self.revision += 1

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether a policy with a binding may match."""
        return self._policies.concerned(operation, resource, subresource)

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Change the object. Raises Forbidden with the policy's words for what fails."""
        errors = _Errors()
        invocations = [
            one for policy, bindings in self._policies.all() for one in self._of(policy, bindings, request, errors)
        ]
        if not invocations:
            errors.check(request)
            return None
        work = self._run(invocations, request, errors)
        if any(needs_conversion(request, one.match) for one in invocations):
            return work
        at_once(work)
        return None

    def _of(
        self, policy: Policy, bindings: list[Binding], request: AdmissionRequest, errors: _Errors
    ) -> list[_Invocation]:
        """Return with what a policy is to be invoked for a request."""
        try:
            match = policy.criteria.match(request, self._view)
            if match is None or not isinstance(policy, _Mutating):
                return []
            policy.check()
        except (status.ApiStatus, ConfigurationFailed) as error:
            errors.add(policy, None, f"failed to configure policy: {error}")
            return []
        found: list[_Invocation] = []
        for binding in bindings:
            try:
                if binding.takes(request, self._view):
                    params = binding.params(policy, request, self._view)
                    found += [_Invocation(policy, binding, param, match) for param in params]
            except (status.ApiStatus, ConfigurationFailed) as error:
                errors.add(policy, binding, f"failed to configure binding: {error}")
        return found

    async def _run(self, invocations: list[_Invocation], request: AdmissionRequest, errors: _Errors) -> None:
        memory: _Memory = request.reinvocation.setdefault(self.name, _Memory())
        again = AGAIN in request.reinvocation
        if again and memory.output != fingerprint(request.object):
            memory.changed()
        for one in invocations:
            if again and one.key not in memory.again:
                continue
            before = fingerprint(request.object)
            if not await self._invoke(one, request, errors):
                continue
            if before != fingerprint(request.object):
                memory.changed()
                request.reinvocation[NEEDED] = True
            if one.policy.reinvoked:
                memory.called.add(one.key)
        memory.output = fingerprint(request.object)
        errors.check(request)

    async def _invoke(self, one: _Invocation, request: AdmissionRequest, errors: _Errors) -> bool:
        """Apply the mutations of one invocation; return whether its conditions hold."""
        convert = request.convert if needs_conversion(request, one.match) else None
        item, old = request.object, request.old
        if convert is not None:
            version = one.match.api_version
            item = None if item is None else await convert(item, version)
            old = None if old is None else await convert(old, version)
        try:
            if one.policy.conditions and not one.policy.conditions.hold(self._values(one, request, item, old)):
                return False
        except ConditionsFailed as error:
            errors.add(one.policy, one.binding, str(error), "Invalid")
            return False
        if item is None:
            return True
        changed = item
        for mutation in one.policy.mutations:
            values = self._values(one, request, changed, old)
            try:
                changed = mutation.apply(changed, kind_of(changed, one.match.kind), values, self._tools)
            except (EvaluationFailed, PatchFailed) as error:
                errors.add(one.policy, one.binding, str(error), "Invalid")
        if changed is not item:
            own = Match(request.resource, request.kind).api_version
            request.object = changed if convert is None else await convert(changed, own)
        return True

    def _values(
        self, one: _Invocation, request: AdmissionRequest, item: Object | None, old: Object | None
    ) -> dict[str, Any]:
        from pilothouse.apiserver.cel import Budget  # noqa: PLC0415 - only where there are policies

        values = activation(request, one.match, item, old, self._authorizer)
        return one.policy.scope.values(values, one.param, namespace_object(request, self._view), Budget())
