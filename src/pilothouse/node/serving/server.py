"""The node's HTTPS server: who may ask, which pod and container is meant, and what answers.

Paths are a kubelet's: /containerLogs, /exec, /attach, /portForward, /run, /pods, /stats/summary, /metrics and others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec

from pilothouse.apiserver.http.server import HttpServer
from pilothouse.apiserver.model import Answer, Request, Response, refusal
from pilothouse.apiserver.streams.negotiation import plain
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import CONTENT_TYPE, Metrics
from pilothouse.kinds.status import ApiStatus, internal_error
from pilothouse.kinds.structs import to_dict
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.errors import NodeError
from pilothouse.node.runtime import Runtime

from .access import Access, Refused
from .figures import Sampler
from .streams import RuntimeStreams
from .summary import cadvisor_metrics, resource_metrics, summary

__all__ = ["NodeServer", "PodSource"]

_log = get_logger(__name__)
_QUERY_NAMES: Final = {"input": "stdin", "output": "stdout", "error": "stderr"}
_TEXT: Final = "text/plain; charset=utf-8"
_RUN_OUTPUT: Final = 16 << 20
_SUMMARY_SECONDS: Final = 2.0
"""How old the figures of a summary may be; the API server asks as seldom."""
Object = dict[str, Any]


class PodSource(Protocol):
    """The pods of the node as they are now, their status included."""

    def pods(self) -> Sequence[Pod]:
        """Return all of them."""

    def find(self, namespace: str, name: str) -> Pod | None:
        """Return one."""


class NodeServer:
    """Serves a node's API over its runtime. `start` listens, `close` ends it; containers run on.

    node: the node's name. access: who may ask; None lets everybody, for tests only. volumes: gives what a pod's
    volumes take of the disk, as entries of `volume` in `/stats/summary`. logs: the directory of all pods' logs.
    """

    def __init__(  # noqa: PLR0913  # what a server stands on
        self,
        node: str,
        runtime: Runtime,
        pods: PodSource,
        *,
        access: Access | None,
        metrics: Metrics | None = None,
        volumes: Callable[[Pod], Any] | None = None,
        logs: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._node = node
        self._runtime = runtime
        self._pods = pods
        self._access = access
        self._metrics = metrics or Metrics()
        self._volumes = volumes
        self._clock = clock or SystemClock()
        self.streams = RuntimeStreams(runtime, logs=logs, clock=self._clock)
        self.sampler = Sampler(runtime, clock=self._clock)
        self._http: HttpServer | None = None
        self._sampling: asyncio.Task[None] | None = None
        self._verbs: dict[str, Callable[[Request, list[str]], Any]] = {
            "containerLogs": self._logs,
            "exec": self._exec,
            "attach": self._exec,
            "portForward": self._port_forward,
            "run": self._run,
            "pods": self._list,
            "runningpods": self._list,
            "healthz": self._healthz,
            "stats": self._stats,
            "metrics": self._figures,
        }

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen and return the port, a free one where 0 is given. Raises OSError where it is taken."""
        http = HttpServer(self.handle, tls=tls, clock=self._clock)
        _, port = await http.start(host, port)
        self._http = http
        self._sampling = asyncio.create_task(self.sampler.run())
        return port

    async def close(self, grace: float = 0.5) -> None:
        """Stop listening; streams that still run are cut after so many seconds."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
            self._sampling = None
        if self._http is not None:
            http, self._http = self._http, None
            await http.close(grace)

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        try:
            if self._access is not None:
                request.user = await self._access.check(request)
            verb, *rest = [unquote(part) for part in request.target.partition("?")[0].strip("/").split("/")]
            answer = self._verbs.get(verb)
            if answer is None:
                return plain(404, "404 page not found")
            found: Answer = await answer(request, rest)
        except Refused as error:
            return plain(error.code, str(error))
        except _Missing as error:
            return plain(error.code, str(error))
        except ApiStatus as error:
            return refusal(error)
        except (NodeError, OSError, ValueError) as error:
            _log.warning("a request of the node's API failed", path=request.path, reason=str(error))
            return refusal(internal_error(str(error)))
        return found

    # -- pods

    def _pod(self, parts: Sequence[str], count: int) -> Pod:
        """Return the pod of /NAMESPACE/POD[/UID][/CONTAINER]."""
        if len(parts) not in {count, count + 1}:
            raise _Missing(404, "404 page not found")
        pod = self._pods.find(parts[0], parts[1])
        if pod is None or (len(parts) == count + 1 and parts[2] != pod.metadata.uid):
            raise _Missing(404, "pod does not exist")
        return pod

    def _container(self, pod: Pod, name: str) -> str:
        spec = pod.spec
        known = [each.name for each in (*spec.containers, *spec.init_containers)]
        if name not in (*known, *(each.name for each in spec.ephemeral_containers)):
            raise _Missing(404, f'container "{name}" not found in pod "{pod.metadata.name}"')
        return name

    async def _list(self, request: Request, rest: list[str]) -> Answer:
        found = {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {},
            "items": [to_dict(pod) for pod in self._pods.pods()],
        }
        return Response(200, msgspec.json.encode(found))

    # -- streams

    async def _logs(self, request: Request, rest: list[str]) -> Answer:
        from pilothouse.apiserver.streams.logs import logs  # noqa: PLC0415  # loaded when first asked for

        pod = self._pod(rest[:-1], 2)
        name = self._container(pod, rest[-1])
        found = await logs(_asking(request, container=name), to_dict(pod), self.streams, split_streams=True)
        if isinstance(found, Response) and found.status >= 400:
            body = found.body if isinstance(found.body, bytes) else b"".join(found.body)
            return plain(found.status, str(msgspec.json.decode(body).get("message", "")))
        return found

    async def _exec(self, request: Request, rest: list[str]) -> Answer:
        from pilothouse.apiserver.streams.remotecommand import connect_exec  # noqa: PLC0415

        pod = self._pod(rest[:-1], 2)
        name = self._container(pod, rest[-1])
        if await self.streams.running(pod.metadata.uid, name) is None:
            raise internal_error(f'unable to upgrade connection: container not found ("{name}")')
        attach = request.path.startswith("/attach/")
        asked = _asking(request, container=name)
        return await connect_exec(asked, to_dict(pod), self.streams, attach=attach, clock=self._clock)

    async def _port_forward(self, request: Request, rest: list[str]) -> Answer:
        from pilothouse.apiserver.streams.portforward import connect_port_forward  # noqa: PLC0415

        pod = self._pod(rest, 2)
        sandbox = await self.streams.sandbox(pod.metadata.uid)
        if sandbox is None or sandbox.state != "Ready":
            raise internal_error(f'unable to upgrade connection: pod "{pod.metadata.name}" is not running')
        return await connect_port_forward(_asking(request), to_dict(pod), self.streams, clock=self._clock)

    async def _run(self, request: Request, rest: list[str]) -> Answer:
        if request.method != "POST":
            raise _Missing(405, "405: Method Not Allowed")
        pod = self._pod(rest[:-1], 2)
        found = await self.streams.running(pod.metadata.uid, self._container(pod, rest[-1]))
        if found is None:
            raise internal_error(f'container not found ("{rest[-1]}")')
        command = request.param("cmd").split(" ")
        done = await self._runtime.exec_sync(found.id, command, max_output=_RUN_OUTPUT)
        if done.exit_code:
            raise internal_error(
                f"command '{request.param('cmd')}' exited with {done.exit_code}: {_shown(done.stderr)}"
            )
        return Response(200, done.stdout + done.stderr, content_type=_TEXT)

    # -- figures

    async def _healthz(self, request: Request, rest: list[str]) -> Answer:
        status = await self._runtime.status()
        if status.runtime_ready:
            return Response(200, b"ok", content_type=_TEXT)
        return plain(500, "the container runtime is not ready")

    async def _stats(self, request: Request, rest: list[str]) -> Answer:
        if rest[:1] != ["summary"]:
            raise _Missing(404, "404 page not found")
        found = await self.sampler.now(_SUMMARY_SECONDS)
        return Response(200, msgspec.json.encode(summary(self._node, found, await self._volume_figures())))

    async def _volume_figures(self) -> Mapping[str, Sequence[Object]]:
        if self._volumes is None:
            return {}
        made: dict[str, Sequence[Object]] = {}
        for pod in self._pods.pods():
            with contextlib.suppress(OSError):
                used = await self._volumes(pod)
                made[pod.metadata.uid] = [
                    {"name": each.volume, "usedBytes": each.used_bytes, "inodesUsed": each.inodes_used} for each in used
                ]
        return made

    async def _figures(self, request: Request, rest: list[str]) -> Answer:
        if not rest:
            return Response(200, self._metrics.exposition(), content_type=CONTENT_TYPE)
        if rest == ["resource"]:
            text = resource_metrics(await self.sampler.now())
        elif rest == ["cadvisor"]:
            text = cadvisor_metrics(await self.sampler.now())
        elif rest == ["probes"]:
            text = ""
        else:
            raise _Missing(404, "404 page not found")
        return Response(200, text.encode(), content_type=CONTENT_TYPE)


class _Missing(Exception):
    """What is asked for is not there; told as text."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _asking(request: Request, *, container: str = "") -> Request:
    """Return a request of a node's API as one of the API server's about a pod."""
    parts = []
    for part in request.query_text.split("&"):
        name, sign, value = part.partition("=")
        if part and not (container and name == "container"):
            parts.append(f"{_QUERY_NAMES.get(name, name)}{sign}{value}")
    if container:
        parts.append(f"container={container}")
    return Request(
        request.method,
        request.target,
        request.path,
        "&".join(parts),
        request.headers,
        request.body,
        request.peer,
        request.header_list,
        request.user,
    )


def _shown(data: bytes) -> str:
    return data[:4096].decode("utf-8", "replace")
