"""Validation of claims for devices, their templates and classes, and the slices that tell which devices there are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.affinity import node_selector
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.conditions import conditions
from pilothouse.kinds.validation.metadata import check_annotations, labels
from pilothouse.kinds.validation.storage import driver_name

__all__ = [
    "claim",
    "claim_status",
    "claim_template",
    "claim_template_update",
    "claim_update",
    "device_class",
    "resource_slice",
    "resource_slice_update",
]

_REQUESTS = _CONSTRAINTS = _CONFIGS = _SELECTORS = _RESULTS = 32
_FIRST_AVAILABLE = 8
_RESERVED, _DEVICES, _ATTRIBUTES = 256, 128, 32
_EXPRESSION_BYTES, _PARAMETER_BYTES, _DATA_BYTES = 10 * 1024, 10 * 1024, 10 * 1024
_POOL_BYTES, _IDENTIFIER_BYTES, _VALUE_BYTES = 253, 32, 64
_CONDITIONS = 8
_ONE = "exactly one of `exactly` or `firstAvailable` is required"
_MODES = ("All", "ExactCount")
_EFFECTS = ("NoExecute", "NoSchedule")
_OPERATORS = ("Equal", "Exists")
_NAME_TEXT = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
_PLACES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_PLACE_TEXT = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
_NUMBER, _PRE = r"(0|[1-9]\d*)", r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_IS_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE}(\.{_PRE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?", re.ASCII
).fullmatch
Requests = dict[str, set[str]]
_Check = Callable[[ErrorList, Path, Any], None]


def _each(errors: ErrorList, at: Path, given: Sequence[Any], most: int, check: _Check) -> None:
    for position, item in enumerate(given):
        check(errors, at.index(position), item)
    if len(given) > most:
        errors.too_many(at, len(given), most)


def _unique(errors: ErrorList, at: Path, keys: Sequence[Hashable], field: str = "") -> None:
    for position, key in enumerate(keys):
        if key in keys[:position]:
            place = at.index(position)
            errors.duplicate(place.child(field) if field else place, key)


def claim(errors: ErrorList, obj: Object) -> None:
    """Check a ResourceClaim, its metadata apart."""
    _claim_spec(errors, SPEC, obj.get("spec") or {})


def claim_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ResourceClaim that replaces another: its spec stays."""
    checks.immutable(errors, SPEC, new.get("spec") or {}, old.get("spec") or {})
    claim(errors, new)


def claim_template(errors: ErrorList, obj: Object) -> None:
    """Check a ResourceClaimTemplate, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    meta: Object = spec.get("metadata") or {}
    at = SPEC.child("metadata")
    if found := meta.get("annotations"):
        check_annotations(errors, at.child("annotations"), found)
    if found := meta.get("labels"):
        labels(errors, at.child("labels"), found)
    for field, value in meta.items():
        if value and field not in {"annotations", "labels"}:
            errors.forbidden(at.child(field), "cannot be set")
    _claim_spec(errors, SPEC.child("spec"), spec.get("spec") or {})


def claim_template_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ResourceClaimTemplate that replaces another: its spec stays."""
    checks.immutable(errors, SPEC, new.get("spec") or {}, old.get("spec") or {})
    claim_template(errors, new)


def _request_names(spec: Object) -> Requests:
    return {
        request.get("name") or "": {each.get("name") or "" for each in items(request, "firstAvailable")}
        for request in items(spec.get("devices") or {}, "requests")
    }


def _claim_spec(errors: ErrorList, spec_at: Path, spec: Object) -> None:
    devices, at, known = spec.get("devices") or {}, spec_at.child("devices"), _request_names(spec)
    requests = items(devices, "requests")
    _each(errors, at.child("requests"), requests, _REQUESTS, _request)
    _unique(errors, at.child("requests"), [each.get("name") or "" for each in requests], "name")
    _each(
        errors,
        at.child("constraints"),
        items(devices, "constraints"),
        _CONSTRAINTS,
        lambda found, place, item: _constraint(found, place, item, known),
    )
    _each(
        errors,
        at.child("config"),
        items(devices, "config"),
        _CONFIGS,
        lambda found, place, item: _claim_config(found, place, item, known),
    )


def _request(errors: ErrorList, at: Path, request: Object) -> None:
    checks.name(errors, at.child("name"), request.get("name") or "", names.dns1123_label)
    first, exactly = items(request, "firstAvailable"), request.get("exactly")
    if first and exactly is not None:
        errors.invalid(at, None, f"{_ONE}, but multiple fields are set")
    elif first:
        _each(errors, at.child("firstAvailable"), first, _FIRST_AVAILABLE, _sub_request)
        _unique(errors, at.child("firstAvailable"), [each.get("name") or "" for each in first], "name")
    elif exactly is not None:
        _device_request(errors, at.child("exactly"), exactly)
    else:
        errors.required(at, _ONE)


def _sub_request(errors: ErrorList, at: Path, request: Object) -> None:
    checks.name(errors, at.child("name"), request.get("name") or "", names.dns1123_label)
    _device_request(errors, at, request)


def _device_request(errors: ErrorList, at: Path, request: Object) -> None:
    if checks.required(errors, at, request, "deviceClassName"):
        checks.name(errors, at.child("deviceClassName"), request["deviceClassName"], names.dns1123_subdomain)
    _each(errors, at.child("selectors"), items(request, "selectors"), _SELECTORS, _selector)
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            errors.invalid(at.child("count"), count, "must not be specified when allocationMode is 'All'")
    elif mode == "ExactCount":
        if count <= 0:
            errors.invalid(at.child("count"), count, "must be greater than zero")
    else:
        errors.not_supported(at.child("allocationMode"), mode, _MODES)
    for position, toleration in enumerate(items(request, "tolerations")):
        _toleration(errors, at.child("tolerations").index(position), toleration)


def _selector(errors: ErrorList, at: Path, selector: Object) -> None:
    expression = (selector.get("cel") or {}).get("expression") or ""
    if selector.get("cel") is None:
        errors.required(at.child("cel"))
    elif len(expression.encode()) > _EXPRESSION_BYTES:
        errors.too_long(at.child("cel", "expression"), _EXPRESSION_BYTES)


def _toleration(errors: ErrorList, at: Path, toleration: Object) -> None:
    key, value, effect = (toleration.get(field) or "" for field in ("key", "value", "effect"))
    if key:
        checks.name(errors, at.child("key"), key, names.label_key)
    operator = toleration.get("operator") or ""
    if operator == "Exists" and value:
        errors.invalid(at.child("value"), value, "must be empty for operator `Exists`")
    elif operator == "Equal":
        checks.name(errors, at.child("value"), value, names.label_value)
    checks.one_of(errors, at, toleration, "operator", _OPERATORS)
    if effect and effect not in _EFFECTS:
        errors.not_supported(at.child("effect"), effect, _EFFECTS)


def _references(errors: ErrorList, at: Path, given: Sequence[str], known: Requests) -> None:
    _each(errors, at, given, _REQUESTS, lambda found, place, name: _reference(found, place, name, known))
    _unique(errors, at, given)


def _reference(errors: ErrorList, at: Path, name: str, known: Requests) -> None:
    parts = name.split("/")
    if len(parts) > 2:
        errors.invalid(at, name, _NAME_TEXT)
        return
    for part in parts:
        checks.name(errors, at, part, names.dns1123_label)
    if parts[0] not in known or (len(parts) == 2 and parts[1] not in known[parts[0]]):
        errors.invalid(at, name, _NAME_TEXT)


def _constraint(errors: ErrorList, at: Path, constraint: Object, known: Requests) -> None:
    _references(errors, at.child("requests"), items(constraint, "requests"), known)
    match, distinct = constraint.get("matchAttribute"), constraint.get("distinctAttribute")
    if match is not None:
        _full_name(errors, at.child("matchAttribute"), match)
    elif distinct is not None:
        _full_name(errors, at.child("distinctAttribute"), distinct)
    else:
        errors.required(at.child("matchAttribute"))


def _claim_config(errors: ErrorList, at: Path, config: Object, known: Requests) -> None:
    _references(errors, at.child("requests"), items(config, "requests"), known)
    _config(errors, at, config)


def _config(errors: ErrorList, at: Path, config: Object) -> None:
    opaque, place = config.get("opaque"), at.child("opaque")
    if opaque is None:
        errors.required(place)
        return
    driver_name(errors, place.child("driver"), opaque.get("driver") or "")
    _raw(errors, place.child("parameters"), opaque.get("parameters"), _PARAMETER_BYTES)


def _raw(errors: ErrorList, at: Path, value: Any, most: int) -> None:
    if value is None:
        errors.required(at)
    elif len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > most:
        errors.too_long(at, most)
    elif not isinstance(value, dict):
        errors.invalid(at, "<value omitted>", "parameters must be a valid JSON object")


def _name(errors: ErrorList, at: Path, name: str) -> None:
    """Want the name of an attribute: an identifier of C, a domain before it or not."""
    if not name:
        errors.required(at, "name required")
        return
    domain, slash, rest = name.partition("/")
    if slash and "/" not in rest:
        if domain:
            driver_name(errors, at, domain)
        else:
            errors.required(at, "the domain must not be empty")
        if not rest:
            errors.required(at, "the name must not be empty")
            return
    identifier = rest if slash else name
    if len(identifier.encode()) > _IDENTIFIER_BYTES:
        errors.too_long(at, _IDENTIFIER_BYTES)
    for message in names.identifier(identifier):
        errors.type_invalid(at, identifier, message)


def _full_name(errors: ErrorList, at: Path, name: str) -> None:
    _name(errors, at, name)
    if name and "/" not in name:
        errors.invalid(at, name, "must include a domain")


def device_class(errors: ErrorList, obj: Object) -> None:
    """Check a DeviceClass, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    _each(errors, SPEC.child("selectors"), items(spec, "selectors"), _SELECTORS, _selector)
    _each(errors, SPEC.child("config"), items(spec, "config"), _CONFIGS, _config)


def _pool(errors: ErrorList, at: Path, name: str) -> None:
    if not name:
        errors.required(at)
        return
    if len(name.encode()) > _POOL_BYTES:
        errors.too_long(at, _POOL_BYTES)
    for part in name.split("/"):
        checks.name(errors, at, part, names.dns1123_subdomain)


def resource_slice(errors: ErrorList, obj: Object) -> None:
    """Check a ResourceSlice, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    driver_name(errors, SPEC.child("driver"), spec.get("driver") or "")
    pool, at = spec.get("pool") or {}, SPEC.child("pool")
    _pool(errors, at.child("name"), pool.get("name") or "")
    count, generation = pool.get("resourceSliceCount") or 0, pool.get("generation") or 0
    if count <= 0:
        errors.invalid(at.child("resourceSliceCount"), count, "must be greater than zero")
    if generation < 0:
        errors.invalid(at.child("generation"), generation, "must be greater than or equal to zero")
    _slice_place(errors, spec)
    devices = items(spec, "devices")
    _each(errors, SPEC.child("devices"), devices, _DEVICES, _device)
    _unique(errors, SPEC.child("devices"), [device.get("name") or "" for device in devices], "name")


def _slice_place(errors: ErrorList, spec: Object) -> None:
    given = [field for field in _PLACES if spec.get(field)]
    if name := spec.get("nodeName"):
        checks.name(errors, SPEC.child("nodeName"), name, names.dns1123_subdomain)
    if selector := spec.get("nodeSelector"):
        node_selector(errors, SPEC.child("nodeSelector"), selector)
        terms = list(items(selector, "nodeSelectorTerms"))
        if len(terms) != 1:
            place = SPEC.child("nodeSelector", "nodeSelectorTerms")
            errors.invalid(place, terms, "must have exactly one node selector term")
    if not given:
        errors.required(SPEC, _PLACE_TEXT)
    elif len(given) > 1:
        shown = ", ".join(f"`{field}`" for field in given)
        errors.invalid(SPEC, f"{{{shown}}}", f"{_PLACE_TEXT}, but multiple fields are set")


def _device(errors: ErrorList, at: Path, device: Object) -> None:
    checks.name(errors, at.child("name"), device.get("name") or "", names.dns1123_label)
    attributes, amounts = device.get("attributes") or {}, device.get("capacity") or {}
    for name, attribute in attributes.items():
        place = at.child("attributes").key(name)
        _name(errors, place, name)
        _attribute(errors, place, attribute or {})
    for name in amounts:
        _name(errors, at.child("capacity").key(name), name)
    if (both := len(attributes) + len(amounts)) > _ATTRIBUTES:
        text = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES}"
        errors.invalid(at, both, text)
    for position, taint in enumerate(items(device, "taints")):
        place, value = at.child("taints").index(position), taint.get("value") or ""
        checks.name(errors, place.child("key"), taint.get("key") or "", names.label_key)
        checks.name(errors, place.child("value"), value, names.label_value)
        checks.one_of(errors, place, taint, "effect", _EFFECTS)


def _attribute(errors: ErrorList, at: Path, attribute: Object) -> None:
    given = [field for field in ("bool", "int", "string", "version") if attribute.get(field) is not None]
    for field in given:
        value = attribute[field]
        if field == "version" and not _IS_VERSION(value):
            errors.invalid(at.child(field), value, "must be a string compatible with semver.org spec 2.0.0")
        if field in {"string", "version"} and len(value.encode()) > _VALUE_BYTES:
            errors.too_long(at.child(field), _VALUE_BYTES)
    if not given:
        errors.required(at, "exactly one value must be specified")
    elif len(given) > 1:
        errors.invalid(at, attribute, "exactly one value must be specified")


def resource_slice_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a ResourceSlice that replaces another: whose it is and where stays."""
    resource_slice(errors, new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    pools = [(part.get("pool") or {}).get("name") or "" for part in (spec, before)]
    checks.immutable(errors, SPEC.child("pool", "name"), *pools)
    for field in ("driver", "nodeName"):
        checks.immutable(errors, SPEC.child(field), spec.get(field) or "", before.get(field) or "")


def claim_status(errors: ErrorList, new: Object, old: Object) -> None:
    """Check the status of a ResourceClaim that replaces another: an allocation stays until it is taken away."""
    status, before, at = new.get("status") or {}, old.get("status") or {}, Path("status")
    reserved, place = items(status, "reservedFor"), at.child("reservedFor")
    _each(errors, place, reserved, _RESERVED, _consumer)
    _unique(errors, place, [each.get("uid") or "" for each in reserved], "uid")
    allocation = status.get("allocation")
    _device_statuses(errors, at.child("devices"), items(status, "devices"), allocation or {})
    if reserved and allocation is None:
        errors.forbidden(place, "may not be specified when `allocated` is not set")
    elif (new.get("metadata") or {}).get("deletionTimestamp") and any(
        each not in items(before, "reservedFor") for each in reserved
    ):
        text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errors.forbidden(place, text)
    if allocation is not None and before.get("allocation") is not None:
        checks.immutable(errors, at.child("allocation"), allocation, before["allocation"])
    elif allocation is not None:
        _allocation(errors, at.child("allocation"), allocation, _request_names(new.get("spec") or {}))


def _consumer(errors: ErrorList, at: Path, consumer: Object) -> None:
    for field in ("resource", "name", "uid"):
        checks.required(errors, at, consumer, field)


def _identity(device: Object) -> str:
    return "/".join(device.get(field) or "" for field in ("driver", "pool", "device"))


def _device_statuses(errors: ErrorList, at: Path, devices: Sequence[Object], allocation: Object) -> None:
    allocated = {_identity(each) for each in items(allocation.get("devices") or {}, "results")}
    for position, device in enumerate(devices):
        place = at.index(position)
        _device_identity(errors, place, device)
        if _identity(device) not in allocated:
            errors.invalid(place, _identity(device), "must be an allocated device in the claim")
        found = items(device, "conditions")
        if len(found) > _CONDITIONS:
            errors.too_many(place.child("conditions"), len(found), _CONDITIONS)
        conditions(errors, place.child("conditions"), found)
        if device.get("data") is not None:
            _raw(errors, place.child("data"), device["data"], _DATA_BYTES)
    _unique(errors, at, [_identity(device) for device in devices], "deviceID")


def _device_identity(errors: ErrorList, at: Path, device: Object) -> None:
    driver_name(errors, at.child("driver"), device.get("driver") or "")
    _pool(errors, at.child("pool"), device.get("pool") or "")
    checks.name(errors, at.child("device"), device.get("device") or "", names.dns1123_label)


def _allocation(errors: ErrorList, at: Path, allocation: Object, known: Requests) -> None:
    devices, place = allocation.get("devices") or {}, at.child("devices")

    def result(found: ErrorList, where: Path, item: Object) -> None:
        _reference(found, where.child("request"), item.get("request") or "", known)
        _device_identity(found, where, item)

    def config(found: ErrorList, where: Path, item: Object) -> None:
        checks.one_of(found, where, item, "source", ("FromClaim", "FromClass"))
        _claim_config(found, where, item, known)

    _each(errors, place.child("results"), items(devices, "results"), _RESULTS, result)
    _each(errors, place.child("config"), items(devices, "config"), 2 * _CONFIGS, config)
    if (selector := allocation.get("nodeSelector")) is not None:
        node_selector(errors, at.child("nodeSelector"), selector)
