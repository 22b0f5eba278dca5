"""Telling systemd how the platform is (sd_notify): one datagram to the socket that NOTIFY_SOCKET names."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

__all__ = ["Notifier", "service_name"]


class Notifier:
    """Tells the service manager, where there is one; children, which are no services, do not inherit the variable."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        self._address = (os.environ if environment is None else environment).pop("NOTIFY_SOCKET", "")

    @property
    def is_wanted(self) -> bool:
        """Whether somebody listens."""
        return bool(self._address)

    def tell(self, *lines: str) -> None:
        """Send lines such as READY=1 and STATUS=...; who does not take them holds nobody up."""
        if not self._address:
            return
        import socket  # noqa: PLC0415  # most platforms are no service, and need none of it

        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            try:
                sending.sendto("\n".join(lines).encode(), address)
            except OSError:
                return


def service_name(text: str) -> str:
    """Return the systemd unit of a process whose /proc/PID/cgroup says this, empty without one."""
    paths = [line.split(":", 2)[2] for line in text.splitlines() if line.count(":") > 1]
    names = [name for path in paths for name in reversed(path.split("/")) if name.endswith(".service")]
    return names[0] if names else ""
