"""What goes wrong in delivery.

DeliveryError
├── AnalysisInvalid   templates that make no analysis run
├── RouteInvalid      a route that takes no weights
├── NoticeError       a notification that cannot be made or delivered
└── VerbError         of `rollouts.verbs`: a verb that makes no sense for a rollout as it is
"""

from __future__ import annotations

__all__ = ["AnalysisInvalid", "DeliveryError", "NoticeError", "RouteInvalid"]


class DeliveryError(Exception):
    """The root: each message names the object, the field and the way out."""


class AnalysisInvalid(DeliveryError):
    """Templates and arguments that make no analysis run together."""


class RouteInvalid(DeliveryError):
    """A route that cannot carry the weights, headers or mirrors that a rollout wants."""


class NoticeError(DeliveryError):
    """A notification cannot be made or delivered; the message has no secrets in it."""
