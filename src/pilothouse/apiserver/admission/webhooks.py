"""Admission webhooks: mutating ones in order, validating ones side by side, with Kubernetes' words for failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from pilothouse.apiserver.admission.chain import AGAIN, NEEDED
from pilothouse.apiserver.admission.changing import Settle, SettleError, fingerprint, kind_of, settle
from pilothouse.apiserver.admission.expressions import ConditionsFailed, activation
from pilothouse.apiserver.admission.matching import Match
from pilothouse.apiserver.admission.plugin import Plugin, warn
from pilothouse.apiserver.admission.reviews import (
    ReviewError,
    Verdict,
    choose_version,
    denial,
    encode,
    operations,
    read,
)
from pilothouse.apiserver.admission.webhook_client import CallError, Target
from pilothouse.apiserver.admission.webhook_config import Hook, Hooks
from pilothouse.apiserver.ports import AdmissionRequest, Authorizer, Gvr, Object, Operation, View
from pilothouse.foundation.ids import Ids
from pilothouse.kinds import jsonpatch, status
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.patcherrors import PatchError

__all__ = ["Caller", "MutatingWebhooks", "ValidatingWebhooks"]

_HARMLESS: Final = frozenset({"None", "NoneOnDryRun"})
_MUTATION: Final = "mutation.webhook.admission.k8s.io/"
_PATCH: Final = "patch.webhook.admission.k8s.io/"
_FAILED_OPEN: Final = "failed-open."
_VALIDATING: Final = "validating.webhook.admission.k8s.io/"


class Caller(Protocol):
    """Sends a review and gives the answer's body."""

    async def call(self, target: Target, body: bytes, seconds: float) -> bytes:
        """Raise CallError where that fails."""


class _Failed(Exception):
    """A webhook did not answer properly; the failure policy decides what follows."""


class _Webhooks(Plugin):
    """What both kinds of webhooks have in common."""

    RESOURCE = ""

    def __init__(self, view: View, caller: Caller, ids: Ids, authorizer: Authorizer | None = None) -> None:
        self._view = view
        self._caller = caller
        self._ids = ids
        self._authorizer = authorizer
        self._hooks = Hooks(view, self.RESOURCE, self._reconfigured)
        self.revision = 0

    def _reconfigured(self) -> None:
        self.revision += 1

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Whether a webhook has a rule for it."""
        return self._hooks.concerned(operation, resource, subresource)

    def _holds(self, hook: Hook, request: AdmissionRequest, match: Match, objects: _Versions) -> bool:
        """Whether the conditions hold; objects in the version that matched. Raises Forbidden where that fails."""
        if not hook.conditions:
            return True
        try:
            return hook.conditions.hold(activation(request, match, objects.item, objects.old, self._authorizer))
        except ConditionsFailed as error:
            group, _, plural = request.resource
            raise status.forbidden(group, plural, request.name, str(error)) from None

    async def _ask(
        self, hook: Hook, request: AdmissionRequest, match: Match, objects: _Versions, *, mutating: bool
    ) -> Verdict:
        """Ask a webhook. Raises _Failed, and BadRequest for a dry run that it does not support."""
        if request.dry_run and hook.side_effects not in _HARMLESS:
            if not hook.side_effects:
                raise _Failed("Webhook SideEffects is nil")
            raise status.BadRequest(f"admission webhook {quote(hook.name)} does not support dry run")
        uid = self._ids.uuid()
        try:
            version = choose_version(hook.versions)
            body = encode(request, match, uid, version, objects.item, objects.old)
            answer = await self._caller.call(hook.reachable(), body, hook.timeout)
            verdict = read(answer, uid, version, mutating=mutating)
        except CallError as error:
            raise _Failed(f"failed to call webhook: {error}") from None
        except ReviewError as error:
            raise _Failed(str(error)) from None
        for key, text in verdict.annotations.items():
            request.annotate(f"{hook.name}/{key}", text)
        for text in verdict.warnings:
            warn(request, text)
        if not verdict.allowed:
            raise denial(hook.name, verdict.result)
        return verdict


@dataclass(slots=True)
class _Versions:
    """The objects of a request in the version that a webhook wants."""

    item: Object | None
    old: Object | None


async def _in_version(request: AdmissionRequest, match: Match) -> _Versions:
    """Convert the objects of a request. Raises InternalError where that fails."""
    if match.kind == request.kind or request.convert is None:
        return _Versions(request.object, request.old)
    try:
        return _Versions(
            None if request.object is None else await request.convert(request.object, match.api_version),
            None if request.old is None else await request.convert(request.old, match.api_version),
        )
    except status.ApiStatus as error:
        raise status.internal_error(error.message) from None


def _gives_up(hook: Hook, error: _Failed) -> status.InternalError:
    return status.internal_error(f"failed calling webhook {quote(hook.name)}: {error}")


@dataclass(slots=True)
class _Memory:
    """What is remembered of one request between its first round and the second."""

    output: bytes | None = None
    called: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)

    def changed(self) -> None:
        """Have those called before called once more."""
        self.again |= self.called
        self.called.clear()


class MutatingWebhooks(_Webhooks):
    """Calls mutating webhooks one after another, and those that wish it once more after later changes.

    caller: sends the reviews (`WebhookClient`). ids: name the reviews. authorizer: answers match conditions.
    settle: decodes and defaults what a patch left.
    """

    RESOURCE = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
    name = "MutatingAdmissionWebhook"

    def __init__(
        self,
        view: View,
        caller: Caller,
        ids: Ids,
        authorizer: Authorizer | None = None,
        settle: Settle = settle,
    ) -> None:
        super().__init__(view, caller, ids, authorizer)
        self._settle = settle

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let the webhooks that match change the object. Raises what they refuse with, InternalError for failures."""
        hooks = self._hooks.all()
        for position, hook in enumerate(hooks):
            if hook.criteria.match(request, self._view) is not None:
                return self._from(position, hooks, request)
        return None

    async def _from(self, first: int, hooks: tuple[Hook, ...], request: AdmissionRequest) -> None:
        memory: _Memory = request.reinvocation.setdefault(self.name, _Memory())
        again = AGAIN in request.reinvocation
        if again and memory.output != fingerprint(request.object):
            memory.changed()
        try:
            for position in range(first, len(hooks)):
                await self._one(hooks[position], position, request, memory, again=again)
        finally:
            memory.output = fingerprint(request.object)

    async def _one(self, hook: Hook, position: int, request: AdmissionRequest, memory: _Memory, *, again: bool) -> None:
        if again and hook.key not in memory.again:
            return
        match = hook.criteria.match(request, self._view)
        if match is None:
            return
        objects = await _in_version(request, match)
        if not self._holds(hook, request, match, objects):
            return
        place = f"round_{int(again)}_index_{position}"
        changed = False
        try:
            changed = await self._change(hook, request, match, objects, place)
        except _Failed as error:
            if not hook.ignores_failure:
                raise _gives_up(hook, error) from None
            request.annotate(f"{_FAILED_OPEN}{_MUTATION}{place}", hook.name)
        finally:
            noted = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
            request.annotate(f"{_MUTATION}{place}", msgspec.json.encode(noted).decode())
        if changed:
            memory.changed()
            request.reinvocation[NEEDED] = True
        if hook.reinvoked:
            memory.called.add(hook.key)

    async def _change(
        self, hook: Hook, request: AdmissionRequest, match: Match, objects: _Versions, place: str
    ) -> bool:
        """Ask a webhook and apply its patch; return whether that changed the object."""
        verdict = await self._ask(hook, request, match, objects, mutating=True)
        try:
            patch = operations(verdict)
        except ReviewError as error:
            raise _Failed(str(error)) from None
        if not patch:
            return False
        if objects.item is None:
            attempt = "attempted to modify the object, which is not supported for this operation"
            raise status.internal_error(f"admission webhook {quote(hook.name)} {attempt}")
        made = self._apply(objects.item, patch, match)
        noted: dict[str, Any] = {
            "configuration": hook.configuration,
            "webhook": hook.name,
            "patch": patch,
            "patchType": "JSONPatch",
        }
        request.annotate(f"{_PATCH}{place}", msgspec.json.encode(noted).decode())
        if fingerprint(made) == fingerprint(objects.item):
            return False
        if match.kind != request.kind and request.convert is not None:
            made = await request.convert(made, Match(request.resource, request.kind).api_version)
        request.object = made
        return True

    def _apply(self, item: Object, patch: list[Any], match: Match) -> Object:
        try:
            return self._settle(jsonpatch.apply(item, patch, negative_indices=True), kind_of(item, match.kind))
        except (PatchError, SettleError) as error:
            raise status.internal_error(str(error)) from None


class ValidatingWebhooks(_Webhooks):
    """Calls all validating webhooks that match at the same time; the first refusal, in their order, counts."""

    RESOURCE = "validatingwebhookconfigurations.admissionregistration.k8s.io"
    name = "ValidatingAdmissionWebhook"

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Raise what a webhook refuses with, InternalError for failures."""
        matched = [
            (hook, match)
            for hook in self._hooks.all()
            if (match := hook.criteria.match(request, self._view)) is not None
        ]
        return self._all(matched, request) if matched else None

    async def _all(self, matched: list[tuple[Hook, Match]], request: AdmissionRequest) -> None:
        versions: dict[str, _Versions] = {}
        asked: list[tuple[Hook, Match, _Versions]] = []
        for hook, match in matched:
            if match.api_version not in versions:
                versions[match.api_version] = await _in_version(request, match)
            objects = versions[match.api_version]
            if self._holds(hook, request, match, objects):
                asked.append((hook, match, objects))
        tasks = [asyncio.create_task(self._one(position, *one, request)) for position, one in enumerate(asked)]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _one(
        self, position: int, hook: Hook, match: Match, objects: _Versions, request: AdmissionRequest
    ) -> None:
        try:
            await self._ask(hook, request, match, objects, mutating=False)
        except _Failed as error:
            if not hook.ignores_failure:
                raise _gives_up(hook, error) from None
            request.annotate(f"{_FAILED_OPEN}{_VALIDATING}round_0_index_{position}", hook.name)
