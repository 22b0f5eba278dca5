"""How an API server is set up."""

from __future__ import annotations

from dataclasses import dataclass, field

from pilothouse.apiserver.access.oidc import OidcSettings
from pilothouse.apiserver.allocation import AllocationOptions
from pilothouse.apiserver.audit import AuditPolicy
from pilothouse.apiserver.flow import Limits
from pilothouse.apiserver.model import User
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.metrics import PROGRAM, Metrics

__all__ = ["ServerOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerOptions:
    """Settings of an `ApiServer`; the defaults are kube-apiserver's where it has the setting.

    tokens: users by their static token. issuers: of service-account tokens, the first signs. audiences: whom tokens
    are for. anonymous: whether requests without credentials are `system:anonymous` (who may see health and version).
    oidc: providers of identities, oidc_ca: a file of their authorities.
    lifecycle: whether garbage collection, namespace deletion, default accounts and signing of certificates run here.
    platform: whether what the platform's own processes and nodes that join need is there: roles, and where to join.
    bundled: files of objects that come with the program (`apiserver.bundled`).
    loopback_endpoints: whether pods and endpoints of services may be at 127.0.0.0/8, as they are where all run on one
    machine as an ordinary user; Kubernetes refuses it.
    compact_seconds: between compactions of the store; 0 for none. enable_admission, disable_admission: plugins by name.
    advertise: host and port that clients reach.
    """

    tokens: dict[str, User] = field(default_factory=dict)
    issuers: tuple[str, ...] = ("https://kubernetes.default.svc",)
    audiences: tuple[str, ...] = ()
    anonymous: bool = True
    oidc: tuple[OidcSettings, ...] = ()
    oidc_ca: str = ""
    lifecycle: bool = False
    platform: bool = False
    bundled: tuple[str, ...] = ()
    loopback_endpoints: bool = False
    compact_seconds: float = 300.0
    enable_admission: tuple[str, ...] = ()
    disable_admission: tuple[str, ...] = ()
    advertise: str = ""
    allocation: AllocationOptions = field(default_factory=AllocationOptions)
    limits: Limits = field(default_factory=Limits)
    audit_policy: AuditPolicy | None = None
    audit_log: str = ""
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=SystemIds)
    metrics: Metrics = PROGRAM
