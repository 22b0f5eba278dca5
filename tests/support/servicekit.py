"""Services and endpoint slices for tests, in few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse.kinds.structs import EndpointSlice, Service, from_dict
from pilothouse.node.services.proxying import Changes
from pilothouse.node.services.selection import NodeFacts
from pilothouse.node.services.tracking import ServiceTracker

__all__ = ["NODE", "Board", "endpoint", "service", "slice_of"]

NODE = NodeFacts(name="here", zone="a")


def service(
    name: str = "web", address: str = "10.96.0.10", *, ports: Any = None, status: Any = None, **spec: Any
) -> Service:
    """Make a service, of one TCP port 80 unless told otherwise."""
    made = {"clusterIP": address, "clusterIPs": [address], "type": "ClusterIP"} | spec
    made["ports"] = ports or [{"port": 80, "protocol": "TCP"}]
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": made, "status": status or {}}
    return from_dict(body, Service)


def endpoint(address: str, node: str = "here", **fields: Any) -> dict[str, Any]:
    """Make an endpoint that is ready, unless its conditions say otherwise."""
    return {"addresses": [address], "nodeName": node, "conditions": {"ready": True}} | fields


def slice_of(
    name: str, endpoints: Sequence[dict[str, Any]], *, ports: Any = None, suffix: str = "1", family: int = 4
) -> EndpointSlice:
    """Make a slice of a service's endpoints, at TCP port 8080 unless told otherwise."""
    body = {
        "metadata": {
            "name": f"{name}-{suffix}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": f"IPv{family}",
        "endpoints": list(endpoints),
        "ports": ports or [{"name": "", "port": 8080, "protocol": "TCP"}],
    }
    return from_dict(body, EndpointSlice)


class Board(ServiceTracker):
    """A tracker that takes a service with its endpoints in one go."""

    def __init__(self) -> None:
        super().__init__(NODE)

    def put(self, found: Service, *endpoints: dict[str, Any], ports: Any = None) -> Changes:
        """Let a service have these endpoints, and return what changed."""
        self.set_service(f"default/{found.metadata.name}", found)
        made = slice_of(found.metadata.name, endpoints, ports=ports)
        self.set_slice(f"default/{made.metadata.name}", made)
        return self.changes()

    def remove(self, name: str) -> Changes:
        """Take a service with its endpoints away, and return what changed."""
        self.set_service(f"default/{name}", None)
        self.set_slice(f"default/{name}-1", None)
        return self.changes()
