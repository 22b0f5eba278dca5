"""Requests to servers that measure: bounded in time and size, with the authentication that a metric gives."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from weakref import WeakValueDictionary

import aiohttp
import msgspec

from pilothouse.delivery.resources.analyses import AnalysisRun, Authentication, Header, Measurement, Metric, OAuth2

from .providers import MetricError, ended
from .runs import SUCCESSFUL

__all__ = ["AtOnce", "Fetch", "Fetcher"]

_MOST_BYTES: Final = 1 << 20
_MOST_AT_ONCE: Final = 16
"""Of one server: another that is dead makes nobody wait."""
_MOST_TOKENS: Final = 1024
_TOKEN_SECONDS: Final = 300.0
"""How long a token is used where its server says nothing of it."""
_GOOD: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Fetch:
    """One request. seconds: until it is given up; insecure: without a look at the server's certificate.

    reason: returns what a server says of its error, of the body of an answer; empty where it says nothing.
    """

    url: str
    method: str = "GET"
    headers: Sequence[Header] = ()
    body: bytes | None = None
    seconds: float = 10.0
    insecure: bool = False
    authentication: Authentication | None = None
    reason: Callable[[bytes], str] = lambda _: ""


class Fetcher:
    """Keeps tokens; measurements are too seldom to keep connections. Errors leave out queries, which may be secret."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    async def json(self, fetch: Fetch) -> Any:
        """Return the answer's JSON value. Raises MetricError for whatever goes wrong."""
        body = await self._fetch(fetch)
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise MetricError(f"{_shown(fetch.url)}: the answer is no JSON: {error}") from None

    async def _fetch(self, fetch: Fetch) -> bytes:
        headers = {each.key: each.value for each in fetch.headers}
        try:
            async with asyncio.timeout(fetch.seconds), self._turn(fetch.url):
                headers |= await self._authorization(fetch)
                return await self._ask(fetch, headers)
        except TimeoutError:
            raise MetricError(f"{_shown(fetch.url)}: no answer within {fetch.seconds:g} s") from None
        except (aiohttp.ClientError, msgspec.DecodeError, OSError, ValueError) as error:
            raise MetricError(f"{_shown(fetch.url)}: {type(error).__name__}") from None

    def _turn(self, url: str) -> asyncio.Semaphore:
        server = urlsplit(url).netloc
        found = self._turns.get(server)
        if found is None:
            found = self._turns[server] = asyncio.Semaphore(_MOST_AT_ONCE)
        return found

    async def _ask(self, fetch: Fetch, headers: Mapping[str, str]) -> bytes:
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.request(
                fetch.method, fetch.url, headers=headers, data=fetch.body, ssl=not fetch.insecure, max_redirects=3
            ) as answer,
        ):
            body = await answer.content.read(_MOST_BYTES + 1)
            while not answer.content.at_eof() and len(body) <= _MOST_BYTES:
                body += await answer.content.read(_MOST_BYTES + 1 - len(body))
            if len(body) > _MOST_BYTES:
                raise MetricError(f"{_shown(fetch.url)}: the answer is longer than {_MOST_BYTES} bytes")
            if answer.status not in _GOOD:
                said = fetch.reason(body)
                raise MetricError(f"{_shown(fetch.url)}: status {answer.status}{f': {said}' if said else ''}")
            return body

    async def _authorization(self, fetch: Fetch) -> Mapping[str, str]:
        wanted = fetch.authentication
        if wanted is None:
            return {}
        if wanted.basic_auth is not None:
            pair = f"{wanted.basic_auth.username or ''}:{wanted.basic_auth.password or ''}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        if wanted.oauth2 is not None and wanted.oauth2.token_url:
            return {"Authorization": f"Bearer {await self._token(wanted.oauth2, fetch.seconds, fetch.insecure)}"}
        if wanted.sigv4 is not None:
            raise MetricError("authentication.sigv4 is not there; use basicAuth, oauth2 or headers")
        return {}

    async def _token(self, oauth: OAuth2, seconds: float, insecure: bool) -> str:
        """Return a token by client credentials (RFC 6749, 4.4), kept until shortly before it ends."""
        key = (str(oauth.token_url), oauth.client_id or "", oauth.client_secret or "", *oauth.scopes)
        now = asyncio.get_running_loop().time()
        token, until = self._tokens.get(key, ("", 0.0))
        if now < until:
            return token
        form = urlencode({"grant_type": "client_credentials", "scope": " ".join(oauth.scopes)}).encode()
        pair = base64.b64encode(f"{oauth.client_id or ''}:{oauth.client_secret or ''}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/x-www-form-urlencoded"}
        fetch = Fetch(str(oauth.token_url), "POST", body=form, seconds=seconds, insecure=insecure)
        answer = msgspec.json.decode(await self._ask(fetch, headers))
        found = answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(found, str):
            raise MetricError(f"{_shown(fetch.url)}: there is no access_token in the answer")
        lasts = answer.get("expires_in")
        if len(self._tokens) >= _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[key] = found, now + (float(lasts) * 0.9 if isinstance(lasts, int | float) else _TOKEN_SECONDS)
        return found


class AtOnce:
    """What providers share that ask with a fetcher: a measurement is over when the answer is there."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def end(self, run: AnalysisRun, metric: Metric, started: Measurement, now: datetime) -> Measurement:
        """End what another provider began before the run was changed."""
        return ended(SUCCESSFUL, now, started.started_at, message="the measurement was ended")


def _shown(url: str) -> str:
    """Return an address without what may be secret: user, password, query."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, mark, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
