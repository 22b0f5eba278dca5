"""What tests of operators share: a kind of our own, its definition, and control planes with a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.client import Client
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.structs import ObjectMeta, Resource, Struct
from pilothouse.kinds.structs.meta import Condition
from pilothouse.testing import ControlPlane

__all__ = ["Site", "SiteSpec", "SiteStatus", "definition", "plane_and_client", "site"]


class SiteSpec(Struct):
    """What a site shall be."""

    image: str = ""
    replicas: int = 1
    page: str = ""


class SiteStatus(Struct):
    """What a site is."""

    url: str = ""
    observed_generation: int = 0
    conditions: Sequence[Condition] = ()


class Site(Resource, group="operator.example.com", version="v1", plural="sites"):
    """A kind of our own."""

    spec: SiteSpec = SiteSpec()
    status: SiteStatus = SiteStatus()


def site(name: str = "web", namespace: str = "default", **spec: Any) -> Site:
    """Make a site."""
    return Site(metadata=ObjectMeta(name=name, namespace=namespace), spec=SiteSpec(**spec))


def definition() -> dict[str, Any]:
    """Return the custom resource definition of Site."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.operator.example.com"},
        "spec": {
            "group": "operator.example.com",
            "scope": "Namespaced",
            "names": {"plural": "sites", "singular": "site", "kind": "Site"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {"type": "object", "properties": dict.fromkeys(("spec", "status"), anything)}
                    },
                }
            ],
        },
    }


@asynccontextmanager
async def plane_and_client(
    *, clock: Clock | None = None, lifecycle: bool = False, crd: bool = True
) -> AsyncIterator[tuple[ControlPlane, Client]]:
    """Run a control plane that has sites, and a client of it."""
    async with (
        ControlPlane(clock=clock, lifecycle=lifecycle) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        if crd:
            await plane.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition())
            await plane.wait_for(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sites.operator.example.com",
                lambda found: any(
                    one["type"] == "Established" and one["status"] == "True"
                    for one in found.get("status", {}).get("conditions") or ()
                ),
            )
        yield plane, client
