"""Whether an aggregated API can be served: the Available condition of an APIService, computed from objects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pilothouse.apiserver.ports import Object
from pilothouse.kinds import conditions
from pilothouse.kinds.fielderrors import quote

__all__ = ["before_discovery", "discovery_path", "from_discovery", "is_available", "with_condition"]

_AVAILABLE: Final = "Available"


def _condition(status: str, reason: str, message: str) -> Object:
    return {"type": _AVAILABLE, "status": status, "reason": reason, "message": message}


def is_available(api_service: Object) -> bool:
    """Whether the condition says that the API can be served."""
    return conditions.is_true((api_service.get("status") or {}).get("conditions"), _AVAILABLE)


def before_discovery(
    api_service: Object, service: Object | None, slices: Sequence[Object], endpoints: Object | None = None
) -> Object | None:
    """Return the condition as far as objects tell it; None where its server has to be asked.

    endpoints: counts only where there are no slices.
    """
    reference = (api_service.get("spec") or {}).get("service")
    if not reference:
        return _condition("True", "Local", "Local APIServices are always available")
    name, namespace, port = reference["name"], reference["namespace"], reference.get("port") or 443
    where = f"service/{name} in {quote(namespace)}"
    if service is None:
        return _condition("False", "ServiceNotFound", f"{where} is not present")
    if service.get("spec", {}).get("type", "ClusterIP") != "ClusterIP":
        return None
    listed = [entry for entry in service["spec"].get("ports") or () if entry.get("port") == port]
    if not listed:
        return _condition("False", "ServicePortError", f"{where} is not listening on port {port}")
    if not slices and endpoints is None:
        return _condition("False", "EndpointsNotFound", f"cannot find endpointslices for {where}")
    port_name = listed[0].get("name") or ""
    ready = _any_ready(slices, port_name) if slices else _any_address(endpoints or {}, port_name)
    if ready:
        return None
    message = f"endpointslices for {where} have no addresses with port name {quote(port_name)}"
    return _condition("False", "MissingEndpoints", message)


def _any_ready(slices: Sequence[Object], port_name: str) -> bool:
    return any(
        any((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in found.get("endpoints") or ())
        and any((port.get("name") or "") == port_name and port.get("port") for port in found.get("ports") or ())
        for found in slices
    )


def _any_address(endpoints: Object, port_name: str) -> bool:
    return any(
        subset.get("addresses") and any((port.get("name") or "") == port_name for port in subset.get("ports") or ())
        for subset in endpoints.get("subsets") or ()
    )


def discovery_path(api_service: Object) -> str:
    """Return the path that the server of an aggregated API is asked for."""
    spec = api_service["spec"]
    if api_service["metadata"]["name"] == "v1.":
        return f"/api/{spec['version']}"
    return f"/apis/{spec.get('group', '')}/{spec['version']}"


def from_discovery(error: str) -> Object:
    """Return the condition after its server was asked; `error` is empty where it answered well."""
    if error:
        return _condition("False", "FailedDiscoveryCheck", error)
    return _condition("True", "Passed", "all checks passed")


def with_condition(status: Object | None, condition: Object, now: datetime) -> tuple[Object, bool]:
    """Return an APIService's status with the condition in it, and whether that changed anything."""
    known: dict[str, Any] = dict(status or {})
    listed, changed = conditions.set_condition(known.get("conditions"), condition, now)
    return {**known, "conditions": listed}, changed
