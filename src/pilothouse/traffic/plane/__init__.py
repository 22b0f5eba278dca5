"""The data plane: worker processes that forward requests and connections, each on an epoll reactor of its own.

Pure parts know no sockets: `heads` and `chunks` (HTTP/1.1), `fields` (what a proxy changes), `proxyprotocol`,
`greeting` (the name in a TLS greeting), `balancing`. Around them: `reactor`, `wires` (connections), `bodies` (how
bytes move, by splice where they can), `client1` and `server1` (both sides of HTTP/1.1), `client2` and `server2` (of
HTTP/2), `exchange` (one request from its head to its numbers), `tunnels` (connections passed on as they are), `worker`.
"""

from __future__ import annotations

__all__: list[str] = []
