"""The dashboard's requests: files, login, pages as streams, buttons.

It has no rights of its own: all is asked of the API server as the user who is logged in.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Self
from urllib.parse import unquote

import msgspec

from pilothouse.apiserver.model import Answer, Request, Response, Sink, StreamingResponse
from pilothouse.client import ClientConfig, ClientError
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.names import dns1123_subdomain
from pilothouse.kinds.status import ApiStatus, Forbidden, NotFound

from .assets import load_assets
from .feeds import EVERYWHERE, Feeds, TooManyFeeds
from .logins import Logins, told
from .numbers import Board, Numbers
from .operating import Comparing, operate
from .pages import (
    ApplicationPage,
    EventsPage,
    OverviewPage,
    Page,
    RolloutPage,
    ServiceLevelPage,
    ServiceLevelsPage,
    WorkloadPage,
)
from .refusals import PRIVATE, SAFE, Refused, json_answer, refusal
from .rights import APPLICATION_RIGHTS, ROLLOUT_RIGHTS, Right, may, offers
from .sessions import COOKIE, Session, Sessions, cookie_of
from .steering import Options, SteeringError, steer
from .streams import Wake, send_log, send_page

__all__ = ["Dashboard"]

_STREAMS_OF_ONE: Final = 24
_MOST_STREAMS: Final = 512
_MOST_BODY: Final = 4_096
_SWEEP_SECONDS: Final = 10.0
_PAGES: Final[dict[str, Callable[[Feeds, Wake, str, str], Page]]] = {
    "overview": lambda feeds, wake, namespace, _: OverviewPage(feeds, wake, namespace),
    "events": lambda feeds, wake, namespace, _: EventsPage(feeds, wake, namespace),
    "application": ApplicationPage,
    "rollout": RolloutPage,
    "deployment": WorkloadPage,
    "slo": lambda feeds, wake, namespace, _: ServiceLevelsPage(feeds, wake, namespace),
    "servicelevel": ServiceLevelPage,
}
_OF_NAMESPACES: Final = frozenset({"overview", "events", "slo"})

_log = get_logger(__name__)


class Dashboard:
    """Answers requests of browsers. Its `handle` is what an HttpServer wants.

    config: where the API server is and how its certificate is known; the credentials in it are not used. numbers: live
    numbers of traffic, where there are any. sessions: instead of the usual bounds. compares: whether git may be run
    here to say field by field in what an application differs.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        numbers: Numbers | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        sessions: Sessions | None = None,
        compares: bool = False,
    ) -> None:
        self._clock = clock or SystemClock()
        self._assets = load_assets()
        self.sessions = sessions or Sessions(self._clock, ids or SystemIds())
        self.board = Board(numbers, self._clock)
        self._logins = Logins(config, self._clock)
        self._comparing = Comparing(is_offered=compares)
        self._streams = 0
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
            return refusal(Refused(405, "want GET"))
        if path == "/healthz":
            return Response(200, b"ok", PRIVATE, "text/plain")
        if path.startswith("/static/"):
            return self._file(request, path.removeprefix("/static/"))
        return self._file(request, "index.html")

    def _file(self, request: Request, name: str) -> Response:
        asset = self._assets.get(name)
        if asset is None:
            return refusal(Refused(404, f"{name}: there is no such file"))
        headers = [*SAFE, ("Cache-Control", "no-cache"), ("ETag", asset.tag), ("Vary", "Accept-Encoding")]
        if request.headers.get("if-none-match") == asset.tag:
            return Response(304, b"", headers, asset.content_type)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(200, asset.compressed, [*headers, ("Content-Encoding", "gzip")], asset.content_type)
        return Response(200, asset.body, headers, asset.content_type)

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._routed(request)
        except Refused as error:
            return refusal(error)
        except (SteeringError, TooManyFeeds) as error:
            return refusal(Refused(409, str(error)))
        except ApiStatus as error:
            return refusal(Refused(error.code if error.code >= 400 else 502, error.message, _way_out(error)))
        except (ClientError, OSError) as error:
            return refusal(Refused(502, f"the API server does not answer: {error}", "is it running?"))
        except Exception as error:  # noqa: BLE001  # the last stop: a browser gets a sentence
            _log.error("a request failed", path=request.path, error=repr(error), exc_info=True)
            return refusal(Refused(500, "the dashboard failed to answer; its log says more"))

    async def _routed(self, request: Request) -> Answer:
        parts = [unquote(each) for each in request.target.partition("?")[0].split("/")[2:]]
        if request.method == "POST":
            self._check_origin(request)
            if parts == ["login"]:
                return await self._logins.answer(request, self.sessions)
        elif request.method != "GET":
            raise Refused(405, "want GET or POST")
        if parts == ["session"] and self._found(request) is None:
            return json_answer({"user": ""})  # no error: pages ask this first
        session = self._session(request)
        if request.method == "POST":
            if not hmac.compare_digest(request.headers.get("x-csrf-token", "").encode(), session.csrf.encode()):
                raise Refused(403, "this request does not come from the dashboard's own page", "load the page anew")
            return await self._post(session, parts, _options(request))
        return await self._get(request, session, parts)

    async def _get(self, request: Request, session: Session, parts: list[str]) -> Answer:
        match parts:
            case ["session"]:
                return json_answer(told(session))
            case ["pages", *rest]:
                return self._page(request, session, rest)
            case ["rights", "rollouts" | "applications" as kind, namespace]:
                wanted = ROLLOUT_RIGHTS if kind == "rollouts" else APPLICATION_RIGHTS
                return json_answer({"verbs": await self._offers(session, _named(namespace), wanted)})
            case ["differences", namespace, name]:
                reason = (await self._offers(session, _named(namespace), APPLICATION_RIGHTS))["compare"]
                if reason and self._comparing.is_offered:
                    raise Refused(403, reason, "it takes what the controller needs to compare")
                found = await self._comparing.differences(session.client, _named(namespace), _named(name))
                return json_answer({"changes": found})
            case ["rights", "logs", namespace]:
                allowed = await may(session, self._clock, "get", "pods/log", _named(namespace))
                return json_answer({"allowed": allowed})
            case ["pods", namespace, name]:
                return await self._pod(session, _named(namespace), _named(name))
            case ["logs", namespace, name]:
                return self._log(request, session, _named(namespace), _named(name))
        raise Refused(404, f"{request.path}: there is nothing")

    async def _offers(self, session: Session, namespace: str, wanted: dict[str, tuple[Right, ...]]) -> dict[str, str]:
        found = await offers(session, self._clock, namespace, wanted)
        if "compare" in found and not self._comparing.is_offered:
            found["compare"] = "comparing is off here; `pilothouse app diff --fields` does it"
        return found

    async def _post(self, session: Session, parts: list[str], options: Options) -> Answer:
        match parts:
            case ["logout"]:
                await self._end(session)
                gone = f"{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"
                return Response(200, b"{}", [*PRIVATE, ("Set-Cookie", gone)])
            case ["rollouts", namespace, name, verb]:
                await steer(session.client, _named(namespace), _named(name), verb, options, self._clock.now())
                _log.info("a rollout was steered", user=session.user, rollout=f"{namespace}/{name}", verb=verb)
                return json_answer({})
            case ["applications", namespace, name, verb]:
                await operate(
                    session.client, _named(namespace), _named(name), verb, options, session.user, self._clock.now()
                )
                _log.info("an application was steered", user=session.user, app=f"{namespace}/{name}", verb=verb)
                return json_answer({})
        raise Refused(404, "there is nothing to do by that name")

    def _check_origin(self, request: Request) -> None:
        origin, host = request.headers.get("origin", ""), request.headers.get("host", "")
        if origin.partition("://")[2] != host or not host:
            raise Refused(403, "this request comes from another site's page", "open the dashboard itself")

    def _found(self, request: Request) -> Session | None:
        return self.sessions.find(cookie_of(request.headers.get("cookie", "")))

    def _session(self, request: Request) -> Session:
        found = self._found(request)
        if found is None:
            raise Refused(401, "you are not logged in, or your session has ended")
        return found

    # Streams

    def _page(self, request: Request, session: Session, rest: list[str]) -> Answer:
        kind, names = (rest[0], rest[1:]) if rest else ("", [])
        make = _PAGES.get(kind)
        if make is None or len(names) != (1 if kind in _OF_NAMESPACES else 2):
            raise Refused(404, f"{request.path}: there is no such page")
        namespace = names[0] if names[0] == EVERYWHERE and kind in _OF_NAMESPACES else _named(names[0])
        name = _named(names[1]) if len(names) > 1 else ""
        last = request.headers.get("last-event-id", "")

        async def sees(where: str) -> bool:
            return await may(session, self._clock, "get", "httproutes", where, "gateway.networking.k8s.io")

        async def run(sink: Sink) -> None:
            wake = Wake()
            page = make(session.feeds, wake, namespace, name)
            try:
                if kind == "rollout":
                    self.board.take(wake)
                over = partial(self.sessions.is_over, session)
                await send_page(sink, page, wake, self.board, last=last, is_over=over, sees=sees)
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
            raise Refused(429, f"{_STREAMS_OF_ONE} pages of yours are open already", "close some")
        if self._streams >= _MOST_STREAMS:
            raise Refused(503, "as many pages are open as may be at once", "try again in a while")

        async def counted(sink: Sink) -> None:
            session.streams += 1
            self._streams += 1
            try:
                await run(sink)
            finally:
                self._streams -= 1
                session.streams -= 1
                session.used = self._clock.monotonic()

        headers = [*PRIVATE, ("X-Accel-Buffering", "no")]
        return StreamingResponse(counted, 200, headers, "text/event-stream")

    async def _pod(self, session: Session, namespace: str, name: str) -> Answer:
        from .digests import pod  # noqa: PLC0415  # named as what it makes

        return json_answer(pod(await session.client.dynamic("v1", "Pod").get(name, namespace)))


def _options(request: Request) -> Options:
    if len(request.body) > _MOST_BODY:
        raise Refused(413, "that is too long for what a button says")
    try:
        return msgspec.json.decode(request.body, type=Options) if request.body else Options()
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Refused(400, f"the button says what is not understood: {error}") from None


def _named(text: str) -> str:
    if problems := dns1123_subdomain(text):
        raise Refused(404, f"there is nothing by that name: {problems[0]}")
    return text


def _way_out(error: ApiStatus) -> str:
    if isinstance(error, Forbidden):
        return "ask whoever runs the cluster for the right"
    return "it may have been deleted" if isinstance(error, NotFound) else ""
