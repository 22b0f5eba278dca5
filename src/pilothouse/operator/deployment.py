"""What installs an operator in a cluster: its definitions, its account and rights, and the Deployment that runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pilothouse.kinds import names
from pilothouse.kinds.structs import Resource

from .cli_crd import definitions_of
from .crds import definition
from .errors import BuildError
from .rbac import ALL_NAMESPACES, roles_of
from .webhook_configurations import conversion_of, webhook_manifests

if TYPE_CHECKING:
    from .manager import Manager
    from .webhook_options import WebhookOptions

__all__ = ["HEALTH", "LEADER_ELECT", "NAMESPACE", "WEBHOOKS", "Installation", "manifests_of", "name_of"]

LEADER_ELECT: Final = "PILOTHOUSE_OPERATOR_LEADER_ELECT"
HEALTH: Final = "PILOTHOUSE_OPERATOR_HEALTH"
NAMESPACE: Final = "PILOTHOUSE_OPERATOR_NAMESPACE"
WEBHOOKS: Final = "PILOTHOUSE_OPERATOR_WEBHOOKS"
"""The environment variables that stand for options of `pilothouse operator run`."""

_HEALTH_PORT: Final = 8081
_BUILT_IN: Final = "pilothouse.kinds.structs."
_NOT_OURS: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
"""Namespaces that are there anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """How an operator is installed.

    name: of its objects, its lease and its service account. namespace: where it runs, the name by default. command:
    what the container runs; the image's own by default. leader_election: whether one of several copies works; more than
    one replica needs it. definitions: whether those of its kinds are part of it. Raises BuildError.
    """

    name: str
    image: str
    namespace: str = ""
    replicas: int = 1
    command: Sequence[str] = ()
    leader_election: bool = True
    definitions: bool = True

    def __post_init__(self) -> None:
        for field in ("name", "namespace"):
            value = getattr(self, field)
            problems = names.dns1035_label(value) if value or field == "name" else ()
            if problems:
                raise BuildError(f"{field} {value!r}: {problems[0]}")
        if not self.image or any(character.isspace() for character in self.image):
            raise BuildError(f"image {self.image!r}: want a reference such as registry.example.com/{self.name}:0.1.0")
        if self.replicas < 0:
            raise BuildError(f"replicas: {self.replicas}; want 0 or more")
        if self.replicas > 1 and not self.leader_election:
            raise BuildError(f"replicas: {self.replicas} without leader election would undo each other's work; want 1")

    @property
    def home(self) -> str:
        """The namespace that it runs in."""
        return self.namespace or self.name


def manifests_of(manager: Manager, installation: Installation, *also: object) -> list[dict[str, Any]]:
    """Return the objects that install the operator of a manager, in an order in which they can be applied.

    The manager has its controllers and need not run. Its namespace decides where rights are granted: everywhere, or in
    that namespace alone. also: functions with further `needs`, such as `build`. Raises BuildError, and CommandError for
    a kind that no definition can be made of.
    """
    name, home = installation.name, installation.home
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "operator"}
    made: list[dict[str, Any]] = []
    if home not in _NOT_OURS:
        made.append(_namespace(home, labels))
    if installation.definitions:
        made += _definitions(manager)
    made.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(name, home, labels)})
    lease = name if installation.leader_election else ""
    made += roles_of(manager, *also, name=name, namespace=home, lease=lease, labels=labels)
    made.append(_deployment(manager, installation, labels))
    if (options := _webhook_options(manager)) is not None:
        if options.service:
            made.append(_service(options, labels))
        made += webhook_manifests(manager)
    return made


def name_of(module: str) -> str:
    """Return the name of an operator whose module, or the path of its file, is this."""
    bare = Path(module).stem if module.endswith(".py") or os.sep in module else module
    return bare.replace(".", "-").replace("_", "-").lower()


def _metadata(name: str, namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "namespace": namespace, "labels": labels}


def _namespace(name: str, labels: dict[str, str]) -> dict[str, Any]:
    guarded = labels | {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": guarded}}


def _definitions(manager: Manager) -> list[dict[str, Any]]:
    """Make the definitions of the operator's kinds: those it has controllers for, and others of their groups."""
    ours = [each.kind for each in manager.controllers]
    if manager.webhooks is not None:
        ours += [conversions.hub for conversions in manager.webhooks.conversions.values()]
    groups = {kind.group for kind in ours}
    ours += [kind for kind in manager.scheme if kind.group in groups]
    found: dict[str, dict[str, Any]] = {}
    for kind in _custom(ours):
        # Other versions of a kind need no controller; they are beside it in its module.
        module = sys.modules.get(kind.__module__)
        for made in [definition(kind)] if module is None else definitions_of(module, kind.__name__):
            if (conversion := conversion_of(manager, kind)) is not None:
                made["spec"]["conversion"] = conversion.manifest()
            found.setdefault(made["metadata"]["name"], made)
    return [found[name] for name in sorted(found)]


def _custom(kinds: Iterable[type[Resource]]) -> Iterable[type[Resource]]:
    return (kind for kind in dict.fromkeys(kinds) if not kind.__module__.startswith(_BUILT_IN))


def _webhook_options(manager: Manager) -> WebhookOptions | None:
    """Return how webhooks are reached, None where none were built."""
    webhooks = manager.webhooks
    return webhooks.options if webhooks is not None and (webhooks.hooks or webhooks.conversions) else None


def _service(options: WebhookOptions, labels: dict[str, str]) -> dict[str, Any]:
    """Make the Service by which servers reach the webhooks."""
    namespace, name = options.service.split("/")
    ports = [{"name": "webhooks", "port": options.service_port, "targetPort": "webhooks"}]
    spec = {"selector": labels, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(name, namespace, labels), "spec": spec}


def _deployment(manager: Manager, installation: Installation, labels: dict[str, str]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "serviceAccountName": installation.name,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": int(manager.grace_seconds) + 5,
        "containers": [_container(manager, installation)],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
    }
    spec = {
        "replicas": installation.replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    metadata = _metadata(installation.name, installation.home, labels)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _container(manager: Manager, installation: Installation) -> dict[str, Any]:
    environment = {HEALTH: f"0.0.0.0:{_HEALTH_PORT}"}
    if installation.leader_election:
        environment[LEADER_ELECT] = installation.name
    if manager.namespace != ALL_NAMESPACES:
        environment[NAMESPACE] = manager.namespace
    ports = [{"name": "health", "containerPort": _HEALTH_PORT}]
    if (options := _webhook_options(manager)) is not None:
        environment[WEBHOOKS] = options.service or options.url
        ports.append({"name": "webhooks", "containerPort": int(options.address.rpartition(":")[2])})
    return {
        "name": "operator",
        "image": installation.image,
        **({"command": [*installation.command]} if installation.command else {}),
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "ports": ports,
        "livenessProbe": _probe("/healthz", initialDelaySeconds=5, periodSeconds=20),
        "readinessProbe": _probe("/readyz", periodSeconds=10),
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # the container's own, in memory
    }


def _probe(path: str, **often: int) -> dict[str, Any]:
    # HTTPS, as plain text is for loopback only; kubelets do not look at the certificate.
    return {"httpGet": {"path": path, "port": "health", "scheme": "HTTPS"}, "timeoutSeconds": 3, **often}
