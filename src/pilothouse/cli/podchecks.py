"""What `doctor` looks at for pods: how they can be isolated here, how services are carried, and where names answer."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from pilothouse.cli.checks import Answer

__all__ = ["dns_port", "pods", "services", "what_pods_lack"]

_DNS_PORT: Final = 53
_DNS_ADDRESS: Final = "127.96.0.10"
"""Where the cluster's DNS of an ordinary user's platform listens; this machine's alone, as all of 127/8."""
_MODES: Final = {
    "root": "own namespaces, users and network",
    "userns": "own namespaces; this machine's network, and one user",
    "plain": "no isolation; image: host alone",
}


def pods() -> Answer:
    """Ask the process runtime what it can do here."""
    from pilothouse.node.process.machine import capabilities_of_this_machine  # loads the runtime

    machine = capabilities_of_this_machine()
    limits = f"limits by control groups, version {machine.cgroups}" if machine.cgroups else "no limits"
    detail = f"{_MODES[machine.mode]}; {limits}; {'' if machine.seccomp else 'no '}filter of system calls"
    return ("limited" if machine.missing else "ok"), detail


def what_pods_lack() -> str:
    """Return what each missing piece means for pods."""
    from pilothouse.node.process.machine import capabilities_of_this_machine  # loads the runtime

    return "; ".join(capabilities_of_this_machine().missing)


def services() -> Answer:
    """Look whether rules of nftables can be made."""
    from pilothouse.node.services.nft import why_not  # loads the runtime

    why = why_not()
    return ("limited", why) if why else ("ok", "rules of nftables")


def dns_port() -> Answer:
    """Open the port of the cluster's DNS for a moment, at an address of this machine alone."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind((_DNS_ADDRESS, _DNS_PORT))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    # Taken by a platform that runs, or by a server at all addresses.
                    return "limited", f"port {_DNS_PORT} of {_DNS_ADDRESS} is taken"
                return "limited", f"port {_DNS_PORT}: {os.strerror(error.errno or 0)}"
    return "ok", f"port {_DNS_PORT} can be had"
