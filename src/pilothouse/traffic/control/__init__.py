"""The control side: Gateway API and Ingress become a configuration of the data plane, and statuses."""

from __future__ import annotations

__all__: list[str] = []
