"""What can go wrong between a program and a Kubernetes API, but for what the server itself refuses.

    ClientError
    ├── ConfigError             a kubeconfig, an option or an environment that does not fit
    │   └── CredentialsError    credentials cannot be had: a plugin fails, a token file is gone
    ├── UnknownKind             a type that names no resource, or a kind that the server does not have
    ├── BadAnswer               the server answered something that is no answer to this request
    ├── StreamFailed            exec or port-forward ended otherwise than it should
    └── TransportError          the server cannot be reached or the connection broke (an OSError)
        ├── ConnectFailed       no connection came about: address, port, proxy, TLS
        └── TransportTimeout    no answer, or nothing on a stream, for too long (a TimeoutError)

What the server refuses is raised as `pilothouse.kinds.status.ApiStatus`, by its reason.
"""

from __future__ import annotations

__all__ = [
    "BadAnswer",
    "ClientError",
    "ConfigError",
    "ConnectFailed",
    "CredentialsError",
    "StreamFailed",
    "TransportError",
    "TransportTimeout",
    "UnknownKind",
]


class ClientError(Exception):
    """Root of the client's own errors."""


class ConfigError(ClientError, ValueError):
    """How to reach the server cannot be learned; the message names file, context, field and the way out."""


class CredentialsError(ConfigError):
    """Credentials cannot be had; the message says from where they should have come."""


class UnknownKind(ClientError, TypeError):
    """What was passed is no kind of resource, or the server does not serve it."""


class BadAnswer(ClientError, ValueError):
    """An answer cannot be read as what was asked for; the message names object and field."""


class StreamFailed(ClientError):
    """A stream of exec, attach or port-forward failed; the message is the server's where it gave one."""


class TransportError(ClientError, ConnectionError):
    """The connection broke before the answer was there."""


class ConnectFailed(TransportError):
    """No connection came about; nothing was sent."""


class TransportTimeout(TransportError, TimeoutError):
    """The server kept silent for longer than allowed; it may still have done what was asked."""
