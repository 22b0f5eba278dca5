"""The pages of `pilothouse slo` by golden texts, and the command against a control plane."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from textwrap import dedent
from typing import Any

from click.testing import CliRunner

from pilothouse.cli import _root
from pilothouse.delivery.reliability.showing import days_line, page_of, row_of, view_of
from pilothouse.delivery.resources.installing import definitions
from pilothouse.delivery.resources.servicelevels import ServiceLevel
from pilothouse.kinds.structs import from_dict
from pilothouse.testing import ControlPlane

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LEVEL: dict[str, Any] = {
    "apiVersion": "pilothouse.dev/v1alpha1",
    "kind": "ServiceLevel",
    "metadata": {"name": "shop", "namespace": "default"},
    "spec": {"rollout": "shop", "routes": ["shop"], "objective": "99.9%", "latency": "800ms", "windowDays": 5},
    "status": {
        "figures": {
            "requests": 30000, "attained": "99.960%", "budgetLeft": "60.0%", "burnRate1h": "0.50", "burnRate6h": "0.40",
            "deploys": 2, "deploysPerDay": "0.4", "successRate": "50.0%", "leadTimeSeconds": 754,
            "restoreSeconds": "6.5",
        },
        "days": [
            {"begin": "2026-03-07T00:00:00Z", "requests": 10000, "bad": 12},
            {"begin": "2026-03-08T00:00:00Z", "requests": 10000, "bad": 0},
            {"begin": "2026-03-10T00:00:00Z", "requests": 10000, "bad": 5},
        ],
        "deploys": [
            {"version": "abc", "revision": "4", "startedAt": "2026-03-09T12:00:00Z", "outcome": "Succeeded"},
            {"version": "def", "startedAt": "2026-03-10T11:50:00Z", "outcome": "RolledBack", "message": "errors"},
        ],
    },
}  # fmt: skip


def test_the_page_of_one() -> None:
    page = "\n".join(page_of(view_of(from_dict(LEVEL, ServiceLevel), NOW), NOW))
    assert page == dedent(
        """\
        Name:         shop
        Namespace:    default
        Rollout:      shop
        Objective:    99.9% over 5 days, answered within 800ms
        Attained:     99.960% of 30000 requests
        Budget left:  ██████░░░░ 60.0%
        Burn rate:    0.50 (1h), 0.40 (6h)
        Deploys:      2 (0.4 a day), 50.0% went well
        Lead time:    12m
        Restored in:  6.5s
        Days:         ·▁█·▅

        DEPLOY  REVISION  AGE  OUTCOME     MESSAGE
        def               10m  RolledBack  errors
        abc     4         24h  Succeeded"""
    )


def test_what_is_not_known_yet_is_a_dash() -> None:
    bare = {**LEVEL, "status": {}}
    view = view_of(from_dict(bare, ServiceLevel), NOW)
    row = row_of(view)
    assert {row[name] for name in ("attained", "budget left", "burn 1h", "success", "lead time", "restore")} == {"-"}
    assert days_line(view) == "·····"
    wrong = {**LEVEL, "spec": {**LEVEL["spec"], "objective": "all"}}
    assert days_line(view_of(from_dict(wrong, ServiceLevel), NOW)) == ""


def test_the_command() -> None:
    with ControlPlane() as plane:
        definition = definitions([ServiceLevel])[0]
        plane.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/servicelevels.pilothouse.dev"
        plane.wait_for(path, _established)
        objects = "/apis/pilothouse.dev/v1alpha1/namespaces/default/servicelevels"
        plane.call("POST", objects, {name: part for name, part in LEVEL.items() if name != "status"})
        plane.call("PATCH", f"{objects}/shop/status", {"status": LEVEL["status"]})

        def call(*words: str) -> str:
            done = CliRunner().invoke(_root, ["slo", *words, "--kubeconfig", plane.kubeconfig], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            return done.stdout

        table = call("--days").splitlines()
        titles = "NAME OBJECTIVE ATTAINED BUDGET LEFT BURN 1H BURN 6H DEPLOYS SUCCESS LEAD TIME RESTORE DAYS"
        assert " ".join(table[0].split()) == titles
        assert "██████░░░░ 60.0%" in table[1]
        assert call("-A").startswith("NAMESPACE")
        assert "Objective:    99.9% over 5 days" in call("sl/shop")
        data = json.loads(call("shop", "-o", "json"))
        assert (data["burnRate1h"], data["leadTimeSeconds"], len(data["days"])) == ("0.50", 754, 5)
        missing = CliRunner().invoke(_root, ["slo", "shp", "--kubeconfig", plane.kubeconfig])
        assert (missing.exit_code, "there is shop" in missing.stderr) == (4, True)


def _established(found: Any) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or ()  # null until it is looked at
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
