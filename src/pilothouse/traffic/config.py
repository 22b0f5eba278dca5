"""What a gateway is told to do: one immutable value, made by the control side, pushed whole to each worker.

It knows nothing of Kubernetes: names are plain, references are resolved, and what could not be resolved is a backend
`INVALID` that answers 500. Workers compile it (`routing`) before they take it up.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

__all__ = [
    "INVALID",
    "Backend",
    "BackendTls",
    "Certificate",
    "CircuitBreaker",
    "Configuration",
    "Cors",
    "Endpoint",
    "Filter",
    "HeaderChange",
    "HealthCheck",
    "HttpRoute",
    "HttpRule",
    "Limits",
    "Listener",
    "ListenerTls",
    "Match",
    "Mirror",
    "OutlierEjection",
    "PathMatch",
    "RateLimit",
    "Redirect",
    "RegionSplit",
    "RegionTable",
    "RequestHeaders",
    "ResponseHeaders",
    "Retry",
    "Rewrite",
    "Settings",
    "Stickiness",
    "StreamRoute",
    "Timeouts",
    "ValueMatch",
    "Weighted",
]

INVALID: Final = ""
"""The backend of a reference that leads nowhere: its share of requests gets 500, as Gateway API has it."""


# Where connections are taken


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A chain and its key, PEM; chosen by the names in it."""

    chain: bytes
    key: bytes


class ListenerTls(msgspec.Struct, frozen=True, kw_only=True):
    """How a listener ends TLS. certificates: names in the configuration, the first where no name fits.

    client_ca: authorities (PEM) of clients' certificates, none are asked for where empty; is_client_required: whether
    one without is refused; is_client_checked: whether one whose certificate is not valid is.
    """

    certificates: tuple[str, ...] = ()
    client_ca: bytes = b""
    is_client_required: bool = True
    is_client_checked: bool = True
    alpn: tuple[str, ...] = ("h2", "http/1.1")


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A port, and for which host name; several of one port share its socket, and the most specific name wins.

    protocol: "TLS" passes connections on as they are (by their SNI) unless `tls` is given. hostname: empty for all,
    "*.example.com" for any below it. has_proxy_protocol: whether each connection begins with a PROXY header (v1, v2).
    settings: which of the configuration's it goes by, empty for those of the whole.
    """

    name: str
    port: int
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP"]
    address: str = ""
    hostname: str = ""
    tls: ListenerTls | None = None
    has_proxy_protocol: bool = False
    settings: str = ""


# Which request goes where


class PathMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A path: whole, by its leading elements, or by a regular expression (RE2, anchored at both ends)."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class ValueMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A header (its name without regard to case) or a query parameter."""

    name: str
    value: str
    type: Literal["Exact", "RegularExpression"] = "Exact"


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """All that a request has to be. regions: of the client, empty for any."""

    path: PathMatch = PathMatch()
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    queries: tuple[ValueMatch, ...] = ()
    regions: tuple[str, ...] = ()


class HeaderChange(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of headers, in this order: set, add, remove."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class RequestHeaders(msgspec.Struct, frozen=True, kw_only=True, tag="RequestHeaders"):
    """Change the request's headers."""

    change: HeaderChange


class ResponseHeaders(msgspec.Struct, frozen=True, kw_only=True, tag="ResponseHeaders"):
    """Change the response's headers."""

    change: HeaderChange


class Rewrite(msgspec.Struct, frozen=True, kw_only=True, tag="Rewrite"):
    """Change host or path. prefix: instead of the prefix that matched; path: instead of the whole path."""

    hostname: str = ""
    path: str | None = None
    prefix: str | None = None


class Redirect(msgspec.Struct, frozen=True, kw_only=True, tag="Redirect"):
    """Answer with a redirect; what is empty stays as it was asked for."""

    status: int = 302
    scheme: str = ""
    hostname: str = ""
    port: int = 0
    path: str | None = None
    prefix: str | None = None


class Mirror(msgspec.Struct, frozen=True, kw_only=True, tag="Mirror"):
    """Send a copy of so many in `of` requests to a backend; its answers are dropped."""

    backend: str
    numerator: int = 100
    of: int = 100


class Cors(msgspec.Struct, frozen=True, kw_only=True, tag="Cors"):
    """Answer preflight requests, and name the origin in others' answers. "*" stands for all, also within an origin."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    has_credentials: bool = False
    max_age: int = 5


Filter: TypeAlias = RequestHeaders | ResponseHeaders | Rewrite | Redirect | Mirror | Cors


class Weighted(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's share. version: by which numbers are told apart, such as stable and canary."""

    backend: str
    weight: int = 1
    version: str = ""
    filters: tuple[Filter, ...] = ()


class RegionSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Other shares for clients of some regions."""

    regions: tuple[str, ...]
    backends: tuple[Weighted, ...]


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds, 0 for none: of the whole request, and of each try of a backend."""

    request: float = 0.0
    backend: float = 0.0


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Try again what is safe to repeat, at another endpoint. codes: statuses that count as failures.

    budget: of 100 requests of a backend, how many tries more there may be at most, beside `least` a second.
    """

    attempts: int = 1
    codes: tuple[int, ...] = ()
    backoff: float = 0.025
    budget: int = 20
    least: int = 10


class Stickiness(msgspec.Struct, frozen=True, kw_only=True):
    """Send a client where it was sent before: by a cookie that the gateway sets, or the hash of a header.

    type: "Token" for a header that the gateway gives with an answer, and the client sends again. seconds: until a
    session ends, idle_seconds: without a request, 0 for never. is_session: whether the cookie ends with the browser
    though `seconds` are given. is_endpoint: whether to the same endpoint, not only to the same backend. keeps: whether
    also to a backend whose weight is 0 by now.
    """

    type: Literal["Cookie", "Header", "Token"] = "Cookie"
    name: str = "pilothouse-session"
    seconds: int = 0
    idle_seconds: int = 0
    is_session: bool = False
    is_endpoint: bool = False
    keeps: bool = False


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many requests a second, with bursts; 429 beyond. by: header or "address", empty for all together.

    store: URL of a Redis that several gateways share, empty for each on its own. patience: seconds that a request
    waits for the store at most. away: what holds while it does not answer: "Local" for a limit of this gateway alone,
    "Allow" for none, "Deny" for 503.
    """

    rate: float
    burst: int = 1
    by: str = ""
    store: str = ""
    patience: float = 0.25
    away: Literal["Local", "Allow", "Deny"] = "Local"


class HttpRule(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with requests that any of the matches fits.

    backends empty and no redirect among the filters: 500, as Gateway API has it for a rule that leads nowhere.
    """

    name: str = ""
    matches: tuple[Match, ...] = (Match(),)
    filters: tuple[Filter, ...] = ()
    backends: tuple[Weighted, ...] = ()
    regions: tuple[RegionSplit, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    stickiness: Stickiness | None = None
    rate: RateLimit | None = None


class HttpRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Rules for host names at listeners. Between equals the older route wins, then the one first by name.

    name: NAMESPACE/NAME. is_grpc: whether refusals are told the gRPC way. created: seconds since 1970.
    """

    name: str
    listeners: tuple[str, ...]
    hostnames: tuple[str, ...] = ()
    rules: tuple[HttpRule, ...] = ()
    is_grpc: bool = False
    created: float = 0.0


class StreamRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Connections that are passed on as they are: by port alone, or by the name in their TLS greeting."""

    name: str
    listeners: tuple[str, ...]
    hostnames: tuple[str, ...] = ()
    backends: tuple[Weighted, ...] = ()
    created: float = 0.0


# Where requests go to


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a backend. is_draining: takes what it has begun, nothing new."""

    address: str
    port: int
    weight: int = 1
    is_draining: bool = False

    @property
    def authority(self) -> str:
        """HOST:PORT, with brackets around an address of IPv6."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class BackendTls(msgspec.Struct, frozen=True, kw_only=True):
    """How a backend is reached by TLS. ca: PEM, the system's where empty. hostname: sent as SNI and checked.

    names: alternative names of which one has to be in the certificate, instead of the host name.
    """

    hostname: str
    ca: bytes = b""
    names: tuple[str, ...] = ()
    certificate: str = ""


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Ask each endpoint now and then. path: of a GET, empty for a connection alone."""

    path: str = ""
    every: float = 5.0
    timeout: float = 1.0
    healthy: int = 2
    unhealthy: int = 3
    statuses: tuple[int, int] = (200, 399)


class OutlierEjection(msgspec.Struct, frozen=True, kw_only=True):
    """Leave out an endpoint that fails so often in a row; longer each time. most: percent that may be left out."""

    failures: int = 5
    seconds: float = 30.0
    most: int = 50


class CircuitBreaker(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend is spared, in all workers together: beyond it requests get 503 at once."""

    connections: int = 1024
    requests: int = 4096
    waiting: int = 1024


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests may go. protocol: what it speaks. slow_start: seconds until a new endpoint has its full share."""

    endpoints: tuple[Endpoint, ...] = ()
    protocol: Literal["http/1.1", "h2", "tcp"] = "http/1.1"
    tls: BackendTls | None = None
    health: HealthCheck | None = None
    outliers: OutlierEjection = OutlierEjection()
    circuit: CircuitBreaker = CircuitBreaker()
    connect_timeout: float = 5.0
    idle_timeout: float = 60.0
    slow_start: float = 0.0


# The whole


class RegionTable(msgspec.Struct, frozen=True, kw_only=True):
    """How a client's region is known. header: set by proxies whose addresses are in `trusted`; else by `ranges`.

    ranges: CIDRs with their region, the longest wins. request_header: in which backends and matches see it; what a
    client sent of that name is dropped.
    """

    header: str = ""
    trusted: tuple[str, ...] = ()
    ranges: tuple[tuple[str, str], ...] = ()
    default: str = ""
    request_header: str = "x-pilothouse-region"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may cost. Sizes in bytes, times in seconds."""

    head_bytes: int = 65_536
    headers: int = 128
    body_bytes: int = 0
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    body_idle_seconds: float = 60.0
    connections: int = 20_000
    streams: int = 128
    requests_per_connection: int = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What listeners have together that are one gateway's. `limits.connections` are of all of them together.

    session_keys: what clients carry of their sessions is sealed by the first, and opened by each.
    """

    regions: RegionTable = RegionTable()
    limits: Limits = Limits()
    trusted_proxies: tuple[str, ...] = ()
    session_keys: tuple[bytes, ...] = ()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """All that a gateway does. generation: grows with each that is pushed.

    regions, limits, trusted_proxies, session_keys: of listeners that name no `settings`.
    """

    generation: int = 0
    listeners: tuple[Listener, ...] = ()
    routes: tuple[HttpRoute, ...] = ()
    streams: tuple[StreamRoute, ...] = ()
    backends: dict[str, Backend] = {}
    certificates: dict[str, Certificate] = {}
    regions: RegionTable = RegionTable()
    limits: Limits = Limits()
    trusted_proxies: tuple[str, ...] = ()
    access_log: str = ""
    session_keys: tuple[bytes, ...] = ()
    settings: dict[str, Settings] = {}
