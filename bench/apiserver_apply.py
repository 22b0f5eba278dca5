"""Server-side apply of a Deployment over TLS: each request changes one field of one of 64 objects. Goal: 1,000/s."""

from __future__ import annotations

import json
from pathlib import Path

from _apiserver import TOKEN, Serving, serving, wrk
from _kit import Spread, arguments, report, scratch
from _kube import against, peer

PATH = "/apis/apps/v1/namespaces/default/deployments"


def script() -> str:
    """Return the wrk script that applies."""
    container = {"name": "web", "image": "registry.example/web:VERSION", "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    body = json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "NAME"}, "spec": spec})
    return f"""
local n = 0
local before, middle, after = string.match([==[{body}]==], "^(.*)NAME(.*)VERSION(.*)$")
request = function()
  n = n + 1
  local name = "web-" .. (n % 64)
  return wrk.format("PATCH", "{PATH}/" .. name .. "?fieldManager=bench&force=true",
    {{["Authorization"]="Bearer {TOKEN}", ["Content-Type"]="application/apply-patch+yaml"}},
    before .. name .. middle .. n .. after)
end
"""


def measure(start: Serving, directory: Path, *, quick: bool) -> Spread:
    """Apply to one server for some seconds."""
    with start(directory) as server:
        wrk(server, PATH, connections=16, seconds=1, script=script())
        return Spread.of(
            [
                wrk(server, PATH, connections=16, seconds=1 if quick else 5, script=script())
                for _ in range(1 if quick else 3)
            ]
        )


def main() -> None:
    """Measure our server, then the peer."""
    quick = arguments(__doc__).quick
    other = peer(build=not quick)
    with scratch() as directory:
        ours = measure(serving, directory / "ours", quick=quick)
        theirs = measure(other, directory / "theirs", quick=quick) if other is not None else None
    name = "apiserver server-side apply of a Deployment, 16 connections"
    report(name, ours, "1/s", **against(theirs), digits=0, goal=1_000)


if __name__ == "__main__":
    main()
