"""A server within this process as a transport: no sockets, the same answers."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from .errors import ConnectFailed, TransportError, TransportTimeout
from .transport import Answer, Duplex, Headers

__all__ = ["InProcess", "LocalAnswer", "LocalHandler", "LocalStream"]

_SECONDS = 60.0


class LocalStream(Protocol):
    """The pieces of a streamed answer."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """End it."""


class LocalAnswer(Protocol):
    """What a server within the process answers."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """The headers, names in lower case."""

    @property
    def body(self) -> bytes:
        """The body, where it is no stream."""

    @property
    def stream(self) -> LocalStream | None:
        """The body of a stream."""

    @property
    def duplex(self) -> Duplex | None:
        """The connection after an upgrade."""

    async def read(self) -> bytes:
        """Return the whole body."""

    async def aclose(self) -> None:
        """End what goes on."""


class LocalHandler(Protocol):
    """The way into a server within the process; `pilothouse.testing.ControlPlane.transport` is one."""

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes = b"", user: Any = None
    ) -> LocalAnswer:
        """Answer one request; with a `user` it is that one's, and authentication is skipped."""


class InProcess:
    """Carries requests to a server within this process.

    user: who asks, as the server knows users; without one requests are authenticated by their headers. seconds: the
    time limit of a call that names none.
    """

    def __init__(self, handler: LocalHandler, user: Any = None, *, seconds: float = _SECONDS) -> None:
        self._handler = handler
        self._user = user
        self._seconds = seconds
        self._open: weakref.WeakSet[_Stream] = weakref.WeakSet()
        self._closed = False

    async def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        stream: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109
        idle: float | None = None,
    ) -> Answer:
        if self._closed:
            raise ConnectFailed("this transport was closed")
        limit = self._seconds if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                found = await self._handler.request(method, target, headers, body, self._user)
                if found.stream is not None and stream and found.status < 300:
                    made = _Stream(found.stream, idle, self._open)
                    return Answer(found.status, found.headers, stream=made)
                if found.duplex is not None:
                    return Answer(found.status, found.headers, duplex=found.duplex)
                if found.stream is None:
                    return Answer(found.status, found.headers, found.body)
                return Answer(found.status, found.headers, await _whole(found))
        except TimeoutError as error:
            raise TransportTimeout(f"{method} {target.partition('?')[0]}: no answer within {limit:g} s") from error
        except TransportError:
            raise
        except ConnectionError as error:
            raise TransportError(f"{method} {target.partition('?')[0]}: the answer broke off: {error}") from error

    async def aclose(self) -> None:
        self._closed = True
        for stream in list(self._open):
            await stream.break_off()


async def _whole(answer: LocalAnswer) -> bytes:
    try:
        return await answer.read()
    except BaseException:
        await answer.aclose()
        raise


class _Stream:
    """A stream with the transport's errors and its limit for silence."""

    __slots__ = ("__weakref__", "_broken", "_idle", "_inner", "_open")

    def __init__(self, inner: LocalStream, idle: float | None, opened: weakref.WeakSet[_Stream]) -> None:
        self._inner = inner
        self._idle = idle
        self._open = opened
        self._broken = False
        opened.add(self)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            if self._idle is None:
                return await self._inner.__anext__()
            async with asyncio.timeout(self._idle):
                return await self._inner.__anext__()
        except StopAsyncIteration:
            self._open.discard(self)
            if self._broken:
                raise TransportError("this transport was closed") from None
            raise
        except TimeoutError as error:
            await self.aclose()
            raise TransportTimeout(f"nothing came on the stream for {self._idle:g} s") from error
        except ConnectionError as error:
            raise TransportError(str(error)) from error

    async def aclose(self) -> None:
        self._open.discard(self)
        await self._inner.aclose()

    async def break_off(self) -> None:
        """End it so that its reader gets to know."""
        self._broken = True
        await self.aclose()
