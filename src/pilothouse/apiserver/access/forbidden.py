"""The refusal of a request, in the words of kube-apiserver."""

from __future__ import annotations

from typing import Final

from pilothouse.apiserver.ports import Attributes, Decision
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import Forbidden, forbidden

__all__ = ["forbidden_because", "forbidden_for"]

_NO_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""A browser that shows the message must not find markup in it."""


def forbidden_for(attributes: Attributes, decision: Decision) -> Forbidden:
    """Return the refusal of what a decision did not allow."""
    return forbidden_because(attributes, decision.reason)


def forbidden_because(attributes: Attributes, reason: str) -> Forbidden:
    """Return the refusal of a request for a reason, which may be empty."""
    text = _told(attributes).translate(_NO_HTML)
    return forbidden(attributes.group, attributes.resource, attributes.name, f"{text}: {reason}" if reason else text)


def _told(attributes: Attributes) -> str:
    subject = f"User {quote(attributes.user.name)} cannot {attributes.verb}"
    if not attributes.is_resource:
        return f"{subject} path {quote(attributes.path)}"
    resource = f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
    scope = f"in the namespace {quote(attributes.namespace)}" if attributes.namespace else "at the cluster scope"
    return f"{subject} resource {quote(resource)} in API group {quote(attributes.group)} {scope}"
