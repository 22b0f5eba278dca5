"""From a written route to the answer of a worker: API server, controller and data plane together."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from pilothouse.client import Client
from pilothouse.kinds.structs import from_dict
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.controller import add_gateway
from pilothouse.traffic.control.install import CLASS
from pilothouse.traffic.control.kinds import Gateway, HTTPRoute
from pilothouse.traffic.gateway import Gateway as Plane
from pilothouse.traffic.gateway import GatewayOptions

SECONDS = 30.0


def redirects(status: int) -> list[dict[str, Any]]:
    redirect = {"hostname": "b.example", "statusCode": status}
    return [{"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]}]


def running(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def answer(address: str, port: int) -> int:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n")
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()


async def until(address: str, port: int, status: int) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                if await answer(address, port) == status:
                    return
            except (OSError, IndexError):
                pass
            await asyncio.sleep(0.01)


async def test_a_route_is_served_changed_and_gone() -> None:
    # An address of this process's own, so that the port is free whatever else runs.
    address, port = f"127.{100 + os.getpid() % 100}.{os.getpid() >> 8 & 255}.{1 + os.getpid() % 250}", 18_080
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        manager = Manager(client)
        workers = Plane(GatewayOptions(workers=1))
        add_gateway(manager, workers, Addresses((f"{address}/32",)), with_definitions=True)
        async with manager:
            listeners = [{"name": "http", "port": port, "protocol": "HTTP"}]
            door = {"metadata": {"name": "front"}, "spec": {"gatewayClassName": CLASS, "listeners": listeners}}
            await client.create(from_dict(door, Gateway))
            spec = {"parentRefs": [{"name": "front"}], "rules": redirects(302)}
            await client.create(from_dict({"metadata": {"name": "away"}, "spec": spec}, HTTPRoute))
            await until(address, port, 302)
            await client.patch(HTTPRoute, "away", {"spec": {"rules": redirects(301)}})
            await until(address, port, 301)
            await client.delete(HTTPRoute, "away")
            await until(address, port, 404)
            pids = workers.pids
        assert pids
        assert running(pids) == []
