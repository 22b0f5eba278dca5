"""Our own policies: what those of gateways say, and what the status of all of them does."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse.kinds.structs import Resource, Secret, Service
from pilothouse.traffic import config

from .conditions import CONTROLLER, Conditions, StatusOf
from .filters import seconds
from .kinds import Gateway, GRPCRoute, HTTPRoute, TrafficPolicy
from .kinds.common import GROUP
from .kinds.policies import TargetRef
from .snapshot import Key, Look, Snapshot, key_of

__all__ = ["of_gateways", "policy_statuses", "rate_of"]

_ROUTE: Final = ("rate_limit", "stickiness")
_SERVICE: Final = ("health_check", "outlier_ejection", "circuit_breaker", "slow_start")
_GATEWAY: Final = ("regions", "limits", "trusted_proxies", "proxy_protocol", "session_key_ref")
_KEY_BYTES: Final = 32
_ABOUT: Final[Mapping[tuple[str, str], tuple[type[Resource], tuple[str, ...]]]] = {
    (GROUP, "HTTPRoute"): (HTTPRoute, _ROUTE),
    (GROUP, "GRPCRoute"): (GRPCRoute, _ROUTE),
    (GROUP, "Gateway"): (Gateway, _GATEWAY),
    ("", "Service"): (Service, _SERVICE),
}


def policy_statuses(snapshot: Snapshot) -> list[StatusOf]:
    """Return what the status of each of our policies should say, one entry a target."""
    return [_status(snapshot, policy) for policy in snapshot.all(TrafficPolicy)]


def _status(snapshot: Snapshot, policy: TrafficPolicy) -> StatusOf:
    entries: list[Mapping[str, Any]] = []
    for target in policy.spec.target_refs:
        said = Conditions(policy.metadata.generation)
        _judge(snapshot, policy, target, said)
        said.default("Accepted", True, "Accepted")
        ref = {
            "group": target.group,
            "kind": target.kind,
            "name": target.name,
            "namespace": policy.metadata.namespace,
            **({"sectionName": target.section_name} if target.section_name else {}),
        }
        entries.append({"ancestorRef": ref, "controllerName": CONTROLLER, "conditions": said.listed()})
    return StatusOf(TrafficPolicy, *key_of(policy), shared=("ancestors", entries))


def _judge(snapshot: Snapshot, policy: TrafficPolicy, target: TargetRef, said: Conditions) -> None:
    known = _ABOUT.get((target.group, target.kind))
    if known is None:
        message = (
            f"policies for {target.group or 'core'}/{target.kind} are not supported; use Gateway, HTTPRoute, Service"
        )
        said.fail("Accepted", "Invalid", message)
        return
    kind, able = known
    if snapshot.get(kind, (policy.metadata.namespace, target.name)) is None:
        message = f"{target.kind} '{policy.metadata.namespace}/{target.name}' is not there"
        said.fail("Accepted", "TargetNotFound", message)
        return
    given = [name for name in (*_ROUTE, *_SERVICE, *_GATEWAY) if getattr(policy.spec, name)]
    odd = [name for name in given if name not in able]
    if odd and not any(name in able for name in given):
        said.fail(
            "Accepted", "Invalid", f"a {target.kind} can have none of {', '.join(odd)}; it can have {', '.join(able)}"
        )
        return
    of_kind = {"Gateway": _wrong_with_gateways, "HTTPRoute": _wrong_with_rate, "GRPCRoute": _wrong_with_rate}
    problem = of_kind[target.kind](snapshot, policy) if target.kind in of_kind else ""
    if problem:
        said.fail("Accepted", "Invalid", problem)


def _wrong_with_rate(snapshot: Snapshot, policy: TrafficPolicy) -> str:
    return rate_of(snapshot.get, policy)[1]


def rate_of(look: Look, policy: TrafficPolicy) -> tuple[config.RateLimit | None, str]:
    """Return the limit of a policy, and why its store cannot be used; each gateway then limits on its own."""
    given = policy.spec.rate_limit
    if given is None:
        return None, ""
    store, problem = str(given.store), ""
    if given.store_ref is not None:
        store, problem = _secret_of(look, policy, given.store_ref.name, "url")
        problem = problem and f"rateLimit.storeRef: {problem}"
    if store:
        from pilothouse.traffic.plane.ratestore import is_able, place_of  # noqa: PLC0415  only where there is one

        try:
            place_of(store)
            problem = "" if is_able() else "rateLimit.store: hiredis is not installed; pip install 'pilothouse[redis]'"
        except ValueError as error:
            problem = f"rateLimit.store: {error}"
    limit = config.RateLimit(
        rate=given.requests_per_second,
        burst=given.burst,
        by=given.by,
        store="" if problem else store,
        patience=seconds(given.store_timeout),
        away=given.away,
    )
    return limit, problem and f"{problem}; each gateway limits on its own"


def _secret_of(look: Look, policy: TrafficPolicy, name: str, part: str) -> tuple[str, str]:
    """Return a text out of a Secret of a policy's namespace, or what is wrong."""
    namespace = policy.metadata.namespace
    secret = look(Secret, (namespace, name))
    if secret is None:
        return "", f"Secret '{namespace}/{name}' is not there"
    try:
        found = secret.data[part].decode().strip()
    except (KeyError, UnicodeDecodeError):
        found = ""
    return found, "" if found else f"Secret '{namespace}/{name}' has no text '{part}'"


def of_gateways(snapshot: Snapshot, gateways: set[Key]) -> tuple[dict[Key, config.Settings], tuple[str, ...]]:
    """Return what policies say of gateways, and listeners that a PROXY header precedes, by how their names begin.

    Of several policies for one gateway the oldest counts, field by field.
    """
    settings: dict[Key, config.Settings] = {}
    proxied: list[str] = []
    for policy in reversed(snapshot.all(TrafficPolicy)):
        namespace = policy.metadata.namespace
        for each in policy.spec.target_refs:
            key = (namespace, each.name)
            if (each.group, each.kind) != (GROUP, "Gateway") or key not in gateways:
                continue
            wrong = _wrong_with_gateways(snapshot, policy)
            found = _settings(snapshot, policy) if not wrong or wrong.startswith("sessionKeyRef") else {}
            if found:
                settings[key] = msgspec.structs.replace(settings.get(key, config.Settings()), **found)
            if policy.spec.proxy_protocol:
                proxied += [f"{namespace}/{each.name}/", f"{namespace}/{each.name}+"]
    return settings, tuple(proxied)


def _settings(snapshot: Snapshot, policy: TrafficPolicy) -> dict[str, Any]:
    """Return the fields of a gateway's settings that a policy gives."""
    spec, found = policy.spec, dict[str, Any]()
    if spec.regions is not None:
        found["regions"] = config.RegionTable(
            header=spec.regions.header,
            trusted=tuple(spec.regions.trusted),
            ranges=tuple((each.cidr, each.region) for each in spec.regions.ranges),
            default=spec.regions.default,
        )
    if spec.limits is not None:
        found["limits"] = config.Limits(
            body_bytes=spec.limits.body_bytes,
            head_bytes=spec.limits.head_bytes,
            connections=spec.limits.connections,
        )
    if spec.trusted_proxies:
        found["trusted_proxies"] = tuple(spec.trusted_proxies)
    keys, _ = _keys_of(snapshot, policy)
    if keys:
        found["session_keys"] = keys
    return found


def _keys_of(snapshot: Snapshot, policy: TrafficPolicy) -> tuple[tuple[bytes, ...], str]:
    """Return the keys that a policy's Secret has, and what is wrong with it."""
    ref = policy.spec.session_key_ref
    if ref is None:
        return (), ""
    namespace = policy.metadata.namespace
    secret = snapshot.get(Secret, (namespace, ref.name))
    if secret is None:
        return (), f"sessionKeyRef: Secret '{namespace}/{ref.name}' is not there"
    keys = tuple(secret.data[name] for name in ("key", "previous") if len(secret.data.get(name, b"")) >= _KEY_BYTES)
    if not keys or len(secret.data.get("key", b"")) < _KEY_BYTES:
        return (), f"sessionKeyRef: Secret '{namespace}/{ref.name}' has no 'key' of {_KEY_BYTES} bytes and more"
    return keys, ""


def _wrong_with_gateways(snapshot: Snapshot, policy: TrafficPolicy) -> str:
    """Return why a policy for a gateway cannot be carried out; the gateway then goes by its defaults for that."""
    regions = policy.spec.regions
    ranges = [("trustedProxies", each) for each in policy.spec.trusted_proxies]
    if regions is not None:
        ranges += [("regions.trusted", each) for each in regions.trusted]
        ranges += [("regions.ranges", each.cidr) for each in regions.ranges]
    for field, text in ranges:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            return f"{field}: '{text}' is no range of addresses; write such as 10.0.0.0/8"
    return _keys_of(snapshot, policy)[1]
