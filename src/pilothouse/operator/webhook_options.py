"""What can be said of an operator's webhooks: where servers reach them, and how each one is registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from pilothouse.kinds import names

from .certificates import CertificatePolicy
from .crd_conversion import ConversionWebhook
from .errors import BuildError

if TYPE_CHECKING:
    from .webhook_handlers import Handle

__all__ = ["CONVERT_PATH", "Hook", "HookOptions", "Operation", "Rule", "WebhookOptions", "texts"]

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
"""What may be done with an object."""

CONVERT_PATH: Final = "/convert"
_MAX_SECONDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOptions:
    """How an operator serves webhooks and how servers find it.

    name: of the webhook configurations, and of what else is made for them. service: `NAMESPACE/NAME` of the Service in
    front of the copies, with its service_port; or url: `https://HOST:PORT`, for an operator outside of the cluster.
    address: HOST:PORT to listen on; port 0 takes a free one. Certificates are our own and rotated, in the Secret
    `secret` (`NAMESPACE/NAME`; by default NAME-webhooks where the Service or the client is), or are read from
    certificate_dir (tls.crt, tls.key and, for the caBundle, ca.crt, as cert-manager writes them). configure: whether
    the manager makes the configurations and keeps them right; False where somebody else does. max_in_flight: reviews at
    one time. Raises BuildError for what cannot work.
    """

    name: str
    service: str = ""
    service_port: int = 443
    url: str = ""
    address: str = "0.0.0.0:9443"
    secret: str = ""
    certificate_dir: str = ""
    policy: CertificatePolicy = field(default_factory=CertificatePolicy)
    configure: bool = True
    max_in_flight: int = 256

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if problems := names.dns1123_subdomain(self.name):
            raise BuildError(f"WebhookOptions(name={self.name!r}) is no name of an object: {'; '.join(problems)}")
        if bool(self.service) == bool(self.url):
            raise BuildError("WebhookOptions wants either service='NAMESPACE/NAME' or url='https://HOST:PORT'")
        for word in ("service", "secret"):
            value = getattr(self, word)
            if value and (value.count("/") != 1 or not all(value.split("/"))):
                raise BuildError(f"WebhookOptions({word}={value!r}) is not of the form NAMESPACE/NAME")
        if self.url:
            parts = urlsplit(self.url)
            if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
                raise BuildError(
                    f"WebhookOptions(url={self.url!r}): servers call webhooks over https:// alone, at a host without "
                    "user, query or fragment"
                )
        if self.secret and self.certificate_dir:
            raise BuildError("WebhookOptions: certificates are in a Secret or in a directory; leave out one of both")
        if self.max_in_flight < 1:
            raise BuildError(f"WebhookOptions(max_in_flight={self.max_in_flight}): want 1 or more")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names and addresses that the serving certificate has to be for."""
        if self.url:
            return (urlsplit(self.url).hostname or "",)
        namespace, name = self.service.split("/")
        return f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local", f"{name}.{namespace}"

    def client_config(self, path: str, ca: bytes = b"") -> dict[str, Any]:
        """Return the `clientConfig` of a webhook at a path."""
        conversion: dict[str, Any] = self.conversion(ca, path).manifest()["webhook"]["clientConfig"]
        return conversion

    def conversion(self, ca: bytes = b"", path: str = CONVERT_PATH) -> ConversionWebhook:
        """Return who converts, as `pilothouse.operator.crds.definition` takes it."""
        if self.url:
            return ConversionWebhook(url=self.url.rstrip("/") + path, ca=ca)
        return ConversionWebhook(service=self.service, path=path, port=self.service_port, ca=ca)

    def secret_name(self, namespace: str) -> tuple[str, str]:
        """Return namespace and name of the Secret; namespace: the client's."""
        if self.secret:
            found = self.secret.split("/")
            return found[0], found[1]
        return self.service.partition("/")[0] or namespace, f"{self.name}-webhooks"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests a webhook is asked about: groups, versions, resources with subresources, operations, scope."""

    groups: tuple[str, ...]
    versions: tuple[str, ...]
    resources: tuple[str, ...]
    operations: tuple[Operation, ...]
    scope: Literal["*", "Cluster", "Namespaced"] = "*"

    def manifest(self) -> dict[str, Any]:
        """Return an entry of `rules`."""
        return {
            "apiGroups": [*self.groups],
            "apiVersions": [*self.versions],
            "resources": [*self.resources],
            "operations": [*self.operations],
            "scope": self.scope,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HookOptions:
    """How a webhook is registered; fields as in the configurations of admissionregistration.k8s.io/v1.

    failure_policy: what becomes of a request when the webhook cannot be asked. timeout_seconds: 1 to 30; a handler has
    nine tenths of it. match_conditions: CEL expressions by name. namespace_selector, object_selector: label selectors,
    as JSON has them. side_effects: NoneOnDryRun for a handler that looks at `dry_run`.
    """

    failure_policy: Literal["Fail", "Ignore"] = "Fail"
    timeout_seconds: int = 10
    match_conditions: Mapping[str, str] = field(default_factory=dict)
    namespace_selector: Mapping[str, Any] = field(default_factory=dict)
    object_selector: Mapping[str, Any] = field(default_factory=dict)
    side_effects: Literal["None", "NoneOnDryRun"] = "None"
    match_policy: Literal["Equivalent", "Exact"] = "Equivalent"
    reinvocation_policy: Literal["Never", "IfNeeded"] = "Never"

    def __post_init__(self) -> None:
        """Refuse what servers would refuse."""
        listed = {
            "failure_policy": ("Fail", "Ignore"),
            "side_effects": ("None", "NoneOnDryRun"),
            "match_policy": ("Equivalent", "Exact"),
            "reinvocation_policy": ("Never", "IfNeeded"),
        }
        for name, values in listed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r}; want one of {', '.join(values)}")
        if not 1 <= self.timeout_seconds <= _MAX_SECONDS:
            raise ValueError(f"timeout_seconds={self.timeout_seconds}; want 1 to {_MAX_SECONDS}")

    def manifest(self, *, mutating: bool) -> dict[str, Any]:
        """Return the fields of a webhook that options decide."""
        made: dict[str, Any] = {
            "failurePolicy": self.failure_policy,
            "timeoutSeconds": self.timeout_seconds,
            "sideEffects": self.side_effects,
            "matchPolicy": self.match_policy,
            "namespaceSelector": dict(self.namespace_selector),
            "objectSelector": dict(self.object_selector),
        }
        if self.match_conditions:
            made["matchConditions"] = [
                {"name": name, "expression": expression} for name, expression in self.match_conditions.items()
            ]
        if mutating:
            made["reinvocationPolicy"] = self.reinvocation_policy
        return made


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook: its name in the configuration, its path, when it is asked, and what answers."""

    name: str
    path: str
    mutating: bool
    rule: Rule
    options: HookOptions
    handle: Handle


def texts(word: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return texts as they were listed. Raises BuildError for one text, which is a list of letters."""
    if isinstance(given, str):
        raise BuildError(f"{word}={given!r} is one text; write a list: [{given!r}]")
    return tuple(given)
