"""What this machine's node is, written down so that its agent, and whoever clears up after it, know the same."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from pilothouse.foundation.files import FileSystem, OsFileSystem, write_whole

__all__ = ["DEFAULT_BRIDGE", "NodePlan", "PlanError", "dns_address", "read_plan", "write_plan"]

DEFAULT_BRIDGE: Final = "pilothouse0"
_MODE: Final = 0o600


class PlanError(ValueError):
    """A plan cannot be used; the message names the file and what is wrong."""


class NodePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of this machine.

    parts: what its agent has beside pods: services, dns, network-policies. directory: where all is kept. pki: the
    directory of the cluster's keys where they are on this machine, else empty. cluster_cidr: addresses of all pods,
    empty where pods have none of their own; pod_cidr: this node's, empty where the cluster chooses. hidden: what pods
    of `image: host` do not see. bridge also names this platform among several on one machine.
    """

    name: str
    directory: str
    kubeconfig: str
    parts: tuple[str, ...] = ()
    pki: str = ""
    addresses: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    cluster_cidr: str = ""
    pod_cidr: str = ""
    bridge: str = DEFAULT_BRIDGE
    dns: str = ""
    domain: str = "cluster.local"
    port: int = 10250
    max_pods: int = 110
    hidden: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """What sets names of this platform apart from those of another on the same machine; empty for the first."""
        return "" if self.bridge == DEFAULT_BRIDGE else f"-{self.bridge}"

    @property
    def services_table(self) -> str:
        """The name of the nftables that carry services."""
        return f"pilothouse-services{self.suffix}"

    @property
    def policies_table(self) -> str:
        """The name of the nftables that hold network policies."""
        return f"pilothouse-policies{self.suffix}"

    @property
    def volumes(self) -> str:
        """Where directories of local volumes are made."""
        return os.path.join(self.directory, "volumes")


def dns_address(service_range: str) -> str:
    """Return the address of the cluster's DNS: the tenth of the range of services, as clusters of kubeadm have it."""
    import ipaddress  # noqa: PLC0415  # the supervisor does without

    return str(ipaddress.ip_network(service_range)[10])


def write_plan(path: str, plan: NodePlan, files: FileSystem | None = None) -> None:
    """Write a plan whole, for its owner alone. Raises OSError."""
    write_whole(files or OsFileSystem(), path, msgspec.json.format(msgspec.json.encode(plan)), _MODE)


def read_plan(path: str) -> NodePlan:
    """Return the plan in a file. Raises OSError, PlanError."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return msgspec.json.decode(data, type=NodePlan)
    except msgspec.DecodeError as error:
        raise PlanError(f"{path}: {error}") from error
