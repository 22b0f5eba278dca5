"""What a definition says of its conversion webhook, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["check_conversion"]

_KNOWN = ("v1", "v1beta1")
_WEBHOOK_ONLY = "should not be set when strategy is not set to Webhook"


def check_conversion(errors: ErrorList, conversion: Mapping[str, Any], at: Path) -> None:
    """Check the conversion of a definition, defaults filled in."""
    if not conversion:
        return
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook") or {}
    if not strategy:
        errors.required(at.child("strategy"))
    elif strategy not in {"None", "Webhook"}:
        errors.not_supported(at.child("strategy"), strategy, ("None", "Webhook"))
    client, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    place = at.child("webhookClientConfig")
    if strategy != "Webhook":
        if client is not None:
            errors.forbidden(place, _WEBHOOK_ONLY)
        if versions:
            errors.forbidden(at.child("conversionReviewVersions"), _WEBHOOK_ONLY)
        return
    if client is None:
        errors.required(place, "required when strategy is set to Webhook")
    elif (client.get("url") is None) == (client.get("service") is None):
        errors.required(place, "exactly one of url or service is required")
    elif client.get("url") is not None:
        _url(errors, client["url"], place.child("url"))
    else:
        _service(errors, client["service"], place.child("service"))
    _review_versions(errors, versions, at.child("conversionReviewVersions"))


def _url(errors: ErrorList, text: str, at: Path) -> None:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(text)
    except ValueError as error:
        errors.required(at, f"url must be a valid URL: {error}{form}")
        return
    if parts.scheme != "https":
        errors.invalid(at, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not parts.netloc:
        errors.invalid(at, parts.netloc, f"host must be specified{form}")
    if "@" in parts.netloc:
        errors.invalid(at, parts.netloc.rpartition("@")[0], "user information is not permitted in the URL")
    if parts.fragment:
        errors.invalid(at, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        errors.invalid(at, parts.query, "query parameters are not permitted in the URL")


def _service(errors: ErrorList, service: Mapping[str, Any], at: Path) -> None:
    for name in ("name", "namespace"):
        if not service.get(name):
            errors.required(at.child(name), f"service {name} is required")
    for message in names.port_number(service.get("port") or 443):
        errors.invalid(at.child("port"), service.get("port"), f"port is not valid: {message}")
    path = service.get("path")
    if path is None:
        return
    if path in {"", "/"} or not path.startswith("/"):
        if path != "/":
            errors.invalid(at.child("path"), path, "must start with a '/'")
        return
    for position, segment in enumerate(path.removeprefix("/").removesuffix("/").split("/")):
        if not segment:
            errors.invalid(at.child("path"), path, f"segment[{position}] may not be empty")
        elif messages := names.dns1123_subdomain(segment):
            errors.invalid(at.child("path"), path, f"segment[{position}]: {messages[0]}")


def _review_versions(errors: ErrorList, versions: list[str], at: Path) -> None:
    if not versions:
        errors.required(at)
        return
    seen: set[str] = set()
    for position, version in enumerate(versions):
        if version in seen:
            errors.invalid(at.index(position), version, "duplicate version")
            continue
        seen.add(version)
        errors.invalid_each(at.index(position), version, names.dns1035_label(version))
    if not seen & set(_KNOWN):
        errors.invalid(at, versions, f"must include at least one of {', '.join(_KNOWN)}")
