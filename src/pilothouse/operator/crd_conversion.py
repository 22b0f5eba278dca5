"""Who converts objects between the versions of a definition."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from pilothouse.operator.crd_errors import DefinitionError

__all__ = ["ConversionWebhook"]


@dataclass(frozen=True)
class ConversionWebhook:
    """A webhook that converts: a service (`NAMESPACE/NAME`) with path and port, or a URL.

    ca: certificates in PEM that its own is checked with; those of the machine where it is empty. review_versions: of
    the ConversionReview that it understands, the best first.
    """

    service: str = ""
    path: str = "/convert"
    port: int = 443
    url: str = ""
    ca: bytes = b""
    review_versions: tuple[str, ...] = ("v1",)

    def manifest(self) -> dict[str, Any]:
        """Return the conversion of a definition. Raises DefinitionError where it is not said who converts."""
        if bool(self.service) == bool(self.url):
            raise DefinitionError("a ConversionWebhook wants either service='NAMESPACE/NAME' or url='https://...'")
        client: dict[str, Any] = {"url": self.url}
        if self.service:
            namespace, slash, name = self.service.partition("/")
            if not (namespace and slash and name):
                raise DefinitionError(f"ConversionWebhook(service={self.service!r}) is not of the form NAMESPACE/NAME")
            client = {"service": {"namespace": namespace, "name": name, "path": self.path, "port": self.port}}
        elif not self.url.startswith("https://"):
            raise DefinitionError(f"ConversionWebhook(url={self.url!r}): servers call webhooks over https:// alone")
        if self.ca:
            client["caBundle"] = base64.b64encode(self.ca).decode()
        webhook = {"clientConfig": client, "conversionReviewVersions": list(self.review_versions)}
        return {"strategy": "Webhook", "webhook": webhook}
