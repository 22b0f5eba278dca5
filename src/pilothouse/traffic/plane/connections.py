"""Who is at the other end of a client's connection, and by which listener it came."""

from __future__ import annotations

from pilothouse.traffic.plane.fields import Forwarding

__all__ = ["Peer"]


class Peer:
    """One client connection, for all of its requests.

    address, port: of the client, by the PROXY header where there is one. local_port: the listeners'. listener: chosen
    by the name in the TLS greeting, empty before a request says its host. subject: of a verified client certificate.
    """

    __slots__ = (
        "address",
        "forwarding",
        "listener",
        "local_port",
        "port",
        "region",
        "scheme",
        "server_name",
        "subject",
    )

    def __init__(self, address: str, port: int, scheme: str, local_port: int, is_trusted: bool) -> None:
        self.address = address
        self.port = port
        self.scheme = scheme
        self.local_port = local_port
        self.listener = ""
        self.server_name = ""
        self.subject = ""
        self.region: str | None = None
        self.forwarding = Forwarding(address, scheme, local_port, is_trusted)
