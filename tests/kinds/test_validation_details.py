"""Rules of validation that only malformed or unusual objects meet, with the words of a real kube-apiserver."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.kinds.defaults import default
from pilothouse.kinds.defaults.images import pull_policy
from pilothouse.kinds.omission import always_written
from pilothouse.kinds.validation import validate_create, validate_update

Object = dict[str, Any]
HPA = ("autoscaling", "v2", "HorizontalPodAutoscaler")
BUDGET = ("policy", "v1", "PodDisruptionBudget")
WEBHOOKS = ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration")


def found(obj: Object, gvk: tuple[str, str, str]) -> list[str]:
    return [str(error) for error in validate_create(default(obj, *gvk), gvk)]


def scaler(**target: str) -> Object:
    reference = {"kind": "Deployment", "name": "d", **target}
    return {"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": reference}}


class TestAutoscalers:
    @pytest.mark.parametrize(
        ("version", "why"),
        [
            ("", "apiVersion must specify API group"),
            ("v1", "apiVersion must specify API group"),
            ("x/y/z", "unexpected GroupVersion string: x/y/z"),
        ],
    )
    def test_the_target_is_of_a_group(self, version: str, why: str) -> None:
        where = f'spec.scaleTargetRef.apiVersion: Invalid value: "{version}"'
        assert found(scaler(apiVersion=version), HPA) == [f"{where}: {why}"]

    def test_replication_controllers_have_none(self) -> None:
        assert found(scaler(kind="ReplicationController", apiVersion="v1"), HPA) == []
        assert found(scaler(kind="ReplicationController"), HPA) == []

    def test_an_update_that_keeps_it_is_taken(self) -> None:
        old = default(scaler(apiVersion="v1"), *HPA)
        old["metadata"]["resourceVersion"] = "1"
        new = {**old, "spec": {**old["spec"], "maxReplicas": 4}}
        assert validate_update(old, new, HPA) == []
        other = {**old, "spec": {**old["spec"], "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}
        assert len(validate_update(old, other, HPA)) == 1


class TestFinalizers:
    def test_a_finalizer_without_a_domain_is_one_of_kubernetes(self) -> None:
        meta = {"name": "c", "finalizers": ["orphan", "kubernetes", "a.b/c", "own"]}
        why = "name is neither a standard finalizer name nor is it fully qualified"
        (error,) = found({"metadata": meta}, ("", "v1", "ConfigMap"))
        assert error == f'metadata.finalizers[3]: Invalid value: "own": {why}'

    def test_those_of_webhook_configurations_are_free(self) -> None:
        assert found({"metadata": {"name": "c", "finalizers": ["own"]}}, WEBHOOKS) == []


class TestBudgets:
    def test_any_name_that_a_path_can_have_will_do(self) -> None:
        assert found({"metadata": {"name": "BAD VALUE!" + 300 * "a"}, "spec": {"minAvailable": 1}}, BUDGET) == []
        (error,) = found({"metadata": {"name": "a/b"}, "spec": {"minAvailable": 1}}, BUDGET)
        assert error == "metadata.name: Invalid value: \"a/b\": may not contain '/'"

    def test_metadata_is_looked_at_once_the_rest_is_good(self) -> None:
        (error,) = found({"metadata": {}, "spec": {"minAvailable": -1}}, BUDGET)
        assert error.startswith("spec.minAvailable")
        assert found({"metadata": {}, "spec": {}}, BUDGET) == [
            "metadata.name: Required value: name or generateName is required"
        ]


class TestWorkloads:
    def test_two_claim_templates_may_have_one_name(self) -> None:
        claim = {
            "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        assert found(self.workload(volumeClaimTemplates=[claim, claim]), ("apps", "v1", "StatefulSet")) == []

    def workload(self, **more: Any) -> Object:
        template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        return {
            "metadata": {"name": "w"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": template, **more},
        }

    def test_a_selector_with_a_malformed_label_selects_nothing(self) -> None:
        errors = found(self.workload(selector={"matchLabels": {"app": "*"}}), ("apps", "v1", "ReplicaSet"))
        assert errors[1] == 'spec.selector: Invalid value: {"matchLabels":{"app":"*"}}: invalid label selector'
        assert not any("does not match" in error for error in errors)


def test_a_webhook_s_service_is_told_the_wrong_way_round_as_by_kubernetes() -> None:
    hook = {"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"]}
    hook["clientConfig"] = {"service": {"namespace": "n", "port": 70000}}  # type: ignore[assignment]
    errors = found({"metadata": {"name": "w"}, "webhooks": [hook]}, WEBHOOKS)
    at = "webhooks[0].clientConfig.service"
    assert errors == [
        f"{at}.namespace: Required value",
        f"{at}.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
    ]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a" * 247, "Always"),
        ("a" * 248, "IfNotPresent"),
        ("example.com/" + "a" * 255, "Always"),
        ("example.com/" + "a" * 256, "IfNotPresent"),
        ("b/" + "a" * 253, "Always"),
        ("b/" + "a" * 254, "IfNotPresent"),
    ],
)
def test_an_image_with_too_long_a_name_has_no_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_lists_that_are_always_written() -> None:
    assert always_written("rbac.authorization.k8s.io", "v1", "Role") == (("", "rules"),)
    assert always_written("", "v1", "LimitRange") == (("spec", "limits"),)
    assert always_written("", "v1", "ConfigMap") == ()


class TestLimitRanges:
    GVK = ("", "v1", "LimitRange")

    def limits(self, **limit: Any) -> list[str]:
        return found({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **limit}]}}, self.GVK)

    def test_names_of_resources(self) -> None:
        assert self.limits(max={"odd": 1})[:2] == [
            'spec.limits[0].max[odd]: Invalid value: "odd": must be a standard resource type or fully qualified',
            'spec.limits[0].max[odd]: Invalid value: "odd": must be a standard resource for containers',
        ]

    def test_defaults_lie_in_order(self) -> None:
        given = {"default": {"cpu": "3"}, "defaultRequest": {"cpu": "4"}, "max": {"cpu": "2"}, "min": {"cpu": "1"}}
        at = "spec.limits[0]"
        request = f'{at}.defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than'
        assert self.limits(**given) == [
            f"{request} max value 2",
            f"{request} default limit value 3",
            f'{at}.default[cpu]: Invalid value: "2": default value 3 is greater than max value 2',
        ]

    def test_ratios(self) -> None:
        given = {"min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}
        (error,) = self.limits(**given)
        assert error.endswith('Invalid value: "3": ratio 3 is greater than max/min = 2.000000')

    def test_claims_have_storage(self) -> None:
        (error,) = found({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "PersistentVolumeClaim"}]}}, self.GVK)
        assert error.startswith("spec.limits[0].limits: Required value: either minimum or maximum storage value")


def test_a_secret_may_have_an_empty_value() -> None:
    assert found({"metadata": {"name": "s"}, "data": {"a": None}}, ("", "v1", "Secret")) == []


def test_the_image_of_a_pod_has_no_space_around() -> None:
    body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": " x"}]}}
    (error,) = found(body, ("", "v1", "Pod"))
    assert error == ('spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace')


class TestEndpointsOfOneMachine:
    SLICE = ("discovery.k8s.io", "v1", "EndpointSlice")
    ENDPOINTS = ("", "v1", "Endpoints")

    @staticmethod
    def objects(address: str) -> list[tuple[Object, tuple[str, str, str]]]:
        family = "IPv6" if ":" in address else "IPv4"
        part = {"addressType": family, "endpoints": [{"addresses": [address]}]}
        whole = {"subsets": [{"addresses": [{"ip": address}]}]}
        named: Object = {"metadata": {"name": "e", "namespace": "n", "resourceVersion": "1"}}
        return [
            (named | part, TestEndpointsOfOneMachine.SLICE),
            (named | whole, TestEndpointsOfOneMachine.ENDPOINTS),
        ]

    @pytest.mark.parametrize(
        ("address", "fine"),
        [("127.3.4.5", True), ("::1", False), ("169.254.1.1", False), ("0.0.0.0", False), ("10.1.2.3", True)],
    )
    def test_loopback_of_version_4_is_fine_where_it_is_allowed_and_nothing_else(self, address: str, fine: bool) -> None:
        for obj, gvk in self.objects(address):
            assert (validate_create(obj, gvk, loopback=True) == []) is fine
            assert (validate_update(obj, obj, gvk, loopback=True) == []) is fine
            usual = address == "10.1.2.3"
            assert (validate_create(obj, gvk) == []) is usual
            assert (validate_update(obj, obj, gvk) == []) is usual

    def test_all_else_is_checked_as_ever(self) -> None:
        (obj, gvk), _ = self.objects("127.3.4.5")
        wrong = obj | {"addressType": "IPv6"}
        assert [str(each) for each in validate_update(obj, wrong, gvk, loopback=True)] == [
            'endpoints[0].addresses: Invalid value: "127.3.4.5": must be an IPv6 address',
            'addressType: Invalid value: "IPv6": field is immutable',
        ]
        assert validate_create({"metadata": {"name": "c"}}, ("", "v1", "ConfigMap"), loopback=True) == []
