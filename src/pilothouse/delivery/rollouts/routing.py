"""Which routes a rollout's traffic takes: the configuration of the Gateway API plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pilothouse.delivery.resources.rollouts import Rollout, TrafficRouting

from .names import GATEWAY_PLUGIN
from .view import RouteKey

__all__ = [
    "ROUTE_KINDS",
    "has_requests",
    "managed_names",
    "regions_name",
    "route_keys",
    "takes_headers",
    "unsupported_of",
]

ROUTE_KINDS: Final = ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute")
_KINDS: Final = dict(zip(ROUTE_KINDS, ("httpRoute", "grpcRoute", "tcpRoute", "tlsRoute"), strict=True))
_OF_REQUESTS: Final = frozenset({"HTTPRoute", "GRPCRoute"})
_OTHERS: Final = ("alb", "ambassador", "apisix", "app_mesh", "istio", "nginx", "smi", "traefik")
_SELECTORS: Final = ("httpRouteSelector", "grpcRouteSelector", "tcpRouteSelector", "tlsRouteSelector")


def _routing(rollout: Rollout) -> TrafficRouting | None:
    canary = rollout.spec.strategy.canary
    return None if canary is None else canary.traffic_routing


def _config(rollout: Rollout) -> Mapping[str, Any]:
    routing = _routing(rollout)
    found = None if routing is None else (routing.plugins or {}).get(GATEWAY_PLUGIN)
    return found if isinstance(found, Mapping) else {}


def route_keys(rollout: Rollout) -> list[RouteKey]:
    """Return the routes whose weights a rollout sets, each once."""
    config = _config(rollout)
    namespace = str(config.get("namespace") or rollout.metadata.namespace)
    return [*dict.fromkeys(RouteKey(kind, namespace, name) for kind, name, _ in _named(config))]


def has_requests(key: RouteKey) -> bool:
    """Whether a route is one of requests, which have headers and regions, and not one of connections."""
    return key.kind in _OF_REQUESTS


def takes_headers(rollout: Rollout, key: RouteKey) -> bool:
    """Whether header routes are made in a route: in those listed with `useHeaderRoutes`, in all where none has it."""
    listed = [each for each in _named(_config(rollout)) if each[0] in _OF_REQUESTS]
    has_none = not any(chosen for _, _, chosen in listed)
    return has_requests(key) and (has_none or any(each[:2] == (key.kind, key.name) and each[2] for each in listed))


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Give kind and name of each route, and whether header routes were asked for in it."""
    for kind, word in _KINDS.items():
        if config.get(word):
            yield kind, str(config[word]), True
        for each in config.get(f"{word}s") or ():
            if isinstance(each, Mapping) and each.get("name"):
                yield kind, str(each["name"]), bool(each.get("useHeaderRoutes"))


def managed_names(rollout: Rollout) -> list[str]:
    """Return the names of routes that steps may make, the strongest first."""
    canary, routing = rollout.spec.strategy.canary, _routing(rollout)
    if canary is None or routing is None:
        return []
    listed = [one.name for one in routing.managed_routes]
    steps = [each for step in canary.steps for each in (step.set_header_route, step.set_mirror_route)]
    return [*dict.fromkeys([*listed, *(each.name for each in steps if each is not None and each.name)])]


def regions_name(rollout: Rollout) -> str:
    """Return the name of the RegionWeights object of a rollout."""
    return f"{rollout.metadata.name}-regions"


def unsupported_of(rollout: Rollout) -> list[str]:
    """Return the fields of `trafficRouting` that are kept but not acted on, as paths below it."""
    routing = _routing(rollout)
    if routing is None:
        return []
    words = {"app_mesh": "appMesh"}
    found = [words.get(name, name) for name in _OTHERS if getattr(routing, name) is not None]
    found += [f"plugins[{name}]" for name in routing.plugins or {} if name != GATEWAY_PLUGIN]
    config = _config(rollout)
    return found + [f"plugins[{GATEWAY_PLUGIN}].{name}" for name in _SELECTORS if config.get(name)]
