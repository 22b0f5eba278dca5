"""The tokens with which machines join: made, listed and deleted over the API, by whoever may write secrets there."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec
import yaml

from pilothouse.apiserver.clusterinfo import NAME
from pilothouse.apiserver.clusterinfo import NAMESPACE as PUBLIC
from pilothouse.client import Client
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.kinds import times
from pilothouse.kinds.status import AlreadyExists, NotFound
from pilothouse.kinds.structs import ConfigMap, Secret
from pilothouse.workloads.bootstraptokens import NAMESPACE, PREFIX, TOKEN_TYPE, expires_in, token_secret

from .jointoken import JoinToken, authorities, pin_of

__all__ = ["Made", "NoClusterInfoError", "Shown", "create_token", "delete_token", "list_tokens"]

_IDENTITY: Final = 6
_SECRET: Final = 16
_TRIES: Final = 5


class NoClusterInfoError(Exception):
    """The server does not tell who joins where it is: it is not the platform's."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A new token. url: where the server says that it is reached. expires: RFC 3339, empty for never."""

    id: str
    token: str
    url: str
    expires: str
    description: str

    def __repr__(self) -> str:
        return f"Made(id={self.id!r}, token=***)"

    @property
    def command(self) -> str:
        """What the machine that is to join runs."""
        return f"pilothouse up --role agent --join {shlex.quote(self.url)} --token {self.token}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        host = urlsplit(self.url).hostname or ""
        return host == "localhost" or host.startswith("127.") or host == "::1"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A token without what makes it one. expires: RFC 3339, empty for never. usages: what it is good for."""

    id: str
    expires: str
    expired: bool
    usages: list[str]
    groups: list[str]
    description: str


async def create_token(
    client: Client,
    *,
    ttl_seconds: float,
    description: str = "",
    clock: Clock | None = None,
    ids: Ids | None = None,
) -> Made:
    """Make a token that holds for a time, for ever where that is 0.

    Raises NoClusterInfoError, and what the client raises.
    """
    clock, ids = clock or SystemClock(), ids or SystemIds()
    url, pin = await _cluster(client)
    for left in reversed(range(_TRIES)):
        token = JoinToken(ids.name_suffix(_IDENTITY), ids.name_suffix(_SECRET), pin)
        now = clock.now()
        made = token_secret(token.identity, token.secret, now=now, ttl_seconds=ttl_seconds, description=description)
        try:
            await client.create(made)
        except AlreadyExists:
            if not left:
                raise
            continue
        break
    expires = times.format_seconds(now + timedelta(seconds=ttl_seconds)) if ttl_seconds else ""
    return Made(id=token.identity, token=token.text, url=url, expires=expires, description=description)


async def list_tokens(client: Client, *, clock: Clock | None = None) -> list[Shown]:
    """Return all tokens, those that end first before others. Raises what the client raises."""
    now = (clock or SystemClock()).now()
    found = await client.list_all(Secret, NAMESPACE, fields=f"type={TOKEN_TYPE}")
    shown = [_shown(secret, expires_in(secret.data, now)) for secret in found]
    return sorted(shown, key=lambda each: (not each.expires, each.expires, each.id))


async def delete_token(client: Client, identity: str) -> bool:
    """Delete a token; return whether there was one. Whoever has joined with it stays. Raises what the client raises."""
    try:
        found = await client.get(Secret, PREFIX + identity, NAMESPACE)
        if found.type != TOKEN_TYPE:
            return False
        await client.delete(Secret, PREFIX + identity, NAMESPACE, uid=found.metadata.uid)
    except NotFound:
        return False
    return True


def _shown(secret: Secret, left: float | None) -> Shown:
    def text(name: str) -> str:
        return secret.data.get(name, b"").decode(errors="replace")

    usages = [name for name in ("authentication", "signing") if text(f"usage-bootstrap-{name}") == "true"]
    return Shown(
        id=secret.metadata.name.removeprefix(PREFIX),
        expires=text("expiration"),
        expired=left == 0.0,
        usages=usages,
        groups=[each for each in text("auth-extra-groups").split(",") if each],
        description=text("description"),
    )


async def _cluster(client: Client) -> tuple[str, str]:
    """Return where the server is, and the digest of the authority that signs there."""
    try:
        info = await client.get(ConfigMap, NAME, PUBLIC)
        cluster = yaml.safe_load(info.data["kubeconfig"])["clusters"][0]["cluster"]
        ca = msgspec.convert(cluster["certificate-authority-data"], bytes, strict=False)
        return str(cluster["server"]), pin_of(authorities(ca)[0])
    except (NotFound, yaml.YAMLError, KeyError, IndexError, TypeError, ValueError) as error:
        raise NoClusterInfoError(
            f"the server has no {PUBLIC}/{NAME} that can be read, by which machines join; it is not of `pilothouse up`"
        ) from error
