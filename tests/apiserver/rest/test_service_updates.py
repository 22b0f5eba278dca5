"""Services that change their type, addresses, families and ports: as a recorded kube-apiserver 1.36 answers.

`tests/golden/service-updates.json` has services, merge patches of their specs, and what came of each pair: the spec, or
what the refusal says. Addresses and ports that the server chose are numbered in the order in which they are seen.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pilothouse.apiserver.allocation import AllocationOptions
from pilothouse.foundation.ids import SeededIds
from support.apiserverkit import Api, api_server, until

GOLDEN = Path(__file__).parents[2] / "golden" / "service-updates.json"
SERVICES = "/api/v1/namespaces/default/services"
NETWORK = "10.0.0.0/24"
WORDING = {("headlessnosel", "otherip"), ("headlessnosel", "otherboth")}
"""Pairs that are refused for two reasons; here the other one is told."""
_CHOSEN = re.compile(r'"?\b10\.0\.0\.\d{2,3}\b"?|\b3[0-2]\d{3}\b')


class Numbers:
    """Puts numbers in the place of what the server chose."""

    def __init__(self, fixed: str) -> None:
        self._fixed = fixed
        self._seen: dict[str, str] = {}

    def replaced(self, spec: Any) -> Any:
        def number(found: re.Match[str]) -> str:
            text = found.group(0)
            if text in self._fixed:
                return text
            return self._seen.setdefault(text.strip('"'), f'"<{len(self._seen)}>"')

        return json.loads(_CHOSEN.sub(number, json.dumps(spec, sort_keys=True)))


async def outcome(api: Api, name: str, start: Any, patch: Any) -> tuple[int, Any]:
    numbers = Numbers(json.dumps(patch))
    made = await api.made(SERVICES, {"metadata": {"name": name}, "spec": start})
    numbers.replaced({"spec": made["spec"], "status": made["status"]})
    reply = await api.merge(f"{SERVICES}/{name}", {"spec": patch})
    await api.delete(f"{SERVICES}/{name}")
    if reply.status == 200:
        return 200, numbers.replaced({"spec": reply.body["spec"], "status": {}})["spec"]
    return reply.status, reply.message.partition(" is invalid: ")[2].replace('\\"', '"')


async def test_services_change_as_on_the_recorded_server() -> None:
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))
    wrong = []
    async with api_server(allocation=AllocationOptions(NETWORK), ids=SeededIds(7)) as api:
        for count, (start, patch, code, expected) in enumerate(recorded["outcomes"]):
            if (start, patch) in WORDING:
                continue
            found = await outcome(api, f"s{count}", recorded["start"][start], recorded["patches"][patch])
            if found[0] != code or _told(found[1]) != _told(expected):
                wrong.append(f"{start} {patch}: {found}, expected {(code, expected)}")
    assert not wrong, "\n".join(wrong)
    assert len(recorded["outcomes"]) > 300


async def test_what_a_service_no_longer_has_goes_to_others() -> None:
    async with api_server(allocation=AllocationOptions(NETWORK)) as api:
        made = await api.made(
            SERVICES,
            {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}},
        )
        address = made["spec"]["clusterIP"]
        gone = {"type": "ExternalName", "externalName": "x.example.com", "clusterIP": None, "clusterIPs": None}
        assert (await api.merge(f"{SERVICES}/a", {"spec": gone})).status == 200
        addresses = "ipaddresses.networking.k8s.io"
        await until(lambda: api.server.view.get(addresses, "", address) is None)
        taking = {"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": 30080}]}
        await api.server.storage.close()  # which waits for what is written in the background
        assert (await api.made(SERVICES, {"metadata": {"name": "b"}, "spec": taking}))["spec"]["clusterIP"] == address
        back = {"type": "ClusterIP", "externalName": None}
        found = (await api.merge(f"{SERVICES}/a", {"spec": back})).body["spec"]
        assert found["clusterIP"] not in {address, "", None}
        assert (found["ipFamilies"], found["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


def _told(expected: Any) -> Any:
    """Let numbers of refusals aside, which quote what was chosen."""
    return _CHOSEN.sub("N", re.sub(r'"?<\d+>"?', "N", expected)) if isinstance(expected, str) else expected
