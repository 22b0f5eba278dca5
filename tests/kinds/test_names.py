from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import quote
from support.goldenvalues import messages

CHECKS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "dns1123Label": names.short_name,
    "dns1123LabelV": names.dns1123_label,
    "dns1123Subdomain": names.long_name,
    "dns1035Label": names.dns1035_label,
    "qualified": names.qualified_name,
    "labelValue": names.label_value,
    "pathSegment": names.path_segment,
    "cident": names.identifier,
    "envVar": names.environment_name,
    "relaxedEnvVar": names.relaxed_environment_name,
    "portName": names.port_name,
    "configMapKey": names.config_map_key,
    "wildcard": names.wildcard_dns1123_subdomain,
    "percent": names.percent,
    "httpHeader": names.header_name,
    "decimal": names.decimal_integer,
}
ADDRESSES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "ip": names.ip,
    "cidr": names.cidr,
    "legacyIP": names.legacy_ip,
    "legacyCIDR": names.legacy_cidr,
    "sloppyIP": lambda value: names.legacy_ip(value, strict=False),
    "sloppyCIDR": lambda value: names.legacy_cidr(value, strict=False),
}


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_check_says_what_kubernetes_says(name: str) -> None:
    for value, gave in messages():
        assert list(CHECKS[name](value)) == gave.get(name, []), value


@pytest.mark.parametrize("name", sorted(ADDRESSES))
def test_an_address_is_checked_as_kubernetes_does(name: str) -> None:
    for value, gave in messages():
        found = [f"p: Invalid value: {quote(value)}: {message}" for message in ADDRESSES[name](value)]
        assert found == gave.get(name, []), value


def test_a_domain_name_is_checked_as_kubernetes_does() -> None:
    for value, gave in messages():
        if value:
            told = [message.partition(": ")[2].partition(": ")[2] for message in gave.get("fqdn", [])]
            found = names.fully_qualified_domain_name(value)
            assert bool(found) == bool(told), value
            assert all(text.endswith(message) for text, message in zip(told, found, strict=True))


@given(st.text(alphabet="ab0-._/A", max_size=70))
def test_a_label_is_a_subdomain_and_a_label_value(value: str) -> None:
    if not names.dns1035_label(value):
        assert not names.dns1123_label(value)
    if not names.dns1123_label(value):
        assert not names.dns1123_subdomain(value)
        assert not names.label_value(value)
        assert not names.label_key(value)
        assert not names.path_segment(value)


@given(st.ip_addresses().map(str), st.integers(0, 128))
def test_canonical_addresses_are_good(address: str, length: int) -> None:
    mapped = address.startswith("::ffff:")
    assert bool(names.ip(address)) == mapped
    assert not names.legacy_ip(address, strict=False)
    assert bool(names.legacy_cidr(f"{address}/{length}", strict=False)) == (length > 32 and ":" not in address)


@given(st.text(max_size=80), st.text(alphabet="bcdf", min_size=5, max_size=5))
def test_a_generated_name_has_63_bytes_at_most(prefix: str, suffix: str) -> None:
    name = names.generated_name(prefix, suffix)
    assert len(name.encode("utf-8", "replace")) <= 63
    assert name.endswith(suffix)
    assert len(prefix) > 58 or not prefix.isascii() or name == prefix + suffix


def test_a_suffix_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="5 characters wanted"):
        names.generated_name("a-", "xyz")


def test_a_dash_may_end_a_prefix() -> None:
    assert names.dns1123_subdomain("web-")
    assert not names.dns1123_subdomain(names.mask_trailing_dash("web-"))
    assert names.mask_trailing_dash("-") == "-"


def test_numbers_have_ranges() -> None:
    assert [bool(names.port_number(port)) for port in (0, 1, 65535, 65536)] == [True, False, False, True]
    assert names.user_or_group_id(-1) == ("must be between 0 and 2147483647, inclusive",)
