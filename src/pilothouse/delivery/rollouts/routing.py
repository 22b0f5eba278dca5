"""Which routes a rollout's traffic takes: the configuration of the Gateway API plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pilothouse.delivery.resources.rollouts import Rollout, TrafficRouting

from .names import GATEWAY_PLUGIN
from .view import RouteKey

__all__ = ["managed_names", "regions_name", "route_keys", "unsupported_of"]

_KINDS: Final = {"HTTPRoute": "httpRoute", "GRPCRoute": "grpcRoute"}
_OTHERS: Final = ("alb", "ambassador", "apisix", "app_mesh", "istio", "nginx", "smi", "traefik")
_OTHER_ROUTES: Final = ("tcpRoute", "tlsRoute", "tcpRoutes", "tlsRoutes")
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
    return [*dict.fromkeys(RouteKey(kind, namespace, name) for kind, name in _named(config))]


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, word in _KINDS.items():
        if config.get(word):
            yield kind, str(config[word])
        for each in config.get(f"{word}s") or ():
            if isinstance(each, Mapping) and each.get("name"):
                yield kind, str(each["name"])


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
    return found + [f"plugins[{GATEWAY_PLUGIN}].{name}" for name in (*_OTHER_ROUTES, *_SELECTORS) if config.get(name)]
