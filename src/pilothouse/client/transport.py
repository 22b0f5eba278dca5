"""What carries requests to a server: the protocol of transports, and the answer that all of them give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

__all__ = ["Answer", "ByteStream", "Duplex", "Headers", "Transport"]

Headers = Sequence[tuple[str, str]]


class ByteStream(Protocol):
    """The pieces of a body as they come. Raises TransportError where it breaks off."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """End it at once, whether it was read to its end or not; more than once is fine."""


class Duplex(Protocol):
    """A connection after an upgrade: bytes both ways."""

    async def read(self) -> bytes:
        """Wait for bytes; empty at the end."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""

    def close(self) -> None:
        """Send what is buffered and close."""

    def abort(self) -> None:
        """Close at once."""


class Answer:
    """What came back. Header names in lower case.

    Of an upgraded connection `duplex` is set, of a stream that was asked for and granted `stream`; else `body` is all.
    """

    __slots__ = ("body", "duplex", "headers", "status", "stream")

    def __init__(
        self,
        status: int,
        headers: Headers,
        body: bytes = b"",
        stream: ByteStream | None = None,
        duplex: Duplex | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream
        self.duplex = duplex

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"

    def header(self, name: str, default: str = "") -> str:
        """Return the first value of a header, its name in lower case."""
        for found, value in self.headers:
            if found == name:
                return value
        return default

    async def aclose(self) -> None:
        """End what goes on."""
        if self.stream is not None:
            await self.stream.aclose()
        if self.duplex is not None:
            self.duplex.abort()


class Transport(Protocol):
    """Carries requests to one server. It can be shared by clients, of one event loop."""

    async def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        stream: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  # ends the connection too, which is the transport's to do
        idle: float | None = None,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        target: path, percent-encoded, and query. stream: give the body of a success piece by piece; refusals come
        whole. timeout: seconds until the answer is there, of a stream its head; None is the transport's own limit.
        idle: seconds that a stream may be silent; None is for ever. Raises TransportError, and CredentialsError where
        there is nothing to show to the server. Cancelling it frees the connection at once.
        """

    async def aclose(self) -> None:
        """End all connections; more than once is fine."""
