"""An address of the cluster on the machine's loopback device, where nobody else has it."""

from __future__ import annotations

import contextlib

from pilothouse.node.process.marks import LABEL, MachineNetwork
from pilothouse.node.process.netlink import link_index

__all__ = ["change_loopback"]


def change_loopback(address: str, *, add: bool) -> None:
    """Add an address to the loopback device, or remove it. Raises `OSError`; removing what is not there is fine.

    It is marked, so that it can be taken away when this program is gone.
    """
    with contextlib.closing(MachineNetwork()) as network:
        if add:
            network.add_address(link_index("lo"), address, 128 if ":" in address else 32, label=LABEL)
        else:
            network.delete_loopback(address)
