"""Protobuf as Kubernetes' own code writes and reads it, for objects of every kind."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pilothouse.kinds import protobuf
from pilothouse.kinds.protobuf._facts import fields_of, message_of
from support.protobufsamples import GOLDEN, gvk_of, kinds, recorded

TABLE = json.loads((GOLDEN / "protobuf.json").read_text())
RECORDED = dict(recorded())
OTHER_LISTS = {"APIGroupList", "APIResourceList", "List"}


def _cases() -> list[Any]:
    made = []
    for number, case in enumerate(TABLE["cases"]):
        given = case["json"] if "json" in case else RECORDED[case["recorded"]]
        name = f"{number}-{given['kind']}"
        made.append(pytest.param(given, base64.b64decode(case["protobuf"]), case.get("shown", given), id=name))
    return made


@pytest.mark.parametrize(("given", "wire", "shown"), _cases())
def test_objects_are_written_and_read_as_kubernetes_does(given: Any, wire: bytes, shown: Any) -> None:
    assert protobuf.encode(given, *gvk_of(given)) == wire
    read = protobuf.decode(wire)
    assert read == shown
    assert list(read)[:2] == ["apiVersion", "kind"]
    # what is shown is what is sent again
    assert protobuf.encode(shown, *gvk_of(shown)) == protobuf.encode(read, *gvk_of(read))


def test_every_kind_is_among_them() -> None:
    found = {gvk_of(case["json"]) for case in TABLE["cases"] if "json" in case}
    assert found == set(kinds())
    assert len(found) > 150


@pytest.mark.parametrize("event", TABLE["events"])
def test_events_of_a_watch_are_framed_as_kubernetes_does(event: dict[str, Any]) -> None:
    pod = ("", "v1", "Pod")
    wire = base64.b64decode(event["protobuf"])
    assert protobuf.encode_watch_event("ADDED", event["json"], pod) == wire
    assert protobuf.encode_watch_event("ADDED", protobuf.encode_message(event["json"], *pod), pod) == wire
    read = protobuf.decode_message(wire[4:], "", "v1", "WatchEvent")
    assert read["type"] == "ADDED"
    assert read["object"] == protobuf.decode(protobuf.encode(event["json"], *pod))


@pytest.mark.parametrize("gvk", [gvk for gvk in kinds() if gvk[2].endswith("List") and gvk[2] not in OTHER_LISTS])
def test_a_list_put_together_is_the_list_written_at_once(gvk: protobuf.Gvk) -> None:
    message = message_of(*gvk)
    assert message is not None
    assert [(field.number, field.name) for field in fields_of(message)] == [(1, "metadata"), (2, "items")]
    metadata = {"resourceVersion": "7", "continue": "more", "remainingItemCount": 3}
    items = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b" * 200}}]
    one = (gvk[0], gvk[1], gvk[2].removesuffix("List"))
    whole = protobuf.encode({"metadata": metadata, "items": items}, *gvk)
    assert protobuf.encode_list(metadata, [protobuf.encode_message(item, *one) for item in items], gvk) == whole
    read = protobuf.decode(whole)
    assert [item["metadata"]["name"] for item in read["items"]] == ["a", "b" * 200]
    assert protobuf.decode(protobuf.encode_list({}, [], gvk))["items"] is None
