"""Objects in memory as a `View`, and small servers to be proxied to: what the tests of proxying share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from pilothouse.apiserver.http.server import HttpServer
from pilothouse.apiserver.ports import Object
from pilothouse.foundation import tls


class FakeView:
    """Holds what it is given."""

    def __init__(self, **objects: Sequence[Object]) -> None:
        names = {"slices": "endpointslices.discovery.k8s.io", "api_services": "apiservices.apiregistration.k8s.io"}
        self.objects = {names.get(name, name): list(found) for name, found in objects.items()}
        self.versions = 0
        self.subscribers: dict[str, list[Callable[[Object | None, Object | None], None]]] = {}

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        for found in self.list(resource, namespace):
            if found["metadata"]["name"] == name:
                return found
        return None

    def list(self, resource: str, namespace: str = "") -> Sequence[Object]:
        return [
            found
            for found in self.objects.get(resource, ())
            if not namespace or found["metadata"].get("namespace", "") == namespace
        ]

    def version(self, resource: str) -> int:
        return self.versions

    def subscribe(self, resource: str, changed: Callable[[Object | None, Object | None], None]) -> Callable[[], None]:
        self.subscribers.setdefault(resource, []).append(changed)

        def stop() -> None:
            self.subscribers[resource].remove(changed)
            if not self.subscribers[resource]:
                del self.subscribers[resource]

        return stop

    def notify(self, resource: str, changed: Callable[[str, str], None]) -> Callable[[], None]:
        def told(old: Object | None, new: Object | None) -> None:
            metadata = (new or old or {})["metadata"]
            changed(metadata.get("namespace", ""), metadata["name"])

        return self.subscribe(resource, told)

    def put(self, resource: str, new: Object) -> None:
        """Add or replace an object and tell the subscribers."""
        old = self.get(resource, new["metadata"].get("namespace", ""), new["metadata"]["name"])
        self._replace(resource, old, new)

    def remove(self, resource: str, name: str) -> None:
        """Remove an object and tell the subscribers."""
        self._replace(resource, self.get(resource, "", name), None)

    def _replace(self, resource: str, old: Object | None, new: Object | None) -> None:
        kept = [found for found in self.objects.get(resource, ()) if found is not old]
        self.objects[resource] = kept if new is None else [*kept, new]
        self.versions += 1
        for changed in list(self.subscribers.get(resource, ())):
            changed(old, new)


def make_service(name: str, ports: Sequence[Object], kind: str = "ClusterIP") -> Object:
    """Return a service of namespace `d`."""
    return {"metadata": {"name": name, "namespace": "d"}, "spec": {"type": kind, "ports": list(ports)}}


def endpoint_slice(
    service: str, endpoints: Sequence[tuple[str, str, bool]], ports: Sequence[tuple[str, int]], family: str = "IPv4"
) -> Object:
    """Return a slice of namespace `d`; endpoints are address, pod (or none) and whether ready."""
    return {
        "metadata": {
            "name": f"{service}-{family}",
            "namespace": "d",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": ready},
                **({"targetRef": {"kind": "Pod", "name": pod, "namespace": "d"}} if pod else {}),
            }
            for address, pod, ready in endpoints
        ],
        "ports": [{"name": name, "port": port} for name, port in ports],
    }


@contextlib.asynccontextmanager
async def http_server(handler: Any, context: Any = None) -> AsyncIterator[int]:
    """Serve on loopback; give the port."""
    server = HttpServer(handler, tls=context)
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.close(grace=0.2)


@contextlib.asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[int]:
    """Serve bytes on loopback; give the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Closed transports let go of their sockets in the loop's next turn.
        await asyncio.sleep(0)


class Authority:
    """A certificate authority whose certificates are files of a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._ca = tls.make_ca(name)
        self.file = directory / f"{name}.crt"
        self.file.write_bytes(self._ca.certificate)
        self.certificate = self._ca.certificate

    def issue(self, name: str, *hosts: str) -> tuple[str, str]:
        """Issue for a server where hosts are given, else for a client; return the files."""
        issued = tls.issue(self._ca, name, hosts=hosts, server=bool(hosts), client=not hosts)
        files = str(self._directory / f"{name}.crt"), str(self._directory / f"{name}.key")
        tls.write(issued, *files)
        return files
