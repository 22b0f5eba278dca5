"""The `proxy` subresource of pods, services and nodes."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Final

from pilothouse.apiserver.model import Answer, Request, refusal
from pilothouse.apiserver.proxying.resolve import Backend, Resolver
from pilothouse.apiserver.proxying.reverse import ReverseProxy, Target, proxied_path, proxy_upgrade_aware
from pilothouse.kinds.status import ApiStatus, BadRequest

__all__ = ["PROXY_METHODS", "connect_proxy", "unverified_tls"]

PROXY_METHODS: Final = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")


@cache
def unverified_tls() -> ssl.SSLContext:
    """Return TLS settings that check no certificate: pods are reached by address, which certificates do not name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def connect_proxy(
    request: Request, resolver: Resolver, proxy: ReverseProxy, *, kubelet_tls: ssl.SSLContext | None = None
) -> Answer:
    """Answer `pods|services|nodes/[SCHEME:]NAME[:PORT]/proxy[/PATH]`; the request's `info` says which.

    kubelet_tls: for the nodes' own API, with the client certificate that it knows this server by.
    """
    info = request.info
    if info is None:
        raise ValueError("request.info is not set; parse the path before proxying")
    try:
        if "dryRun" in request.query:
            raise BadRequest("dryRun is not supported")
        backend = _resolve(resolver, info.resource, info.namespace, info.name)
        await resolver.check_host(backend)
    except (ApiStatus, ValueError) as error:
        return refusal(error if isinstance(error, ApiStatus) else BadRequest(str(error)))
    prefix, path = proxied_path(request)
    tls = None
    if backend.scheme == "https":
        tls = kubelet_tls if backend.kubelet and kubelet_tls is not None else unverified_tls()
    return await proxy_upgrade_aware(request, Target(backend, path, prefix, tls), proxy)


def _resolve(resolver: Resolver, resource: str, namespace: str, name: str) -> Backend:
    if resource == "pods":
        return resolver.pod(namespace, name)
    if resource == "services":
        return resolver.service(namespace, name)
    return resolver.node(name)
