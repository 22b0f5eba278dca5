"""What a gateway answers to its owner: plain values, JSON on the way."""

from __future__ import annotations

import msgspec

__all__ = ["BackendNow", "Backends", "Counters", "Measured", "RouteNow", "Routes", "Top", "TopRow"]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a window says. rate: requests a second; latencies in seconds; bytes a second; in_flight: now."""

    requests: int = 0
    rate: float = 0.0
    errors: int = 0
    error_ratio: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    bytes_in_rate: float = 0.0
    bytes_out_rate: float = 0.0
    in_flight: int = 0


class RouteNow(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of one rule, and what comes to it.

    regions: of clients that this share is for, empty for all others. share: of the rule's requests, 0 to 1. Where
    `backend` is empty, the gateway answers itself.
    """

    route: str
    rule: str = ""
    listeners: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    backend: str = ""
    version: str = ""
    regions: tuple[str, ...] = ()
    weight: int = 0
    share: float = 0.0
    measured: Measured = Measured()


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """All routes, over the last `seconds`. left_out: rows beyond what one answer takes."""

    seconds: int
    generation: int
    rows: list[RouteNow] = []
    left_out: int = 0


class BackendNow(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a backend.

    state: up, draining, unhealthy or ejected, the worst of all workers'; workers: how many see it in which state.
    ejected_seconds: how long it is left out yet, ejected_until: until when (RFC 3339), empty where it is not.
    waiting: requests of the whole backend that wait for a connection. requests, failures: in the window; total,
    failed: since the workers know it.
    """

    backend: str
    protocol: str
    address: str = ""
    state: str = ""
    workers: dict[str, int] = {}
    ejected_seconds: float = 0.0
    ejected_until: str = ""
    in_flight: int = 0
    idle: int = 0
    open: int = 0
    waiting: int = 0
    rate: float = 0.0
    requests: int = 0
    failures: int = 0
    total: int = 0
    failed: int = 0


class Backends(msgspec.Struct, frozen=True, kw_only=True):
    """All addresses of all backends, over the last `seconds`. left_out: rows beyond what one answer takes."""

    seconds: int
    generation: int
    rows: list[BackendNow] = []
    left_out: int = 0


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """All since the start. spliced_share: of all bytes of bodies, those that no process touched, 0 to 1.

    buffer_reuse, pipe_reuse: the share of reads, and of splices' pipes, for which nothing was made.
    """

    workers: int = 0
    generation: int = 0
    connections: int = 0
    requests: int = 0
    bytes_spliced: int = 0
    bytes_copied: int = 0
    spliced_share: float = 0.0
    writes: int = 0
    vectored_writes: int = 0
    vectored_writes_per_response: float = 0.0
    buffers_reused: int = 0
    buffer_reuse: float = 0.0
    pipes_made: int = 0
    pipes_reused: int = 0
    pipe_reuse: float = 0.0
    refused: dict[str, int] = {}


class TopRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came to what has these names: route, version, region or others, as they were asked for."""

    names: dict[str, str]
    measured: Measured


class Top(msgspec.Struct, frozen=True, kw_only=True):
    """The busiest first, over the last `seconds`, the sum of all, and the counters."""

    seconds: int
    by: tuple[str, ...]
    whole: Measured
    counters: Counters
    rows: list[TopRow] = []
    left_out: int = 0
