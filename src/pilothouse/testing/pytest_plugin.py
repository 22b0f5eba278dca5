"""Fixtures for pytest, there wherever Pilothouse is installed. Nothing is imported before one of them is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pilothouse.testing import BlockingPlane, ControlPlane

__all__ = ["control_plane", "kubeconfig", "namespace", "shared_control_plane"]


def _plane() -> Iterator[BlockingPlane]:
    from pilothouse.testing import ControlPlane  # noqa: PLC0415  # heavy, and most tests do without

    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def control_plane() -> Iterator[BlockingPlane]:
    """Run a fresh Kubernetes API for one test, in memory, with a thread of its own."""
    yield from _plane()


@pytest.fixture(scope="session")
def shared_control_plane() -> Iterator[BlockingPlane]:
    """Run one Kubernetes API for all tests of a session; give each test a `namespace` of its own."""
    yield from _plane()


@pytest.fixture
def kubeconfig(control_plane: BlockingPlane) -> str:
    """Return the path of a kubeconfig that leads to `control_plane` over HTTPS."""
    return control_plane.kubeconfig


@pytest.fixture
def namespace(control_plane: BlockingPlane) -> Iterator[str]:
    """Make a new namespace in `control_plane`, with its default service account; delete it after the test."""
    made = control_plane.call("POST", "/api/v1/namespaces", {"metadata": {"generateName": "test-"}})
    name: str = made["metadata"]["name"]
    if control_plane.plane.options.lifecycle:
        control_plane.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    yield name
    control_plane.call("DELETE", f"/api/v1/namespaces/{name}")


if find_spec("pytest_asyncio") is not None:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def async_control_plane() -> AsyncIterator[ControlPlane]:
        """Run a fresh Kubernetes API in the test's own event loop, where pytest-asyncio is installed."""
        from pilothouse.testing import ControlPlane  # noqa: PLC0415  # as above

        async with ControlPlane() as plane:
            yield plane

    __all__ += ["async_control_plane"]
