"""Proxies on the way to a server: HTTP's CONNECT, SOCKS 5, and which one the environment asks for.

Follows RFC 9110 (CONNECT), RFC 1928 and RFC 1929, and what HTTPS_PROXY and NO_PROXY mean to Go programs.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import ssl
import struct
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import ConfigError, ConnectFailed

__all__ = [
    "Proxy",
    "ProxyHead",
    "check_connected",
    "connect_head",
    "environment_proxy",
    "parse_proxy",
    "plain_context",
    "tunnel",
]

_MAX_HEAD: Final = 1 << 14
_SOCKS_REFUSALS: Final = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
}


class Proxy(NamedTuple):
    """A proxy. `shown` is its URL without password."""

    scheme: str
    host: str
    port: int
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Proxy({self.shown})"

    @property
    def shown(self) -> str:
        """The URL, as errors name it."""
        return f"{self.scheme}://{self.host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """Read a proxy's URL. Raises ConfigError."""
    try:
        parts: SplitResult = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(parts.scheme, 80)
        good = bool(parts.hostname) and parts.scheme in {"http", "https", "socks5", "socks5h"}
    except ValueError:
        good = False
    if not good:
        raise ConfigError("proxy: no URL of a proxy; want http://, https:// or socks5:// and a host")
    return Proxy(parts.scheme, parts.hostname or "", port, unquote(parts.username or ""), unquote(parts.password or ""))


def environment_proxy(server: SplitResult) -> str:
    """Return the proxy that the environment has for a server, empty for none."""
    host, port = server.hostname or "", server.port or (443 if server.scheme == "https" else 80)
    if host == "localhost" or _address_is_local(host) or _excepted(host, port):
        return ""
    name = f"{server.scheme}_proxy"
    return os.environ.get(name.upper()) or os.environ.get(name) or ""


def _address_is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _excepted(host: str, port: int) -> bool:
    listed = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    for each in (part.strip().lower() for part in listed.split(",")):
        if not each:
            continue
        if each == "*" or _in_network(host, each):
            return True
        name, _, wanted = each.rpartition(":") if each.count(":") == 1 else (each, "", "")
        if wanted and wanted != str(port):
            continue
        name = name.removeprefix("*")
        if host.lower() == name.lstrip(".") and not name.startswith("."):
            return True
        if host.lower().endswith(name if name.startswith(".") else f".{name}"):
            return True
    return False


def _in_network(host: str, text: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(text)
    except ValueError:
        return False


async def tunnel(proxy: Proxy, host: str, port: int) -> socket.socket:
    """Connect to a proxy and have it connect to a server; return the socket. Raises ConnectFailed and OSError."""
    loop = asyncio.get_running_loop()
    sock = await _connect(proxy)
    try:
        if proxy.scheme.startswith("socks5"):
            await _socks(loop, sock, proxy, host, port)
        else:
            await _http(loop, sock, proxy, host, port)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(proxy: Proxy) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    last: OSError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise ConnectFailed(f"proxy {proxy.shown}: {last}") from last


def connect_head(proxy: Proxy, host: str, port: int) -> bytes:
    """Return the request that asks an HTTP proxy for a tunnel."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username:
        pair = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {pair}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def check_connected(proxy: Proxy, head: bytes) -> None:
    """Read a proxy's answer. Raises ConnectFailed where it refuses."""
    status = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or status[1] != "200":
        said = " ".join(status[1:])[:200] or "nothing"
        hint = "; put user and password into proxy-url" if status[1:2] == ["407"] else ""
        raise ConnectFailed(f"proxy {proxy.shown}: refused to connect: {said}{hint}")


async def _http(loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    await loop.sock_sendall(sock, connect_head(proxy, host, port))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # Byte by byte at the end: what follows the head belongs to the tunnel.
        piece = await loop.sock_recv(sock, 1)
        if not piece or len(head) > _MAX_HEAD:
            raise ConnectFailed(f"proxy {proxy.shown}: {'answered too much' if piece else 'closed the connection'}")
        head += piece
    check_connected(proxy, head)


class ProxyHead(asyncio.Protocol):
    """Waits for the head of a proxy's answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.answer.done() and (self._data.endswith(b"\r\n\r\n") or len(self._data) > _MAX_HEAD):
            self.answer.set_result(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")


async def _read(loop: asyncio.AbstractEventLoop, sock: socket.socket, count: int, proxy: Proxy) -> bytes:
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            raise ConnectFailed(f"proxy {proxy.shown}: closed the connection")
        data += piece
    return data


async def _socks(loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    methods = b"\x00\x02" if proxy.username else b"\x00"
    await loop.sock_sendall(sock, bytes((5, len(methods))) + methods)
    version, method = await _read(loop, sock, 2, proxy)
    if version != 5 or method not in methods:
        raise ConnectFailed(f"proxy {proxy.shown}: wants another way to log in; put user and password into proxy-url")
    if method == 2:
        name, password = proxy.username.encode(), proxy.password.encode()
        await loop.sock_sendall(sock, bytes((1, len(name))) + name + bytes((len(password),)) + password)
        if (await _read(loop, sock, 2, proxy))[1]:
            raise ConnectFailed(f"proxy {proxy.shown}: refused the user or the password of proxy-url")
    target = host.encode("idna")
    await loop.sock_sendall(sock, b"\x05\x01\x00\x03" + bytes((len(target),)) + target + struct.pack(">H", port))
    _, status, _, kind = await _read(loop, sock, 4, proxy)
    if status:
        raise ConnectFailed(f"proxy {proxy.shown}: {_SOCKS_REFUSALS.get(status, f'error {status}')} for {host}:{port}")
    length = {1: 4, 4: 16}.get(kind) or (await _read(loop, sock, 1, proxy))[0]
    await _read(loop, sock, length + 2, proxy)


def plain_context() -> ssl.SSLContext:
    """Return the context for a proxy that is itself reached by TLS."""
    return ssl.create_default_context()
