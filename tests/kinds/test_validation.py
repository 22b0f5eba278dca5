"""Validation agrees with recordings of a real kube-apiserver and with its rules."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pilothouse.kinds.defaults import default
from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.validation import validate_create, validate_update

GOLDEN = Path(__file__).parent.parent / "golden"
Object = dict[str, Any]
Step = dict[str, Any]
POD = ("", "v1", "Pod")
DEPLOYMENT = ("apps", "v1", "Deployment")
SERVICE = ("", "v1", "Service")


def steps(name: str) -> list[Step]:
    """Read a recording; each step gets what was stored under its path before it."""
    found: list[Step] = json.loads((GOLDEN / name).read_text())["steps"]
    stored: dict[str, Object] = {}
    for step in found:
        path, _, _ = step["path"].partition("?")
        answer = step["response"] if isinstance(step["response"], dict) else {}
        known = (answer.get("metadata") or {}).get("name")
        step["before"] = stored.get(path)
        if step["status"] in {200, 201} and known and "dryRun" not in step["path"]:
            stored[path if path.endswith(f"/{known}") else f"{path}/{known}"] = answer
    return found


STEPS = [*steps("errors.json"), *steps("defaults.json")]
MORE_STEPS = [*steps("lists.json"), *steps("patches.json"), *steps("crds.json")]
ELSEWHERE = {"CreateOptions", "PatchOptions", "ListOptions", "Widget", None}
"""Refusals of request options, of patches that cannot be applied, and of custom resources are decided elsewhere."""
REFUSED = [
    step
    for step in STEPS + MORE_STEPS
    if step["status"] == 422 and step["response"]["details"].get("kind") not in ELSEWHERE
]


def kind_of(obj: Object) -> tuple[str, str, str]:
    group, _, version = obj["apiVersion"].rpartition("/")
    return group, version, obj["kind"]


def defaulted(obj: Object, gvk: tuple[str, str, str]) -> Object:
    return default(copy.deepcopy(obj), *gvk)


def merged(target: Object, patch: Object) -> Object:
    result = dict(target)
    for key, value in patch.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


def errors_of(step: Step) -> ErrorList:
    if step["method"] == "POST":
        gvk = kind_of(step["body"])
        return validate_create(defaulted(step["body"], gvk), gvk)
    old = step["before"]
    return validate_update(old, merged(old, step["body"]), kind_of(old))


def sorted_causes(causes: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(causes, key=lambda cause: json.dumps(cause, sort_keys=True))


@pytest.mark.parametrize("step", REFUSED, ids=lambda step: str(step["label"]))
def test_causes_are_those_recorded(step: Step) -> None:
    assert sorted_causes(errors_of(step).causes()) == sorted_causes(step["response"]["details"]["causes"])


def test_every_recorded_refusal_of_an_object_is_compared() -> None:
    assert len(REFUSED) == 22


ACCEPTED = [
    step
    for step in STEPS + MORE_STEPS
    if step["method"] == "POST" and step["status"] == 201 and "apiVersion" in step.get("body", {})
]


@pytest.mark.parametrize("step", ACCEPTED, ids=lambda step: str(step["label"]))
def test_what_was_accepted_has_no_errors(step: Step) -> None:
    body = copy.deepcopy(step["body"])
    if "generateName" in body.get("metadata", {}):
        body["metadata"]["name"] = "generated"
    gvk = kind_of(body)
    assert validate_create(defaulted(body, gvk), gvk) == []


PLACEHOLDERS = {"<uid>": "9f1c", "<ip>": "10.0.0.1", '"<nodePort>"': "30000"}
STORED = [step for step in ACCEPTED if "resourceVersion" in step["response"]["metadata"]]


@pytest.mark.parametrize("step", STORED, ids=lambda step: str(step["label"]))
def test_what_was_answered_may_be_sent_back(step: Step) -> None:
    text = json.dumps(step["response"])
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    answered: Object = json.loads(text)
    assert validate_update(answered, copy.deepcopy(answered), kind_of(answered)) == []


def pod(**spec: Any) -> Object:
    meta = {"name": "p", "namespace": "n", "resourceVersion": "1"}
    obj: Object = {"metadata": meta, "spec": {"containers": [{"name": "a", "image": "x:1"}], **spec}}
    return default(obj, *POD)


def deployment(**spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
    meta = {"name": "d", "namespace": "n", "resourceVersion": "1"}
    obj: Object = {"metadata": meta, "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template, **spec}}
    return default(obj, *DEPLOYMENT)


def texts(errors: ErrorList) -> list[str]:
    return [str(error) for error in errors]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]},
            'spec.containers[1].name: Duplicate value: "a"',
        ),
        (
            {"containers": [{"name": "a", "image": "x", "livenessProbe": {}}]},
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            {"containers": [{"name": "a", "image": "x", "env": [{"name": "A=B"}]}]},
            (
                'spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist '
                "only of printable ASCII characters other than '='"
            ),
        ),
        (
            {"containers": [{"name": "a", "image": "x", "env": [{"name": "A", "valueFrom": {}}]}]},
            (
                'spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, '
                "`resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            ),
        ),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]},
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]},
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            {"tolerations": [{"key": "k", "operator": "Maybe"}]},
            'spec.tolerations[0].operator: Unsupported value: "Maybe": supported values: "Equal", "Exists"',
        ),
        (
            {"initContainers": [{"name": "i", "image": "x", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]},
            (
                "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without "
                "restartPolicy=Always"
            ),
        ),
        (
            {"dnsPolicy": "None"},
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            {"containers": [{"name": "a", "image": "x", "resources": {"limits": {"gpu": "1"}}}]},
            (
                'spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource type or '
                "fully qualified"
            ),
        ),
        (
            {"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": "-1"}}}]},
            'spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (
            {"nodeName": "n", "schedulingGates": [{"name": "g"}]},
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ),
    ],
)
def test_a_wrong_pod_says_why(spec: Object, expected: str) -> None:
    assert expected in texts(validate_create(pod(**spec), POD))


def test_a_pod_may_change_its_image() -> None:
    assert validate_update(pod(), pod(containers=[{"name": "a", "image": "x:2"}]), POD) == []


def test_a_pod_may_not_change_its_command() -> None:
    new = pod(containers=[{"name": "a", "image": "x:1", "command": ["sh"]}])
    (error,) = validate_update(pod(), new, POD)
    first, *difference = error.body.split("\n")
    assert first == (
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    assert '+   "Command": [' in difference


def test_a_pod_may_gain_tolerations_but_not_lose_them() -> None:
    tolerations = [{"key": "k", "operator": "Exists"}]
    assert validate_update(pod(), pod(tolerations=tolerations), POD) == []
    assert texts(validate_update(pod(tolerations=tolerations), pod(), POD)) == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    ]


def test_a_pod_keeps_its_containers() -> None:
    new = pod(containers=[{"name": "a", "image": "x:1"}, {"name": "b", "image": "x:1"}])
    expected = ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    assert texts(validate_update(pod(), new, POD)) == expected


def test_an_update_wants_a_version_and_the_same_name() -> None:
    new = pod()
    new["metadata"] = {"name": "q", "namespace": "n"}
    assert sorted(set(texts(validate_update(pod(), new, POD))), reverse=True) == [
        'metadata.resourceVersion: Invalid value: "": must be specified for an update',
        'metadata.name: Invalid value: "q": field is immutable',
    ]


def test_rolling_updates_must_move() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}
    assert texts(validate_create(deployment(strategy=strategy), DEPLOYMENT)) == [
        "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
    ]


def test_an_unknown_strategy_is_shown_whole() -> None:
    assert texts(validate_create(deployment(strategy={"type": "Blue"}), DEPLOYMENT)) == [
        (
            'spec.strategy: Unsupported value: {"Type":"Blue","RollingUpdate":null}: '
            'supported values: "Recreate", "RollingUpdate"'
        )
    ]


def test_a_cluster_address_stays() -> None:
    def service(address: str) -> Object:
        spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}
        return default({"metadata": {"name": "s", "resourceVersion": "1"}, "spec": spec}, *SERVICE)

    assert texts(validate_update(service("10.0.0.1"), service("10.0.0.2"), SERVICE)) == [
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set'
    ]


def test_a_stateful_set_keeps_its_service() -> None:
    gvk = ("apps", "v1", "StatefulSet")
    old, new = (default(deployment(serviceName=name), *gvk) for name in ("a", "b"))
    for obj in (old, new):
        for field in ("strategy", "progressDeadlineSeconds"):
            obj["spec"].pop(field)
    (error,) = validate_update(old, new, gvk)
    assert error.field == "spec"
    assert error.detail.startswith("updates to statefulset spec for fields other than 'replicas', 'ordinals'")


def test_a_job_keeps_its_template() -> None:
    gvk = ("batch", "v1", "Job")

    def job(image: str, **spec: Any) -> Object:
        pod_spec = {"restartPolicy": "Never", "containers": [{"name": "a", "image": image}]}
        obj: Object = {"metadata": {"name": "j", "resourceVersion": "1"}, "spec": {"template": {"spec": pod_spec}}}
        obj["spec"].update(spec)
        return default(obj, *gvk)

    assert validate_update(job("x"), job("x", parallelism=3, completions=1), gvk) == []
    (error,) = validate_update(job("x"), job("y"), gvk)
    assert (error.field, error.detail) == ("spec.template", "field is immutable")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("*/15 0-6,8 1 jan-mar mon", None),
        ("@every 1h30m", None),
        ("@daily", None),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@never", "unrecognized descriptor: @never"),
    ],
)
def test_schedules(schedule: str, expected: str | None) -> None:
    gvk = ("batch", "v1", "CronJob")
    pod_spec = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}
    spec = {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod_spec}}}}
    errors = validate_create(default({"metadata": {"name": "c"}, "spec": spec}, *gvk), gvk)
    assert [error.detail for error in errors] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("kubernetes.io/tls", {"data": {"tls.crt": ""}}, "data[tls.key]: Required value"),
        ("kubernetes.io/dockerconfigjson", {}, "data[.dockerconfigjson]: Required value"),
        (
            "kubernetes.io/service-account-token",
            {},
            "metadata.annotations[kubernetes.io/service-account.name]: Required value",
        ),
        ("Opaque", {"data": {"a": "QUFB" * 400_000}}, "data: Too long: may not be more than 1048576 bytes"),
    ],
)
def test_secrets_by_type(kind: str, content: Object, expected: str) -> None:
    obj = {"metadata": {"name": "s"}, "type": kind, **content}
    assert texts(validate_create(obj, ("", "v1", "Secret"))) == [expected]


def test_two_controllers_are_too_many() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": True}
    obj = {"metadata": {"name": "s", "ownerReferences": [owner, owner]}}
    (error,) = validate_create(obj, ("", "v1", "ServiceAccount"))
    assert error.detail == (
        'Only one reference can have Controller set to true. Found "true" in references for Pod/a and Pod/a'
    )


def test_webhooks_say_what_they_do() -> None:
    gvk = ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration")
    hook = {"name": "a.b", "clientConfig": {}, "rules": [{"operations": ["*", "CREATE"], "apiGroups": [""]}]}
    obj = default({"metadata": {"name": "w"}, "webhooks": [hook]}, *gvk)
    assert texts(validate_create(obj, gvk)) == [
        'webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots',
        (
            'webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if \'*\' is present, must not specify '
            "other operations"
        ),
        "webhooks[0].rules[0].apiVersions: Required value",
        "webhooks[0].rules[0].resources: Required value",
        "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
    ]


def test_policies_want_rules_and_validations() -> None:
    gvk = ("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy")
    obj = default({"metadata": {"name": "p"}, "spec": {"matchConstraints": {}}}, *gvk)
    assert [error.field for error in validate_create(obj, gvk)] == [
        "spec.matchConstraints.resourceRules",
        "spec.validations",
        "spec.auditAnnotations",
    ]


def test_endpoints_are_of_the_type_said() -> None:
    gvk = ("discovery.k8s.io", "v1", "EndpointSlice")
    obj = {"metadata": {"name": "e"}, "addressType": "IPv6", "endpoints": [{"addresses": ["10.0.0.1"]}, {}]}
    assert texts(validate_create(default(obj, *gvk), gvk)) == [
        'endpoints[0].addresses: Invalid value: "10.0.0.1": must be an IPv6 address',
        "endpoints[1].addresses: Required value: must contain at least 1 address",
    ]


KINDS = sorted({kind_of(step["response"]) for step in STORED} | {("apps", "v1", "Deployment")})


@pytest.mark.parametrize("gvk", KINDS, ids="/".join)
@pytest.mark.parametrize("obj", [{}, {"metadata": None, "spec": None}, {"metadata": {"name": "a"}, "spec": {}}])
def test_nothing_given_is_refused_and_breaks_nothing(gvk: tuple[str, str, str], obj: Object) -> None:
    for filled in (copy.deepcopy(obj), defaulted(obj, gvk)):
        named = bool((filled.get("metadata") or {}).get("name"))
        errors = validate_create(filled, gvk)
        assert named or "metadata.name: Required value: name or generateName is required" in texts(errors)
        assert validate_update(filled, filled, gvk)


@pytest.mark.parametrize(
    ("gvk", "name", "good"),
    [
        (("", "v1", "ConfigMap"), "a.b", True),
        (("", "v1", "Namespace"), "a.b", False),
        (("", "v1", "Service"), "1a", True),
        (("", "v1", "Event"), "Some_Event", True),
        (("rbac.authorization.k8s.io", "v1", "ClusterRole"), "system:a", True),
        (("rbac.authorization.k8s.io", "v1", "ClusterRole"), "a/b", False),
    ],
)
def test_names_by_kind(gvk: tuple[str, str, str], name: str, good: bool) -> None:
    wrong = [error for error in validate_create({"metadata": {"name": name}}, gvk) if error.field == "metadata.name"]
    assert (not wrong) == good
