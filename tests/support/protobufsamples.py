"""Objects of every kind that protobuf knows, made up by chance, and Kubernetes' own conversion of them where Go is.

Run as a program it writes `tests/golden/protobuf.json` with the latter.
"""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pilothouse.kinds.protobuf import supported
from pilothouse.kinds.protobuf._facts import Field, fields_of, kinds_with_messages

Gvk = tuple[str, str, str]

SOURCE = Path(__file__).parent / "kubeproto"
PLACE = Path.home() / ".cache" / "pilothouse"
GOLDEN = Path(__file__).parents[1] / "golden"
_LARGEST = 700
_DEPTH = 9
_TEXTS = ("", "a", "web", "Straße\u2028", "<&>", "x" * 130)
_NUMBERS = (0, 1, 127, 128, 2047, 2048, 65536, -1, -300, 2**31 - 1, -(2**31))
_VALUES: dict[str, tuple[Any, ...]] = {
    "m.api.resource.Quantity": ("0", "1", "100m", "1Gi", "1.5", "0.1", "1000", "12e6", "-3Ki", 5, 1.5),
    "m.apis.meta.v1.Time": ("2026-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "1950-06-07T08:09:10+02:00", None),
    "m.apis.meta.v1.MicroTime": ("2026-01-02T03:04:05.000006Z", "1969-12-31T23:59:59.999999Z", None),
    "m.util.intstr.IntOrString": (0, 8080, -1, "25%", "", "http"),
    "m.apis.meta.v1.FieldsV1": ({"f:spec": {".": {}, 'k:{"name":"a"}': {}}}, {}),
    "e.apiextensions.v1.JSON": ({"a": [1, 2.5, None, "x"]}, 7, "text", True, [], {}),
    "m.runtime.RawExtension": ({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}, {"any": [1]}, {}),
    "m.apis.meta.v1.Verbs": (["get", "list"], [], None),
}
_EXTRA = "ExtraValue"


def kinds() -> list[Gvk]:
    """Give all kinds that have a message; those of every group in one group. A watch event is never in an envelope."""
    found = [("", "v1", gvk[2]) if gvk[0] == "*" else gvk for gvk in kinds_with_messages()]
    return [gvk for gvk in found if gvk[2] != "WatchEvent"]


def sample(gvk: Gvk, message: str, chance: random.Random) -> dict[str, Any]:
    """Make an object up: `chance` also decides how much is in it."""
    made = _object(message, chance, chance.choice((0.1, 0.4, 0.9)), _DEPTH)
    group, version, kind = gvk
    return {"apiVersion": f"{group}/{version}" if group else version, "kind": kind, **made}


def _object(message: str, chance: random.Random, density: float, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field in fields_of(message):
        if field.inline:
            made |= _object(field.word[1:], chance, density, depth - 1)
        elif chance.random() < (density if depth > 3 else density / 4):
            value = None if chance.random() < 0.03 else _field(field, chance, density, depth)
            made[field.name] = value
    return made


def _field(field: Field, chance: random.Random, density: float, depth: int) -> Any:
    if field.label == "[]":
        return [_one(field.word, chance, density, depth) for _ in range(chance.randrange(3))]
    if field.label == "{}":
        keys = chance.sample(("b", "a", "", "app.kubernetes.io/name", "é"), chance.randrange(4))
        return {key: _one(field.word, chance, density, depth) for key in keys}
    return _one(field.word, chance, density, depth)


def _one(word: str, chance: random.Random, density: float, depth: int) -> Any:
    if word == "s":
        return chance.choice(_TEXTS)
    if word == "y":
        return base64.b64encode(chance.choice((b"", b"a", b"\xff\x00secret"))).decode()
    if word in {"i32", "i64"}:
        return chance.choice(_NUMBERS if word == "i32" else (*_NUMBERS, 2**63 - 1, -(2**63)))
    if word == "b":
        return chance.choice((True, False))
    if word == "d":
        return chance.choice((0, 1, -2.5, 1e300, 3e-7))
    message = word[1:]
    if message in _VALUES:
        return chance.choice(_VALUES[message])
    if message.endswith(_EXTRA):
        return chance.choice((["a", ""], [], None))
    if "JSONSchemaPropsOr" in message:
        return _choice(message.rpartition("Or")[2], chance, density, depth)
    return _object(message, chance, density, depth - 1) if depth > 0 else {}


def _choice(kind: str, chance: random.Random, density: float, depth: int) -> Any:
    schema = (
        {"type": "object"}
        if depth < 4
        else _object("e.apiextensions.v1.JSONSchemaProps", chance, density / 6, depth - 2)
    )
    return chance.choice((schema, {"Bool": True, "Array": [schema, {}], "StringArray": ["a", ""]}[kind], schema))


def compact(value: Any) -> str:
    """Write JSON as msgspec does, so that what is kept as it was sent is the same."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def program() -> Path:
    """Build the program that converts as Kubernetes does. Raises RuntimeError where that cannot be."""
    if not (go := shutil.which("go")):
        msg = "no Go here to build Kubernetes' own conversion with"
        raise RuntimeError(msg)
    PLACE.mkdir(parents=True, exist_ok=True)
    made = PLACE / "kubeproto"
    command = [go, "build", "-mod=readonly", "-o", str(made), "."]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        msg = f"Kubernetes' own conversion could not be built: {done.stderr[-300:]}"
        raise RuntimeError(msg)
    return made


def convert(made: Path, requests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let the program answer requests, which `kubeproto/main.go` describes."""
    lines = "\n".join(map(compact, requests))
    done = subprocess.run([str(made)], input=lines, capture_output=True, text=True, check=True, timeout=300)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def recorded() -> list[tuple[str, dict[str, Any]]]:
    """Give the objects that a real server made, by the label of their step in `defaults.json`."""
    steps = json.loads((GOLDEN / "defaults.json").read_text())["steps"]
    answers = [(step["label"], step["response"]) for step in steps if step["status"] < 300]
    return [(label, _dated(answer)) for label, answer in answers if supported(gvk_of(answer))]


def gvk_of(obj: dict[str, Any]) -> Gvk:
    """Give the group, version and kind that an object names."""
    group, _, version = obj["apiVersion"].rpartition("/")
    return group, version, obj["kind"]


def _dated(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dated(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_dated(inner) for inner in value]
    return "2026-01-02T03:04:05Z" if value == "<time>" else value


def _small(gvk: Gvk, chance: random.Random) -> dict[str, Any]:
    while True:
        made = sample(gvk, kinds_with_messages().get(gvk) or kinds_with_messages()["*", "*", gvk[2]], chance)
        if len(compact(made)) < _LARGEST:
            return made


_ABOUT = (
    "What k8s.io/apimachinery 0.36.0 (Go 1.26) writes for objects in JSON, as base64, and what it shows for that "
    "in JSON where it is not the same; of the steps recorded in defaults.json only their labels. Events are frames of "
    "a watch with the type ADDED. Written by tests/support/protobufsamples.py."
)


def write_golden() -> None:
    """Write what Kubernetes' own code makes of objects of each kind, and of those that a real server made."""
    chance, made = random.Random(36), program()
    given = [_small(gvk, chance) for gvk in kinds() for _ in range(2)]
    real = recorded()
    answers = convert(made, [{"json": one} for one in (*given, *(one for _, one in real))])
    named = [({"json": one}, one) for one in given] + [({"recorded": label}, one) for label, one in real]
    cases = [_case(name, one, answer) for (name, one), answer in zip(named, answers, strict=True) if "json" in answer]
    # a recorded port that is a placeholder is one that Kubernetes does not take
    pods = [one for one in given if one["kind"] == "Pod"]
    frames = convert(made, [{"json": one, "event": "ADDED"} for one in pods])
    events = [{"json": one, "protobuf": answer["protobuf"]} for one, answer in zip(pods, frames, strict=True)]
    lines = ",\n".join(map(compact, cases))
    text = f'{{"about":{compact(_ABOUT)},\n"cases":[\n{lines}\n],\n"events":{compact(events)}}}\n'
    (GOLDEN / "protobuf.json").write_text(text)


def _case(name: dict[str, Any], given: Any, answer: dict[str, Any]) -> dict[str, Any]:
    shown = {} if answer["json"] == given else {"shown": answer["json"]}
    return {**name, "protobuf": answer["protobuf"], **shown}


if __name__ == "__main__":
    write_golden()
