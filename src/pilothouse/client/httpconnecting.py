"""How a connection to the server comes about: address, proxy, TLS, and what is said where it does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from .config import ClientConfig
from .credentials import Shown
from .errors import ConfigError, ConnectFailed, TransportTimeout
from .httpconnection import HttpConnection
from .httpproxy import (
    Proxy,
    ProxyHead,
    check_connected,
    connect_head,
    environment_proxy,
    parse_proxy,
    plain_context,
    tunnel,
)
from .httptls import TlsSource

__all__ = ["Connector"]

_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 60_000))
"""A peer that is gone without a word is noticed within a minute, whether we wait or send."""


class Connector:
    """Makes connections to one server."""

    def __init__(self, config: ClientConfig, *, seconds: float) -> None:
        self._config = config
        self._seconds = seconds
        self._parts: SplitResult = urlsplit(config.server)
        self._secure = self._parts.scheme == "https"
        self.host = self._parts.hostname or ""
        self.port = self._parts.port or (443 if self._secure else 80)
        if self._parts.scheme not in {"http", "https"} or not self.host:
            raise ConfigError(f"server: {config.server!r} is no URL of a server; want such as https://10.0.0.1:6443")
        self._tls = TlsSource(config)
        url = environment_proxy(self._parts) if config.proxy_url is None else config.proxy_url
        self._proxy: Proxy | None = parse_proxy(url) if url else None

    @property
    def where(self) -> str:
        """The server, as errors name it."""
        return f"{self._parts.scheme}://{self._parts.netloc.rpartition('@')[2]}"

    @property
    def prefix(self) -> str:
        """The path that the server's URL has, before all others."""
        return self._parts.path.rstrip("/")

    async def connect(self, shown: Shown) -> HttpConnection:
        """Make a connection. Raises ConnectFailed, TransportTimeout and ConfigError."""
        context = self._tls.context(shown) if self._secure else None
        try:
            async with asyncio.timeout(self._seconds):
                connection = await self._connect(context)
        except TimeoutError as error:
            raise TransportTimeout(f"{self._named()}: no connection within {self._seconds:g} s") from error
        except ssl.SSLCertVerificationError as error:
            raise ConnectFailed(f"{self._named()}: {self._certificate(error)}") from error
        except ssl.SSLError as error:
            raise ConnectFailed(f"{self._named()}: {_tls_problem(error)}") from error
        except socket.gaierror as error:
            raise ConnectFailed(f"{self._named()}: the name cannot be resolved: {error.strerror}") from error
        except ConnectFailed:
            raise
        except OSError as error:
            # asyncio says nothing of a peer that hangs up before TLS has begun.
            why = error.strerror or str(error) or "the connection was closed while it was being made"
            raise ConnectFailed(f"{self._named()}: cannot be reached: {why}") from error
        return connection

    async def _connect(self, context: ssl.SSLContext | None) -> HttpConnection:
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if context is not None:
            options = {"ssl": context, "server_hostname": self._config.tls_server_name or self.host}

        def make() -> HttpConnection:
            return HttpConnection(self.where)

        if self._proxy is None:
            made, protocol = await loop.create_connection(make, self.host, self.port, **options)
        elif self._proxy.scheme == "https":
            return await self._through_tls(loop, self._proxy, context)
        else:
            sock = await tunnel(self._proxy, self.host, self.port)
            try:
                made, protocol = await loop.create_connection(make, sock=sock, **options)
            except BaseException:
                sock.close()
                raise
        _keep_alive(made.get_extra_info("socket"))
        return protocol

    async def _through_tls(
        self, loop: asyncio.AbstractEventLoop, proxy: Proxy, context: ssl.SSLContext | None
    ) -> HttpConnection:
        """Connect through a proxy that is itself reached by TLS."""
        made, head = await loop.create_connection(ProxyHead, proxy.host, proxy.port, ssl=plain_context())
        try:
            made.write(connect_head(proxy, self.host, self.port))
            check_connected(proxy, await head.answer)
            protocol = HttpConnection(self.where)
            if context is None:
                made.set_protocol(protocol)
                protocol.connection_made(made)
                return protocol
            name = self._config.tls_server_name or self.host
            upgraded = await loop.start_tls(made, protocol, context, server_hostname=name)
        except BaseException:
            made.abort()
            raise
        if upgraded is None:
            raise ConnectFailed(f"proxy {proxy.shown}: closed the connection")
        protocol.connection_made(upgraded)
        return protocol

    def _named(self) -> str:
        source = f" ({self._config.source})" if self._config.source else ""
        proxy = f" through proxy {self._proxy.shown}" if self._proxy is not None else ""
        return f"{self.where}{proxy}{source}"

    def _certificate(self, error: ssl.SSLCertVerificationError) -> str:
        name = self._config.tls_server_name or self.host
        if error.verify_code in {62, 64}:
            return (
                f"the server's certificate is not for {name!r}: {error.verify_message}; set tls-server-name to its name"
            )
        if error.verify_code == 10:
            return "the server's certificate has expired; renew it"
        given = self._config.ca_data or self._config.ca_file
        hint = "is it of another cluster?" if given else "set certificate-authority-data to the cluster's CA"
        return f"the server's certificate is of an unknown authority: {error.verify_message}; {hint}"


def _tls_problem(error: ssl.SSLError) -> str:
    reason = str(error.reason or error)
    hints = {
        "WRONG_VERSION_NUMBER": "does the server speak TLS at this port?",
        "HTTP_REQUEST": "does the server speak TLS at this port?",
        "CERTIFICATE_REQUIRED": "give the user a client certificate",
    }
    hint = next((text for part, text in hints.items() if part in reason), "")
    return f"TLS: {reason.replace('_', ' ').lower()}{f'; {hint}' if hint else ''}"


def _keep_alive(sock: socket.socket | None) -> None:
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
