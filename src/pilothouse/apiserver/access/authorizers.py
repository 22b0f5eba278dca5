"""Several authorizers as one: the first that allows or denies decides."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.apiserver.ports import Attributes, Authorizer, Decision

__all__ = ["UnionAuthorizer"]


class UnionAuthorizer:
    """Asks authorizers in order until one allows or denies outright; else tells what all of them said."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)

    def authorize(self, attributes: Attributes) -> Decision:
        """Decide."""
        reasons: list[str] = []
        errors: list[str] = []
        for authorizer in self._authorizers:
            found = authorizer.authorize(attributes)
            if found.allowed or found.denied:
                return found
            if found.reason:
                reasons.append(found.reason)
            if found.error:
                errors.append(found.error)
        return Decision(allowed=False, reason="\n".join(reasons), error="\n".join(errors))
