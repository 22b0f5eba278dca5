"""The environment of containers: references, expansion, services, and what is said where something is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import ConfigMap, Container, ObjectMeta, Pod, Secret, Service, from_dict
from pilothouse.node.volumes.environment import environment_of, references, service_variables
from pilothouse.node.volumes.errors import ConfigError
from pilothouse.node.volumes.expansion import expand, expand_strictly
from pilothouse.node.volumes.fields import PodFacts

MAP = ConfigMap(metadata=ObjectMeta(name="m", namespace="ns"), data={"a": "1", "b": "two", "bad=name": "x"})
SECRET = Secret(metadata=ObjectMeta(name="s", namespace="ns"), data={"password": b"hunter2"})
KNOWN: Any = {("configmap", "m"): MAP, ("secret", "s"): SECRET, ("configmap", "none"): None, ("secret", "none"): None}
FACTS = PodFacts(host_ips=("10.0.0.1",), pod_ips=("10.1.0.2", "fd00::2"), allocatable={"cpu": "3900m", "memory": "8Gi"})


def make_pod(*containers: dict[str, Any], **spec: Any) -> Pod:
    return from_dict(
        {
            "metadata": {
                "name": "web",
                "namespace": "ns",
                "uid": "u1",
                "labels": {"app": "shop", "tier": 'fr"ont'},
                "annotations": {"note": "two\nlines"},
            },
            "spec": {"nodeName": "n1", "serviceAccountName": "robot", "containers": list(containers), **spec},
        },
        Pod,
    )


def made(*env: dict[str, Any], **fields: Any) -> dict[str, str]:
    pod = make_pod({"name": "c", "env": list(env), **fields})
    return environment_of(pod, pod.spec.containers[0], KNOWN, (), FACTS).variables


def field(path: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$(A)-$(B)", "1-$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(A", "$(A"),
        ("$A $", "$A $"),
        ("$()", "$()"),
        ("a$$b", "a$b"),
        ("$($(A))", "$($(A))"),
        ("$(EMPTY)!", "!"),
        ("", ""),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "$(C)", "EMPTY": ""}) == expected


@given(st.text(alphabet="ab()", max_size=20))
def test_what_has_no_dollar_stays(text: str) -> None:
    assert expand(text, {"a": "x", "b": "y"}) == text


@given(st.text(max_size=30))
def test_doubled_dollars_stand_for_the_text(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "x"}) == text


def test_paths_want_every_reference() -> None:
    assert expand_strictly("logs/$(A)", {"A": "web"}) == "logs/web"
    with pytest.raises(KeyError, match="B"):
        expand_strictly("$(A)/$(B)", {"A": "x"})


def test_variables_see_those_before_them() -> None:
    found = made(
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "3"}, {"name": "E"}
    )
    assert found == {"A": "1", "B": "1$(C)", "C": "3", "E": ""}


def test_commands_and_arguments_are_expanded() -> None:
    pod = make_pod(
        {"name": "c", "env": [{"name": "A", "value": "1"}], "command": ["x", "$(A)"], "args": ["$$(A)", "$(B)"]}
    )
    found = environment_of(pod, pod.spec.containers[0], {})
    assert (found.command, found.args) == (("x", "1"), ("$(A)", "$(B)"))


def test_whole_objects_come_with_a_prefix_and_give_way_to_single_variables() -> None:
    pod = make_pod(
        {
            "name": "c",
            "envFrom": [
                {"configMapRef": {"name": "m"}, "prefix": "P_"},
                {"secretRef": {"name": "s"}},
                {"configMapRef": {"name": "none", "optional": True}},
            ],
            "env": [{"name": "P_a", "value": "mine"}],
        }
    )
    found = environment_of(pod, pod.spec.containers[0], KNOWN)
    assert found.variables == {"P_a": "mine", "P_b": "two", "password": "hunter2"}
    assert found.skipped == (("configmap ns/m", ("P_bad=name",)),)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "shop"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "two\nlines"),
        ("metadata.labels", 'app="shop"\ntier="fr\\"ont"'),
        ("metadata.annotations", 'note="two\\nlines"'),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "10.0.0.1"),
        ("status.podIP", "10.1.0.2"),
        ("status.podIPs", "10.1.0.2,fd00::2"),
    ],
)
def test_fields_of_the_pod(path: str, expected: str) -> None:
    assert made(field(path)) == {"V": expected}


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", None, "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", None, "1"),
        ("limits.memory", "1Mi", "8192"),
        ("requests.memory", "1Mi", "65"),
        ("requests.memory", None, str((64 << 20) + 1)),
        ("requests.ephemeral-storage", None, "0"),
    ],
)
def test_resources_in_units_of_a_divisor(resource: str, divisor: str | None, expected: str) -> None:
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    resources = {"limits": {"cpu": "1500m"}, "requests": {"cpu": "250m", "memory": str((64 << 20) + 1)}}
    variable = {"name": "V", "valueFrom": {"resourceFieldRef": reference}}
    assert made(variable, resources=resources) == {"V": expected}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "a"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "none", "key": "a"}}, 'secret "none" not found'),
        ({"configMapKeyRef": {"name": "m", "key": "zz"}}, "couldn't find key zz in ConfigMap ns/m"),
        ({"secretKeyRef": {"name": "s", "key": "zz"}}, "couldn't find key zz in Secret ns/s"),
        ({"fieldRef": {"fieldPath": "status.nope"}}, "unsupported fieldPath: status.nope"),
    ],
)
def test_what_is_missing_is_said_in_a_kubelets_words(source: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made({"name": "V", "valueFrom": source})
    assert str(caught.value) == text
    for reference in source.values():
        reference["optional"] = True
    if "fieldRef" not in source:
        assert made({"name": "V", "valueFrom": source}) == {}


def test_references_are_listed() -> None:
    container = from_dict(
        {
            "name": "c",
            "envFrom": [{"secretRef": {"name": "s1"}}],
            "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}}],
        },
        Container,
    )
    assert list(references(container)) == [("secret", "s1"), ("configmap", "m1")]


def service(name: str, namespace: str = "ns", address: str = "10.2.0.1", *ports: dict[str, Any]) -> Service:
    return from_dict(
        {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": address, "ports": list(ports)}},
        Service,
    )


def test_services_are_told_by_variables() -> None:
    shop = service(
        "my-shop", "ns", "10.2.0.7", {"name": "http", "port": 80}, {"name": "dns-x", "port": 53, "protocol": "UDP"}
    )
    everything = [
        shop,
        service("kubernetes", "default", "10.2.0.1", {"name": "https", "port": 443}),
        service("headless", "ns", "None", {"port": 1}),
        service("other", "elsewhere", "10.2.0.9", {"port": 1}),
    ]
    found = service_variables(everything, "ns")
    assert {name: value for name, value in found.items() if name.startswith("MY_SHOP")} == {
        "MY_SHOP_SERVICE_HOST": "10.2.0.7",
        "MY_SHOP_SERVICE_PORT": "80",
        "MY_SHOP_SERVICE_PORT_HTTP": "80",
        "MY_SHOP_SERVICE_PORT_DNS_X": "53",
        "MY_SHOP_PORT": "tcp://10.2.0.7:80",
        "MY_SHOP_PORT_80_TCP": "tcp://10.2.0.7:80",
        "MY_SHOP_PORT_80_TCP_PROTO": "tcp",
        "MY_SHOP_PORT_80_TCP_PORT": "80",
        "MY_SHOP_PORT_80_TCP_ADDR": "10.2.0.7",
        "MY_SHOP_PORT_53_UDP": "udp://10.2.0.7:53",
        "MY_SHOP_PORT_53_UDP_PROTO": "udp",
        "MY_SHOP_PORT_53_UDP_PORT": "53",
        "MY_SHOP_PORT_53_UDP_ADDR": "10.2.0.7",
    }
    assert found["KUBERNETES_SERVICE_HOST"] == "10.2.0.1"
    assert not any(name.startswith(("HEADLESS", "OTHER")) for name in found)
    assert "MY_SHOP_PORT" not in service_variables(everything, "ns", all_=False)
    assert "KUBERNETES_PORT" in service_variables(everything, "ns", all_=False)


def test_own_variables_go_before_those_of_services() -> None:
    pod = make_pod(
        {"name": "c", "env": [{"name": "X_SERVICE_HOST", "value": "mine"}, {"name": "U", "value": "$(X_PORT)"}]}
    )
    found = environment_of(pod, pod.spec.containers[0], {}, [service("x", "ns", "10.2.0.3", {"port": 9})]).variables
    assert (found["X_SERVICE_HOST"], found["U"], found["X_SERVICE_PORT"]) == ("mine", "tcp://10.2.0.3:9", "9")
    quiet = make_pod({"name": "c"}, enableServiceLinks=False)
    assert not environment_of(
        quiet, quiet.spec.containers[0], {}, [service("x", "ns", "10.2.0.3", {"port": 9})]
    ).variables
