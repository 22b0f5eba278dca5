"""Options of CONNECT requests as admission sees them."""

from __future__ import annotations

import pytest

from pilothouse.apiserver.streams.podoptions import connect_options
from support.streamkit import make_request


@pytest.mark.parametrize(
    ("resource", "subresource", "query", "rest", "expected"),
    [
        (
            "pods",
            "exec",
            "stdin=1&stdout=true&tty=&stderr=0&container=c&command=sh&command=-c",
            "",
            {
                "kind": "PodExecOptions",
                "apiVersion": "v1",
                "stdin": True,
                "stdout": True,
                "tty": True,
                "container": "c",
                "command": ["sh", "-c"],
            },
        ),
        ("pods", "exec", "", "", {"kind": "PodExecOptions", "apiVersion": "v1", "command": None}),
        (
            "pods",
            "attach",
            "stdout=1&command=x",
            "",
            {"kind": "PodAttachOptions", "apiVersion": "v1", "stdout": True},
        ),
        (
            "pods",
            "portforward",
            "ports=80,x&ports=443",
            "",
            {"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 443]},
        ),
        ("pods", "portforward", "", "", {"kind": "PodPortForwardOptions", "apiVersion": "v1"}),
        ("pods", "proxy", "", "/a", {"kind": "PodProxyOptions", "apiVersion": "v1", "path": "/a"}),
        ("services", "proxy", "", "", {"kind": "ServiceProxyOptions", "apiVersion": "v1"}),
        ("nodes", "proxy", "", "/m", {"kind": "NodeProxyOptions", "apiVersion": "v1", "path": "/m"}),
    ],
)
def test_options_are_those_of_kubernetes(
    resource: str, subresource: str, query: str, rest: str, expected: dict[str, object]
) -> None:
    assert connect_options(make_request("/", query), resource, subresource, rest) == expected
