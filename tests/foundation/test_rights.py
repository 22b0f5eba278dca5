"""Rights of this process: what the kernel says counts, not who the user is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pilothouse.foundation import rights
from pilothouse.foundation.rights import NET_ADMIN, SYS_ADMIN, effective, owns_network

_BOTH = 1 << SYS_ADMIN | 1 << NET_ADMIN


@pytest.mark.parametrize(
    ("user", "held", "owns"),
    [(0, _BOTH, True), (0, 1 << SYS_ADMIN, False), (0, 1 << NET_ADMIN, False), (0, 0, False), (1000, _BOTH, False)],
)
def test_a_network_is_roots_with_both_capabilities(
    monkeypatch: pytest.MonkeyPatch, user: int, held: int, owns: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(rights, "effective", lambda: held)
    assert owns_network() is owns


@pytest.mark.skipif(os.geteuid() != 0, reason="wants root, who has capabilities to lose")
def test_capabilities_are_those_that_are_left() -> None:
    command = ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c"]
    program = "from pilothouse.foundation.rights import *; print(effective())"
    left = int(subprocess.run([*command, program], capture_output=True, text=True, check=True).stdout)
    assert left == effective() & ~(1 << NET_ADMIN)
