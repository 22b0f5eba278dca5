"""Admission as a whole: the built-in steps, policies and webhooks put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pilothouse.apiserver.admission.builtins import standard
from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.changing import Settle, settle
from pilothouse.apiserver.admission.mutating_policies import MutatingPolicies
from pilothouse.apiserver.admission.policies import ValidatingPolicies
from pilothouse.apiserver.admission.policy_config import FindResource
from pilothouse.apiserver.admission.policy_patches import FindSchema
from pilothouse.apiserver.admission.webhook_client import Resolve, WebhookClient, service_resolver
from pilothouse.apiserver.admission.webhooks import MutatingWebhooks, ValidatingWebhooks
from pilothouse.apiserver.ports import AdmissionPlugin, Authorizer, Local, View
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.kinds.table import schema_for

__all__ = ["Assembled", "assemble"]


@dataclass(frozen=True, slots=True)
class Assembled:
    """The chain, and the client by which it calls webhooks; close that when the server stops."""

    chain: Admission
    client: WebhookClient

    async def close(self) -> None:
        """End the connections to webhooks."""
        await self.client.close()


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
    """Put admission together.

    find: gives plural and scope of a kind by apiVersion and kind. schemas: gives the schema of a group, version and
    kind, custom ones included. settle: decodes and defaults an object anew after webhooks and policies changed it.
    resolve: finds the address of a webhook's service; by default in the view. The rest as in `builtins.standard`.
    """
    client = WebhookClient(resolve or service_resolver(view), clock)
    dynamic: list[AdmissionPlugin] = [
        MutatingPolicies(view, find, authorizer, schemas, settle),
        MutatingWebhooks(view, client, ids, authorizer, settle),
        ValidatingPolicies(view, find, authorizer),
        ValidatingWebhooks(view, client, ids, authorizer),
    ]
    steps = standard(
        view,
        authorizer,
        local,
        ids,
        clock,
        resources=find,
        dynamic=dynamic,
        enable=enable,
        disable=disable,
        settings=settings,
    )
    return Assembled(Admission(steps), client)
