"""What users are told about objects that are taken, in the words of a real kube-apiserver."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pilothouse.kinds.defaults import default
from pilothouse.kinds.fielderrors import Path
from pilothouse.kinds.warnings import parts, warns_of

Object = dict[str, Any]


def told(group: str, kind: str, new: Object, old: Object | None = None) -> list[str]:
    warns = warns_of(group, kind)
    assert warns is not None
    return warns(default(new, group, "v1", kind), old)


def pod(container: Object | None = None, name: str = "p", **spec: Any) -> Object:
    whole = {"containers": [{"name": "c", "image": "x", **(container or {})}], **spec}
    return {"metadata": {"name": name}, "spec": whole}


class TestPods:
    def test_a_usual_pod_needs_no_word(self) -> None:
        usual = {"ports": [{"containerPort": 80}, {"containerPort": 81}], "env": [{"name": "A"}, {"name": "B"}]}
        assert told("", "Pod", pod(usual)) == []

    def test_the_name_is_part_of_a_host_s(self) -> None:
        assert told("", "Pod", pod(name="1.2")) == [
            (
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
                "a DNS label is recommended: [must not contain dots]"
            )
        ]
        assert told("", "Pod", pod(name="1.2"), pod(name="1.2")) == [], "of updates nothing is told"

    @pytest.mark.parametrize(
        ("first", "second", "how"),
        [
            ({}, {}, "duplicate"),
            ({"hostPort": 80}, {}, "overlapping"),
            ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, "dangerously ambiguous"),
        ],
    )
    def test_ports_in_each_other_s_way(self, first: Object, second: Object, how: str) -> None:
        ports = [{"containerPort": 80, **first}, {"containerPort": 80, **second}]
        at = "spec.containers[0].ports"
        assert told("", "Pod", pod({"ports": ports})) == [f"{at}[1]: {how} port definition with {at}[0]"]

    def test_names_of_ports_are_used_once(self) -> None:
        ports = [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]
        at = "spec.containers[0].ports"
        assert told("", "Pod", pod({"ports": ports})) == [
            (
                f'{at}[1]: duplicate port name "a" with {at}[0], services and probes that select ports by name '
                f"will use {at}[0]"
            )
        ]

    def test_a_variable_that_hides_another(self) -> None:
        hidden = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
        assert told("", "Pod", pod({"env": hidden})) == [
            'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'
        ]
        assert told("", "Pod", pod({"env": [hidden[0], {"name": "A", "value": "$(A)2"}]})) == []

    def test_parts_of_bytes(self) -> None:
        limits = {"resources": {"limits": {"memory": "100m", "cpu": "100m"}}}
        assert "spec.containers[0].resources.limits[memory]: fractional byte value " in told("", "Pod", pod(limits))[0]

    def test_volumes_that_are_gone_and_files_that_overlap(self) -> None:
        items = [{"key": "a", "path": "p"}, {"key": "b", "path": "p/q"}]
        volumes = [{"name": "v", "configMap": {"name": "c", "items": items}}, {"name": "g", "gitRepo": {}}]
        assert told("", "Pod", pod(volumes=volumes)) == [
            "spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            'volume "v" (ConfigMap "c"): overlapping paths: "p/q" with "p"',
        ]

    def test_selectors(self) -> None:
        term = {"topologyKey": "zone"}
        affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
        assert told("", "Pod", pod(affinity=affinity, nodeSelector={"beta.kubernetes.io/os": "linux"})) == [
            'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead',
            (
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: "
                "a null labelSelector results in matching no pod"
            ),
        ]


class TestTemplates:
    def deployment(self, generation: int = 1) -> Object:
        template = pod({"ports": [{"containerPort": 80}, {"containerPort": 80}]})
        return {"metadata": {"name": "d", "generation": generation}, "spec": {"template": template}}

    def test_the_path_is_that_of_the_template(self) -> None:
        at = "spec.template.spec.containers[0].ports"
        assert told("apps", "Deployment", self.deployment()) == [f"{at}[1]: duplicate port definition with {at}[0]"]

    def test_an_update_is_looked_at_if_it_makes_a_generation(self) -> None:
        assert told("apps", "Deployment", self.deployment(), self.deployment()) == []
        assert len(told("apps", "Deployment", self.deployment(2), self.deployment())) == 1

    def test_jobs_and_cron_jobs(self) -> None:
        spec = {"template": pod(name="x"), "completionMode": "Indexed", "completions": 200000, "parallelism": 20000}
        (warning,) = told("batch", "Job", {"metadata": {"name": "j"}, "spec": spec})
        assert warning.startswith("spec: In Indexed Jobs with")
        cron = {"metadata": {"name": "a.b"}, "spec": {"schedule": "TZ=X * * * * *", "jobTemplate": {"spec": spec}}}
        assert [text.split(":")[0] for text in told("batch", "CronJob", cron)] == [
            "metadata.name",
            "spec.jobTemplate.spec",
        ]
        assert "cannot use TZ or CRON_TZ" in told("batch", "CronJob", cron, cron)[0]

    def test_stateful_sets(self) -> None:
        spec = {"template": pod(), "revisionHistoryLimit": -1}
        (warning,) = told("apps", "StatefulSet", {"metadata": {"name": "s"}, "spec": spec})
        assert warning.startswith("spec.revisionHistoryLimit: a negative value")


@pytest.mark.parametrize(
    ("value", "warning"),
    [
        ("10.0.0.1", ""),
        ("2001:db8::1", ""),
        ("2001:DB8::1", 'IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")'),
        ("010.0.0.1", 'non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1"'),
        ("::ffff:1.2.3.4", 'non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4"'),
    ],
)
def test_addresses(value: str, warning: str) -> None:
    assert parts.address(Path("a"), value) == ([f"a: {warning}"] if warning else [])


@pytest.mark.parametrize(
    ("value", "warning"),
    [
        ("10.0.0.0/8", ""),
        (
            "10.1.0.0/8",
            'CIDR value "10.1.0.0/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.0.0/32"?)',
        ),
        ("010.0.0.0/8", 'non-standard CIDR value "010.0.0.0/8" is invalid: use "10.0.0.0/8"'),
        ("2001:DB8::/64", 'IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")'),
    ],
)
def test_networks(value: str, warning: str) -> None:
    assert parts.network(Path("n"), value) == ([f"n: {warning}"] if warning else [])


def test_services() -> None:
    spec: Object = {"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["1.2.3.4"], "ports": [{"port": 1}]}
    assert told("", "Service", {"metadata": {"name": "s"}, "spec": spec}) == [
        "spec.externalIPs is ignored for headless services"
    ]
    assert told("", "Service", {"metadata": {"name": "s"}, "spec": {**spec, "clusterIP": ""}}) == [
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    ]


def test_quotas() -> None:
    hard = {"cpu": "2", "limits.cpu": "1"}
    assert told("", "ResourceQuota", {"metadata": {"name": "q"}, "spec": {"hard": hard}}) == [
        "ResourceQuota cpu (2) should be less than limits.cpu (1)"
    ]


@pytest.mark.parametrize(
    ("certificate", "key", "warning"),
    [
        ("", "", "tls: failed to find any PEM data in certificate input"),
        (
            "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            "",
            (
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
                "PEM inputs may have been switched"
            ),
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "tls: found a certificate rather than a key in the PEM for the private key",
        ),
    ],
)
def test_secrets_for_tls(certificate: str, key: str, warning: str) -> None:
    data = {
        "tls.crt": base64.b64encode(certificate.encode()).decode(),
        "tls.key": base64.b64encode(key.encode()).decode(),
    }
    assert told("", "Secret", {"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": data}) == [warning]
    assert told("", "Secret", {"metadata": {"name": "s"}, "type": "Opaque", "data": data}) == []
