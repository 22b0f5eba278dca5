"""Which addresses the pods of a node have: those that its Node says, which the controller of node networks gives it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.client.patches import MergePatch
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import AlreadyExists, Conflict, Invalid, NotFound
from pilothouse.kinds.structs.core_nodes import Node
from pilothouse.node.errors import RuntimeUnavailable

__all__ = ["pod_cidr"]

_SECONDS: Final = 60.0
_PAUSE: Final = 0.2
_HOSTNAME: Final = "kubernetes.io/hostname"
_log = get_logger("pilothouse.node.agent")


async def pod_cidr(client: Client, node: str, preferred: str = "", *, seconds: float = _SECONDS) -> str:
    """Return the range of a node's pods; make the Node where it is not there, and wait for its range.

    preferred: what a node without a range takes, unless another one has part of it. Otherwise the controller of node
    networks has `seconds` to give one. Raises `RuntimeUnavailable` where it does not, ApiStatus, ClientError, OSError.
    """
    found = await _node(client, node, preferred)
    if found.spec.pod_cidr:
        return found.spec.pod_cidr
    if preferred and await _is_free(client, node, preferred):
        with contextlib.suppress(Conflict, Invalid):  # somebody was faster
            found = await client.patch(Node, node, MergePatch({"spec": _spec(preferred)}))
            if found.spec.pod_cidr:
                return found.spec.pod_cidr
    try:
        async with asyncio.timeout(seconds):
            return await _given(client, node)
    except TimeoutError:
        raise RuntimeUnavailable(
            f"node {node}: spec.podCIDR is not set after {seconds:g} s: start the node-ipam-controller, or say which "
            "addresses its pods are to have"
        ) from None


async def _node(client: Client, node: str, preferred: str) -> Node:
    try:
        return await client.get(Node, node)
    except NotFound:
        spec = _spec(preferred) if preferred and await _is_free(client, node, preferred) else {}
    made = {"metadata": {"name": node, "labels": {_HOSTNAME: node}}, "spec": spec}
    try:
        await client.dynamic("v1", "Node").create({"apiVersion": "v1", "kind": "Node", **made})
    except AlreadyExists:
        _log.debug("the node is there already", node=node)
    return await client.get(Node, node)


def _spec(cidr: str) -> dict[str, Any]:
    return {"podCIDR": cidr, "podCIDRs": [cidr]}


async def _is_free(client: Client, node: str, wanted: str) -> bool:
    network = ipaddress.ip_network(wanted)
    async for other in client.list(Node):
        if other.metadata.name != node and any(ipaddress.ip_network(each).overlaps(network) for each in _ranges(other)):
            _log.info("another node has the addresses that were wanted for pods", node=other.metadata.name)
            return False
    return True


def _ranges(node: Node) -> Sequence[str]:
    return node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())


async def _given(client: Client, node: str) -> str:
    while True:
        async with contextlib.aclosing(client.watch(Node, fields=f"metadata.name={node}")) as events:
            async for event in events:
                if event.type != "DELETED" and event.object.spec.pod_cidr:
                    return event.object.spec.pod_cidr
        await asyncio.sleep(_PAUSE)
