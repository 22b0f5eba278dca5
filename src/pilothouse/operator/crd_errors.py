"""The error of definitions: a class that no schema can express, or facts that do not fit each other."""

from __future__ import annotations

from pilothouse.operator.errors import OperatorError

__all__ = ["DefinitionError"]


class DefinitionError(OperatorError, ValueError):
    """A class cannot become a CustomResourceDefinition; the message names class, field and the way out."""
