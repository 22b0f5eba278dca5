"""Admission as a whole: the built-in steps, policies and webhooks put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pilothouse.apiserver.admission.builtins import standard
from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.changing import Settle, settle
from pilothouse.apiserver.admission.deferred import Deferred
from pilothouse.apiserver.ports import AdmissionPlugin, Authorizer, Local, View
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.kinds.table import schema_for

if TYPE_CHECKING:
    from pilothouse.apiserver.admission.policy_config import FindResource
    from pilothouse.apiserver.admission.policy_patches import FindSchema
    from pilothouse.apiserver.admission.webhook_client import Resolve, WebhookClient
    from pilothouse.apiserver.admission.webhooks import Caller

__all__ = ["Assembled", "assemble", "dynamic_steps"]

_CONFIGURED_BY: Final = {
    "MutatingAdmissionPolicy": (
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    ),
    "MutatingAdmissionWebhook": ("mutatingwebhookconfigurations.admissionregistration.k8s.io",),
    "ValidatingAdmissionPolicy": (
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    ),
    "ValidatingAdmissionWebhook": ("validatingwebhookconfigurations.admissionregistration.k8s.io",),
}


class Assembled:
    """The chain, and what has to be closed when the server stops."""

    def __init__(self, chain: Admission, client: _Client) -> None:
        self.chain: Final = chain
        self._client = client

    async def close(self) -> None:
        """End the connections to webhooks."""
        await self._client.close()


class _Client:
    """The client of webhooks, made when there is one to call."""

    def __init__(self, view: View, clock: Clock, resolve: Resolve | None) -> None:
        self._view = view
        self._clock = clock
        self._resolve = resolve
        self._made: WebhookClient | None = None

    def made(self) -> WebhookClient:
        """Return the client."""
        from pilothouse.apiserver.admission.webhook_client import WebhookClient, service_resolver  # noqa: PLC0415

        if self._made is None:
            self._made = WebhookClient(self._resolve or service_resolver(self._view), self._clock)
        return self._made

    async def close(self) -> None:
        """Close the client, if it was made."""
        if self._made is not None:
            await self._made.close()


def dynamic_steps(
    view: View,
    authorizer: Authorizer,
    ids: Ids,
    client: Callable[[], Caller],
    *,
    find: FindResource,
    schemas: FindSchema = schema_for,
    settle: Settle = settle,
) -> list[AdmissionPlugin]:
    """Make the steps for policies and webhooks, which import what they need when something configures them.

    client: gives what calls webhooks. find: gives plural and scope of a kind by apiVersion and kind. schemas: gives
    the schema of a group, version and kind, custom ones included. settle: decodes and defaults an object anew after
    webhooks and policies changed it.
    """

    def mutating_policies() -> AdmissionPlugin:
        from pilothouse.apiserver.admission.mutating_policies import MutatingPolicies  # noqa: PLC0415

        return MutatingPolicies(view, find, authorizer, schemas, settle)

    def mutating_webhooks() -> AdmissionPlugin:
        from pilothouse.apiserver.admission.webhooks import MutatingWebhooks  # noqa: PLC0415

        return MutatingWebhooks(view, client(), ids, authorizer, settle)

    def validating_policies() -> AdmissionPlugin:
        from pilothouse.apiserver.admission.policies import ValidatingPolicies  # noqa: PLC0415

        return ValidatingPolicies(view, find, authorizer)

    def validating_webhooks() -> AdmissionPlugin:
        from pilothouse.apiserver.admission.webhooks import ValidatingWebhooks  # noqa: PLC0415

        return ValidatingWebhooks(view, client(), ids, authorizer)

    makers: dict[str, Callable[[], AdmissionPlugin]] = {
        "MutatingAdmissionPolicy": mutating_policies,
        "MutatingAdmissionWebhook": mutating_webhooks,
        "ValidatingAdmissionPolicy": validating_policies,
        "ValidatingAdmissionWebhook": validating_webhooks,
    }
    return [Deferred(name, view, _CONFIGURED_BY[name], make) for name, make in makers.items()]


def assemble(  # noqa: PLR0913 - made in one place
    view: View,
    authorizer: Authorizer,
    local: Local,
    ids: Ids,
    clock: Clock,
    *,
    find: FindResource,
    schemas: FindSchema = schema_for,
    settle: Settle = settle,
    resolve: Resolve | None = None,
    enable: Iterable[str] = (),
    disable: Iterable[str] = (),
    settings: Mapping[str, AdmissionPlugin] | None = None,
) -> Assembled:
    """Put admission together: see `dynamic_steps` and `builtins.standard`.

    resolve: finds the address of a webhook's service; by default in the view.
    """
    client = _Client(view, clock, resolve)
    steps = standard(
        view,
        authorizer,
        local,
        ids,
        clock,
        resources=find,
        dynamic=dynamic_steps(view, authorizer, ids, client.made, find=find, schemas=schemas, settle=settle),
        enable=enable,
        disable=disable,
        settings=settings,
    )
    return Assembled(Admission(steps), client)
