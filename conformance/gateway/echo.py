"""The echo backend of Gateway API's conformance suite, for where its images cannot be pulled.

It serves the same contract: HTTP/1.1 on port 3000, HTTP/2 without TLS on 3001, HTTPS on 8443 where TLS_SERVER_CERT and
TLS_SERVER_PRIVKEY are given; with GRPC_ECHO_SERVER gRPC on 3000, with TCP_ECHO_SERVER lines of text on 3000 and 8443.
Answers tell what came in.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import socket
import ssl
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

POD = {
    "namespace": os.environ.get("NAMESPACE", ""),
    "ingress": os.environ.get("INGRESS_NAME", ""),
    "service": os.environ.get("SERVICE_NAME", ""),
    "pod": os.environ.get("POD_NAME", ""),
}
PORT = os.environ.get("HTTP_PORT") or "3000"
_DURATION = re.compile(r"([0-9.]+)(h|ms|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_VERSIONS = {"TLSv1": "TLSv1.0"}
_MOST_HEAD = 1 << 20
_failures: dict[str, int] = {}

Headers = list[tuple[str, str]]
Answer = tuple[int, Headers, bytes]


class Broken(Exception):
    """The connection is to be reset instead of an answer."""


def seconds(text: str) -> float:
    """Return a duration of Go."""
    return sum(float(amount) * _UNITS[unit] for amount, unit in _DURATION.findall(text))


def canonical(name: str) -> str:
    """Return a header's name as Go spells it."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


async def answer(method: str, target: str, proto: str, headers: Headers, tls: Mapping[str, Any] | None) -> Answer:
    """Return what a request gets."""
    path = re.sub("/+", "/", urlsplit(target).path) or "/"
    if path == "/health":
        return 200, [], b"OK"
    if path.startswith("/status/"):
        code = re.fullmatch(r"/status/(\d\d\d)", target)
        return (int(code[1]) if code else 400), [], b""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
    if path.startswith("/retry/"):
        failed = await _retried(asked)
        if failed is not None:
            return failed
    if "delay" in asked:
        await asyncio.sleep(seconds(asked["delay"]))
    return 200, _wanted(headers), _told(method, target, proto, headers, tls)


async def _retried(asked: Mapping[str, str]) -> Answer | None:
    """Fail as often as a request asks for, told apart by its uuid; None once it is enough."""
    if "uuid" not in asked:
        return 400, [], b"uuid is required"
    if not asked.get("succeedAfter", "").isdigit():
        return 400, [], b"succeedAfter is required"
    if _failures.get(asked["uuid"], 0) >= int(asked["succeedAfter"]):
        return None
    _failures[asked["uuid"]] = _failures.get(asked["uuid"], 0) + 1
    if "delayRetry" in asked:
        await asyncio.sleep(seconds(asked["delayRetry"]))
    if "responseCode" in asked:
        return int(asked["responseCode"]), [], b""
    raise Broken


def _wanted(headers: Headers) -> Headers:
    """Return the headers that a request wants in its answer."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower() == "x-echo-set-header":
            for each in value.split(","):
                key, _, text = each.strip().partition(":")
                if key:
                    found[key] = f"{found[key]},{text.strip()}" if key in found else text
    return [*((name, value.strip()) for name, value in found.items()), ("Content-Type", "application/json")]


def _told(method: str, target: str, proto: str, headers: Headers, tls: Mapping[str, Any] | None) -> bytes:
    listed: dict[str, list[str]] = {}
    host = ""
    for name, value in headers:
        if name.lower() in {"host", ":authority"}:
            host = value
        elif not name.startswith(":"):
            listed.setdefault(canonical(name), []).append(value)
    told: dict[str, Any] = {
        "path": target,
        "host": host,
        "method": method,
        "proto": proto,
        "headers": listed,
        "httpPort": PORT,
        **POD,
    }
    if tls is not None:
        told["tls"] = tls
    return json.dumps(told, indent=1).encode()


# HTTP/1.1


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    try:
        while head := await _head(reader):
            method, target, proto, headers = head
            fields = {name.lower(): value for name, value in headers}
            if fields.get("upgrade", "").lower() == "websocket":
                await _websocket(reader, writer, fields)
                return
            await _skip_body(reader, fields)
            status, more, body = await answer(method, target, proto, headers, _tls_of(writer))
            lines = [f"HTTP/1.1 {status} Echo", *(f"{name}: {value}" for name, value in more)]
            lines.append(f"Content-Length: {len(body)}")
            ends = fields.get("connection", "").lower() == "close" or proto == "HTTP/1.0"
            if ends:
                lines.append("Connection: close")
            writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if method == "HEAD" else body))
            await writer.drain()
            if ends:
                return
    except Broken:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        pass
    finally:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[str, str, str, Headers] | None:
    try:
        data = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = data[:-4].decode("latin-1").split("\r\n")
    method, target, proto = first.split(" ")
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    print(f"Echoing back request made to {target} to client", flush=True)
    return method, target, proto, headers


async def _skip_body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> None:
    if "chunked" in fields.get("transfer-encoding", "").lower():
        while size := int((await reader.readline()).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        while (await reader.readline()).strip():
            pass
    elif length := int(fields.get("content-length", "0")):
        await reader.readexactly(length)


def _tls_of(writer: asyncio.StreamWriter) -> dict[str, Any] | None:
    found = writer.get_extra_info("ssl_object")
    if found is None:
        return None
    told: dict[str, Any] = {
        "version": _VERSIONS.get(found.version(), found.version()),
        "serverName": getattr(found, "asked_name", "") or "",
        "negotiatedProtocol": found.selected_alpn_protocol() or "",
        "cipherSuite": found.cipher()[0],
    }
    certificate = found.getpeercert(True)
    if certificate:
        told["peerCertificates"] = [ssl.DER_cert_to_PEM_cert(certificate)]
    return told


async def _websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Mapping[str, str]) -> None:
    """Send back the frames of a client, unmasked."""
    key = fields.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    if "sec-websocket-protocol" in fields:
        lines.append(f"Sec-WebSocket-Protocol: {fields['sec-websocket-protocol'].split(',')[0].strip()}")
    writer.write("\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept}"]).encode() + b"\r\n\r\n")
    while True:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        mask = await reader.readexactly(4) if second & 128 else b"\0\0\0\0"
        data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(await reader.readexactly(size)))
        wide = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        writer.write(bytes([first]) + wide + data)
        await writer.drain()
        if first & 15 == 8:
            return


# HTTP/2 without TLS


async def serve_h2c(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection that begins with HTTP/2's preface."""
    from ngh2 import Connection, DataReceived, NGH2Error, RequestReceived, Role

    engine = Connection(Role.SERVER)
    engine.initiate_connection()
    tasks: set[asyncio.Task[None]] = set()

    async def one(stream: int, headers: Headers) -> None:
        pseudo = dict(headers)
        status, more, body = await answer(pseudo[":method"], pseudo[":path"], "HTTP/2.0", headers, None)
        fields = [(b":status", str(status).encode()), *((n.lower().encode(), v.encode()) for n, v in more)]
        engine.send_response(stream, fields)
        engine.send_data(stream, body, end_stream=True)
        writer.write(engine.data_to_send())

    try:
        writer.write(engine.data_to_send())
        while data := await reader.read(65536):
            engine.receive_data(data)
            for event in engine.events():
                if isinstance(event, RequestReceived):
                    headers = [(h[0].decode("latin-1"), h[1].decode("latin-1")) for h in event.headers]
                    task = asyncio.create_task(one(event.stream_id, headers))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                elif isinstance(event, DataReceived):
                    engine.acknowledge_received_data(len(event.data), event.stream_id)
            writer.write(engine.data_to_send())
    except (OSError, NGH2Error):
        pass
    finally:
        writer.close()


# gRPC


def _field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if not data:
        return b""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


async def serve_grpc() -> None:
    """Serve GrpcEcho: what came in, as the suite's messages have it."""
    from pilothouse.foundation.grpc import GrpcServer

    server = GrpcServer()
    service = "gateway_api_conformance.echo_basic.grpcecho.GrpcEcho"
    context = b"".join(_field(n + 1, POD[name]) for n, name in enumerate(("namespace", "ingress", "service", "pod")))

    def method(path: str) -> None:
        def echo(message: bytes, call: Any) -> bytes:
            headers = {**call.metadata, ":authority": call.authority}
            told = b"".join(_field(2, _field(1, name) + _field(2, value)) for name, value in headers.items())
            asserted = _field(1, path) + told + _field(3, call.authority) + _field(4, context)
            return _field(1, asserted) + bytes([2 << 3 | 2, 0])

        server.unary(path, echo)

    method(f"/{service}/Echo")
    method(f"/{service}/EchoTwo")
    await server.listen_tcp("0.0.0.0", int(PORT))


# Lines of text


async def serve_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and answer TEST, IS_TLS and PING."""
    tls = _tls_of(writer)
    told = {**POD, "tcpport": PORT, "tlsport": os.environ.get("TLS_PORT") or "8443", "isTLS": tls is not None}
    if tls is not None:
        told["tls"] = tls
    answers = {b"TEST": json.dumps(told).encode(), b"IS_TLS": str(tls is not None).lower().encode(), b"PING": b"PONG"}
    try:
        writer.write(WELCOME)
        while line := await reader.readline():
            if line.strip() in answers:
                writer.write(answers[line.strip()] + b"\n")
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


WELCOME = b"Gateway API Test TCP Server\n"


def _context(certificate: str, key: str, clients: str = "") -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    if clients:
        made.load_verify_locations(clients)
        made.verify_mode = ssl.CERT_OPTIONAL

    def named(found: Any, name: str | None, _: ssl.SSLContext) -> None:
        found.asked_name = name or ""

    made.sni_callback = named
    return made


async def main() -> None:
    """Serve until the process ends."""
    found = os.environ.get
    limit = {"limit": _MOST_HEAD}
    if found("GRPC_ECHO_SERVER"):
        await serve_grpc()
    elif found("TCP_ECHO_SERVER"):
        await asyncio.start_server(serve_lines, None, int(found("TCP_PORT") or PORT), **limit)
        if found("TLS_SERVER_CERT") and found("TLS_SERVER_PRIV_KEY"):
            tls = _context(os.environ["TLS_SERVER_CERT"], os.environ["TLS_SERVER_PRIV_KEY"])
            await asyncio.start_server(serve_lines, None, int(found("TLS_PORT") or "8443"), ssl=tls, **limit)
    else:
        await asyncio.start_server(serve_http, None, int(PORT), **limit)
        await asyncio.start_server(serve_h2c, None, int(found("H2C_PORT") or "3001"))
        if found("TLS_SERVER_CERT") and found("TLS_SERVER_PRIVKEY"):
            tls = _context(
                os.environ["TLS_SERVER_CERT"], os.environ["TLS_SERVER_PRIVKEY"], found("TLS_CLIENT_CACERTS") or ""
            )
            await asyncio.start_server(serve_http, None, int(found("HTTPS_PORT") or "8443"), ssl=tls, **limit)
    print("serving", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
