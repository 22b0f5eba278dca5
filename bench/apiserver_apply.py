"""Server-side apply of a Deployment over TLS: each request changes one field of one of 64 objects. Goal: 1,000/s."""

from __future__ import annotations

import json

from _apiserver import TOKEN, serving, wrk
from _kit import Spread, arguments, report, scratch

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


def main() -> None:
    """Apply for some seconds."""
    quick = arguments(__doc__).quick
    with scratch() as directory, serving(directory) as server:
        wrk(server, PATH, connections=16, seconds=1, script=script())
        rates = [
            wrk(server, PATH, connections=16, seconds=1 if quick else 5, script=script())
            for _ in range(1 if quick else 3)
        ]
    report("apiserver server-side apply of a Deployment, 16 connections", Spread.of(rates), "1/s", digits=0, goal=1_000)


if __name__ == "__main__":
    main()
