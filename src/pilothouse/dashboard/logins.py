"""Logging in: what was pasted is shown to the API server, which says who that is."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Final

import msgspec

from pilothouse.apiserver.model import Request, Response
from pilothouse.client import Client, ClientConfig, ClientError
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import Forbidden, Unauthorized

from .feeds import EVERYWHERE, Feeds
from .limits import FailureLimit
from .pasted import MOST_BYTES, Pasted, PastedError, read_pasted
from .refusals import PRIVATE, Refused
from .rights import may
from .sessions import COOKIE, Session, Sessions, TooManySessions

__all__ = ["Logins", "told"]

_AT_ONCE: Final = 4
_SECONDS: Final = 15.0
_ACCOUNT: Final = "system:serviceaccount:"

_log = get_logger(__name__)


class Logins:
    """Takes credentials and makes sessions. config: where the API server is; the credentials in it are not used."""

    def __init__(self, config: ClientConfig, clock: Clock) -> None:
        self._config = ClientConfig(
            server=config.server,
            tls_server_name=config.tls_server_name,
            insecure=config.insecure,
            ca_file=config.ca_file,
            ca_data=config.ca_data,
            proxy_url=config.proxy_url,
            compression=config.compression,
            source="the dashboard's server",
        )
        self._clock = clock
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._limit = FailureLimit(clock)

    async def answer(self, request: Request, sessions: Sessions) -> Response:
        """Log somebody in. Raises Refused, also where too many tries from there have failed."""
        address = request.peer.address if request.peer is not None else ""
        if wait := self._limit.wait_of(address):
            text = "too many logins from this address have failed"
            raise Refused(429, text, f"try again in {wait} s", {"Retry-After": str(wait)})
        try:
            return await self._answer(request, sessions)
        except Refused as error:
            if error.status in {400, 401}:
                self._limit.failed(address)
                _log.warning("a login failed", address=address, why=error.text)
            raise

    async def _answer(self, request: Request, sessions: Sessions) -> Response:
        if len(request.body) > MOST_BYTES + 1_024:
            raise Refused(413, "that is too long for a token or a kubeconfig")
        try:
            given = msgspec.json.decode(request.body, type=dict[str, str]).get("credentials", "")
            pasted = await asyncio.to_thread(read_pasted, given)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise Refused(400, "want {credentials}") from None
        except PastedError as error:
            raise Refused(400, str(error)) from None
        if sessions.full:
            raise Refused(503, "as many people are logged in as may be at once", "try again when one has logged out")
        async with self._at_once:
            session = await self._checked(pasted, sessions)
        try:
            cookie = sessions.add(session)
        except TooManySessions as error:
            await session.client.aclose()
            raise Refused(503, str(error)) from None
        _log.info("somebody logged in", user=session.user)
        header = f"{COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict"
        return Response(200, msgspec.json.encode(told(session)), [*PRIVATE, ("Set-Cookie", header)])

    async def _checked(self, pasted: Pasted, sessions: Sessions) -> Session:
        """Ask the API server who this is."""
        config = dataclasses.replace(
            self._config, token=pasted.token, certificate_data=pasted.certificate, key_data=pasted.key
        )
        try:
            client = Client.from_config(config, field_manager="pilothouse-dashboard", seconds=_SECONDS)
        except (ClientError, ValueError) as error:
            raise Refused(400, f"these credentials cannot be used: {error}") from None
        try:
            return await self._who(client, sessions)
        except BaseException:
            await client.aclose()
            raise

    async def _who(self, client: Client, sessions: Sessions) -> Session:
        body = msgspec.json.encode({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
        try:
            raw = await client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        except (Unauthorized, Forbidden):
            raise _unknown() from None
        except (ClientError, OSError) as error:
            if "certificate" in str(error).lower() or "key" in str(error).lower():
                raise Refused(400, "the certificate cannot be used, or is not of this cluster") from None
            raise
        info = msgspec.json.decode(raw)["status"]["userInfo"]
        name = str(info.get("username", ""))
        if not name or name == "system:anonymous":
            raise _unknown()
        session = Session(
            user=name,
            groups=tuple(info.get("groups") or ()),
            csrf=sessions.new_csrf(),
            client=client,
            feeds=Feeds(client, self._clock),
        )
        if await may(session, self._clock, "list", "deployments", EVERYWHERE, "apps"):
            session.namespace = EVERYWHERE
        elif name.startswith(_ACCOUNT):
            session.namespace = name.removeprefix(_ACCOUNT).partition(":")[0]
        return session


def told(session: Session) -> dict[str, object]:
    """Return what a page has to know of its session."""
    return {"user": session.user, "groups": session.groups, "csrf": session.csrf, "namespace": session.namespace}


def _unknown() -> Refused:
    return Refused(401, "the API server does not know these credentials", "is the token whole, and still in time?")
