"""Several authorizers as one: the first that allows or denies decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pilothouse.apiserver.ports import Attributes, Authorizer, Decision

__all__ = ["UnionAuthorizer"]

_NO_OPINION: Final = Decision(allowed=False)


class UnionAuthorizer:
    """Asks authorizers in order until one allows or denies outright; else tells what all of them said."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)

    def authorize(self, attributes: Attributes) -> Decision:
        """Decide."""
        told: list[Decision] | None = None
        for authorizer in self._authorizers:
            found = authorizer.authorize(attributes)
            if found.allowed or found.denied:
                return found
            if found.reason or found.error:
                told = [*(told or ()), found]
        if told is None:
            return _NO_OPINION
        reasons, errors = ((one.reason for one in told if one.reason), (one.error for one in told if one.error))
        return Decision(allowed=False, reason="\n".join(reasons), error="\n".join(errors))
