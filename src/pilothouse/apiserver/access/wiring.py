"""All that decides who may do what, put together for one server from its keys and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilothouse.apiserver.access.authenticator import RequestAuthenticator
from pilothouse.apiserver.access.authorizers import UnionAuthorizer
from pilothouse.apiserver.access.certificates import CertificateUsers
from pilothouse.apiserver.access.escalation import EscalationCheck
from pilothouse.apiserver.access.frontproxy import FrontProxy
from pilothouse.apiserver.access.jwks import https_fetch
from pilothouse.apiserver.access.kubeconfig import write_kubeconfig
from pilothouse.apiserver.access.node import NodeAuthorizer
from pilothouse.apiserver.access.oidc import OidcSettings, OidcTokens
from pilothouse.apiserver.access.pki import ADMIN, ClientName, Pki
from pilothouse.apiserver.access.rbac import RbacAuthorizer
from pilothouse.apiserver.access.reviews import Reviews
from pilothouse.apiserver.access.serviceaccounts import ServiceAccountTokens
from pilothouse.apiserver.access.signing import JWKS_PATH, openid_configuration
from pilothouse.apiserver.access.tokenrequest import TokenRequests
from pilothouse.apiserver.access.tokens import BootstrapTokens, StaticTokens, TokenAuthenticator, read_token_file
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Authorizer, Object, View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds

__all__ = [
    "ADMIN",
    "DEFAULT_ISSUER",
    "Access",
    "AccessSettings",
    "authentication_config_map",
    "write_client_kubeconfig",
]

DEFAULT_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
"""Who service-account tokens say they are from, as on clusters of kubeadm."""

_PROXY_NAME: Final = "front-proxy-client"


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """What the options of kube-apiserver of the same names say.

    token_file: path of `--token-auth-file`, None without. users: further users by their static token. issuers: the
    first signs, all are believed. api_audiences: whom tokens are for where nobody says otherwise. anonymous: whether
    requests without credentials have a user.
    oidc_ca: a file of authorities (PEM) for the providers, None for the system's.
    """

    token_file: str | None = None
    users: Mapping[str, User] = field(default_factory=dict)
    issuers: Sequence[str] = (DEFAULT_ISSUER,)
    api_audiences: Sequence[str] = ()
    anonymous: bool = True
    bootstrap_tokens: bool = True
    oidc: Sequence[OidcSettings] = ()
    oidc_ca: str | None = None
    front_proxy_names: Sequence[str] = (_PROXY_NAME,)


class Access:
    """Who asks and what they may do, for one server.

    authenticator, authorizer: the ports of those names. rbac: what lists rules. reviews, token_requests: answer the
    kinds of those names. escalation: checks roles and bindings before they are written. tokens: of service accounts.
    Raises TokenFileError, PkiError, OidcError for settings that cannot be used.
    """

    def __init__(
        self,
        view: View,
        pki: Pki,
        settings: AccessSettings | None = None,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        chosen, clock = settings or AccessSettings(), clock or SystemClock()
        self._pki = pki
        self._issuer: Final = chosen.issuers[0]
        self.tokens: Final = ServiceAccountTokens(
            view,
            pki.key_ring(),
            chosen.issuers,
            api_audiences=chosen.api_audiences,
            clock=clock,
            ids=ids or SystemIds(),
        )
        self.certificates: Final = CertificateUsers(pki.read("ca.crt"), clock=clock)
        self._proxies = CertificateUsers(pki.read("front-proxy-ca.crt"), clock=clock)
        self.authenticator: Final = RequestAuthenticator(
            view,
            certificates=self.certificates,
            front_proxy=FrontProxy(self._proxies, allowed_names=chosen.front_proxy_names),
            tokens=_sorts(view, self.tokens, chosen, clock),
            anonymous=chosen.anonymous,
            clock=clock,
        )
        self.rbac: Final = RbacAuthorizer(view)
        self.authorizer: Final[Authorizer] = UnionAuthorizer((NodeAuthorizer(view), self.rbac))
        self.escalation: Final = EscalationCheck(self.rbac, self.authorizer)
        audiences = self.tokens.api_audiences
        self.reviews: Final = Reviews(self.authenticator, self.authorizer, self.rbac, api_audiences=audiences)
        self.token_requests: Final = TokenRequests(view, self.tokens, clock=clock)

    def reload(self) -> None:
        """Take up the authorities and keys as they are in the directory now. Raises PkiError, CertificateError."""
        self.certificates.set_authorities(self._pki.read("ca.crt"))
        self._proxies.set_authorities(self._pki.read("front-proxy-ca.crt"))
        self.tokens.replace_keys(self._pki.key_ring())
        self.authenticator.forget()

    def openid_configuration(self, address: str) -> bytes:
        """Return the document of `/.well-known/openid-configuration`; address: host and port of this server."""
        return openid_configuration(self._issuer, f"https://{address}{JWKS_PATH}", self.tokens.ring)

    def jwks(self) -> bytes:
        """Return the document of `/openid/v1/jwks`."""
        return self.tokens.ring.jwks()

    def close(self) -> None:
        """Stop following the view."""
        self.authenticator.close()
        self.rbac.close()


def _sorts(
    view: View, accounts: ServiceAccountTokens, settings: AccessSettings, clock: Clock
) -> list[TokenAuthenticator]:
    """Return what knows each sort of token, in the order in which kube-apiserver asks."""
    audiences = accounts.api_audiences
    sorts: list[TokenAuthenticator] = []
    users = read_token_file(settings.token_file) if settings.token_file is not None else {}
    if users := {**users, **settings.users}:
        sorts.append(StaticTokens(users, api_audiences=audiences))
    sorts.append(accounts)
    if settings.bootstrap_tokens:
        sorts.append(BootstrapTokens(view, clock=clock, api_audiences=audiences))
    fetch = https_fetch(settings.oidc_ca)
    sorts += [OidcTokens(one, api_audiences=audiences, fetch=fetch, clock=clock) for one in settings.oidc]
    return sorts


def write_client_kubeconfig(pki: Pki, path: str, server: str, client: ClientName = ADMIN) -> None:
    """Write a client's kubeconfig; again whenever its certificate is new. Raises PkiError, KubeconfigError."""
    found = pki.client(client.file)
    write_kubeconfig(path, server, pki.read("ca.crt"), found.certificate, found.key, user=client.common_name)


def authentication_config_map(pki: Pki) -> Object:
    """Return the ConfigMap by which servers behind the aggregation layer learn whom to believe. Raises PkiError."""
    data = {
        "client-ca-file": pki.read("ca.crt").decode(),
        "requestheader-allowed-names": f'["{_PROXY_NAME}"]',
        "requestheader-client-ca-file": pki.read("front-proxy-ca.crt").decode(),
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-uid-headers": '["X-Remote-Uid"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }
    metadata = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
