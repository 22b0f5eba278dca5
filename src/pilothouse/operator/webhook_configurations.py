"""The configurations by which servers know of an operator's webhooks. Pure: the same webhooks always give the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pilothouse.kinds.structs import Resource

from .errors import BuildError
from .webhook_options import Hook, WebhookOptions

if TYPE_CHECKING:
    from .crd_conversion import ConversionWebhook
    from .manager import Manager

__all__ = ["configuration", "conversion_of", "conversion_patch", "covers", "webhook_manifests"]

_LABELS: Final = {"app.kubernetes.io/managed-by": "pilothouse"}


def webhook_manifests(manager: Manager, ca: bytes = b"") -> list[dict[str, Any]]:
    """Return the webhook configurations of a manager, as JSON has them; none where nothing was built.

    ca: the PEM certificates for `caBundle`. Without them it is left out, for the running manager or somebody else to
    fill in. The Service in front is not among them. Raises BuildError for a manager without webhooks.
    """
    if manager.webhooks is None:
        raise BuildError(
            "this manager serves no webhooks; make it with Manager(client, webhooks=WebhookOptions(name=..., "
            "service='NAMESPACE/NAME'))"
        )
    options, hooks = manager.webhooks.options, manager.webhooks.hooks
    made = (configuration(options, hooks, mutating=mutating, ca=ca) for mutating in (True, False))
    return [one for one in made if one is not None]


def conversion_of(manager: Manager, kind: type[Resource], ca: bytes = b"") -> ConversionWebhook | None:
    """Return who converts objects of a kind, as `definition(..., conversion=)` takes it; None where nobody does."""
    webhooks = manager.webhooks
    if webhooks is None or (kind.group, kind.gvk[2]) not in webhooks.conversions:
        return None
    return webhooks.options.conversion(ca)


def configuration(
    options: WebhookOptions, hooks: Sequence[Hook], *, mutating: bool, ca: bytes = b""
) -> dict[str, Any] | None:
    """Return the configuration of the webhooks that change objects, or of those that judge; None without any."""
    chosen = [hook for hook in hooks if hook.mutating is mutating]
    if not chosen:
        return None
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration" if mutating else "ValidatingWebhookConfiguration",
        "metadata": {"name": options.name, "labels": dict(_LABELS)},
        "webhooks": [_webhook(options, hook, ca) for hook in chosen],
    }


def _webhook(options: WebhookOptions, hook: Hook, ca: bytes) -> dict[str, Any]:
    return {
        "name": hook.name,
        "clientConfig": options.client_config(hook.path, ca),
        "rules": [hook.rule.manifest()],
        "admissionReviewVersions": ["v1"],
        **hook.options.manifest(mutating=hook.mutating),
    }


def conversion_patch(options: WebhookOptions, kind: type[Resource], ca: bytes = b"") -> dict[str, Any]:
    """Return what is applied to the definition of a kind so that servers have its objects converted here."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {"conversion": options.conversion(ca).manifest()},
    }


def covers(present: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there. Servers fill in defaults, and others may add webhooks of their own."""
    if isinstance(wanted, Mapping):
        return isinstance(present, Mapping) and all(covers(present.get(name), each) for name, each in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(present, list | tuple):
            return not wanted and present is None
        if wanted and all(isinstance(one, Mapping) and "name" in one for one in wanted):
            return _covers_named(present, wanted)
        return len(present) == len(wanted) and all(map(covers, present, wanted))
    return bool(present == wanted)


def _covers_named(present: Iterable[Any], wanted: Iterable[Mapping[str, Any]]) -> bool:
    named = {one.get("name"): one for one in present if isinstance(one, Mapping)}
    return all(covers(named.get(one["name"]), one) for one in wanted)
