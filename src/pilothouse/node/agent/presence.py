"""That this node is there: its Node object, its lease every 10 s, its status when it changes and every 5 minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.client.errors import ClientError
from pilothouse.client.patches import StrategicPatch
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import AlreadyExists, ApiStatus, NotFound
from pilothouse.kinds.structs import to_dict
from pilothouse.kinds.structs.core_nodes import Node
from pilothouse.kinds.times import format_micros, format_seconds

from .nodeobject import NodeView, node_labels, node_status

__all__ = ["Presence"]

_LEASES: Final = "kube-node-lease"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 7.0
_STATUS_LOOK = 10.0
_FIRST_LEASE = 10.0
_MANAGED: Final = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
_log = get_logger("pilothouse.node.agent")
_FAULTS = (ApiStatus, OSError, ClientError)


class Presence:
    """Keeps one node known. `view` gives what there is to say, now."""

    def __init__(self, client: Client, clock: Clock, name: str, view: Callable[[], NodeView]) -> None:
        self._client = client
        self._clock = clock
        self._name = name
        self._view = view
        self._status: dict[str, Any] = {}
        self._written_at = -1e9
        self._lease_until = 0.0
        self.node: Node = Node()
        """The node as the API had it last."""

    @property
    def is_known(self) -> bool:
        """Whether the lease was renewed in time."""
        return self._clock.monotonic() < self._lease_until

    async def register(self) -> None:
        """Make the Node, or take over one that is there, with its labels, taints and conditions; try until it works."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._register()
            except _FAULTS as error:
                _log.warning("node not registered; trying again", node=self._name, error=repr(error))
            else:
                return
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _register(self) -> None:
        view = self._view()
        labels, annotations = node_labels(view), {**_MANAGED, **view.options.annotations}
        nodes = self._client.dynamic("v1", "Node")
        made = {"metadata": {"name": self._name, "labels": labels, "annotations": annotations}}
        try:
            await nodes.create({"apiVersion": "v1", "kind": "Node", **made})
        except AlreadyExists:
            await nodes.patch(self._name, {"metadata": {"labels": labels, "annotations": annotations}})
        self.node = await self._client.get(Node, self._name)
        self._status = {"conditions": to_dict(self.node.status).get("conditions", [])}
        await self._write_status()
        self._lease_until = self._clock.monotonic() + _FIRST_LEASE

    async def keep_lease(self, seconds: int, every: float) -> None:
        """Renew the lease for ever; `seconds` is how long it lasts."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._renew(seconds)
            except _FAULTS as error:
                _log.warning("node lease not renewed; trying again", node=self._name, error=repr(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                self._lease_until = self._clock.monotonic() + seconds
                pause = _FIRST_PAUSE
                await self._clock.sleep(every)

    async def _renew(self, seconds: int) -> None:
        leases = self._client.dynamic("coordination.k8s.io/v1", "Lease")
        spec = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": seconds,
            "renewTime": format_micros(self._clock.now()),
        }
        try:
            await leases.patch(self._name, {"spec": spec}, _LEASES)
        except NotFound:
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self.node.metadata.uid}
            metadata = {"name": self._name, "namespace": _LEASES, "ownerReferences": [owner]}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await leases.create(lease, _LEASES)

    async def keep_status(self, every: float) -> None:
        """Write the status when it changes, and every so many seconds, for ever."""
        while True:
            await self._clock.sleep(_STATUS_LOOK)
            try:
                await self.refresh(every)
            except NotFound:
                await self.register()  # somebody deleted the node; a kubelet would need a restart for it
            except _FAULTS as error:
                _log.warning("node status not written", node=self._name, error=repr(error))

    async def refresh(self, every: float = 0.0) -> None:
        """Write the status if it has changed or was written longer ago than that. Raises what the client raises."""
        self.node = await self._client.get(Node, self._name)
        # Others write conditions too, such as that nothing was heard of the node for a while.
        theirs = {each.type: each.status for each in self.node.status.conditions}
        made = self._made()
        is_due = self._clock.monotonic() - self._written_at >= every
        is_told = all(theirs.get(each["type"]) == each["status"] for each in made["conditions"])
        if is_due or not is_told or _without_heartbeat(made) != _without_heartbeat(self._status):
            await self._write_status()

    def _made(self) -> dict[str, Any]:
        return node_status(self._view(), self._status.get("conditions", ()), format_seconds(self._clock.now()))

    async def _write_status(self) -> None:
        made = self._made()
        patch = StrategicPatch({"status": {**made, "addresses": [{"$patch": "replace"}, *made["addresses"]]}})
        self.node = await self._client.patch(Node, self._name, patch, subresource="status")
        self._status = made
        self._written_at = self._clock.monotonic()


def _without_heartbeat(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [
        {name: value for name, value in each.items() if name != "lastHeartbeatTime"}
        for each in status.get("conditions", ())
    ]
    return {**status, "conditions": conditions}
