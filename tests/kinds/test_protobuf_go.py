"""Protobuf against Kubernetes' own code, built here, with objects and damage that nobody has chosen."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kinds import protobuf
from pilothouse.kinds.protobuf._facts import fields_of, kinds_with_messages, message_of
from support.protobufsamples import Gvk, convert, kinds, program, sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLACES = {
    "k8s.io/api/": "a.",
    "k8s.io/apiextensions-apiserver/pkg/apis/": "e.",
    "k8s.io/kube-aggregator/pkg/apis/": "k.",
    "k8s.io/apimachinery/pkg/": "m.",
}
# Messages that are one value in JSON, and those that Go reads by code of its own.
VALUES = ("IntOrString", "FieldsV1", "RawExtension", "v1.JSON", "OrArray", "OrBool", "OrStringArray")


@pytest.fixture(scope="module")
def go() -> Path:
    try:
        return program()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        pytest.skip(str(error))


def _message(gvk: Gvk) -> str:
    message = message_of(*gvk)
    assert message is not None
    return message


def test_objects_of_every_kind_are_written_and_read_as_there(go: Path) -> None:
    chance = random.Random(1)
    made = [(gvk, sample(gvk, _message(gvk), chance)) for gvk in kinds() for _ in range(6)]
    answers = convert(go, [{"json": one} for _, one in made])
    for (gvk, one), answer in zip(made, answers, strict=True):
        wire = base64.b64decode(answer["protobuf"])
        assert protobuf.encode(one, *gvk) == wire, one
        assert protobuf.decode(wire) == answer["json"], one


def _damage(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(damaged) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            damaged[place : place + 1] = bytes([chance.randrange(128)])
        elif kind == 1:
            damaged[place:place] = chance.choice(
                (b"\0", b"\x80\x01", b"\x0a\x00", b"\xf8\x3f\x05", b"\xfb\x3f\xfc\x3f")
            )
        elif kind == 2:
            del damaged[place:]
        else:
            damaged += data
    return bytes(damaged)


def test_what_is_damaged_is_refused_or_read_as_there(go: Path) -> None:
    chance = random.Random(2)
    # what holds JSON or other objects is passed on there unread
    plain = [
        gvk
        for gvk in kinds()
        if not {"object", "items", "data", "objects"} & {f.name for f in fields_of(_message(gvk))}
    ]
    wires = []
    for gvk in plain * 8:
        message = protobuf.encode_message(sample(gvk, _message(gvk), chance), *gvk)
        wires.append(protobuf.envelop(_damage(message, chance), *gvk))
    answers = convert(go, [{"protobuf": base64.b64encode(wire).decode()} for wire in wires])
    same = stricter = 0
    for wire, answer in zip(wires, answers, strict=True):
        try:
            read = protobuf.decode(wire)
        except protobuf.ProtobufError:
            # there an entry of a map may run into what follows it
            stricter += "error" not in answer
            continue
        assert "error" not in answer, answer
        assert read == answer["json"]
        same += 1
    assert same > len(wires) / 10
    assert stricter < len(wires) / 100


def test_the_facts_of_the_go_types_are_those_there(go: Path) -> None:
    told = json.loads(subprocess.run([str(go), "facts"], capture_output=True, text=True, check=True).stdout)
    checked = 0
    for full, fields in told["types"].items():
        name = next(
            letter + full.removeprefix(prefix).replace("/", ".")
            for prefix, letter in PLACES.items()
            if full.startswith(prefix)
        )
        if name.endswith(VALUES) or name.startswith(
            ("m.api.resource.", "m.apis.meta.v1.Table", "m.apis.meta.v1.Internal")
        ):
            continue
        if name in {"m.apis.meta.v1.Time", "m.apis.meta.v1.MicroTime", "m.apis.meta.v1.TableOptions"}:
            continue
        ours = {str(field.number): field for field in fields_of(name)}
        assert set(ours) == set(fields), name
        for number, fact in fields.items():
            checked += 1
            _compare(f"{name}.{fact['name']}", ours[number], fact)
    assert checked > 2000


def _compare(name: str, ours: Any, fact: dict[str, Any]) -> None:
    assert ours.name == fact["json"], name
    assert ours.inline == (fact["json"] == ""), name
    assert ours.pointer == fact.get("pointer", False), name
    assert ours.omit_zero == fact.get("omitZero", False), name
    if ours.label or ours.pointer or not ours.word.startswith("@"):
        assert ours.shown != fact.get("omitEmpty", False), name


def test_the_kinds_are_those_there(go: Path) -> None:
    told = json.loads(subprocess.run([str(go), "facts"], capture_output=True, text=True, check=True).stdout)
    found = {tuple(line.split(" ")[0].split("/")) for line in told["kinds"]}
    every = {kind for group, _, kind in kinds_with_messages() if group == "*"}
    usual = {gvk for gvk in found if gvk[1] != "__internal" and gvk[2] not in every}
    ours = {gvk for gvk in kinds_with_messages() if gvk[0] != "*"}
    assert usual - ours == {("meta.k8s.io", "v1", "Table")}
    assert ours - usual == set()
