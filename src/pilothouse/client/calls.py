"""Calls: one request and its whole answer, refusals raised by their reason, and tried again where that is safe."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.retry import Attempt, Backoff, RetriesExhausted, retry
from pilothouse.kinds.status import ApiStatus, Details, from_dict, generic

from .errors import ConnectFailed, TransportError, TransportTimeout
from .transport import Answer, Headers, Transport

__all__ = ["Caller", "refusal"]

JSON: Final = "application/json"
_READS: Final = frozenset({"GET", "HEAD"})
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_BUSY: Final = 429
_LONGEST_WAIT: Final = 30.0
"""Seconds; a server that says to come back later than that is believed, and the error raised."""
_MAX_WARNINGS: Final = 256
_MAX_TEXT: Final = 500

DEFAULT_BACKOFF: Final = Backoff(base=0.2, factor=2.0, jitter=0.5, cap=10.0, attempts=10, deadline=60.0)

_log = get_logger(__name__)


def refusal(answer: Answer) -> ApiStatus:
    """Make the error of an answer that is none of success."""
    error: ApiStatus | None = None
    if answer.header("content-type").startswith(JSON):
        try:
            found = msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict) and found.get("kind") == "Status":
            error = from_dict(found, code=answer.status)
    wait = answer.header("retry-after")
    seconds = int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 9 else 0
    if error is None:
        text = answer.body[:_MAX_TEXT].decode("utf-8", "replace").strip()
        error = generic(answer.status, text, Details(retry_after_seconds=seconds))
    elif seconds and not error.retry_after_seconds:
        error.retry_header = seconds  # type: ignore[attr-defined]  # where the Status itself does not say it
    return error


class Caller:
    """Sends requests by a transport.

    headers: of each request, such as whom to impersonate. backoff: between tries; None never tries again. A server
    that is busy (429) has done nothing, so everything is tried again; after 5xx with a Retry-After, and where the
    connection broke, only what may be done twice is.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        headers: Headers = (),
        backoff: Backoff | None = DEFAULT_BACKOFF,
        clock: Clock | None = None,
        seconds: float | None = None,
        source: random.Random | None = None,
    ) -> None:
        self.transport = transport
        self.headers: Headers = tuple(headers)
        self._backoff = backoff
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._source = source
        self._warned: dict[str, None] = {}
        self._common = (("Accept", JSON), *self.headers)

    def as_headers(self, headers: Headers) -> Caller:
        """Return a caller by the same transport with other headers of each request."""
        return Caller(
            self.transport,
            headers=headers,
            backoff=self._backoff,
            clock=self._clock,
            seconds=self._seconds,
            source=self._source,
        )

    def once(self) -> Caller:
        """Return a caller that tries nothing again, for who has rules of their own."""
        return Caller(self.transport, headers=self.headers, backoff=None, clock=self._clock, seconds=self._seconds)

    async def call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        content_type: str = "",
        accept: str = "",
        repeatable: bool = False,
    ) -> bytes:
        """Send one request and return the answer's body. Raises ApiStatus and TransportError.

        repeatable: it may be done twice, though its method does not say so.
        """
        answer = await self.request(
            method, target, body, content_type=content_type, accept=accept, repeatable=repeatable
        )
        return answer.body

    async def request(  # noqa: PLR0913
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        content_type: str = "",
        accept: str = "",
        repeatable: bool = False,
        stream: bool = False,
        idle: float | None = None,
        headers: Headers = (),
    ) -> Answer:
        """Send one request, tried again where that helps, and return the answer of success. Raises as `call`."""
        sent = self._headers(body, content_type, accept, headers)

        async def once() -> Answer:
            answer = await self.transport.request(
                method, target, sent, body, stream=stream, timeout=self._seconds, idle=idle
            )
            if answer.status >= 400:
                raise refusal(answer)
            self._warn(answer.headers)
            return answer

        try:
            return await once()
        except (ApiStatus, TransportError) as error:
            if self._backoff is None or not _worth(error, method, repeatable):
                raise
            return await self._again(once, error, method, target.partition("?")[0], repeatable=repeatable)

    async def _again(self, once: Any, first: Exception, method: str, path: str, *, repeatable: bool) -> Answer:
        """Try again, waiting no less than the server said."""
        found: list[Exception] = [first]
        more = 0.0

        async def attempt() -> Answer:
            if found:
                raise found.pop()
            if more > 0:
                await self._clock.sleep(more)
            answer: Answer = await once()
            return answer

        def wait(tried: Attempt) -> None:
            nonlocal more
            more = max(0.0, _wait_of(tried.error) - tried.delay)
            _log.debug("asking again", method=method, path=path, attempt=tried.number, error=str(tried.error))

        assert self._backoff is not None  # noqa: S101  # seen by the caller
        try:
            return await retry(
                attempt,
                self._backoff,
                self._clock,
                lambda error: _worth(error, method, repeatable),
                source=self._source,
                on_retry=wait,
                name=f"{method} {path}",
            )
        except RetriesExhausted as error:
            last = error.__cause__
            if not isinstance(last, Exception):
                raise
            last.add_note(str(error))
            raise last from None

    def _headers(self, body: bytes, content_type: str, accept: str, headers: Headers) -> Headers:
        made: Sequence[tuple[str, str]] = (("Accept", accept), *self.headers) if accept else self._common
        if body:
            made = (*made, ("Content-Type", content_type or JSON))
        return (*made, *headers) if headers else made

    def _warn(self, headers: Headers) -> None:
        for name, value in headers:
            if name == "warning" and value not in self._warned:
                if len(self._warned) >= _MAX_WARNINGS:
                    del self._warned[next(iter(self._warned))]
                self._warned[value] = None
                _log.warning("the server warns", warning=value.removeprefix("299 - ").strip('"'))


def _wait_of(error: Exception) -> float:
    if isinstance(error, ApiStatus):
        return float(error.retry_after_seconds or getattr(error, "retry_header", 0))
    return 0.0


def _worth(error: Exception, method: str, repeatable: bool) -> bool:
    if isinstance(error, ApiStatus):
        wait = _wait_of(error)
        if wait > _LONGEST_WAIT:
            return False
        if error.code == _BUSY:
            return True
        return error.code >= 500 and wait > 0 and (repeatable or method in _REPEATABLE)
    if isinstance(error, ConnectFailed | TransportTimeout):
        return False
    return isinstance(error, TransportError) and method in _READS
