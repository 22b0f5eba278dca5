"""Joining a cluster: from a URL and a token to the kubeconfig of a node.

Nothing is believed that the token does not vouch for. The authority is fetched without trust and has to have the key
whose digest is in the token; only then is the token's secret shown, to a server that this authority has signed.
"""

from __future__ import annotations

import base64
import os
import ssl
from typing import Final
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from pilothouse.apiserver.access.kubeconfig import KubeconfigError, write_kubeconfig
from pilothouse.apiserver.clusterinfo import NAME, NAMESPACE
from pilothouse.client import Client, ClientError, ConfigError, ConnectFailed
from pilothouse.client.config import ClientConfig
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.tls import Credentials
from pilothouse.kinds.names import dns1123_subdomain
from pilothouse.kinds.status import ApiStatus, Forbidden, NotFound, Unauthorized
from pilothouse.kinds.structs import ConfigMap, Node

from .jointoken import JoinToken, TokenError, authorities, pin_of, pinned
from .noderequest import RequestRefused, common_name, node_credentials, user_of_node

__all__ = ["JoinError", "join", "renew"]

_log = get_logger(__name__)
_FILE: Final = "agent.kubeconfig"
_RENEW_AT: Final = 1 / 3
"""What is left of a certificate's life when it is renewed."""
_SECONDS: Final = 60.0
_NEW_TOKEN: Final = "make a new token there: pilothouse token create"  # noqa: S105  # advice


class JoinError(Exception):
    """A machine cannot join; the message says why and the way out.

    again: whether trying again later may help, as where the server does not answer.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again: Final = again


async def join(
    url: str, token: str, name: str, directory: str, *, seconds: float = _SECONDS, clock: Clock | None = None
) -> str:
    """Make the kubeconfig of a node in a directory (`agent.kubeconfig`, mode 0600), and return its path.

    One that is there and good is kept: then the token may be over, or empty, and the server away. url: of the API
    server. token: as `pilothouse token create` prints it. seconds: how long to wait for the certificate. Raises
    JoinError.
    """
    server = _server(url)
    if wrong := dns1123_subdomain(name):
        raise JoinError(f"node name {name!r}: {wrong[0]}")
    path = os.path.join(directory, _FILE)
    shown = _token(token) if token else None
    kept = _kept(path, name, clock or SystemClock())
    if kept is not None and await _still_good(kept, server, shown, path):
        return path
    if shown is None:
        raise JoinError(f"{path}: there is no kubeconfig of node {name} for {server} yet, and no token; {_NEW_TOKEN}")
    ca = await _trusted(server, shown)
    config = ClientConfig(server=server, ca_data=ca, token=shown.bearer, source=f"joining {server}")
    try:
        async with Client.from_config(config) as client:
            whole = await _authorities(client, server)
            await _check_free(client, name)
            made = await node_credentials(client, name, seconds=seconds)
    except Unauthorized as error:
        raise JoinError(
            f"{server}: does not know the token {shown.identity}, or its time is over; {_NEW_TOKEN}"
        ) from error
    except RequestRefused as error:
        raise JoinError(f"node {name}: {error}", again=True) from error
    except ApiStatus as error:
        raise JoinError(f"{server}: refuses what joining needs: {error.message}") from error
    except (ClientError, OSError) as error:
        raise _unreachable(server, error) from error
    _write(path, server, whole, made, name)
    _log.info("this machine has joined", server=server, node=name)
    return path


async def renew(path: str, *, seconds: float = _SECONDS, clock: Clock | None = None) -> bool:
    """Keep a node's kubeconfig good; return whether it was written anew. To be called every few hours.

    Its certificate is renewed where a third of its life is left, or another authority signs by now; and authorities are
    taken as the server tells them. The node asks as itself. Raises JoinError; what is there then stays.
    """
    try:
        config = load_kubeconfig(path)
        certificate = x509.load_pem_x509_certificate(config.certificate_data)
    except (ConfigError, ValueError) as error:
        raise JoinError(f"{path}: cannot be used: {error}; join again") from error
    name = common_name(certificate).removeprefix(user_of_node(""))
    made = Credentials(config.certificate_data, config.key_data)
    try:
        async with Client.from_config(config) as client:
            ca = await _authorities(client, config.server)
            if _is_due(certificate, ca, clock or SystemClock()):
                made = await node_credentials(client, name, seconds=seconds)
    except (ApiStatus, RequestRefused, ClientError, OSError) as error:
        raise JoinError(f"node {name}: its certificate could not be renewed: {error}", again=True) from error
    if (made.certificate, ca) == (config.certificate_data, config.ca_data):
        return False
    _write(path, config.server, ca, made, name)
    _log.info("the node's kubeconfig was renewed", node=name)
    return True


def _is_due(certificate: x509.Certificate, ca: bytes, clock: Clock) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if certificate.not_valid_after_utc - clock.now() <= life * _RENEW_AT:
        return True
    try:
        certificate.verify_directly_issued_by(authorities(ca)[0])
    except (ValueError, TypeError, InvalidSignature):
        return True
    return False


def _server(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in {"", "/"}:
        raise JoinError(f"{url!r}: is no URL of an API server; want https://HOST:6443")
    return url.rstrip("/")


def _token(text: str) -> JoinToken:
    try:
        return JoinToken.parse(text)
    except TokenError as error:
        raise JoinError(str(error)) from error


def _kept(path: str, name: str, clock: Clock) -> ClientConfig | None:
    """Return what a kubeconfig says that is there, if it is of this node and not over."""
    try:
        config = load_kubeconfig(path)
        certificate = x509.load_pem_x509_certificate(config.certificate_data)
        key = serialization.load_pem_private_key(config.key_data, None)
    except (ConfigError, ValueError, TypeError):
        return None
    good = (
        common_name(certificate) == user_of_node(name)
        and certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc > clock.now()
    )
    return config if good else None


async def _still_good(kept: ClientConfig, server: str, token: JoinToken | None, path: str) -> bool:
    """Whether a kubeconfig leads to the cluster that is meant; one whose server has moved is written anew."""
    same = token is None or _vouches(token, kept.ca_data)
    if kept.server == server:
        # another authority: it was exchanged, or this is another cluster, which the server itself tells
        return same or await _is_known(kept)
    if token is None or not same:
        return False
    made = Credentials(kept.certificate_data, kept.key_data)
    name = common_name(x509.load_pem_x509_certificate(kept.certificate_data)).removeprefix(user_of_node(""))
    _write(path, server, kept.ca_data, made, name)
    return True


def _vouches(token: JoinToken, ca: bytes) -> bool:
    try:
        return any(pin_of(each) == token.pin for each in authorities(ca))
    except ValueError:
        return False


async def _is_known(config: ClientConfig) -> bool:
    """Whether the server takes a kubeconfig, or does not say that it does not."""
    try:
        async with Client.from_config(config) as client:
            await client.version()
    except Unauthorized:
        return False
    except ConnectFailed as error:
        return not isinstance(error.__cause__, ssl.SSLCertVerificationError)
    except (ApiStatus, ClientError, OSError):
        return True
    return True


async def _trusted(server: str, token: JoinToken) -> bytes:
    """Return the authority that the token vouches for, as a server that is not trusted yet tells it."""
    config = ClientConfig(server=server, insecure=True, source=f"joining {server}")
    try:
        async with Client.from_config(config) as client:
            found = await _authorities(client, server)
    except (NotFound, Forbidden, Unauthorized) as error:
        raise JoinError(
            f"{server}: does not tell strangers its authority ({error.message}); is it `pilothouse up`, and ready?",
            again=True,
        ) from error
    except ApiStatus as error:
        raise JoinError(f"{server}: {error.message}", again=True) from error
    except (ClientError, OSError) as error:
        raise _unreachable(server, error) from error
    ca = pinned(_read(found, server), token.pin)
    if not ca:
        raise JoinError(
            f"{server}: its authority is not the one that the token is for: it is another cluster, the authority was "
            f"exchanged, or somebody is in between; compare the URL, or {_NEW_TOKEN}"
        )
    return ca


async def _authorities(client: Client, server: str) -> bytes:
    info = await client.get(ConfigMap, NAME, NAMESPACE)
    try:
        told = yaml.safe_load(info.data.get("kubeconfig", ""))
        cluster = told["clusters"][0]["cluster"]
        return base64.b64decode(cluster["certificate-authority-data"], validate=True)
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError) as error:
        raise JoinError(f"{server}: what it tells of itself ({NAMESPACE}/{NAME}) cannot be read") from error


def _read(pem: bytes, server: str) -> list[x509.Certificate]:
    try:
        return authorities(pem)
    except ValueError as error:
        raise JoinError(f"{server}: the authority that it tells is no certificate") from error


async def _check_free(client: Client, name: str) -> None:
    """Refuse a name that a node has which is alive: its pods would be ours, and ours its."""
    try:
        node = await client.get(Node, name)
    except (NotFound, Forbidden):
        return
    if any(each.type == "Ready" and each.status == "True" for each in node.status.conditions):
        raise JoinError(
            f"node {name}: there is one of this name, which is alive; choose another by --node-name, or stop that one "
            f"and wait a minute, or kubectl delete node {name}"
        )


def _unreachable(server: str, error: Exception) -> JoinError:
    return JoinError(f"{server}: cannot be joined: {error}", again=True)


def _write(path: str, server: str, ca: bytes, made: Credentials, name: str) -> None:
    try:
        write_kubeconfig(path, server, ca, made.certificate, made.key, user=user_of_node(name))
    except KubeconfigError as error:
        raise JoinError(str(error)) from error
