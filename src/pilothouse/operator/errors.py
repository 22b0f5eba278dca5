"""What can go wrong with an operator itself, but for what the server refuses or a reconciler raises.

OperatorError
├── NotRegistered     a type is used that its scheme does not know (a TypeError)
├── SchemeConflict    two types are registered for one kind (a ValueError)
├── BuildError        a controller is described in a way that cannot work (a ValueError)
├── Denied            raised by validators and mutators: the request is refused (`webhook_review`)
├── CertificateError  there is no certificate to serve webhooks with (`certificates`)
├── AlreadyOwned      an object has another controller, so it is not taken over
├── DefinitionError   a class cannot be the schema of a custom resource (a ValueError)
├── TerminalError     raised by reconcilers: trying again cannot help
└── NotConverged      a harness gave up waiting; the message names keys, counts and last errors (an AssertionError)
"""

from __future__ import annotations

__all__ = [
    "AlreadyOwned",
    "BuildError",
    "NotConverged",
    "NotRegistered",
    "OperatorError",
    "SchemeConflict",
    "TerminalError",
]


class OperatorError(Exception):
    """Root of the operator's own errors."""


class NotRegistered(OperatorError, TypeError):
    """A type is used that its scheme does not know; the message names the remedy."""


class SchemeConflict(OperatorError, ValueError):
    """Two types are registered for one kind."""


class BuildError(OperatorError, ValueError):
    """A controller is described in a way that cannot work."""


class AlreadyOwned(OperatorError):
    """An object has another controller; the message names both."""


class TerminalError(OperatorError):
    """Raise it from a reconciler where trying again cannot help: the object is left until it changes."""


class NotConverged(OperatorError, AssertionError):
    """What a harness waited for did not come about."""
