"""Services and their slices as they come by events, and which services changed since somebody asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilothouse.kinds.structs import EndpointSlice, Service

from .selection import SERVICE_NAME, NodeFacts, ServicePortRoute, routes

__all__ = ["ServiceTracker", "service_of"]


def service_of(found: EndpointSlice) -> str:
    """Return the key of the service that a slice is of, empty where it is of none."""
    name = found.metadata.labels.get(SERVICE_NAME)
    return f"{found.metadata.namespace}/{name}" if name else ""


class ServiceTracker:
    """The routes of all services by key, made anew only for those that changed."""

    def __init__(self, node: NodeFacts) -> None:
        self._node = node
        self._services: dict[str, Service] = {}
        self._slices: dict[str, dict[str, EndpointSlice]] = {}
        self._owners: dict[str, str] = {}
        self._routes: dict[str, tuple[ServicePortRoute, ...]] = {}
        self._dirty: set[str] = set()

    @property
    def routes(self) -> Mapping[str, Sequence[ServicePortRoute]]:
        """What `changes` made last, by service."""
        return self._routes

    def set_node(self, node: NodeFacts) -> bool:
        """Take what the node is now; return whether that changes anything."""
        if node == self._node:
            return False
        self._node = node
        self._dirty.update(self._services)
        return True

    def set_service(self, key: str, service: Service | None) -> bool:
        """Take a service, None when it is gone; return whether something may differ now."""
        before = self._services.get(key)
        if service is None:
            self._services.pop(key, None)
        else:
            self._services[key] = service
        if before is not None and service is not None and _same(before, service):
            return False
        self._dirty.add(key)
        return True

    def set_slice(self, name: str, found: EndpointSlice | None) -> bool:
        """Take a slice, None when it is gone; return whether something may differ now."""
        owner_before = self._owners.pop(name, "")
        owner = "" if found is None else service_of(found)
        before = self._slices.get(owner_before, {}).get(name)
        if owner_before and owner_before != owner:
            mine = self._slices[owner_before]
            mine.pop(name, None)
            if not mine:
                del self._slices[owner_before]
            self._dirty.add(owner_before)
        if owner and found is not None:
            self._owners[name] = owner
            self._slices.setdefault(owner, {})[name] = found
            if owner == owner_before and before is not None and _same_slice(before, found):
                return False
            self._dirty.add(owner)
        return bool(owner or owner_before)

    def changes(self) -> dict[str, tuple[tuple[ServicePortRoute, ...], tuple[ServicePortRoute, ...]]]:
        """Return the routes before and after of each service whose routes changed since the last call."""
        found = {}
        for key in self._dirty:
            service = self._services.get(key)
            before = self._routes.get(key, ())
            slices = [*self._slices.get(key, {}).values()]
            after = () if service is None else tuple(routes(service, slices, self._node))
            if before != after:
                found[key] = before, after
            if after:
                self._routes[key] = after
            else:
                self._routes.pop(key, None)
        self._dirty.clear()
        return found


def _same(one: Service, other: Service) -> bool:
    return (
        one.spec == other.spec
        and one.status.load_balancer == other.status.load_balancer
        and one.metadata.labels == other.metadata.labels
    )


def _same_slice(one: EndpointSlice, other: EndpointSlice) -> bool:
    return one.endpoints == other.endpoints and one.ports == other.ports and one.address_type == other.address_type
