"""What a gateway and its workers say to each other over their control sockets: one message a packet, MessagePack."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from pilothouse.traffic.changes import Change, Replaced
from pilothouse.traffic.numbers import Key, Sample, Second

__all__ = [
    "MOST_BYTES",
    "Body",
    "Configure",
    "Counted",
    "Drain",
    "EndpointCounted",
    "EndpointNow",
    "FromWorker",
    "Lines",
    "Listen",
    "Moved",
    "NotTaken",
    "Noted",
    "Numbers",
    "Ready",
    "Sampled",
    "Show",
    "Shown",
    "Taken",
    "ToWorker",
    "decode_from_worker",
    "decode_to_worker",
    "encode",
]

MOST_BYTES: Final = 160 << 10
"""Of a message: what the kernel takes in one packet by its defaults. Numbers and lines go in several."""


class Listen(msgspec.Struct, frozen=True, tag="listen"):
    """Comes with a listening socket, which is used once a configuration names it."""

    address: str
    port: int


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """Comes with a file in memory: `Body`. number: of the push; base: of the one that it changes, 0 for none.

    workers: among which limits are divided.
    """

    number: int
    workers: int
    base: int = 0


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Take no more connections; end once the last is over, at the latest after so many seconds."""

    seconds: float


class Show(msgspec.Struct, frozen=True, tag="show"):
    """Say how backends are now; answered by `Shown` with the same number."""

    number: int


class EndpointNow(msgspec.Struct, frozen=True, array_like=True):
    """An endpoint in one worker. state: up, draining, unhealthy or ejected; active: requests on their way.

    ejected_seconds: how long it will be left out yet.
    """

    backend: str
    address: str
    state: str
    active: int
    idle: int
    connections: int
    total: int
    failed: int
    ejected_seconds: float = 0.0


class Shown(msgspec.Struct, frozen=True, tag="shown"):
    """Endpoints of all backends; the last packet of an answer says so. waiting: requests without a connection."""

    number: int
    endpoints: list[EndpointNow]
    is_last: bool
    clients: int = 0
    tunnels: int = 0
    waiting: dict[str, int] = {}


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker reads its control socket, and wants the whole configuration."""

    pid: int


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """New requests go by this push."""

    number: int


class NotTaken(msgspec.Struct, frozen=True, tag="not-taken"):
    """The old configuration stays."""

    number: int
    reason: str


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """What came to a key since the last message. codes: by status; latency: by bucket of `numbers`; in_flight: now."""

    route: str
    rule: str
    backend: str
    version: str
    region: str
    codes: dict[int, int]
    latency: dict[int, int]
    latency_sum: float
    bytes_in: int
    bytes_out: int
    in_flight: int = 0

    @property
    def key(self) -> Key:
        """What it is counted for."""
        return Key(self.route, self.rule, self.backend, self.version, self.region)

    @property
    def second(self) -> Second:
        """The counts, for `Windows`."""
        return Second(self.codes, self.latency, self.latency_sum, self.bytes_in, self.bytes_out)


class EndpointCounted(msgspec.Struct, frozen=True, array_like=True):
    """What came to an endpoint since the last message."""

    backend: str
    address: str
    requests: int
    failures: int


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """How bytes moved since the last message."""

    bytes_spliced: int = 0
    bytes_copied: int = 0
    vectored_writes: int = 0
    writes: int = 0
    buffers_reused: int = 0
    pipes_made: int = 0
    pipes_reused: int = 0


class Numbers(msgspec.Struct, frozen=True, tag="numbers"):
    """Deltas of a second. refused: by kind; connections: open now. happened: what else is counted, by kind.

    at: the second that they are of, by the clock that all processes of a machine have alike.
    """

    counted: tuple[Counted, ...] = ()
    moved: Moved = Moved()
    refused: dict[str, int] = {}
    connections: int = 0
    at: int = 0
    endpoints: tuple[EndpointCounted, ...] = ()
    happened: dict[str, int] = {}


class Noted(msgspec.Struct, frozen=True, tag="noted"):
    """Something that an operator may want to know, at most once a second and kind."""

    event: str
    facts: dict[str, str]


class Lines(msgspec.Struct, frozen=True, tag="lines"):
    """Lines of the access log. lost: how many more there were than could be kept."""

    lines: list[bytes]
    lost: int = 0


class Sampled(msgspec.Struct, frozen=True, tag="sampled"):
    """Requests of a second that failed or were slow, some of them."""

    samples: list[Sample]


Body: TypeAlias = tuple[Change, Replaced[int]]
"""What differs from the configuration before, and from the slots that counters had."""

ToWorker: TypeAlias = Listen | Configure | Drain | Show
FromWorker: TypeAlias = Ready | Taken | NotTaken | Numbers | Noted | Lines | Sampled | Shown

_encoder = msgspec.msgpack.Encoder()
_to_worker: Final[msgspec.msgpack.Decoder[ToWorker]] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: Final[msgspec.msgpack.Decoder[FromWorker]] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """Return a packet."""
    return _encoder.encode(message)


def decode_to_worker(packet: bytes) -> ToWorker:
    """Read a packet. Raises msgspec.DecodeError."""
    return _to_worker.decode(packet)


def decode_from_worker(packet: bytes) -> FromWorker:
    """Read a packet. Raises msgspec.DecodeError."""
    return _from_worker.decode(packet)
