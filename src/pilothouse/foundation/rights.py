"""What the kernel lets this process do, which is not the same as who its user is: root of a container may do little."""

from __future__ import annotations

import contextlib
import os
from typing import Final

__all__ = ["NET_ADMIN", "NET_BIND_SERVICE", "SYS_ADMIN", "SYS_RESOURCE", "effective", "owns_network"]

NET_BIND_SERVICE: Final = 10
NET_ADMIN: Final = 12
SYS_ADMIN: Final = 21
SYS_RESOURCE: Final = 24
"""Numbers of capabilities, as capabilities(7) has them."""


def effective() -> int:
    """Return the effective capabilities of this process as bits; none where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def owns_network() -> bool:
    """Say whether this process may make networks, mounts and rules: root with CAP_SYS_ADMIN and CAP_NET_ADMIN."""
    rights = effective()
    return os.geteuid() == 0 and bool(rights >> SYS_ADMIN & 1 and rights >> NET_ADMIN & 1)
