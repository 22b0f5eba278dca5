"""Addresses, networks and URLs in expressions."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import quote as url_quote
from urllib.parse import unquote_plus

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.sizes import text_cost, twice
from pilothouse.kinds.fielderrors import quote

__all__ = ["NETWORKS", "Cidr", "Ip", "Url", "uri_fault"]

NETWORKS = Functions()
_IP, _CIDR, _URL = "net.IP", "net.CIDR", "kubernetes.URL"
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Ip:
    """An address: `ip("10.0.0.1")`."""

    __slots__ = ("address",)
    type_name = _IP

    def __init__(self, address: _Address) -> None:
        self.address = address

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.address.packed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ip) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __str__(self) -> str:
        return str(self.address)


class Cidr:
    """A network: `cidr("10.0.0.0/8")`; bits after the prefix are kept."""

    __slots__ = ("interface",)
    type_name = _CIDR

    def __init__(self, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
        self.interface = interface

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cidr) and self.interface == other.interface

    def __hash__(self) -> int:
        return hash(self.interface)

    def __str__(self) -> str:
        return str(self.interface)


def _ip(text: str) -> Ip:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        fault = f"IP Address {quote(text)} parse error during conversion from string: "
        raise CelError(fault + _address_fault(text)) from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise CelError(f"IP address {quote(text)} with zone value is not allowed")
        if address.ipv4_mapped is not None:
            raise CelError(f"IPv4-mapped IPv6 address {quote(text)} is not allowed")
    return Ip(address)


def _address_fault(text: str) -> str:
    """Return what Go's `netip` says of a text that is no address."""
    shown = f"ParseAddr({quote(text)}): "
    first = next((char for char in text if char in ".:%"), "")
    if first == ".":
        return shown + _ipv4_fault(text)
    if first == "%":
        return shown + "missing IPv6 address"
    if ":::" in text:
        at = text[text.index(":::") + 2 :]
        return f"{shown}each colon-separated field must have at least one digit (at {quote(at)})"
    return shown + "unable to parse IP"


def _ipv4_fault(text: str) -> str:
    fields, value, digits = 0, 0, 0
    for at, char in enumerate(text):
        if char.isascii() and char.isdigit():
            if digits == 1 and value == 0:
                return "IPv4 field has octet with leading zero"
            value, digits = value * 10 + int(char), digits + 1
            if value > 255:
                return "IPv4 field has value >255"
        elif char == ".":
            if at in {0, len(text) - 1} or text[at - 1] == ".":
                return f"IPv4 field must have at least one digit (at {quote(text[at:])})"
            if fields == 3:
                return "IPv4 address too long"
            fields, value, digits = fields + 1, 0, 0
        else:
            return f"unexpected character (at {quote(text[at:])})"
    return "IPv4 address too short"


def _cidr(text: str) -> Cidr:
    # Kubernetes says it when it reads the text, and once more when it converts it.
    once = "network address parse error during conversion from string: "
    fault = f"{once}{once}netip.ParsePrefix({quote(text)}): "
    address, slash, bits = text.partition("/")
    if not slash:
        raise CelError(fault + "no '/'")
    if not (bits.isascii() and bits.isdigit()) or (len(bits) > 1 and bits[0] == "0"):
        raise CelError(fault + f"bad bits after slash: {quote(bits)}")
    try:
        made = Cidr(ipaddress.ip_interface(f"{address}/{bits}"))
    except ValueError:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise CelError(fault + _address_fault(address)) from None
        raise CelError(fault + "prefix length out of range") from None
    if isinstance(made.interface, ipaddress.IPv6Interface) and made.interface.ip.ipv4_mapped is not None:
        raise CelError(f"{once}IPv4-mapped IPv6 address {quote(text)} is not allowed")
    return made


def _good(read: Any) -> Any:
    def check(text: str) -> bool:
        try:
            read(text)
        except CelError:
            return False
        return True

    return check


def _contains_ip(found: Cidr, other: Ip | str) -> bool:
    address = (_ip(other) if isinstance(other, str) else other).address
    return address.version == found.interface.version and address in found.interface.network


def _contains_cidr(found: Cidr, other: Cidr | str) -> bool:
    inner = (_cidr(other) if isinstance(other, str) else other).interface
    outer = found.interface
    return inner.version == outer.version and inner.network.subnet_of(outer.network)  # type: ignore[arg-type]


def _masked(found: Cidr) -> Cidr:
    return Cidr(ipaddress.ip_interface(found.interface.network.with_prefixlen))


def _global_unicast(found: Ip) -> bool:
    address = found.address
    limited = isinstance(address, ipaddress.IPv4Address) and int(address) == (1 << 32) - 1
    return not (
        limited or address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    )


def _local_multicast(found: Ip) -> bool:
    address = found.address
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network("224.0.0.0/24")
    return address.packed[0] == 0xFF and address.packed[1] & 0x0F == 2


NETWORKS.add("ip", _ip, f"string -> {_IP}", cost=text_cost)
NETWORKS.add("isIP", _good(_ip), "string -> bool", cost=text_cost)
NETWORKS.add("ip.isCanonical", lambda text: str(_ip(text)) == text, "string -> bool", cost=twice)
NETWORKS.add("family", lambda found: found.address.version, f"{_IP} @ -> int")
NETWORKS.add("isUnspecified", lambda found: found.address.is_unspecified, f"{_IP} @ -> bool")
NETWORKS.add("isLoopback", lambda found: found.address.is_loopback, f"{_IP} @ -> bool")
NETWORKS.add("isLinkLocalMulticast", _local_multicast, f"{_IP} @ -> bool")
NETWORKS.add("isLinkLocalUnicast", lambda found: found.address.is_link_local, f"{_IP} @ -> bool")
NETWORKS.add("isGlobalUnicast", _global_unicast, f"{_IP} @ -> bool")
NETWORKS.add("string", str, f"{_IP} -> string", f"{_CIDR} -> string")
NETWORKS.add("cidr", _cidr, f"string -> {_CIDR}", cost=text_cost)
NETWORKS.add("isCIDR", _good(_cidr), "string -> bool", cost=text_cost)
NETWORKS.add("containsIP", _contains_ip, f"{_CIDR} @ string -> bool", f"{_CIDR} @ {_IP} -> bool", cost=lambda *_: 6)
NETWORKS.add(
    "containsCIDR", _contains_cidr, f"{_CIDR} @ string -> bool", f"{_CIDR} @ {_CIDR} -> bool", cost=lambda *_: 9
)
NETWORKS.add("ip", lambda found: Ip(found.interface.ip), f"{_CIDR} @ -> {_IP}")
NETWORKS.add("prefixLength", lambda found: found.interface.network.prefixlen, f"{_CIDR} @ -> int")
NETWORKS.add("masked", _masked, f"{_CIDR} @ -> {_CIDR}")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+(?:%25[^\]]+)?\]|[^\[\]:/?#@ <>\"\\^`{|}]*)(?::[0-9]*)?")


class Url:
    """A URL: `url("https://example.com/x?y=1")`."""

    __slots__ = ("host", "path", "query", "scheme", "text")
    type_name = _URL

    def __init__(self, text: str) -> None:
        if fault := uri_fault(text):
            raise CelError(f"URL parse error during conversion from string: {fault}")
        self.text = text
        rest = text.partition("#")[0]
        match = _SCHEME.match(rest)
        self.scheme = match[1].lower() if match else ""
        rest = rest[match.end() :] if match else rest
        rest, _, self.query = rest.partition("?")
        self.host = ""
        if rest.startswith("//"):
            authority, slash, path = rest[2:].partition("/")
            self.host = authority.rpartition("@")[2]
            rest = slash + path
        # What is not escaped and should be, Go escapes.
        self.path = url_quote(rest, safe="/$&+,:;=@!*'()~%-._")

    @property
    def hostname(self) -> str:
        """The host without brackets and port."""
        if self.host.startswith("["):
            return self.host[1 : self.host.index("]")]
        return self.host.partition(":")[0]

    @property
    def port(self) -> str:
        """The port as written."""
        return self.host.rpartition("]")[2].partition(":")[2]

    def values(self) -> dict[str, list[str]]:
        """Return the values of the query by name."""
        found: dict[str, list[str]] = {}
        for part in self.query.split("&"):
            if part and ";" not in part:
                name, _, value = part.partition("=")
                found.setdefault(unquote_plus(name), []).append(unquote_plus(value))
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


def uri_fault(text: str) -> str | None:
    """Return what Go says of a text that is no URI with a scheme or a path from the root; None for a good one."""
    shown = f"parse {quote(text)}: "
    if any(char < " " or char == "\x7f" for char in text):
        return shown + "net/url: invalid control character in URL"
    if not text:
        return shown + "empty url"
    match = _SCHEME.match(text)
    if match is None and text.startswith(":"):
        return shown + "missing protocol scheme"
    rest = text[match.end() :] if match else text
    if not rest.startswith("/"):
        if match and rest:
            return None
        return shown + "invalid URI for request"
    if (escape := _ESCAPE.search(rest.partition("?")[0])) is not None:
        return shown + f"invalid URL escape {quote(escape[0])}"
    if match and rest.startswith("//"):
        host = re.split(r"[/?]", rest[2:], maxsplit=1)[0].rpartition("@")[2]
        if not _HOST.fullmatch(host):
            port = host.rpartition("]")[2].partition(":")
            if port[1] and not port[2].isdigit():
                return shown + f"invalid port {quote(':' + port[2])} after host"
            return shown + "invalid character in host name"
    return None


NETWORKS.add("url", Url, f"string -> {_URL}", cost=text_cost)
NETWORKS.add("isURL", lambda text: uri_fault(text) is None, "string -> bool", cost=text_cost)
NETWORKS.add("getScheme", lambda found: found.scheme, f"{_URL} @ -> string")
NETWORKS.add("getHost", lambda found: found.host, f"{_URL} @ -> string")
NETWORKS.add("getHostname", lambda found: found.hostname, f"{_URL} @ -> string")
NETWORKS.add("getPort", lambda found: found.port, f"{_URL} @ -> string")
NETWORKS.add("getEscapedPath", lambda found: found.path, f"{_URL} @ -> string")
NETWORKS.add("getQuery", lambda found: found.values(), f"{_URL} @ -> map(string, list(string))")
