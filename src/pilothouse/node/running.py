"""A node as a program of its own: the agent on the process runtime, routes to other nodes, and local volumes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec

from pilothouse.client import Client
from pilothouse.foundation.rights import owns_network
from pilothouse.operator import Manager

from .agent.agent import Agent
from .agent.options import AgentOptions
from .agent.podcidr import pod_cidr
from .errors import InvalidConfig
from .process.options import Options
from .process.runtime import ProcessRuntime
from .services.noderoutes import NodeRoutes
from .serving.equipment import Equipment
from .volumes.localdirs import ROOT, LocalDirectories

__all__ = ["run_node"]

_FIRST_CIDR: Final = "10.244.0.0/24"


async def run_node(client: Client, options: AgentOptions, machine: Options) -> None:
    """Run a node's pods until cancelled; pods run on, and the routes to others stay.

    Raises `NodeError`, ApiStatus, ClientError, OSError.
    """
    async with contextlib.AsyncExitStack() as stack:
        if owns_network():
            machine = await _with_cidr(client, options.name, machine)
        runtime = ProcessRuntime(machine)
        stack.push_async_callback(runtime.close)
        await runtime.start()
        manager = await stack.enter_async_context(Manager(client))
        directories = LocalDirectories(manager, options.name, options.annotations[ROOT])
        stack.push_async_callback(directories.stop)
        await directories.start()
        if runtime.machine.mode == "root":
            routes = NodeRoutes(manager, options.name, cluster_cidr=machine.cluster_cidr)
            stack.push_async_callback(routes.stop, keep=True)
            await routes.start()
        equipment = Equipment(client, runtime, options, approve=True)
        stack.push_async_callback(equipment.close)
        await equipment.start()
        agent = Agent(client, runtime, equipment.options, ports=equipment.ports())
        attaching = asyncio.create_task(equipment.attach(agent))
        stack.callback(attaching.cancel)
        await agent.run()


async def _with_cidr(client: Client, node: str, machine: Options) -> Options:
    """Have the pods' addresses be those that the Node says, so that others find the way to them."""
    found = await pod_cidr(client, node, machine.pod_cidr or _FIRST_CIDR)
    if machine.pod_cidr and found != machine.pod_cidr:
        raise InvalidConfig(
            f"pod_cidr {machine.pod_cidr}: node {node} has spec.podCIDR {found}, which cannot be changed; "
            "leave it out, or delete the Node first"
        )
    return msgspec.structs.replace(machine, pod_cidr=found)
