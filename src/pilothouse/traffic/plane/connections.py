"""Who is at the other end of a client's connection, and by which listener it came."""

from __future__ import annotations

from pilothouse.traffic.plane.fields import Forwarding
from pilothouse.traffic.plane.scopes import Scope

__all__ = ["Peer"]


class Peer:
    """One client connection, for all of its requests.

    address, port: of the client, by the PROXY header where there is one. socket: the listeners' address and port.
    local_port: the port alone. listener: chosen
    by the name in the TLS greeting, empty before a request says its host. subject: of a verified client certificate.
    scope: what holds at its socket now.
    """

    __slots__ = (
        "address",
        "forwarding",
        "listener",
        "local_port",
        "port",
        "region",
        "scheme",
        "scope",
        "server_name",
        "socket",
        "subject",
    )

    def __init__(self, address: str, port: int, scheme: str, socket: tuple[str, int], scope: Scope) -> None:
        self.address = address
        self.port = port
        self.scheme = scheme
        self.socket = socket
        self.scope = scope
        self.local_port = socket[1]
        self.listener = ""
        self.server_name = ""
        self.subject = ""
        self.region: str | None = None
        self.forwarding = Forwarding(address, scheme, socket[1], scope.trusted.has(address))
