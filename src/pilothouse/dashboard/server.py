"""The dashboard's requests: files, login, pages as streams, buttons.

It has no rights of its own: all is asked of the API server as the user who is logged in.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Self
from urllib.parse import unquote

import msgspec

from pilothouse.apiserver.model import Answer, Request, Response, Sink, StreamingResponse
from pilothouse.client import Client, ClientConfig, ClientError
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.names import dns1123_subdomain
from pilothouse.kinds.status import ApiStatus, Forbidden, NotFound, Unauthorized

from .assets import load_assets
from .feeds import EVERYWHERE, Feeds, TooManyFeeds
from .numbers import Board, Numbers
from .pages import ApplicationPage, EventsPage, OverviewPage, Page, RolloutPage, WorkloadPage
from .pasted import MOST_BYTES, Pasted, PastedError, read_pasted
from .rights import may, rollout_rights
from .sessions import COOKIE, Session, Sessions, TooManySessions, cookie_of
from .steering import SteeringError, steer
from .streams import Wake, send_log, send_page

__all__ = ["Dashboard"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Strict-Transport-Security", "max-age=31536000"),
)
_PRIVATE: Final = (*_SAFE_HEADERS, ("Cache-Control", "no-store"))
_LOGINS_AT_ONCE: Final = 4
_STREAMS_OF_ONE: Final = 24
_SWEEP_SECONDS: Final = 10.0
_LOGIN_SECONDS: Final = 15.0
_ACCOUNT: Final = "system:serviceaccount:"
_PAGES: Final[dict[str, Callable[[Feeds, Wake, str, str], Page]]] = {
    "overview": lambda feeds, wake, namespace, _: OverviewPage(feeds, wake, namespace),
    "events": lambda feeds, wake, namespace, _: EventsPage(feeds, wake, namespace),
    "application": ApplicationPage,
    "rollout": RolloutPage,
    "deployment": WorkloadPage,
}
_OF_NAMESPACES: Final = frozenset({"overview", "events"})

_log = get_logger(__name__)


class _Refused(Exception):
    """An answer that is no success. hint: the way out."""

    def __init__(self, status: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.hint = status, text, hint


class Dashboard:
    """Answers requests of browsers. Its `handle` is what an HttpServer wants.

    config: where the API server is and how its certificate is known; the credentials in it are not used. numbers: live
    numbers of traffic, where there are any. sessions: instead of the usual bounds.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        numbers: Numbers | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        sessions: Sessions | None = None,
    ) -> None:
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
        self._clock = clock or SystemClock()
        self._assets = load_assets()
        self.sessions = sessions or Sessions(self._clock, ids or SystemIds())
        self.board = Board(numbers, self._clock)
        self._logins = asyncio.Semaphore(_LOGINS_AT_ONCE)
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.board.close()
        for session in self.sessions:
            await self._end(session)

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_SECONDS)
            for session in self.sessions.over():
                await self._end(session)

    async def _end(self, session: Session) -> None:
        self.sessions.remove(session)
        session.feeds.close()
        await session.client.aclose()

    # Requests

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request."""
        path = request.path
        if path.startswith("/api/"):
            return self._answer(request)
        if request.method not in {"GET", "HEAD"}:
            return _refusal(_Refused(405, "want GET"))
        if path == "/healthz":
            return Response(200, b"ok", _PRIVATE, "text/plain")
        if path.startswith("/static/"):
            return self._file(request, path.removeprefix("/static/"))
        return self._file(request, "index.html")

    def _file(self, request: Request, name: str) -> Response:
        asset = self._assets.get(name)
        if asset is None:
            return _refusal(_Refused(404, f"{name}: there is no such file"))
        headers = [*_SAFE_HEADERS, ("Cache-Control", "no-cache"), ("ETag", asset.tag), ("Vary", "Accept-Encoding")]
        if request.headers.get("if-none-match") == asset.tag:
            return Response(304, b"", headers, asset.content_type)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(200, asset.compressed, [*headers, ("Content-Encoding", "gzip")], asset.content_type)
        return Response(200, asset.body, headers, asset.content_type)

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._routed(request)
        except _Refused as error:
            return _refusal(error)
        except (SteeringError, TooManyFeeds) as error:
            return _refusal(_Refused(409, str(error)))
        except ApiStatus as error:
            return _refusal(_Refused(error.code if error.code >= 400 else 502, error.message, _way_out(error)))
        except (ClientError, OSError) as error:
            return _refusal(_Refused(502, f"the API server does not answer: {error}", "is it running?"))
        except Exception as error:  # noqa: BLE001  # the last stop: a browser gets a sentence
            _log.error("a request failed", path=request.path, error=repr(error), exc_info=True)
            return _refusal(_Refused(500, "the dashboard failed to answer; its log says more"))

    async def _routed(self, request: Request) -> Answer:
        parts = [unquote(each) for each in request.target.partition("?")[0].split("/")[2:]]
        if request.method == "POST":
            self._check_origin(request)
            if parts == ["login"]:
                return await self._login(request)
        elif request.method != "GET":
            raise _Refused(405, "want GET or POST")
        if parts == ["session"] and self._found(request) is None:
            return _json({"user": ""})  # no error: pages ask this first
        session = self._session(request)
        if request.method == "POST":
            if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
                raise _Refused(403, "this request does not come from the dashboard's own page", "load the page anew")
            return await self._post(session, parts)
        return await self._get(request, session, parts)

    async def _get(self, request: Request, session: Session, parts: list[str]) -> Answer:
        match parts:
            case ["session"]:
                return _json(_told(session))
            case ["pages", *rest]:
                return self._page(request, session, rest)
            case ["rights", "rollouts", namespace]:
                return _json({"verbs": await rollout_rights(session, self._clock, _named(namespace))})
            case ["rights", "logs", namespace]:
                allowed = await may(session, self._clock, "get", "pods/log", _named(namespace))
                return _json({"allowed": allowed})
            case ["pods", namespace, name]:
                return await self._pod(session, _named(namespace), _named(name))
            case ["logs", namespace, name]:
                return self._log(request, session, _named(namespace), _named(name))
        raise _Refused(404, f"{request.path}: there is nothing")

    async def _post(self, session: Session, parts: list[str]) -> Answer:
        match parts:
            case ["logout"]:
                await self._end(session)
                gone = f"{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"
                return Response(200, b"{}", [*_PRIVATE, ("Set-Cookie", gone)])
            case ["rollouts", namespace, name, verb]:
                await steer(session.client, _named(namespace), _named(name), verb)
                _log.info("a rollout was steered", user=session.user, rollout=f"{namespace}/{name}", verb=verb)
                return _json({})
        raise _Refused(404, "there is nothing to do by that name")

    def _check_origin(self, request: Request) -> None:
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        if origin.partition("://")[2] != host or not host:
            raise _Refused(403, "this request comes from another site's page", "open the dashboard itself")

    def _found(self, request: Request) -> Session | None:
        return self.sessions.find(cookie_of(request.headers.get("cookie", "")))

    def _session(self, request: Request) -> Session:
        found = self._found(request)
        if found is None:
            raise _Refused(401, "you are not logged in, or your session has ended")
        return found

    # Login

    async def _login(self, request: Request) -> Answer:
        if len(request.body) > MOST_BYTES + 1_024:
            raise _Refused(413, "that is too long for a token or a kubeconfig")
        try:
            given = msgspec.json.decode(request.body, type=dict[str, str]).get("credentials", "")
            pasted = await asyncio.to_thread(read_pasted, given)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise _Refused(400, "want {credentials}") from None
        except PastedError as error:
            raise _Refused(400, str(error)) from None
        if self.sessions.full:
            raise _Refused(503, "as many people are logged in as may be at once", "try again when one has logged out")
        async with self._logins:
            session = await self._checked(pasted)
        try:
            cookie = self.sessions.add(session)
        except TooManySessions as error:
            await session.client.aclose()
            raise _Refused(503, str(error)) from None
        _log.info("somebody logged in", user=session.user)
        header = f"{COOKIE}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict"
        return Response(200, msgspec.json.encode(_told(session)), [*_PRIVATE, ("Set-Cookie", header)])

    async def _checked(self, pasted: Pasted) -> Session:
        """Ask the API server who this is."""
        config = dataclasses.replace(
            self._config, token=pasted.token, certificate_data=pasted.certificate, key_data=pasted.key
        )
        try:
            client = Client.from_config(config, field_manager="pilothouse-dashboard", seconds=_LOGIN_SECONDS)
        except (ClientError, ValueError) as error:
            raise _Refused(400, f"these credentials cannot be used: {error}") from None
        try:
            return await self._who(client)
        except BaseException:
            await client.aclose()
            raise

    async def _who(self, client: Client) -> Session:
        body = msgspec.json.encode({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
        try:
            raw = await client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        except (Unauthorized, Forbidden):
            raise _Refused(
                401, "the API server does not know these credentials", "is the token whole and in time?"
            ) from None
        except (ClientError, OSError) as error:
            if "certificate" in str(error).lower() or "key" in str(error).lower():
                raise _Refused(400, "the certificate cannot be used, or is not of this cluster") from None
            raise
        info = msgspec.json.decode(raw)["status"]["userInfo"]
        name = str(info.get("username", ""))
        if not name or name == "system:anonymous":
            raise _unknown()
        session = Session(
            user=name,
            groups=tuple(info.get("groups") or ()),
            csrf=self.sessions.new_csrf(),
            client=client,
            feeds=Feeds(client, self._clock),
        )
        if await may(session, self._clock, "list", "deployments", EVERYWHERE, "apps"):
            session.namespace = EVERYWHERE
        elif name.startswith(_ACCOUNT):
            session.namespace = name.removeprefix(_ACCOUNT).partition(":")[0]
        return session

    # Streams

    def _page(self, request: Request, session: Session, rest: list[str]) -> Answer:
        kind, names = (rest[0], rest[1:]) if rest else ("", [])
        make = _PAGES.get(kind)
        if make is None or len(names) != (1 if kind in _OF_NAMESPACES else 2):
            raise _Refused(404, f"{request.path}: there is no such page")
        namespace = names[0] if names[0] == EVERYWHERE and kind in _OF_NAMESPACES else _named(names[0])
        name = _named(names[1]) if len(names) > 1 else ""
        last = request.headers.get("last-event-id", "")

        async def run(sink: Sink) -> None:
            wake = Wake()
            page = make(session.feeds, wake, namespace, name)
            try:
                if kind == "rollout":
                    self.board.take(wake)
                await send_page(sink, page, wake, self.board, last=last, is_over=lambda: self.sessions.is_over(session))
            finally:
                self.board.give_back(wake)
                page.close()

        return self._stream(session, run)

    def _log(self, request: Request, session: Session, namespace: str, name: str) -> Answer:
        container, previous = request.param("container"), request.param("previous") == "true"
        last = request.headers.get("last-event-id", "")[:64]

        async def run(sink: Sink) -> None:
            await send_log(
                sink, session.client, self._clock, namespace, name, container=container, previous=previous, last=last
            )

        return self._stream(session, run)

    def _stream(self, session: Session, run: Callable[[Sink], Coroutine[Any, Any, None]]) -> Answer:
        if session.streams >= _STREAMS_OF_ONE:
            raise _Refused(429, f"{_STREAMS_OF_ONE} pages of yours are open already", "close some")

        async def counted(sink: Sink) -> None:
            session.streams += 1
            try:
                await run(sink)
            finally:
                session.streams -= 1
                session.used = self._clock.monotonic()

        headers = [*_PRIVATE, ("X-Accel-Buffering", "no")]
        return StreamingResponse(counted, 200, headers, "text/event-stream")

    async def _pod(self, session: Session, namespace: str, name: str) -> Answer:
        from .digests import pod  # noqa: PLC0415  # named as what it makes

        return _json(pod(await session.client.dynamic("v1", "Pod").get(name, namespace)))


def _unknown() -> _Refused:
    return _Refused(401, "the API server does not know these credentials", "is the token whole, and still in time?")


def _named(text: str) -> str:
    if problems := dns1123_subdomain(text):
        raise _Refused(404, f"there is nothing by that name: {problems[0]}")
    return text


def _told(session: Session) -> dict[str, object]:
    return {"user": session.user, "groups": session.groups, "csrf": session.csrf, "namespace": session.namespace}


def _way_out(error: ApiStatus) -> str:
    if isinstance(error, Forbidden):
        return "ask whoever runs the cluster for the right"
    return "it may have been deleted" if isinstance(error, NotFound) else ""


def _json(value: object) -> Response:
    return Response(200, msgspec.json.encode(value), _PRIVATE)


def _refusal(error: _Refused) -> Response:
    body = msgspec.json.encode({"error": error.text, "hint": error.hint})
    return Response(error.status, body, _PRIVATE)
