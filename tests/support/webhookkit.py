"""What tests of operator webhooks share: a kind with three versions, reviews, managers that serve, and free ports."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ObjectMeta, Resource, Struct
from pilothouse.operator import Manager, Scheme, WebhookOptions, converts, custom_resource, install
from pilothouse.operator.crds import definition
from pilothouse.testing import ControlPlane

__all__ = [
    "CONVERSIONS",
    "Page",
    "PageV1",
    "PageV3",
    "free_port",
    "manager_of",
    "page",
    "plane_with_pages",
    "review",
]


class PageSpecV1(Struct):
    """Size as one text: `3x4`."""

    size: str = ""


class PageSpec(Struct):
    """Size as two numbers."""

    width: int = 0
    height: int = 0
    title: str = ""


class PageSpecV3(Struct):
    """Size as a list."""

    size: list[int] = []  # noqa: RUF012  structs take it for absence
    title: str = ""


class PageV1(Resource, group="hooks.example.com", version="v1", plural="pages", kind="Page"):
    """The oldest version."""

    spec: PageSpecV1 = PageSpecV1()


@custom_resource(storage=True)
class Page(Resource, group="hooks.example.com", version="v2", plural="pages"):
    """The hub, in which pages are stored."""

    spec: PageSpec = PageSpec()


class PageV3(Resource, group="hooks.example.com", version="v3", plural="pages", kind="Page"):
    """The newest version."""

    spec: PageSpecV3 = PageSpecV3()


@converts
def from_v1(old: PageV1) -> Page:
    """Read the size."""
    width, _, height = old.spec.size.partition("x")
    title = old.metadata.annotations.get("title", "")
    return Page(metadata=old.metadata, spec=PageSpec(width=int(width), height=int(height), title=title))


@converts
def to_v1(new: Page) -> PageV1:
    """Write the size; the title has no field there."""
    return PageV1(spec=PageSpecV1(size=f"{new.spec.width}x{new.spec.height}"))


@converts
def from_v3(old: PageV3) -> Page:
    """Take the list apart."""
    width, height = old.spec.size
    return Page(metadata=old.metadata, spec=PageSpec(width=width, height=height, title=old.spec.title))


def to_v3(new: Page) -> PageV3:
    """Put the list together; not declared, as `converted_by` does that."""
    spec = PageSpecV3(size=[new.spec.width, new.spec.height], title=new.spec.title)
    return PageV3(metadata=new.metadata, spec=spec)


CONVERSIONS = (from_v1, to_v1, from_v3, to_v3)


def page(name: str = "home", **spec: Any) -> Page:
    """Make a page."""
    return Page(metadata=ObjectMeta(name=name, namespace="default"), spec=PageSpec(**spec))


def review(
    obj: dict[str, Any] | None = None, old: dict[str, Any] | None = None, operation: str = "CREATE", **fields: Any
) -> bytes:
    """Write an AdmissionReview of a page as kube-apiserver does."""
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "hooks.example.com", "version": "v2", "kind": "Page"},
        "resource": {"group": "hooks.example.com", "version": "v2", "resource": "pages"},
        "requestKind": {"group": "hooks.example.com", "version": "v2", "kind": "Page"},
        "requestResource": {"group": "hooks.example.com", "version": "v2", "resource": "pages"},
        "name": "home",
        "namespace": "default",
        "operation": operation,
        "userInfo": {"username": "ada", "uid": "7", "groups": ["devs"], "extra": {"scopes": ["all"]}},
        "object": obj,
        "oldObject": old,
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions", "fieldManager": "kubectl"},
        **fields,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def manager_of(client: Client, port: int, *, options: dict[str, Any] | None = None, **others: Any) -> Manager:
    """Make a manager that serves webhooks on a port, which servers reach by URL unless the options say otherwise."""
    given: dict[str, Any] = {"name": "pages", "address": f"127.0.0.1:{port}", **(options or {})}
    if "service" not in given:
        given.setdefault("url", f"https://127.0.0.1:{port}")
    others.setdefault("metrics", Metrics())
    scheme = Scheme(PageV1, Page, PageV3)
    return Manager(client, scheme=scheme, webhooks=WebhookOptions(**given), **others)


@asynccontextmanager
async def plane_with_pages() -> AsyncIterator[tuple[ControlPlane, Client]]:
    """Run a control plane that has pages in three versions, and a client of it."""
    async with (
        ControlPlane(lifecycle=False) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        await install(client, definition(PageV1, Page, PageV3))
        yield plane, client
