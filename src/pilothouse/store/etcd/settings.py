"""How an `EtcdStore` is set up, from options or from one `etcd://` URL."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.tls import client_context
from pilothouse.store import errors

__all__ = ["Endpoint", "EtcdOptions", "parse_url", "read_password"]

DEFAULT_PORT = 2379
_PARAMETERS = ("cacert", "cert", "key", "tls", "plaintext", "user", "password-file", "dial-timeout", "request-timeout")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One member's client address."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `http://host:port`, `https://host:port` or `host:port` (plain); `InvalidRequest` says what is wrong."""
        if "@" in url:
            # Not shown: what precedes the @ is likely a password.
            raise errors.InvalidRequest("etcd endpoint: user and password do not belong in it; give them separately")
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = DEFAULT_PORT if parts.port is None else parts.port
        except ValueError as error:
            raise errors.InvalidRequest(f"etcd endpoint {url!r}: {error}") from None
        if port == 0:
            raise errors.InvalidRequest(f"etcd endpoint {url!r}: port 0 cannot be connected to")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
            raise errors.InvalidRequest(f"etcd endpoint {url!r}: want http://HOST:PORT or https://HOST:PORT")
        return cls(parts.hostname, port, parts.scheme == "https")

    @property
    def is_loopback(self) -> bool:
        """Whether the address never leaves this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, kw_only=True, slots=True)
class EtcdOptions:
    """Settings of an `EtcdStore`. Times are in seconds.

    endpoints: client URLs of the members; one after the other is tried when one fails.
    tls: context for `https` endpoints (with the client certificate, where the cluster wants one); None trusts the
        system's authorities.
    username, password: for a cluster with authentication on; both or neither.
    dial_timeout: for one connection to be made. request_timeout: for one operation, all its attempts together.
    maintenance_timeout: for defragmentation of one member.
    retry_base, retry_cap: wait before the first repeated attempt, and the longest.
    watch_buffer_events, watch_buffer_bytes: what may wait for one watcher before it is cancelled.
    plaintext: allow `http` to other machines, where whoever is on the network may read and change everything.
    """

    endpoints: tuple[str, ...]
    tls: ssl.SSLContext | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    dial_timeout: float = 5.0
    request_timeout: float = 10.0
    maintenance_timeout: float = 300.0
    keepalive_seconds: float = 10.0
    keepalive_timeout: float = 5.0
    retry_base: float = 0.05
    retry_cap: float = 1.0
    watch_buffer_events: int = 10_000
    watch_buffer_bytes: int = 64 * 1024 * 1024
    max_message_bytes: int = 2**31 - 1
    plaintext: bool = False
    clock: Clock = field(default_factory=SystemClock)
    source: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.endpoints:
            raise errors.InvalidRequest("etcd endpoints: none given; want at least one, e.g. http://127.0.0.1:2379")
        if bool(self.username) != bool(self.password):
            missing = "password" if self.username else "username"
            raise errors.InvalidRequest(f"etcd {missing}: not given; authentication needs both user name and password")
        for endpoint in self.addresses():
            if not (endpoint.secure or endpoint.is_loopback or self.plaintext):
                raise errors.InvalidRequest(
                    f"etcd endpoint {endpoint}: plain text leaves this machine; use https, or allow it with plaintext"
                )

    def addresses(self) -> list[Endpoint]:
        """Return the endpoints, parsed."""
        return [Endpoint.parse(url) for url in self.endpoints]

    def context(self) -> ssl.SSLContext:
        """Return the TLS context for `https` endpoints."""
        return self.tls or client_context(alpn=("h2",))


def parse_url(url: str) -> EtcdOptions:
    """Read `etcd://[user@]a:2379,b:2379[?parameters]` as given to `--store`.

    Parameters: `cacert`, `cert`, `key` (files; any of them, or `tls=true`, turns TLS on), `user` and
    `password-file`, `dial-timeout` and `request-timeout` (seconds), `plaintext=true`. A password in the URL is
    refused, as every user of the machine could read it. Raises `InvalidRequest` naming the part, and `TlsError`.
    """
    parts = urlsplit(url)
    if parts.scheme != "etcd" or parts.path.strip("/"):
        raise errors.InvalidRequest(f"store {url.partition('?')[0]!r}: want etcd://HOST:PORT[,HOST:PORT...][?...]")
    user, _, hosts = parts.netloc.rpartition("@")
    if ":" in user:
        raise errors.InvalidRequest("store URL: a password in it can be read by others; use ?password-file=FILE")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(given.keys() - set(_PARAMETERS))
    if unknown:
        raise errors.InvalidRequest(f"store URL: parameter {unknown[0]!r} is not one of {', '.join(_PARAMETERS)}")
    secure = _flag(given, "tls") or bool(given.keys() & {"cacert", "cert", "key"})
    tls = None
    if secure:
        tls = client_context(ca=given.get("cacert"), certificate=given.get("cert"), key=given.get("key"), alpn=("h2",))
    scheme = "https" if secure else "http"
    options = EtcdOptions(
        endpoints=tuple(f"{scheme}://{host.strip()}" for host in hosts.split(",") if host.strip()),
        tls=tls,
        username=given.get("user", unquote(user)),
        password=_password(given),
        plaintext=_flag(given, "plaintext"),
    )
    return dataclasses.replace(
        options,
        dial_timeout=_seconds(given, "dial-timeout", options.dial_timeout),
        request_timeout=_seconds(given, "request-timeout", options.request_timeout),
    )


def read_password(path: str, option: str) -> str:
    """Return what a password file holds, without its line end; `InvalidRequest` names `option` and the file."""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise errors.InvalidRequest(f"{option} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise errors.InvalidRequest(f"{option} {path}: it is not UTF-8 text") from None


def _password(given: dict[str, str]) -> str:
    path = given.get("password-file")
    return "" if path is None else read_password(path, "store URL: password-file")


def _flag(given: dict[str, str], name: str) -> bool:
    text = given.get(name, "false")
    if text not in {"true", "false"}:
        raise errors.InvalidRequest(f"store URL: {name}={text!r}; want true or false")
    return text == "true"


def _seconds(given: dict[str, str], name: str, default: float) -> float:
    try:
        seconds = float(given.get(name, default))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise errors.InvalidRequest(f"store URL: {name}={given[name]!r}; want seconds, e.g. {name}=5")
    return seconds
