"""`pilothouse up`: what a judge does who has little to go by, or the wrong ones to blame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.planekit import free_port
from support.platformkit import PATIENCE, Platform, best_user, eventually, platform_of
from support.platformload import Load
from support.prometheuskit import prometheus_of, wants_prometheus
from support.webrollout import ARGO, address, analysis, apply, front, rollout, status, template, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Object = dict[str, Any]
PORT = 18091
QUICK = {"leastRequests": 20}
THIN = {"window": "2s", "longWindow": "20s", "leastRequests": 1000}


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def platform(metrics_port: int) -> Iterator[Platform]:
    with platform_of(best_user(), f"--gateway-metrics=127.0.0.1:{metrics_port}") as made:
        apply(made, *front(PORT), template("judged", **QUICK), rollout("1"))
        eventually(lambda: status(made).get("phase") == "Healthy", lambda: (status(made), made.logged()))
        yield made


def runs(platform: Platform) -> list[Object]:
    """Return the analysis runs of the present revision, the oldest first."""
    found = platform.call("GET", f"{ARGO}/analysisruns")["items"]
    mine = [each for each in found if status(platform)["currentPodHash"] in each["metadata"]["name"]]
    return sorted(mine, key=lambda each: str(each["metadata"]["creationTimestamp"]))


def incidents(platform: Platform) -> list[Object]:
    found: list[Object] = platform.call("GET", "/apis/pilothouse.dev/v1alpha1/namespaces/default/incidents")["items"]
    return found


def command(platform: Platform, *words: str) -> str:
    return platform.run("-m", "pilothouse", "rollout", *words, f"--kubeconfig={platform.kubeconfig}")


def shown(platform: Platform) -> object:
    return status(platform), weights(platform), platform.told("default")


def until_phase(platform: Platform, phase: str) -> Object:
    eventually(lambda: status(platform).get("phase") == phase, lambda: shown(platform))
    return status(platform)


def back_to(platform: Platform, version: str) -> None:
    """Have the good version again, of which the stable pods are."""
    apply(platform, rollout(version))
    until_phase(platform, "Healthy")


def until_back(platform: Platform, load: Load, good: str) -> Object:
    """Wait until a version was taken back, and see that nobody comes to it any more; return the status."""
    # Two percent of few requests a second, on a machine that is busy, take a while to be sure of.
    eventually(lambda: status(platform).get("abort"), lambda: (shown(platform), load.answers), seconds=3 * PATIENCE)
    eventually(lambda: weights(platform) == [100, 0], lambda: shown(platform))
    load.forget()
    eventually(lambda: load.count >= 60, lambda: load.failures[-5:])  # those that were under way
    load.forget()
    eventually(lambda: load.count >= 60, lambda: load.failures[-5:])
    assert set(load.answers) == {good}
    return until_phase(platform, "Degraded")


def test_thin_traffic_is_said_aloud_and_goes_on_by_promotion(platform: Platform) -> None:
    apply(platform, template("thin", inconclusiveAfter="5s", **THIN), template("step", **{"for": "3s"}, **THIN))
    inline = {"analysis": {"templates": [{"templateName": "step"}]}}
    with Load(address(platform), PORT, kept=1, new=0, pause=0.3) as load:
        apply(platform, rollout("2", {"setWeight": 50}, inline, {"pause": {"duration": 120}}, background="thin"))
        eventually(lambda: load.answers["2"], lambda: (shown(platform), load.failures))
        found = until_phase(platform, "Paused")
        assert "InconclusiveAnalysisRun: " in found["message"]
        assert "thin traffic: " in found["message"]
        assert "requests within 20 s, 1000 are wanted for a verdict" in found["message"]
        platform.until_event("web", "RolloutPaused", "thin traffic")
        run = inconclusive(platform)[0]
        platform.until_event(run["metadata"]["name"], "AnalysisRunInconclusive", "thin traffic")
        told = command(platform, "get", "web")
        assert "thin traffic" in told
        assert weights(platform) == [50, 50]
        command(platform, "promote", "web")
        eventually(lambda: status(platform).get("currentStepIndex", 0) >= 1, lambda: shown(platform))

        def both() -> set[str]:
            return {each["metadata"]["labels"]["rollout-type"] for each in inconclusive(platform)}

        # The other of both analyses cannot tell either, and says so; each is promoted past.
        eventually(lambda: both() == {"Step", "Background"}, lambda: shown(platform))

        def is_over() -> bool:
            found = status(platform)
            if found.get("phase") == "Paused":
                command(platform, "promote", "web")
            return found.get("phase") == "Healthy" and found["stableRS"] == found["currentPodHash"]

        eventually(is_over, lambda: shown(platform))
        load.forget()
        eventually(lambda: load.answers["2"], lambda: load.failures)
    assert load.failures == []


def inconclusive(platform: Platform) -> list[Object]:
    return [each for each in runs(platform) if each["status"]["phase"] == "Inconclusive"]


def test_a_common_outage_is_not_blamed_on_the_new_version(platform: Platform) -> None:
    with Load(address(platform), PORT, kept=6, new=0) as load:
        apply(platform, rollout("3"))
        eventually(lambda: load.answers["3"] >= 100, lambda: (shown(platform), load.failures))
        load.path = "/?bad=0.1"
        (run,) = runs(platform)
        event = platform.until_event(run["metadata"]["name"], "CommonOutage")
        assert "common outage, for which the new version is not blamed" in event["message"]
        load.forget()
        eventually(lambda: load.answers["3"] >= 300, lambda: shown(platform))
        found = status(platform)
        assert not found.get("abort"), found
        assert weights(platform) == [50, 50]
        eventually(lambda: "common outage" in command(platform, "get", "web"), lambda: runs(platform))
        load.path = "/"
        load.forget()
        eventually(lambda: load.answers["3"] >= 50, lambda: shown(platform))
        command(platform, "promote", "web")
        found = until_phase(platform, "Healthy")
    assert found["stableRS"] == found["currentPodHash"]


def test_a_metric_that_flaps_is_one_decision(platform: Platform) -> None:
    before = len(incidents(platform))
    with Load(address(platform), PORT, kept=6, new=0) as load:
        apply(platform, rollout("4"))
        eventually(lambda: load.answers["4"] >= 50, lambda: (shown(platform), load.failures))

        def flap(times: int) -> None:
            for _ in range(times):
                load.path = "/?bad4=0.5"
                time.sleep(0.5)  # bursts: what is waited for is looked at after each
                load.path = "/"
                time.sleep(1)

        def is_decided() -> bool:
            flap(1)
            return bool(status(platform).get("abort"))

        eventually(is_decided, lambda: shown(platform))
        seen = []
        for _ in range(3):
            flap(1)
            seen.append(weights(platform))
        until_back(platform, load, "3")
    assert seen == [[100, 0]] * 3
    aborted = [each for each in platform.events("web") if each["reason"] == "RolloutAborted"]
    assert sum(each.get("count") or 1 for each in aborted) == 1
    assert [each["status"]["phase"] for each in runs(platform)] == ["Failed"]
    eventually(lambda: len(incidents(platform)) == before + 1, lambda: incidents(platform))
    back_to(platform, "3")


@pytest.mark.parametrize(
    ("version", "env", "why"),
    [("5", {"SLOW": "0.3"}, "the 95th percentile is "), ("6", {"BAD": "0.02"}, "answers are errors")],
    ids=["slow", "two percent of errors"],
)
def test_a_bad_version_is_taken_back(platform: Platform, version: str, env: dict[str, str], why: str) -> None:
    known = {each["metadata"]["name"] for each in incidents(platform)}
    with Load(address(platform), PORT, kept=20, new=0) as load:
        apply(platform, rollout(version, {"setWeight": 80}, {"pause": {"duration": 600}}, **env))
        found = until_back(platform, load, "3")
    assert why in found["message"]
    assert "limit" in found["message"]

    def told() -> list[Object]:
        new = [each for each in incidents(platform) if each["metadata"]["name"] not in known]
        return [each for each in new if each.get("status", {}).get("trafficBackAt")]

    eventually(told, lambda: incidents(platform))
    (incident,) = told()
    assert incident["status"]["evidence"][0]["metric"] == "traffic"
    assert why in platform.until_event("web", "RolloutAborted", why)["message"]
    back_to(platform, "3")


def test_after_promotion_the_analysis_goes_on_and_takes_a_version_back(platform: Platform) -> None:
    with Load(address(platform), PORT, kept=6, new=0) as load:
        apply(platform, rollout("7", {"setWeight": 50}, {"pause": {"duration": 1}}, watch="100s"))
        eventually(lambda: weights(platform) == [0, 100], lambda: shown(platform))
        eventually(lambda: "PromotionWatch" in conditions(platform), lambda: shown(platform))
        load.forget()
        eventually(lambda: load.answers["7"] >= 50, lambda: load.failures)
        load.path = "/?bad7=0.3"
        found = until_back(platform, load, "3")
    assert "are errors" in found["message"]
    back_to(platform, "3")


def conditions(platform: Platform) -> dict[str, str]:
    return {each["type"]: each["status"] for each in status(platform).get("conditions", ())}


@wants_prometheus
def test_a_real_prometheus_judges_by_the_gateways_figures(
    platform: Platform, metrics_port: int, tmp_path: Path
) -> None:
    with prometheus_of(tmp_path, {"gateway": (f"127.0.0.1:{metrics_port}", "/metrics")}) as prometheus:
        counted = 'sum(increase(pilothouse_gateway_requests_total{version="canary",code=~"%s"}[5s]))'
        failed, all_ = counted % "5..", counted % ".*"
        metric = {
            "name": "errors",
            "interval": "1s",
            "failureLimit": 2,
            "inconclusiveLimit": 1000,
            "successCondition": "len(result) > 0 && (isNaN(result[0]) || result[0] < 0.05)",
            "failureCondition": "len(result) > 0 && result[0] >= 0.05",
            "provider": {
                "prometheus": {
                    "address": prometheus.url,
                    "query": f"({failed} or vector(0)) / {all_}",
                }
            },
        }
        apply(platform, analysis("prometheus", metric))
        with Load(address(platform), PORT, kept=6, new=0) as load:
            apply(platform, rollout("8", background="prometheus", BAD="0.4"))
            found = until_back(platform, load, "3")
    assert 'Metric "errors" assessed Failed due to failed (3) > failureLimit (2)' in found["message"]
    (run,) = runs(platform)
    assert (
        "pilothouse_gateway_requests_total" in run["status"]["metricResults"][0]["metadata"]["ResolvedPrometheusQuery"]
    )
    back_to(platform, "3")
