"""Sends what was sent to a real kube-apiserver, and says where the answers differ from the recorded ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.apiserverkit import TOKEN, Api, Reply, until

__all__ = ["GOLDEN", "Outcome", "differences", "normalised", "replay"]

GOLDEN = Path(__file__).parents[1] / "golden"
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_TOO_LARGE = re.compile(r"(Too large resource version: )\d+(, current: )\d+")
_VOLUME = re.compile(r"kube-api-access-[a-z0-9]{5}")
_AGE = re.compile(r"\d{1,2}s")
_BUILD = frozenset(
    {
        "buildDate",
        "compiler",
        "emulationMinor",
        "gitCommit",
        "gitTreeState",
        "gitVersion",
        "goVersion",
        "minCompatibilityMinor",
        "minor",
        "platform",
        "serverAddress",
    }
)
_NODE_PORTS = 30000
_PLACEHOLDERS = {"resourceVersion": "<rv>", "continue": "<continue>", "token": "<token>"}


@dataclass
class Outcome:
    """What came of one step: `gaps` say how it differs, and are empty where it is exact."""

    label: str
    request: str
    expected: int
    status: int
    gaps: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.label} ({self.request})" + "".join(f"\n    {gap}" for gap in self.gaps[:12])


def normalised(value: Any, key: str = "") -> Any:
    """Put placeholders where two servers may differ: ids, times, versions, allocated numbers, the build."""
    if isinstance(value, dict):
        return _normalised_object(value)
    if isinstance(value, list):
        return [normalised(each, key) for each in value]
    if isinstance(value, str):
        return _normalised_text(value, key)
    if key == "nodePort" and isinstance(value, int) and value >= _NODE_PORTS:
        return "<nodePort>"
    return value


def _normalised_object(value: dict[str, Any]) -> dict[str, Any]:
    found = {name: normalised(each, name) for name, each in value.items() if name not in _BUILD}
    for column in found.get("columnDefinitions") or ():
        column.pop("description", None)
    if found.get("kind") == "Status":
        causes = (found.get("details") or {}).get("causes") or []
        if len(causes) > 1:
            # Kubernetes walks maps in an order of its own, which the joined message shows.
            causes.sort(key=json.dumps)
            found["message"] = "<causes>"
    return found


def _normalised_text(value: str, key: str) -> str:
    if value and key in _PLACEHOLDERS:
        return _PLACEHOLDERS[key]
    if key in {"clusterIP", "clusterIPs"} and value.startswith("10."):
        return "<ip>"
    if key == "cells" and _AGE.fullmatch(value):
        return "<age>"
    if _TIME.fullmatch(value):
        return "<time>"
    value = _TOO_LARGE.sub(r"\1<rv>\2<rv>", _UID.sub("<uid>", value))
    return _VOLUME.sub("kube-api-access-<id>", value)


def differences(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """Yield where two values differ, by path."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            if key not in actual:
                yield f"{path}.{key}: missing, expected {json.dumps(expected[key])[:160]}"
            elif key not in expected:
                yield f"{path}.{key}: unexpected {json.dumps(actual[key])[:160]}"
            else:
                yield from differences(expected[key], actual[key], f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, pair in enumerate(zip(expected, actual, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        yield f"{path}: expected {json.dumps(expected)[:200]}, got {json.dumps(actual)[:200]}"


def _filled(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, replacement in variables.items():
            value = value.replace("{{" + name + "}}", replacement)
        return value
    if isinstance(value, list):
        return [_filled(each, variables) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, variables) for key, each in value.items()}
    return value


def _dug(value: Any, path: str) -> str:
    try:
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (KeyError, IndexError, TypeError):
        return ""
    return str(value)


def _read(reply: Reply, *, stream: bool) -> Any:
    text = reply.raw.decode()
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()] if stream else json.loads(text)
    except ValueError:
        return text


async def _sent(api: Api, step: dict[str, Any], variables: dict[str, str]) -> Reply:
    said = {"Accept": "application/json", "User-Agent": "Python-urllib/3.13", "Authorization": f"Bearer {TOKEN}"}
    headers = {**said, **step.get("headers", {})}
    pairs = [(name.lower(), value) for name, value in headers.items() if value is not None]
    body = b""
    if "raw" in step:
        body = step["raw"].encode()
    elif "body" in step:
        body = json.dumps(_filled(step["body"], variables)).encode()
    if body and not any(name == "content-type" for name, _ in pairs):
        # What the recording client says where nothing is said.
        pairs.append(("content-type", "application/x-www-form-urlencoded"))
    answer = await api.as_user(None).send(step["method"], _filled(step["path"], variables), body, pairs)
    return Reply(answer.status, list(answer.headers), await answer.read())


def _compared(step: dict[str, Any], reply: Reply, body: Any) -> Outcome:
    outcome = Outcome(step["label"], f"{step['method']} {step['path']}", step["status"], reply.status)
    if reply.status != step["status"]:
        outcome.gaps.append(f"status: expected {step['status']}, got {reply.status}")
    warning = reply.header("warning") or None
    if step.get("warning") != warning:
        outcome.gaps.append(f"warning: expected {step.get('warning')!r}, got {warning!r}")
    outcome.gaps += differences(normalised(step["response"]), normalised(body))
    return outcome


async def replay(api: Api, name: str) -> list[Outcome]:
    """Send the steps of a recording, one after the other, and compare."""
    scenario = json.loads((GOLDEN / f"{name}.json").read_text())
    variables: dict[str, str] = {}
    outcomes = []
    for step in scenario["steps"]:
        reply = await _sent(api, step, variables)
        body = _read(reply, stream=bool(step.get("stream")))
        for key, path in step.get("capture", {}).items():
            variables[key] = _dug(body, path)
        outcomes.append(_compared(step, reply, body))
        if step["method"] != "GET" and "customresourcedefinitions" in step["path"]:
            await until(lambda: api.server.definitions.idle)
    return outcomes
