"""By which names objects say that they are ours; light, for those who only look whether a gateway is wanted."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTROLLER", "DEFAULT_CLASS", "INGRESS_CONTROLLER", "OLD_CLASS"]

CONTROLLER: Final = "pilothouse.dev/gateway"
"""The controllerName of the GatewayClasses that are ours."""
INGRESS_CONTROLLER: Final = "pilothouse.dev/ingress"
"""The controller of the IngressClasses that are ours."""
DEFAULT_CLASS: Final = "ingressclass.kubernetes.io/is-default-class"
"""The annotation of an IngressClass by which ingresses without a class are of it."""
OLD_CLASS: Final = "kubernetes.io/ingress.class"
"""The annotation that says an ingress' class where its field does not."""
