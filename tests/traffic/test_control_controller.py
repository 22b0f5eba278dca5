"""The controller against a control plane in this process: what the data plane is told, and what statuses say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.kinds.status import Invalid
from pilothouse.kinds.structs import EndpointSlice, Namespace, ObjectMeta, Service
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from pilothouse.traffic.config import Configuration
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.controller import TrafficController, add_gateway
from pilothouse.traffic.control.install import CLASS, install
from pilothouse.traffic.control.kinds import Gateway, GatewayClass, HTTPRoute, RegionWeights
from support.gatewayobjects import gateway, listener, route, service, slices, weights

SECONDS = 20.0


class Told:
    """A data plane that keeps what it is told. refused: a port that it cannot have."""

    def __init__(self) -> None:
        self.configurations: list[Configuration] = []
        self.refused = 0
        self.changed = asyncio.Event()

    async def push(self, configuration: Configuration) -> None:
        for each in configuration.listeners:
            if each.port == self.refused:
                raise ValueError(f"listener '{each.name}': port {each.port} cannot be had: in use")
        self.configurations.append(configuration)
        self.changed.set()

    async def until(self, test: Callable[[Configuration], bool]) -> Configuration:
        async with asyncio.timeout(SECONDS):
            while not self.configurations or not test(self.configurations[-1]):
                self.changed.clear()
                await self.changed.wait()
        return self.configurations[-1]


class Rig:
    def __init__(self, client: Client, told: Told, controller: TrafficController) -> None:
        self.client = client
        self.told = told
        self.controller = controller

    async def until(self, kind: Any, name: str, test: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(SECONDS):
            async for event in self.client.watch(
                kind, "shop" if kind.namespaced else None, fields={"metadata.name": name}, resume=True
            ):
                if event.object is not None and test(event.object):
                    return event.object
        raise AssertionError(name)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install(client)
        await client.create(Namespace(metadata=ObjectMeta(name="shop")))
        manager, told = Manager(client), Told()
        controller = add_gateway(manager, told, Addresses(("127.5.0.0/24",)))
        async with manager:
            yield Rig(client, told, controller)


def said(obj: Any, kind: str) -> str:
    found = [each for each in obj.status.conditions if each.type == kind]
    return found[0].status if found else ""


def plain(obj: Any) -> Any:
    from pilothouse.kinds.structs import from_dict, to_dict

    tree = to_dict(obj)
    tree["metadata"] = {
        name: tree["metadata"][name] for name in ("name", "namespace", "labels") if name in tree["metadata"]
    }
    return from_dict(tree, type(obj))


async def test_a_gateway_a_route_and_its_endpoints_from_nothing_to_served() -> None:
    async with rig() as found:
        accepted = await found.until(GatewayClass, CLASS, lambda obj: bool(obj.status.conditions))
        assert said(accepted, "Accepted") == "True"
        await found.client.create(plain(gateway(gatewayClassName=CLASS)))
        await found.client.create(plain(route()))
        await found.client.create(plain(service()))
        await found.client.create(plain(slices("10.0.0.1")))
        told = await found.told.until(lambda each: bool(each.backends) and bool(each.backends["shop/web:80"].endpoints))
        assert told.routes[0].name == "shop/web"
        door = await found.until(
            Gateway, "front", lambda obj: bool(obj.status.listeners) and obj.status.listeners[0].attached_routes == 1
        )
        assert said(door, "Programmed") == "True"
        assert door.status.addresses[0].value == "127.5.0.1"
        made = await found.until(
            HTTPRoute,
            "web",
            lambda obj: (
                bool(obj.status.parents) and {each.status for each in obj.status.parents[0].conditions} == {"True"}
            ),
        )
        assert made.status.parents[0].conditions[0].observed_generation == 1


async def test_endpoints_alone_are_a_configuration() -> None:
    async with rig() as found:
        for each in (gateway(gatewayClassName=CLASS), route(), service(), slices("10.0.0.1")):
            await found.client.create(plain(each))
        await found.told.until(lambda each: bool(each.backends) and bool(each.backends["shop/web:80"].endpoints))
        patch = {"endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.7"]}]}
        await found.client.patch(EndpointSlice, "web-1", patch, "shop")
        told = await found.told.until(lambda each: len(each.backends["shop/web:80"].endpoints) == 2)
        assert [each.generation for each in found.told.configurations] == list(range(1, told.generation + 1))
        await found.client.delete(EndpointSlice, "web-1", "shop")
        await found.told.until(lambda each: not each.backends["shop/web:80"].endpoints)


async def test_a_port_that_cannot_be_had_is_said_and_the_others_are_served() -> None:
    async with rig() as found:
        found.told.refused = 81
        await found.client.create(plain(gateway(listener(), listener("two", 81), gatewayClassName=CLASS)))
        told = await found.told.until(lambda each: bool(each.listeners))
        assert [each.port for each in told.listeners] == [80]
        door = await found.until(Gateway, "front", lambda obj: len(obj.status.listeners) == 2)
        reasons = {each.type: each.reason for each in door.status.listeners[1].conditions}
        assert reasons["Accepted"] == "PortUnavailable"


async def test_who_undoes_a_status_gets_it_again_and_others_entries_stay() -> None:
    async with rig() as found:
        for each in (gateway(gatewayClassName=CLASS), route(), service()):
            await found.client.create(plain(each))
        await found.until(HTTPRoute, "web", lambda obj: len(obj.status.parents) == 1)
        theirs = {
            "parentRef": {"name": "else"},
            "controllerName": "example.com/other",
            "conditions": [
                {
                    "type": "Accepted",
                    "status": "True",
                    "reason": "Accepted",
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        }
        await found.client.patch(HTTPRoute, "web", {"status": {"parents": [theirs]}}, "shop", subresource="status")
        both = await found.until(HTTPRoute, "web", lambda obj: len(obj.status.parents) == 2)
        assert [each.controller_name for each in both.status.parents] == ["example.com/other", "pilothouse.dev/gateway"]
        await found.client.patch(HTTPRoute, "web", {"spec": {"parentRefs": []}}, "shop")
        left = await found.until(HTTPRoute, "web", lambda obj: len(obj.status.parents) == 1)
        assert left.status.parents[0].controller_name == "example.com/other"


async def test_statuses_that_take_long_hold_up_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, free = asyncio.Event(), asyncio.Event()
    write = TrafficController._write_one

    async def slow(self: TrafficController, key: Any) -> None:
        begun.set()
        await free.wait()
        await write(self, key)

    monkeypatch.setattr(TrafficController, "_write_one", slow)
    async with rig() as found:
        for each in (gateway(gatewayClassName=CLASS), route(), service()):
            await found.client.create(plain(each))
        await asyncio.wait_for(begun.wait(), SECONDS)
        await found.told.until(lambda each: bool(each.routes) and bool(each.backends))
        await found.client.patch(HTTPRoute, "web", {"spec": {"hostnames": ["a.example"]}}, "shop")
        await found.told.until(lambda each: each.routes[0].hostnames == ("a.example",))
        assert not found.controller.is_idle
        free.set()
        await found.until(
            HTTPRoute,
            "web",
            lambda obj: bool(obj.status.parents) and obj.status.parents[0].conditions[0].observed_generation == 2,
        )


async def test_what_changes_nothing_pushes_nothing() -> None:
    async with rig() as found:
        for each in (gateway(gatewayClassName=CLASS), route(), service()):
            await found.client.create(plain(each))
        await found.told.until(lambda each: bool(each.routes) and bool(each.backends))
        before = len(found.told.configurations)
        await found.client.create(plain(service("unrelated")))
        await found.client.patch(Service, "unrelated", {"metadata": {"labels": {"a": "b"}}}, "shop")
        await found.client.create(plain(service("last")))
        await found.client.patch(HTTPRoute, "web", {"spec": {"hostnames": ["a.example"]}}, "shop")
        await found.told.until(lambda each: each.routes[0].hostnames == ("a.example",))
        assert len(found.told.configurations) == before + 1


@pytest.mark.parametrize(
    "spec",
    [
        {"matches": [{"path": {"type": "Exact", "value": "no-slash"}}]},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/a//b"}}]},
        {"filters": [{"type": "CORS"}]},
        {"filters": [{"type": "RequestRedirect", "requestRedirect": {}}], "backendRefs": [{"name": "a", "port": 1}]},
        {"backendRefs": [{"name": "no-port"}]},
        {"timeouts": {"request": "1s", "backendRequest": "2s"}},
        {"retry": {"attempts": 0}},
    ],
)
async def test_servers_refuse_routes_that_make_no_sense(spec: dict[str, Any]) -> None:
    async with rig() as found:
        with pytest.raises(Invalid):
            await found.client.create(plain(route(spec)))


async def test_servers_fill_in_defaults_and_keep_weights_by_region() -> None:
    async with rig() as found:
        bare = {"metadata": {"name": "bare"}, "spec": {"parentRefs": [{"name": "front"}]}}
        handle = found.client.dynamic("gateway.networking.k8s.io/v1", "HTTPRoute")
        made = await handle.create({"apiVersion": handle_version(), "kind": "HTTPRoute", **bare}, "shop")
        assert made["spec"]["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
        share = {"regions": ["cn-east"], "backends": [{"name": "web", "weight": 0}]}
        await found.client.create(plain(weights(share)))
        assert (await found.client.get(RegionWeights, "east", "shop")).spec.weights[0].backends[0].weight == 0
        older = await found.client.dynamic("gateway.networking.k8s.io/v1beta1", "HTTPRoute").get("bare", "shop")
        assert older["spec"] == made["spec"]


def handle_version() -> str:
    return "gateway.networking.k8s.io/v1"
