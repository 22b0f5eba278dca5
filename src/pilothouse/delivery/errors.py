"""What goes wrong in delivery.

DeliveryError
├── AnalysisInvalid   templates that make no analysis run
└── RouteInvalid      a route that takes no weights
"""

from __future__ import annotations

__all__ = ["AnalysisInvalid", "DeliveryError", "RouteInvalid"]


class DeliveryError(Exception):
    """The root: each message names the object, the field and the way out."""


class AnalysisInvalid(DeliveryError):
    """Templates and arguments that make no analysis run together."""


class RouteInvalid(DeliveryError):
    """A route that cannot carry the weights, headers or mirrors that a rollout wants."""
