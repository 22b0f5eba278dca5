"""Subresources that others answer: nodes run commands and give logs, pods and services behind proxies."""

from __future__ import annotations

import ssl

from pilothouse.apiserver.model import Answer
from pilothouse.apiserver.nodeclient import NodeClient
from pilothouse.apiserver.ports import NodeStreams, View
from pilothouse.apiserver.proxying.resolve import Resolver
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.apiserver.rest.engine import Call, Engine
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import generic, not_found

__all__ = ["Backends"]

_NOT_ALLOWED = 405


class Backends:
    """Implements `routing.Streams`. Imports what carries the streams when it is first needed."""

    def __init__(
        self,
        engine: Engine,
        view: View,
        nodes: NodeStreams | None,
        clock: Clock,
        node_client: NodeClient | None = None,
        *,
        local: bool = False,
    ) -> None:
        self._engine = engine
        self._view = view
        self.nodes = nodes
        """What runs the pods; None for the nodes' own servers, if there is a `node_client`."""
        self.node_client = node_client
        self._kubelets: tuple[ssl.SSLContext, NodeStreams] | None = None
        self._clock = clock
        self.proxy = ReverseProxy()
        self._resolver = Resolver(view, local=local)

    async def answer(self, call: Call) -> Answer:
        """Answer exec, attach, port-forward, log or proxy. Raises ApiStatus."""
        name, info = call.info.subresource, call.info
        if name == "proxy":
            await self._admit(call)
            return await self._proxy(call)
        found = call.served.resource.subresource(name)
        if found is None or info.verb not in found.verbs:
            raise generic(_NOT_ALLOWED)
        nodes = self._reached()
        pod = self._view.get("pods", info.namespace, info.name)
        if pod is None:
            raise not_found("", "pods", info.name)
        if name == "log":
            from pilothouse.apiserver.streams.logs import logs  # noqa: PLC0415  # few requests need these

            return await logs(call.request, pod, nodes, view=self._view, clock=self._clock)
        await self._admit(call)
        if name == "portforward":
            from pilothouse.apiserver.streams.portforward import connect_port_forward  # noqa: PLC0415

            return await connect_port_forward(call.request, pod, nodes, view=self._view, clock=self._clock)
        from pilothouse.apiserver.streams.remotecommand import connect_exec  # noqa: PLC0415

        attach = name == "attach"
        return await connect_exec(call.request, pod, nodes, attach=attach, view=self._view, clock=self._clock)

    async def _admit(self, call: Call) -> None:
        """Let admission refuse what is to be connected to."""
        from pilothouse.apiserver.streams.podoptions import connect_options  # noqa: PLC0415

        info = call.info
        options = connect_options(call.request, info.resource, info.subresource, info.rest)
        admitted = self._engine.admission_request(call, "CONNECT", info.name, options, None)
        admitted.kind = ("", "v1", str(options["kind"]))
        await self._engine.mutate(admitted)
        await self._engine.validate(admitted)

    async def _proxy(self, call: Call) -> Answer:
        from pilothouse.apiserver.proxying.subresources import connect_proxy  # noqa: PLC0415

        return await connect_proxy(call.request, self._resolver, self.proxy, kubelet_tls=self._node_tls())

    def use(self, client: NodeClient) -> None:
        """Reach pods by their nodes' own servers from now on."""
        self.node_client = client
        self.nodes = None

    def _node_tls(self) -> ssl.SSLContext | None:
        return None if self.node_client is None else self.node_client.context()

    def _reached(self) -> NodeStreams | None:
        """Return what reaches the pods: what was given, else the nodes' own servers."""
        tls = self._node_tls()
        if self.nodes is not None or tls is None:
            return self.nodes
        if self._kubelets is None or self._kubelets[0] is not tls:
            from pilothouse.apiserver.streams.kubelet import KubeletStreams  # noqa: PLC0415

            self._kubelets = tls, KubeletStreams(self._view, self.proxy, tls)
        return self._kubelets[1]

    async def close(self) -> None:
        """Close the connections of proxies."""
        await self.proxy.close()
