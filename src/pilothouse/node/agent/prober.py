"""Asks containers how they are: exec, HTTP, TCP and gRPC, answered in a kubelet's words; and runs hooks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Literal

from pilothouse.foundation.clock import Clock
from pilothouse.kinds.structs.core_handlers import HTTPGetAction, LifecycleHandler, Probe
from pilothouse.node.errors import ExecError, NodeError
from pilothouse.node.runtime import Runtime

from .facts import AnyContainer

__all__ = ["Answer", "Prober"]

Answer = tuple[Literal["success", "failure", "error"], str]

_MAX_BODY = 10 << 10
_HOOK_SECONDS = 30.0
_OK, _BAD = 200, 400
_SERVING = 1
_STATES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_HEALTH = "/grpc.health.v1.Health/Check"


class Prober:
    """Probes and hooks of the containers of one runtime."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock

    async def probe(self, probe: Probe, container: AnyContainer, container_id: str, address: str) -> Answer:
        """Probe once, within the probe's timeout."""
        seconds = float(probe.timeout_seconds or 1)
        try:
            if probe.exec.command:
                return await self._exec(list(probe.exec.command), container_id, seconds)
            if probe.grpc.port:
                return await _grpc(address, probe.grpc.port, probe.grpc.service or "", seconds)
            if probe.http_get.port:
                return await _http_probe(probe.http_get, container, address, seconds)
            host = probe.tcp_socket.host or address
            return await _tcp(host, _port(probe.tcp_socket.port, container), seconds)
        except ValueError as error:
            return "error", str(error)

    async def hook(self, hook: LifecycleHandler, container: AnyContainer, container_id: str, address: str) -> str:
        """Run a hook and return why it failed, empty where it did not. Limits of time are the caller's."""
        try:
            if hook.exec is not None:
                return await self._exec_hook(list(hook.exec.command), container_id)
            if hook.http_get is not None:
                async with asyncio.timeout(_HOOK_SECONDS):
                    await _get(hook.http_get, container, address)
            elif hook.sleep is not None:
                await self._clock.sleep(hook.sleep.seconds)
        except TimeoutError:
            return "the request timed out"
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    async def _exec_hook(self, command: list[str], container_id: str) -> str:
        shown = " ".join(command)
        try:
            done = await self._runtime.exec_sync(container_id, command, max_output=_MAX_BODY)
        except NodeError as error:
            return f"rpc error: {error}"
        if done.exit_code == 0:
            return ""
        text = (done.stdout + done.stderr).decode(errors="replace")
        return f"command '{shown}' exited with {done.exit_code}: {text}"

    async def _exec(self, command: list[str], container_id: str, seconds: float) -> Answer:
        try:
            done = await self._runtime.exec_sync(container_id, command, seconds=seconds, max_output=_MAX_BODY)
        except TimeoutError:
            return "failure", f'command timed out: "{" ".join(command)}" timed out after {seconds:g}s'
        except ExecError as error:
            return "failure", str(error)
        except NodeError as error:
            return "error", str(error)
        text = (done.stdout + done.stderr)[:_MAX_BODY].decode(errors="replace")
        return ("success" if done.exit_code == 0 else "failure"), text


def _port(port: int | str, container: AnyContainer) -> int:
    """Return a port's number. Raises `ValueError` for a name that the container does not have."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    for each in container.ports:
        if each.name == port:
            return each.container_port
    raise ValueError(f"couldn't find port: {port}")


async def _tcp(host: str, port: int, seconds: float) -> Answer:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return "failure", f"dial tcp {host}:{port}: i/o timeout"
    except OSError as error:
        return "failure", _dial(host, port, error)
    await _close(writer)
    return "success", ""


def _dial(host: str, port: int, error: OSError) -> str:
    refused = isinstance(error, ConnectionRefusedError)
    text = "connection refused" if refused else (error.strerror or str(error)).lower()
    return f"dial tcp {host}:{port}: connect: {text}"


async def _http_probe(action: HTTPGetAction, container: AnyContainer, address: str, seconds: float) -> Answer:
    url = _url(action, container, address)
    try:
        async with asyncio.timeout(seconds):
            code = await _get(action, container, address)
    except TimeoutError:
        late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return "failure", f'Get "{url}": {late}'
    except OSError as error:
        dialled = _dial(action.host or address, _port(action.port, container), error)
        return "failure", f'Get "{url}": {dialled}'
    except EOFError:
        return "failure", f'Get "{url}": EOF'
    if _OK <= code < _BAD:
        return "success", ""
    return "failure", f"HTTP probe failed with statuscode: {code}"


def _url(action: HTTPGetAction, container: AnyContainer, address: str) -> str:
    scheme = (action.scheme or "HTTP").lower()
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return f"{scheme}://{action.host or address}:{_port(action.port, container)}{path}"


async def _get(action: HTTPGetAction, container: AnyContainer, address: str) -> int:
    """Return the status code. Raises `OSError`, `EOFError` for no answer, `ValueError` for what is no HTTP."""
    host, port = action.host or address, _port(action.port, container)
    tls = _unverified() if (action.scheme or "HTTP") == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_MAX_BODY * 4)
    try:
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        headers = {"host": ("Host", f"{host}:{port}"), "user-agent": ("User-Agent", "kube-probe/1.36")}
        headers |= {"accept": ("Accept", "*/*"), "connection": ("Connection", "close")}
        for each in action.http_headers:
            headers[each.name.lower()] = (each.name, each.value)
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.values() if value), "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        line = await reader.readline()
        words = line.split(None, 2)
        if not line:
            raise EOFError
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError("malformed HTTP response")
        return int(words[1])
    finally:
        await _close(writer)


def _unverified() -> ssl.SSLContext:
    """Return what trusts any certificate, as probes do: they ask for health, not who it is."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


async def _grpc(host: str, port: int, service: str, seconds: float) -> Answer:
    from pilothouse.foundation.grpc import GrpcChannel, GrpcError  # noqa: PLC0415  wants its library

    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if 0 < len(name) < 128 else b""
    channel = GrpcChannel(host, port)
    try:
        async with asyncio.timeout(seconds):
            answer = await channel.unary(_HEALTH, message, timeout=seconds)
    except TimeoutError:
        return "failure", f"timeout: health rpc did not complete within {seconds:g}s"
    except (OSError, GrpcError) as error:
        return "failure", f'error: failed to connect service "{host}:{port}": {error}'
    finally:
        await channel.close()
    state = answer[1] if len(answer) >= 2 and answer[0] == 0x08 else 0
    if state == _SERVING:
        return "success", ""
    shown = _STATES[state] if state < len(_STATES) else str(state)
    return "failure", f'service unhealthy (responded with "{shown}")'


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()
