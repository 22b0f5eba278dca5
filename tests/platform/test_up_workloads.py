"""`pilothouse up`: jobs, first containers, what is mounted, identities, and pods that fail, as users meet them."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import pod, shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def ended(found: dict[str, Any]) -> bool:
    return found["status"].get("phase") in {"Succeeded", "Failed"}


def until_ended(platform: Platform, name: str) -> str:
    """Wait until a pod has ended; return its phase and what it printed."""
    found = platform.until("Pod", name, ended)
    return f"{found['status']['phase']}: {platform.kubectl('logs', name)}"


def container_state(found: dict[str, Any], kind: str, which: str = "state") -> dict[str, Any]:
    for each in found["status"].get("containerStatuses") or ():
        state: dict[str, Any] = each.get(which, {}).get(kind) or {}
        if state:
            return state
    return {}


def restarts(found: dict[str, Any]) -> int:
    return sum(each["restartCount"] for each in found["status"].get("containerStatuses") or ())


def until_waiting(platform: Platform, name: str, *reasons: str) -> str:
    """Wait until a container waits for one of the reasons; return what it says."""
    found = platform.until("Pod", name, lambda it: container_state(it, "waiting").get("reason") in reasons)
    return str(container_state(found, "waiting").get("message", ""))


# Jobs


def job(name: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template} | spec,
    }


def has(found: dict[str, Any], condition: str) -> bool:
    conditions = found["status"].get("conditions") or ()
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def test_an_indexed_job_does_each_of_its_parts(platform: Platform) -> None:
    line = shell("echo part $JOB_COMPLETION_INDEX")
    platform.create(job("parts", line, completions=3, parallelism=2, completionMode="Indexed"))
    found = platform.until("Job", "parts", lambda it: has(it, "Complete"))
    assert (found["status"]["succeeded"], found["status"]["completedIndexes"]) == (3, "0-2")
    pods = [each["metadata"]["name"] for each in platform.items("Pod", "batch.kubernetes.io/job-name=parts")]
    assert sorted(platform.kubectl("logs", name) for name in pods) == ["part 0", "part 1", "part 2"]


def test_a_job_that_only_fails_gives_up(platform: Platform) -> None:
    platform.create(job("never", shell("echo no; exit 4"), backoffLimit=0))
    found = platform.until("Job", "never", lambda it: has(it, "Failed"))
    failed = next(each for each in found["status"]["conditions"] if each["type"] == "Failed")
    assert (failed["reason"], found["status"]["failed"]) == ("BackoffLimitExceeded", 1)
    assert "BackoffLimitExceeded" in platform.kubectl("describe", "job", "never")


def test_a_cron_job_is_run_by_hand(platform: Platform) -> None:
    template = {"spec": {"template": {"spec": {"containers": [shell("echo by hand")], "restartPolicy": "Never"}}}}
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": template}
    platform.create({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "yearly"}, "spec": spec})
    platform.kubectl("create", "job", "now", "--from=cronjob/yearly")
    platform.until("Job", "now", lambda it: has(it, "Complete"))
    assert platform.kubectl("logs", "job/now") == "by hand"


# Containers that come first and go along


def test_containers_come_in_order_and_sidecars_stay_until_the_last_has_ended(platform: Platform) -> None:
    shared: dict[str, Any] = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    first = shell("echo first > /shared/order", "first", **shared)
    along = "trap 'echo gone >> /shared/order; exit 0' TERM; echo along >> /shared/order; while :; do sleep 0.1; done"
    started = {"exec": {"command": ["grep", "along", "/shared/order"]}, "periodSeconds": 1}
    side = shell(along, "side", restartPolicy="Always", startupProbe=started, **shared)
    main = shell("echo main >> /shared/order; cat /shared/order", **shared)
    volumes = [{"name": "shared", "emptyDir": {}}]
    platform.create(pod("order", main, initContainers=[first, side], restartPolicy="Never", volumes=volumes))
    assert until_ended(platform, "order") == "Succeeded: first\nalong\nmain"
    assert platform.get("Pod", "order")["status"]["initContainerStatuses"][1]["state"]["terminated"]["exitCode"] == 0


def test_a_first_container_that_fails_holds_the_pod_up(platform: Platform) -> None:
    platform.create(pod("held", shell("echo never"), initContainers=[shell("exit 3", "first")]))
    platform.until("Pod", "held", lambda it: (it["status"].get("initContainerStatuses") or [{}])[0].get("restartCount"))
    assert "Init:" in platform.kubectl("get", "pod", "held")
    platform.delete("Pod", "held")


# What pods are given


def test_environments_and_files_come_from_maps_secrets_and_the_pod_itself(platform: Platform) -> None:
    text = base64.b64encode(b"hidden").decode()
    platform.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "calm"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": {"word": text}},
    )
    env = [
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "word"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "BOTH", "value": "$(MODE)-$(WORD)"},
    ]
    volumes = [
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {
            "name": "about",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
    ]
    mounts = [{"name": "keys", "mountPath": "/keys"}, {"name": "about", "mountPath": "/about"}]
    line = "echo $MODE $WORD $NODE $CPU $BOTH; cat /keys/word; echo; cat /about/labels"
    main = shell(line, env=env, volumeMounts=mounts, resources={"limits": {"cpu": "250m"}})
    platform.create(pod("given", main, labels={"tier": "front"}, restartPolicy="Never", volumes=volumes))
    wanted = f'Succeeded: calm hidden {platform.node} 250 calm-hidden\nhidden\ntier="front"'
    assert until_ended(platform, "given") == wanted


def test_a_changed_map_is_seen_in_the_running_pod(platform: Platform) -> None:
    platform.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "live"}, "data": {"a": "old"}})
    volumes = [{"name": "live", "configMap": {"name": "live"}}]
    line = "until grep -q new /live/a; do sleep 0.1; done; cat /live/a"
    main = shell(line, volumeMounts=[{"name": "live", "mountPath": "/live"}])
    platform.create(pod("watches", main, restartPolicy="Never", volumes=volumes))
    platform.until("Pod", "watches", lambda it: it["status"].get("phase") == "Running")
    platform.patch("ConfigMap", "live", {"data": {"a": "new"}})
    assert until_ended(platform, "watches") == "Succeeded: new"


WHO = """
import json, os, ssl, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount"
host, port = HOST or os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
def ask(method, path, body=None):
    headers = {"Authorization": "Bearer " + open(place + "/token").read(), "Content-Type": "application/json"}
    asked = urllib.request.Request(f"https://{host}:{port}{path}", body, headers, method=method)
    context = ssl.create_default_context(cafile=place + "/ca.crt")
    return json.load(urllib.request.urlopen(asked, context=context, timeout=20))
review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
print(ask("POST", path, json.dumps(review).encode())["status"]["userInfo"]["username"])
print(len(ask("GET", f"/api/v1/namespaces/{open(place + '/namespace').read()}/configmaps")["items"]) > 0)
"""


def test_a_pods_token_is_good_for_the_api(platform: Platform) -> None:
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    group = "rbac.authorization.k8s.io"
    platform.create(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [subject],
        },
    )
    host = "kubernetes.default.svc" if platform.as_root else ""  # a user's pods have no cluster DNS
    main = {"name": "main", "image": "host", "command": ["python3", "-c", WHO.replace("HOST or", f"{host!r} or")]}
    platform.create(pod("asks", main, serviceAccountName="reader", restartPolicy="Never"))
    assert until_ended(platform, "asks") == "Succeeded: system:serviceaccount:default:reader\nTrue"


# What goes wrong


def test_a_container_that_is_not_alive_is_started_again(platform: Platform) -> None:
    probe = {"exec": {"command": ["cat", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    line = "echo run; touch /tmp/alive; sleep 1; rm /tmp/alive; exec sleep 1000"
    platform.create(pod("sick", shell(line, livenessProbe=probe), terminationGracePeriodSeconds=0))
    platform.until("Pod", "sick", lambda it: restarts(it) >= 1)
    platform.until_event("sick", "Unhealthy", "Liveness probe failed")
    assert "will be restarted" in platform.until_event("sick", "Killing")["message"]
    assert platform.kubectl("logs", "sick", "--previous") == "run"
    platform.delete("Pod", "sick")


def test_too_much_memory_is_told(platform: Platform) -> None:
    if not platform.as_root:
        pytest.skip("limits want control groups, which an ordinary user has not")
    command = ["python3", "-c", "held = []\nwhile True: held.append(bytearray(1 << 20))"]
    main = {"name": "main", "image": "host", "command": command, "resources": {"limits": {"memory": "32Mi"}}}
    platform.create(pod("greedy", main, restartPolicy="Never"))
    found = platform.until("Pod", "greedy", ended)
    state = container_state(found, "terminated")
    assert (state["reason"], state["exitCode"]) == ("OOMKilled", 137)


def test_a_container_that_dies_is_started_later_each_time(platform: Platform) -> None:
    platform.create(pod("dies", shell("echo so; exit 9")))
    until_waiting(platform, "dies", "CrashLoopBackOff")
    assert "back-off 10s restarting failed container" in until_waiting(platform, "dies", "CrashLoopBackOff")
    platform.until_event("dies", "BackOff")
    described = platform.kubectl("describe", "pod", "dies")
    assert re.search(r"Last State:\s+Terminated\s+Reason:\s+Error\s+Exit Code:\s+9", described), described
    platform.delete("Pod", "dies")


@pytest.mark.parametrize(
    ("name", "change", "reasons", "told"),
    [
        ("no-image", {"image": "oci:/no/such/image"}, ("ErrImagePull", "ImagePullBackOff"), "/no/such/image"),
        ("no-command", {"command": ["/no/such/program"]}, ("RunContainerError", "CrashLoopBackOff"), "/no/such"),
        (
            "no-map",
            {"envFrom": [{"configMapRef": {"name": "not-there"}}]},
            ("CreateContainerConfigError",),
            'configmap "not-there" not found',
        ),
    ],
)
def test_why_a_container_does_not_start_is_described(
    platform: Platform, name: str, change: dict[str, Any], reasons: tuple[str, ...], told: str
) -> None:
    platform.create(pod(name, shell("echo never") | change))
    until_waiting(platform, name, *reasons)
    platform.until_event(name, "Failed", told)
    described = platform.kubectl("describe", "pod", name)
    assert any(reason in described for reason in reasons)
    platform.delete("Pod", name)


def test_what_is_waited_for_starts_the_pod_once_it_is_there(platform: Platform) -> None:
    volumes = [{"name": "later", "configMap": {"name": "later"}}]
    main = shell("cat /later/a", volumeMounts=[{"name": "later", "mountPath": "/later"}])
    platform.create(pod("patient", main, restartPolicy="Never", volumes=volumes))
    platform.until_event("patient", "FailedMount", 'configmap "later" not found')
    assert "FailedMount" in platform.kubectl("describe", "pod", "patient")
    platform.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}, "data": {"a": "now"}})
    assert until_ended(platform, "patient") == "Succeeded: now"


def test_a_path_that_is_not_there_is_told(platform: Platform) -> None:
    volumes = [{"name": "lost", "hostPath": {"path": "/no/such/place", "type": "Directory"}}]
    main = shell("echo never", volumeMounts=[{"name": "lost", "mountPath": "/lost"}])
    platform.create(pod("lost", main, volumes=volumes))
    platform.until_event("lost", "FailedMount", "/no/such/place")
    platform.delete("Pod", "lost")


def test_a_port_of_the_machine_is_one_pods_alone(platform: Platform) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ports = [{"containerPort": 8080, "hostPort": port}]
    platform.create(pod("holds", shell("exec sleep 1000", ports=ports)))
    platform.until("Pod", "holds", lambda it: it["status"].get("phase") == "Running")
    platform.create(pod("waits", shell("echo have it", ports=ports), restartPolicy="Never"))
    wanted = "1 node(s) didn't have free ports for the requested pod ports"
    platform.until_event("waits", "FailedScheduling", wanted)
    platform.delete("Pod", "holds")
    assert until_ended(platform, "waits") == "Succeeded: have it"


def test_a_port_that_the_machine_has_taken_is_told_by_the_program_itself(platform: Platform) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", str(holder.getsockname()[1])]
        platform.create(pod("taken", {"name": "main", "image": "host", "command": command}, hostNetwork=True))
        until_waiting(platform, "taken", "CrashLoopBackOff")
        assert "Address already in use" in platform.kubectl("logs", "taken", "--previous")
    platform.until("Pod", "taken", lambda it: it["status"].get("phase") == "Running")
    platform.delete("Pod", "taken")


def test_nothing_of_all_this_keeps_a_pod_that_is_deleted(platform: Platform) -> None:
    for each in platform.items("Pod"):
        platform.delete("Pod", each["metadata"]["name"])
    eventually(lambda: not platform.items("Pod"), lambda: [each["status"] for each in platform.items("Pod")])
