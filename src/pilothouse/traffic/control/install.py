"""Put the definitions of the gateway's kinds, and its classes, into a cluster."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.operator import install as install_definitions

from .kinds import definitions
from .names import CONTROLLER, DEFAULT_CLASS, INGRESS_CONTROLLER

__all__ = ["CLASS", "classes", "install"]

CLASS: Final = "pilothouse"
"""The name of the classes that are made: of gateways and of ingresses."""


def classes(*, is_default: bool = False) -> list[dict[str, Any]]:
    """Return the GatewayClass and the IngressClass, as JSON has them.

    is_default: whether ingresses that name no class are of ours.
    """
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": CONTROLLER, "description": "Gateways of Pilothouse"},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS, **({"annotations": {DEFAULT_CLASS: "true"}} if is_default else {})},
            "spec": {"controller": INGRESS_CONTROLLER},
        },
    ]


async def install(client: Client, *, with_classes: bool = True) -> None:
    """Apply the definitions, wait until they are served, and apply the classes. Raises as `operator.install`."""
    await asyncio.gather(*(install_definitions(client, each) for each in definitions()))
    for each in classes() if with_classes else ():
        await client.dynamic(each["apiVersion"], each["kind"]).apply(each, force=True)
