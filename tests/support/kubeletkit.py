"""A server that answers as a kubelet does, behind TLS with client certificates, and what reaches it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from pilothouse.apiserver.model import Answer, Request
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.apiserver.streams.kubelet import KubeletStreams
from pilothouse.apiserver.streams.logs import logs
from pilothouse.apiserver.streams.portforward import connect_port_forward
from pilothouse.apiserver.streams.remotecommand import connect_exec
from pilothouse.foundation import tls
from support.proxykit import Authority, FakeView, http_server
from support.streamkit import FakeNodes, make_pod


class Kubelet:
    """Answers as a kubelet does, for one pod."""

    def __init__(self, nodes: FakeNodes) -> None:
        self.nodes, self.pod = nodes, make_pod(containers=("app", "side"))
        self.certified: list[bool] = []

    async def __call__(self, request: Request) -> Answer:
        self.certified.append(request.peer is not None and request.peer.certificate is not None)
        verb, namespace, name, *rest = request.path.strip("/").split("/")
        assert (namespace, name) == ("default", "web")
        query = request.query_text
        for theirs, ours in (("input=", "stdin="), ("output=", "stdout="), ("error=", "stderr=")):
            query = query.replace(theirs, ours)
        asked = Request(
            request.method,
            request.target,
            request.path,
            f"{query}&container={rest[0]}" if rest else query,
            request.headers,
            header_list=request.header_list,
        )
        if verb == "portForward":
            return await connect_port_forward(asked, self.pod, self.nodes)
        if verb == "containerLogs":
            return await logs(asked, self.pod, self.nodes)
        return await connect_exec(asked, self.pod, self.nodes, attach=verb == "attach")


@contextlib.asynccontextmanager
async def kubelet_streams(nodes: FakeNodes, directory: Path) -> AsyncIterator[tuple[KubeletStreams, Kubelet]]:
    """Serve a kubelet for node `n1` and give what reaches it."""
    authority = Authority(directory, "kubelet-ca")
    files = authority.issue("kubelet", "127.0.0.1")
    kubelet = Kubelet(nodes)
    proxy = ReverseProxy()
    context = tls.server_context(*files, client_ca=str(authority.file))
    certificate, key = authority.issue("apiserver")
    async with http_server(kubelet, context) as port:
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        view = FakeView(nodes=[{"metadata": {"name": "n1"}, "status": status}])
        client = tls.client_context(ca=str(authority.file), certificate=certificate, key=key)
        yield KubeletStreams(view, proxy, client), kubelet
        await proxy.close()
