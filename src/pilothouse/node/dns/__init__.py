"""Names of the cluster: services and pods by DNS, as the Kubernetes DNS specification 1.1.0 has them."""

from __future__ import annotations

__all__: list[str] = []
