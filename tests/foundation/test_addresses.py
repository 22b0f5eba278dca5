"""The addresses by which other machines reach this one."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from pilothouse.foundation.addresses import LOOPBACK, own_address, own_addresses


def test_own_addresses_are_of_this_machine_and_begin_with_the_one_that_leads_out() -> None:
    first, found = own_address(), own_addresses()
    assert found[:1] == ((first,) if first != LOOPBACK else found[:1])
    assert len(set(found)) == len(found)
    for each in found:
        assert not ipaddress.ip_address(each).is_loopback
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((each, 0))  # refused for another machine's


def test_a_machine_without_a_way_out_has_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lonely(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("pilothouse.foundation.addresses.socket.socket", Lonely)
    assert own_address() == LOOPBACK


def test_interfaces_without_an_address_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.foundation.addresses.socket.if_nameindex", lambda: [(1, "lo"), (2, "nothing-like")])
    monkeypatch.setattr("pilothouse.foundation.addresses.own_address", lambda: LOOPBACK)
    assert own_addresses() == ()
