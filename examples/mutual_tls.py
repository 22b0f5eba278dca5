"""Two programs that trust each other: a certificate authority, a server and a client, in one file and one second."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from pilothouse.foundation import tls


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet the client by the name in its certificate."""
    certificate = writer.get_extra_info("peercert")
    name = dict(field[0] for field in certificate["subject"])["commonName"]
    line = await reader.readline()
    writer.write(f"hello {name}, you said {line.decode()}".encode())
    await writer.drain()
    writer.close()


async def main() -> None:
    """Make the certificates, serve, and ask once."""
    with tempfile.TemporaryDirectory() as directory:
        at = Path(directory)
        ca = tls.make_ca("example ca")
        tls.write(ca, str(at / "ca.crt"), str(at / "ca.key"))
        server = tls.issue(ca, "server", hosts=["localhost"], server=True)
        tls.write(server, str(at / "server.crt"), str(at / "server.key"))
        client = tls.issue(ca, "ann", client=True)
        tls.write(client, str(at / "ann.crt"), str(at / "ann.key"))

        serving = tls.server_context(str(at / "server.crt"), str(at / "server.key"), client_ca=str(at / "ca.crt"))
        asking = tls.client_context(ca=str(at / "ca.crt"), certificate=str(at / "ann.crt"), key=str(at / "ann.key"))
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving) as listening:
            port = listening.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=asking, server_hostname="localhost")
            writer.write(b"good morning\n")
            print((await reader.read()).decode(), end="")
            writer.close()
            await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
