"""How things may be called: names, label keys and values, ports, variables, addresses, with Kubernetes' messages.

Every check returns the messages of what is wrong, none if the value is good. Lengths are those of UTF-8.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pilothouse.kinds.fielderrors import quote

__all__ = [
    "GENERATED_SUFFIX_LENGTH",
    "cidr",
    "config_map_key",
    "decimal_integer",
    "dns1035_label",
    "dns1123_label",
    "dns1123_subdomain",
    "environment_name",
    "fully_qualified_domain_name",
    "generated_name",
    "header_name",
    "identifier",
    "in_range",
    "ip",
    "label_key",
    "label_value",
    "legacy_cidr",
    "legacy_ip",
    "long_name",
    "mask_trailing_dash",
    "path_segment",
    "path_segment_prefix",
    "percent",
    "port_name",
    "port_number",
    "qualified_name",
    "relaxed_environment_name",
    "short_name",
    "user_or_group_id",
    "wildcard_dns1123_subdomain",
]

Messages = tuple[str, ...]

GENERATED_SUFFIX_LENGTH: Final = 5
"""Characters that the server adds to `generateName`."""
_LABEL_LENGTH: Final = 63
_SUBDOMAIN_LENGTH: Final = 253
_LONGEST_KEY: Final = _SUBDOMAIN_LENGTH + 1 + _LABEL_LENGTH
_PORT_NAME_LENGTH: Final = 15
_MEMO: Final = 4096
_HEX_DIGITS: Final = 4
_LAST_PORT: Final = 65535
_LAST_ID: Final = 2**31 - 1

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_KEY: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"


def _too_long(length: int) -> str:
    return f"must be no more than {length} bytes"


def _too_many_characters(length: int) -> str:
    return f"must be no more than {length} characters"


def _regex_message(text: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


def _longer(value: str, length: int) -> bool:
    return len(value) > length or (not value.isascii() and len(value.encode("utf-8", "replace")) > length)


def _rule(
    pattern: str, text: str, *examples: str, length: int, too_long: Callable[[int], str] = _too_many_characters
) -> Callable[[str], Messages]:
    fits = re.compile(pattern).fullmatch
    message = _regex_message(text, pattern, *examples)

    def check(value: str) -> Messages:
        good = fits(value) is not None
        if len(value) <= length and good:
            return ()
        found = (too_long(length),) if _longer(value, length) else ()
        return found if good else (*found, message)

    return check


_UNBOUNDED: Final = 1 << 62

_subdomain = _rule(
    _SUBDOMAIN,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    "example.com",
    length=_SUBDOMAIN_LENGTH,
)
_subdomain_in_bytes = _rule(
    _SUBDOMAIN,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    "example.com",
    length=_SUBDOMAIN_LENGTH,
    too_long=_too_long,
)
_label = _rule(
    _LABEL,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    "my-name",
    "123-abc",
    length=_LABEL_LENGTH,
)
_dns1035 = _rule(
    "[a-z]([-a-z0-9]*[a-z0-9])?",
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character",
    "my-name",
    "abc-123",
    length=_LABEL_LENGTH,
)
_wildcard = _rule(
    rf"\*\.{_SUBDOMAIN}",
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    "*.example.com",
    length=_SUBDOMAIN_LENGTH,
)
_value = _rule(
    f"({_KEY})?",
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character",
    "MyValue",
    "my_value",
    "12345",
    length=_LABEL_LENGTH,
    too_long=_too_long,
)
_identifier = _rule(
    "[A-Za-z_][A-Za-z0-9_]*",
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'",
    "my_name",
    "MY_NAME",
    "MyName",
    length=_UNBOUNDED,
)
_environment = _rule(
    "[-._a-zA-Z][-._a-zA-Z0-9]*",
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
    "and must not start with a digit",
    "my.env-name",
    "MY_ENV.NAME",
    "MyEnvName1",
    length=_UNBOUNDED,
)
_config_key = _rule(
    "[-._a-zA-Z0-9]+",
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    "key.name",
    "KEY_NAME",
    "key-name",
    length=_SUBDOMAIN_LENGTH,
)
_header = _rule(
    "[-A-Za-z0-9]+",
    "a valid HTTP header must consist of alphanumeric characters or '-'",
    "X-Header-Name",
    length=_UNBOUNDED,
)
_percent = _rule(
    "[0-9]+%",
    "a valid percent string must be a numeric string followed by an ending '%'",
    "1%",
    "93%",
    length=_UNBOUNDED,
)

_is_subdomain: Final = re.compile(_SUBDOMAIN).fullmatch
_is_label: Final = re.compile(_LABEL).fullmatch
_is_key_name: Final = re.compile(_KEY).fullmatch
_KEY_MESSAGE: Final = _regex_message(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _KEY,
    "MyName",
    "my.name",
    "123-abc",
)
_is_port_charset: Final = re.compile("[-a-z0-9]+").fullmatch
_is_decimal: Final = re.compile("0|-?[1-9][0-9]*").fullmatch
_is_relaxed: Final = re.compile("[ -<>-~]*").fullmatch
_has_letter: Final = re.compile("[a-z]").search


def dns1123_label(value: str) -> Messages:
    """Check a label of RFC 1123: at most 63 lower case letters, digits and `-`."""
    found = _label(value)
    if found and _is_label(value) is None and _is_subdomain(value):
        # all that makes a subdomain more than a label is its dots
        return (*found[:-1], "must not contain dots")
    return found


def short_name(value: str) -> Messages:
    """Check a value of the format `k8s-short-name`: a label of RFC 1123, its length told in bytes."""
    return tuple(map(_in_bytes, dns1123_label(value)))


def long_name(value: str) -> Messages:
    """Check a value of the format `k8s-long-name`: a subdomain of RFC 1123, its length told in bytes."""
    return _subdomain_in_bytes(value)


def _in_bytes(message: str) -> str:
    return _too_long(_LABEL_LENGTH) if message == _too_many_characters(_LABEL_LENGTH) else message


def dns1123_subdomain(value: str) -> Messages:
    """Check a subdomain of RFC 1123: labels joined by dots, at most 253 characters. Most object names are such."""
    return _subdomain(value)


def dns1035_label(value: str) -> Messages:
    """Check a label of RFC 1035, as Services have: at most 63 characters, the first a letter."""
    return _dns1035(value)


def wildcard_dns1123_subdomain(value: str) -> Messages:
    """Check a subdomain whose first label is `*`."""
    return _wildcard(value)


def fully_qualified_domain_name(value: str) -> Messages:
    """Check a domain name of at least two labels; a dot may end it."""
    name = value.removesuffix(".")
    if found := _subdomain(name):
        return (",".join(found),)
    labels = name.split(".")
    if len(labels) < 2:
        return ("should be a domain with at least two segments separated by dots",)
    return next(((",".join(found),) for label in labels if (found := dns1123_label(label))), ())


def label_key(value: str) -> Messages:
    """Check a qualified name as keys of labels and annotations are: `[subdomain/]name`, the name of 63 at most."""
    return _remembered_key(value) if len(value) <= _LONGEST_KEY else _check_key(value)


def _check_key(value: str) -> Messages:
    parts = value.split("/")
    if len(parts) > 2:
        prefix_note = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return (f"a valid label key {_KEY_MESSAGE}{prefix_note}",)
    found: list[str] = []
    if len(parts) == 2:
        wrong = _subdomain_in_bytes(parts[0]) if parts[0] else ("must be non-empty",)
        found.extend(f"prefix part {message}" for message in wrong)
    name = parts[-1]
    if not name:
        found.append("name part must be non-empty")
    elif _longer(name, _LABEL_LENGTH):
        found.append(f"name part {_too_long(_LABEL_LENGTH)}")
    if not _is_key_name(name):
        found.append(f"name part {_KEY_MESSAGE}")
    return tuple(found)


_remembered_key: Final = lru_cache(maxsize=_MEMO)(_check_key)

qualified_name = label_key


def label_value(value: str) -> Messages:
    """Check the value of a label: empty, or at most 63 letters, digits, `-`, `_` and `.`."""
    return _value(value)


def path_segment_prefix(value: str) -> Messages:
    """Check the beginning of what becomes one segment of a URL path."""
    return tuple(f"may not contain '{part}'" for part in "/%" if part in value)


def path_segment(value: str) -> Messages:
    """Check what becomes one segment of a URL path, as names of roles do. Empty and long ones pass here."""
    if value in {".", ".."}:
        return (f"may not be '{value}'",)
    return path_segment_prefix(value)


def identifier(value: str) -> Messages:
    """Check an identifier of the language C; its length is not looked at."""
    return _identifier(value)


def _parent_directory(value: str) -> Messages:
    if not value.startswith("."):
        return ()
    if value in {".", ".."}:
        return (f"must not be '{value}'",)
    return ("must not start with '..'",) if value.startswith("..") else ()


def environment_name(value: str) -> Messages:
    """Check the name of an environment variable, as keys of `envFrom` once had to be."""
    return (*_environment(value), *_parent_directory(value))


def relaxed_environment_name(value: str) -> Messages:
    """Check the name of an environment variable: printable ASCII but `=`."""
    if not value:
        return ("environment variable name must be non-empty",)
    if _is_relaxed(value):
        return ()
    return ("a valid environment variable name must consist only of printable ASCII characters other than '='",)


def config_map_key(value: str) -> Messages:
    """Check a key of the data of a ConfigMap or Secret."""
    return (*_config_key(value), *_parent_directory(value))


def header_name(value: str) -> Messages:
    """Check the name of an HTTP header, as probes give them."""
    return _header(value)


def percent(value: str) -> Messages:
    """Check a percentage such as `25%`."""
    return _percent(value)


def port_name(value: str) -> Messages:
    """Check the name of a container's port (an IANA service name): at most 15, one letter at least."""
    found: list[str] = []
    if _longer(value, _PORT_NAME_LENGTH):
        found.append(_too_many_characters(_PORT_NAME_LENGTH))
    if not _is_port_charset(value):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _has_letter(value):
        found.append("must contain at least one letter (a-z)")
    if "--" in value:
        found.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return tuple(found)


def in_range(value: int, low: int, high: int) -> Messages:
    """Check that a number lies between two others or is one of them."""
    return () if low <= value <= high else (f"must be between {low} and {high}, inclusive",)


def port_number(value: int) -> Messages:
    """Check the number of a port: 1 to 65535."""
    return in_range(value, 1, _LAST_PORT)


def user_or_group_id(value: int) -> Messages:
    """Check the number of a user or group: 0 to 2147483647."""
    return in_range(value, 0, _LAST_ID)


def decimal_integer(value: str) -> Messages:
    """Check a whole number in its one shortest form."""
    if not value:
        return ("must be non-empty",)
    return () if _is_decimal(value) else ("must be a valid decimal integer in canonical form",)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(value: str) -> tuple[Address | None, bool]:
    """Read an address, with or without needless zeros in its parts; say whether it had such zeros."""
    if "%" in value:
        return None, False
    head, separator, tail = value.rpartition(":")
    groups = ":".join(group if len(group) <= _HEX_DIGITS else _without_zeros(group) for group in head.split(":"))
    last = ".".join(map(_without_zeros, tail.split("."))) if "." in tail else tail
    if len(tail) > _HEX_DIGITS and "." not in tail:
        last = _without_zeros(tail)
    bare = groups + separator + last
    try:
        return ipaddress.ip_address(bare), bare != value
    except ValueError:
        return None, False


def plain_address(value: str) -> Address | None:
    """Return an address, zeros before its decimal parts passed over; None for what is none."""
    return _address(value)[0]


def _without_zeros(part: str) -> str:
    return part.lstrip("0") or "0" if part else part


def _mapped(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


def legacy_ip(value: str, *, strict: bool = True) -> Messages:
    """Check an address in a field that takes other than the shortest form.

    strict: refuse zeros before decimal parts and IPv4 within IPv6, as Kubernetes 1.36 does for new values.
    """
    address, zeros = _address(value)
    if address is None:
        return ("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",)
    if strict and zeros:
        return ("must not have leading 0s",)
    return ("must not be an IPv4-mapped IPv6 address",) if strict and _mapped(address) else ()


def ip(value: str) -> Messages:
    """Check an address, which must be in its one shortest form (RFC 5952)."""
    if found := legacy_ip(value):
        return found
    canonical = str(ipaddress.ip_address(value))
    return () if value == canonical else (f"must be in canonical form ({quote(canonical)})",)


def _network(value: str) -> tuple[Address, int, bool] | None:
    """Read an address with its prefix length; say whether there were zeros before decimal parts."""
    text, slash, length = value.partition("/")
    address, zeros = _address(text)
    if not slash or address is None or not (length.isascii() and length.isdigit()):
        return None
    digits = _without_zeros(length)
    if len(digits) > 3 or int(digits) > address.max_prefixlen:
        return None
    return address, int(digits), zeros or digits != length


def legacy_cidr(value: str, *, strict: bool = True) -> Messages:
    """Check a network in a field that takes other than the shortest form; strict as for `legacy_ip`."""
    network = _network(value)
    if network is None:
        return ("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",)
    if not strict:
        return ()
    address, length, zeros = network
    if zeros:
        return ("must not have leading 0s in IP or prefix length",)
    if _mapped(address):
        return ("must not have an IPv4-mapped IPv6 address",)
    beyond = int(address) & ((1 << (address.max_prefixlen - length)) - 1)
    return ("must not have bits set beyond the prefix length",) if beyond else ()


def cidr(value: str) -> Messages:
    """Check a network, which must be in its one shortest form (RFC 5952) without bits beyond its prefix."""
    if found := legacy_cidr(value):
        return found
    canonical = str(ipaddress.ip_network(value))
    return () if value == canonical else (f"must be in canonical form ({quote(canonical)})",)


def mask_trailing_dash(value: str) -> str:
    """Give what to check in place of a `generateName`: a last `-` is well, since a suffix follows it."""
    # two characters go and one comes, so that the place before the dash is not looked at either
    return value[:-2] + "a" if len(value) > 1 and value.endswith("-") else value


def generated_name(prefix: str, suffix: str) -> str:
    """Join `generateName`, cut so that the name has 63 bytes at most, and a random suffix of 5 characters.

    Raises ValueError if the suffix is of another length.
    """
    if len(suffix) != GENERATED_SUFFIX_LENGTH:
        msg = f"suffix {suffix!r} of a generated name: {GENERATED_SUFFIX_LENGTH} characters wanted"
        raise ValueError(msg)
    room = _LABEL_LENGTH - GENERATED_SUFFIX_LENGTH
    if not prefix.isascii():
        prefix = prefix.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return prefix[:room] + suffix
