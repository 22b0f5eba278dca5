"""Whether a gateway is wanted: by whom it is, and what is told when that changes."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.apiserver.options import ServerOptions
from pilothouse.client import Client
from pilothouse.foundation.clock import SystemClock, Timer
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import Resource, from_dict
from pilothouse.operator import Manager
from pilothouse.platform import GATEWAY_OBJECTS
from pilothouse.platform.gatewaywatch import (
    Demand,
    Gateway,
    GatewayClass,
    Ingress,
    IngressClass,
    add_gateway_watch,
)
from pilothouse.testing import ControlPlane
from pilothouse.testing.caller import user_of
from pilothouse.traffic.control.names import CONTROLLER, DEFAULT_CLASS, INGRESS_CONTROLLER, OLD_CLASS
from support.apiserverkit import until

GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"


def obj(kind: type[Resource], name: str, annotations: dict[str, str] | None = None, **spec: Any) -> Resource:
    metadata: dict[str, Any] = {"name": name, "annotations": annotations or {}}
    if kind in {Gateway, Ingress}:
        metadata["namespace"] = "default"
    return from_dict({"metadata": metadata, "spec": spec}, kind)


OURS = obj(GatewayClass, "ours", controllerName=CONTROLLER)
THEIRS = obj(GatewayClass, "theirs", controllerName="example.com/other")
CLASS = obj(IngressClass, "ours", controller=INGRESS_CONTROLLER)
DEFAULT = obj(IngressClass, "ours", {DEFAULT_CLASS: "true"}, controller=INGRESS_CONTROLLER)


@pytest.mark.parametrize(
    ("objects", "is_wanted"),
    [
        ([], False),
        ([OURS], False),
        ([OURS, obj(Gateway, "a", gatewayClassName="ours")], True),
        ([obj(Gateway, "a", gatewayClassName="ours"), OURS], True),
        ([OURS, THEIRS, obj(Gateway, "a", gatewayClassName="theirs")], False),
        ([CLASS, obj(Ingress, "a", ingressClassName="ours")], True),
        ([CLASS, obj(Ingress, "a", ingressClassName="other")], False),
        ([CLASS, obj(Ingress, "a")], False),
        ([DEFAULT, obj(Ingress, "a")], True),
        ([CLASS, obj(Ingress, "a", {OLD_CLASS: "ours"})], True),
        ([DEFAULT, obj(Ingress, "a", {OLD_CLASS: "other"})], False),
    ],
)
def test_who_wants_one(objects: list[Resource], is_wanted: bool) -> None:
    demand = Demand()
    for each in objects:
        demand.put(each)
    assert demand.is_wanted == is_wanted


def test_what_is_changed_or_gone_counts_no_more() -> None:
    demand = Demand()
    for each in (OURS, DEFAULT, obj(Gateway, "a", gatewayClassName="ours"), obj(Ingress, "a")):
        demand.put(each)
        demand.put(each)
    found = [demand.is_wanted]
    demand.remove(Gateway, "default/a")
    found.append(demand.is_wanted)
    demand.put(CLASS)  # the default no more
    found.append(demand.is_wanted)
    assert found == [True, True, False]
    demand.put(obj(Gateway, "a", gatewayClassName="ours"))
    found = [demand.is_wanted]
    demand.put(obj(Gateway, "a", gatewayClassName="theirs"))
    found.append(demand.is_wanted)
    demand.put(obj(Gateway, "a", gatewayClassName="ours"))
    demand.remove(GatewayClass, "ours")
    demand.remove(Gateway, "default/unknown")
    found.append(demand.is_wanted)
    assert found == [True, False, False]


class _Patient(SystemClock):
    """A clock whose long timers a test lets run."""

    def __init__(self) -> None:
        self.long: list[Any] = []

    def call_later(self, seconds: float, callback: Any) -> Timer:
        if seconds == 30.0:
            self.long.append(callback)
        return super().call_later(seconds, callback)


async def test_it_is_told_at_first_and_at_each_change_as_the_controllers_user() -> None:
    options = ServerOptions(metrics=Metrics(), platform=True, bundled=(GATEWAY_OBJECTS,))
    clock, told = _Patient(), list[bool]()
    async with (
        ControlPlane(options=options) as plane,
        Client.for_transport(plane.transport, user_of("system:pilothouse:controllers")) as client,
    ):
        manager = Manager(client, clock=clock, metrics=Metrics())
        add_gateway_watch(manager, told.append)
        async with manager:
            await until(lambda: told == [False])
            backend = {"service": {"name": "web", "port": {"number": 80}}}
            await plane.call("POST", INGRESSES, {"metadata": {"name": "a"}, "spec": {"defaultBackend": backend}})
            await until(lambda: told == [False, True])
            listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
            door = {"metadata": {"name": "a"}, "spec": {"gatewayClassName": "pilothouse", "listeners": listeners}}
            await plane.call("POST", GATEWAYS, {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"} | door)
            await plane.call("DELETE", f"{INGRESSES}/a")
            await plane.call("DELETE", f"{GATEWAYS}/a")
            await until(lambda: bool(clock.long))
            assert told == [False, True]
            await until(lambda: bool([run() for run in clock.long]) and told == [False, True, False])
