"""What a node agent can be told, with a kubelet's defaults."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["AgentOptions", "Thresholds"]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """When a node is short: memory in bytes, the others as shares of the whole.

    The node is well again after `calm_seconds` without shortage.
    """

    memory_available: int = 100 << 20
    disk_available: float = 0.10
    inodes_free: float = 0.05
    pids_available: float = 0.05
    image_high: float = 0.85
    image_low: float = 0.80
    image_min_age: float = 120.0
    look_seconds: float = 10.0
    calm_seconds: float = 300.0


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a node runs pods. `root` keeps what the agent writes; `logs` the containers' logs (below `root` if empty).

    `addresses` are the node's, found on the machine if empty. `reserved_cpu` in thousandths and `reserved_memory` in
    bytes are kept from pods. `writers` status calls are under way at once, `pulls` pulls. `port` is where the node
    serves logs and streams, 0 where it does not.
    """

    name: str
    root: str
    logs: str = ""
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    max_pods: int = 110
    reserved_cpu: int = 0
    reserved_memory: int = 0
    port: int = 0
    lease_seconds: int = 40
    renew_seconds: float = 10.0
    status_seconds: float = 300.0
    writers: int = 16
    pulls: int = 4
    log_bytes: int = 10 << 20
    log_files: int = 5
    log_look_seconds: float = 10.0
    relist_seconds: float = 30.0
    max_images: int = 50
    sweep_seconds: float = 60.0
    thresholds: Thresholds = Thresholds()
    register: bool = True

    @property
    def log_root(self) -> str:
        """Where the logs of pods are."""
        return self.logs or f"{self.root}/logs"
