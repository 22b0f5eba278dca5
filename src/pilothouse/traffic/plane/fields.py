"""What a proxy changes in header fields: who asked, by which way, in which trace.

What a client says of itself in these fields is dropped unless it is a trusted proxy. Follows RFC 9110, RFC 7239 and
W3C Trace Context.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterable
from typing import Final

from pilothouse.traffic.config import HeaderChange
from pilothouse.traffic.plane.http import FieldList

__all__ = ["Forwarding", "Trusted", "changed", "trace_of", "traced"]

_FORWARDING: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded", b"x-real-ip"}
)
_TRACEPARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_VIA: Final = (b"via", b"1.1 pilothouse")
_MOST_HOPS: Final = 64


class Trusted:
    """Networks whose hosts are believed what they say of clients."""

    def __init__(self, ranges: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(each, strict=False) for each in ranges]

    def has(self, address: str) -> bool:
        """Return whether an address is within one."""
        if not self._networks or not address:
            return False
        try:
            host = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(host in network for network in self._networks)


class Forwarding:
    """What is told of one connection: made once, used for each of its requests."""

    __slots__ = ("_address", "_is_trusted", "_port", "_scheme")

    def __init__(self, address: str, scheme: str, port: int, is_trusted: bool) -> None:
        self._address = address.encode()
        self._scheme = scheme.encode()
        self._port = b"%d" % port
        self._is_trusted = is_trusted

    def fields(self, fields: FieldList, authority: bytes) -> FieldList:
        """Return fields for the backend: those given, and who asked."""
        if _FORWARDING.isdisjoint([name for name, _ in fields]):
            return [
                *fields,
                (b"x-forwarded-for", self._address),
                (b"x-forwarded-proto", self._scheme),
                (b"x-forwarded-host", authority),
                _VIA,
            ]
        said: dict[bytes, list[bytes]] = {}
        kept = []
        for name, value in fields:
            if name in _FORWARDING:
                said.setdefault(name, []).append(value)
            else:
                kept.append((name, value))
        if not self._is_trusted:
            said.clear()
        hops = b", ".join([*said.get(b"x-forwarded-for", []), self._address]).split(b",")
        kept.append((b"x-forwarded-for", b",".join(hops[-_MOST_HOPS:]).strip()))
        kept.append((b"x-forwarded-proto", said.get(b"x-forwarded-proto", [self._scheme])[-1]))
        kept.append((b"x-forwarded-host", said.get(b"x-forwarded-host", [authority])[-1]))
        if b"forwarded" in said:
            kept.append((b"forwarded", b", ".join([*said[b"forwarded"], self._forwarded(authority)])))
        kept.append(_VIA)
        return kept

    def _forwarded(self, authority: bytes) -> bytes:
        address = b'"[%b]"' % self._address if b":" in self._address else self._address
        return b'for=%b;proto=%b;host="%b"' % (address, self._scheme, authority)

    def client(self, fields: FieldList) -> str:
        """Return the address of the client: the peer's, or the last that a trusted peer names."""
        if self._is_trusted:
            for name, value in reversed(fields):
                if name == b"x-forwarded-for":
                    return value.rpartition(b",")[2].strip().decode("latin-1")
        return self._address.decode()


def traced(fields: FieldList, chance: random.Random) -> FieldList:
    """Return fields with a trace: the one that came, where it is valid and one, else a new one that is not sampled."""
    found = [value for name, value in fields if name == b"traceparent"]
    if not found:
        return [*fields, (b"traceparent", _new_trace(chance))]
    if len(found) == 1 and _TRACEPARENT.match(found[0]):
        return fields
    kept = [field for field in fields if field[0] not in {b"traceparent", b"tracestate"}]
    return [*kept, (b"traceparent", _new_trace(chance))]


def trace_of(fields: FieldList) -> str:
    """Return the id of the trace that fields have, empty where there is none."""
    found = next((value for name, value in fields if name == b"traceparent"), b"")
    return found[3:35].decode("ascii") if _TRACEPARENT.match(found) else ""


def _new_trace(chance: random.Random) -> bytes:
    return b"00-%032x-%016x-00" % (chance.getrandbits(128) | 1, chance.getrandbits(64) | 1)


def changed(fields: FieldList, change: HeaderChange) -> FieldList:
    """Return fields changed as a filter has it. `host` is not among them."""
    away = {name.lower().encode() for name, _ in change.set} | {name.lower().encode() for name in change.remove}
    kept = [field for field in fields if field[0] not in away]
    kept += [(name.lower().encode(), value.encode()) for name, value in change.set]
    removed = {name.lower().encode() for name in change.remove}
    kept += [
        (name.lower().encode(), value.encode()) for name, value in change.add if name.lower().encode() not in removed
    ]
    return kept
