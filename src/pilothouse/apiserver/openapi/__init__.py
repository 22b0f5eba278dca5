"""The shape of the API as OpenAPI documents, in forms 2 and 3."""

from pilothouse.apiserver.openapi.documents import CustomSchemas
from pilothouse.apiserver.openapi.serving import OpenApi

__all__ = ["CustomSchemas", "OpenApi"]
