"""Typed structs: how they are made, read, written, compared and changed."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import pytest

from pilothouse.kinds import structs, times
from pilothouse.kinds.structs import (
    Carried,
    Container,
    ContainerPort,
    ContainerStatus,
    Deployment,
    DeploymentSpec,
    HTTPGetAction,
    JSONSchemaProps,
    LabelSelector,
    Lease,
    ListMeta,
    NetworkPolicy,
    ObjectList,
    ObjectMeta,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Probe,
    Quantity,
    Resource,
    ResourceRequirements,
    Secret,
    Service,
    Struct,
    StructError,
    decode,
    encode,
    field,
    from_dict,
    replace,
    to_dict,
    type_for,
)


class WidgetSpec(Struct):
    """What a widget shall be."""

    size: int
    color: Literal["red", "blue"] | None = None
    host_ip: str = field(default="", name="hostIP")
    weight: int = 3
    sides: list[str] = []  # noqa: RUF012  a struct never changes


class WidgetStatus(Struct):
    """What a widget is."""

    phase: str = "New"


class Widget(Resource, group="example.com", version="v1", plural="widgets"):
    """A resource of somebody else."""

    spec: WidgetSpec
    status: WidgetStatus | None = None


class Realm(Resource, group="example.com", version="v1beta1", plural="realms", namespaced=False, kind="KingDom"):
    """One with another kind than its class's name, and with no fields of its own."""


def web() -> Deployment:
    labels = {"app": "web"}
    return Deployment(
        metadata=ObjectMeta(name="web", labels=labels),
        spec=DeploymentSpec(
            replicas=2,
            selector=LabelSelector(match_labels=labels),
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels=labels),
                spec=PodSpec(
                    containers=[
                        Container(
                            name="web",
                            image="web:1",
                            ports=[ContainerPort(container_port=80, protocol="TCP")],
                            resources=ResourceRequirements(limits={"cpu": "500m", "memory": 1024}),
                            liveness_probe=Probe(http_get=HTTPGetAction(path="/", port="http")),
                        )
                    ]
                ),
            ),
        ),
    )


def test_what_is_given_is_written_and_nothing_else() -> None:
    container = {
        "name": "web",
        "image": "web:1",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "500m", "memory": 1024}},
        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
    }
    labels = {"app": "web"}
    assert to_dict(web()) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    assert encode(web()).startswith(b'{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"')


def test_what_is_read_is_what_was_written() -> None:
    assert decode(encode(web()), Deployment) == web()
    assert from_dict(to_dict(web()), Deployment) == web()
    assert decode(encode(web()).decode(), Deployment) == web()


def test_what_is_absent_reads_as_empty() -> None:
    pod = decode(b"{}", Pod)
    assert pod.metadata.labels.get("app") is None
    assert [container.name for container in pod.spec.containers] == []
    assert pod.spec.node_name == ""
    assert pod.status.phase is None
    assert not pod.spec.host_network
    assert pod.metadata.deletion_timestamp is None
    assert Service().spec.ports == ()
    assert Deployment().spec.template.spec.containers == ()
    assert encode(pod) == b'{"apiVersion":"v1","kind":"Pod"}'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Pod, {"spec": {}, "status": {}}),
        (
            Pod,
            {"metadata": {"labels": {}, "name": "", "generation": 0, "finalizers": []}, "spec": {"hostNetwork": False}},
        ),
        (NetworkPolicy, {"spec": {"podSelector": {}, "ingress": [], "egress": [{}]}}),
        (Secret, {"data": {"a": "", "b": "AAEC"}, "stringData": {}}),
        (ContainerStatus, {"ready": False, "restartCount": 0, "name": ""}),
        (WidgetSpec, {"size": 0, "weight": 3, "hostIP": "", "sides": []}),
    ],
)
def test_empty_and_absent_are_two_things(kind: type[Struct], body: dict[str, Any]) -> None:
    read = decode(msgspec.json.encode(body), kind)
    written = to_dict(read)
    assert {name: written[name] for name in body} == body
    assert to_dict(pickle.loads(pickle.dumps(read))) == written
    assert to_dict(copy.deepcopy(read)) == written


def test_a_default_that_is_copied_elsewhere_is_written_there() -> None:
    empty = Pod()
    made = ObjectMeta(labels={"node": empty.spec.node_name, "ns": empty.metadata.namespace}, finalizers=[empty.kind])
    assert to_dict(made) == {"labels": {"node": "", "ns": ""}, "finalizers": ["Pod"]}
    assert to_dict(Secret(data={"a": decode(b"{}", structs.CertificateSigningRequest).status.certificate})) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "data": {"a": ""},
    }
    assert to_dict(ObjectMeta(labels=empty.metadata.labels)) == {}


def test_nulls_are_absent() -> None:
    body = {"metadata": {"creationTimestamp": None, "labels": None}, "spec": None}
    pod = from_dict({**body, "status": {"conditions": [{"lastProbeTime": None}]}}, Pod)
    assert pod.spec is Pod().spec
    assert to_dict(pod) == {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "status": {"conditions": [{}]}}


def test_nothing_can_be_changed_in_place() -> None:
    pod = Pod()
    with pytest.raises(AttributeError, match="immutable"):
        pod.spec = PodSpec()  # type: ignore[misc]
    labels: Any = pod.metadata.labels
    with pytest.raises(TypeError, match="make a new one"):
        labels["a"] = "b"
    with pytest.raises(TypeError, match="make a new one"):
        labels.update(a="b")
    assert Pod().metadata.labels == {}


def test_bytes_are_base64_and_moments_are_text() -> None:
    secret = decode(b'{"data":{"password":"c2VjcmV0"}}', Secret)
    assert secret.data["password"] == b"secret"
    assert b'"c2VjcmV0"' in encode(secret)
    lease = decode(b'{"spec":{"renewTime":"2026-01-02T03:04:05.000001+01:00"}}', Lease)
    assert b'"2026-01-02T03:04:05.000001+01:00"' in encode(lease)
    assert lease.spec.renew_time
    assert times.parse(lease.spec.renew_time).hour == 2


def test_unknown_fields_are_carried_along() -> None:
    head, new = b'{"kind":"Pod","apiVersion":"v1","new":[1,null],', b'{"name":"b","new":{"x":null}}'
    body = head + b'"spec":{"containers":[{"name":"a"},' + new + b"]}}"
    pod = decode(body, Pod)
    assert pod.carried == {"new": [1, None]}
    assert pod.spec.containers[1].carried == {"new": {"x": None}}
    assert not pod.spec.containers[0].carried
    assert to_dict(pod) == msgspec.json.decode(body)
    turned = replace(pod, spec__containers=list(reversed(pod.spec.containers)))
    assert to_dict(turned)["spec"]["containers"] == [{"name": "b", "new": {"x": None}}, {"name": "a"}]
    assert decode(encode(pod), Pod) == pod != decode(body.replace(b"new", b"other"), Pod)
    assert pickle.loads(pickle.dumps(pod)) == pod
    assert "new" in repr(pod)


def test_unknown_texts_of_enumerations_are_carried_along() -> None:
    port = decode(b'{"containerPort":1,"protocol":"QUIC"}', ContainerPort)
    assert port.protocol is None
    assert port.carried == {"protocol": "QUIC"}
    assert to_dict(port) == {"containerPort": 1, "protocol": "QUIC"}
    assert to_dict(replace(port, protocol="TCP")) == {"containerPort": 1, "protocol": "TCP"}
    policy = from_dict({"policyTypes": ["Ingress", "Sideways"]}, structs.NetworkPolicySpec)
    assert to_dict(policy) == {"policyTypes": ["Ingress", "Sideways"]}


def test_a_field_to_come_can_be_written() -> None:
    made = Container(name="a", carried=Carried(turbo=True))
    assert to_dict(made) == {"name": "a", "turbo": True}


def test_the_name_under_which_things_are_carried_is_no_way_in() -> None:
    body = {"\x7f": {"name": "x"}, "name": "a", "env": [{"name": "b", "value": '"\x7f":'}]}
    made = decode(msgspec.json.encode(body), Container)
    assert made.name == "a"
    assert to_dict(made) == body
    assert to_dict(from_dict(body, Container)) == body


def test_types_that_hold_several_forms() -> None:
    body = {
        "items": {"type": "string", "x": 1},
        "additionalProperties": False,
        "dependencies": {"a": ["b"], "c": {"type": "string", "y": 2}},
        "default": {"any": [None]},
        "x-kubernetes-int-or-string": True,
        "$ref": "#",
        "not": {"enum": [1, None, "a"], "z": 3},
        "properties": {"from": {"items": [{"w": 4}]}},
    }
    read = from_dict(body, JSONSchemaProps)
    assert to_dict(read) == body
    assert read.x_kubernetes_int_or_string is True
    assert isinstance(read.not_, JSONSchemaProps)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"spec":{"containers":[{"name":1}]}}',
            r"^Pod: Expected `str`, got `int` - at `\$\.spec\.containers\[0\]\.name`$",
        ),
        (b'{"new":1,"spec":7}', r"^Pod: Expected `object`, got `int` - at `\$\.spec`$"),
        (b"[]", "^Pod: Expected `object`, got `array`$"),
        (b'{"new":1', "^Pod: not JSON: Input data was truncated$"),
        (b'{"spec":}', "^Pod: not JSON: "),
        (b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "^Pod: nested too deeply to be read$"),
    ],
)
def test_what_cannot_be_read_is_told(body: bytes, message: str) -> None:
    with pytest.raises(StructError, match=message):
        decode(body, Pod)


def test_a_dictionary_is_not_changed_by_reading_it() -> None:
    tree = {"spec": {"containers": [{"name": "a", "new": 1}]}, "new": 2, "metadata": {"labels": None}}
    kept = copy.deepcopy(tree)
    from_dict(tree, Pod)
    assert tree == kept
    with pytest.raises(StructError, match="Pod: Expected `object`"):
        from_dict({"spec": 1}, Pod)


def test_replace_reaches_inner_fields() -> None:
    pod = decode(b'{"new":1,"metadata":{"name":"a","new":2},"spec":{"nodeName":"n"}}', Pod)
    moved = replace(pod, spec__node_name="m", metadata__labels={"a": "b"}, spec__security_context__run_as_user=7)
    assert to_dict(moved) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "new": 1,
        "metadata": {"name": "a", "new": 2, "labels": {"a": "b"}},
        "spec": {"nodeName": "m", "securityContext": {"runAsUser": 7}},
    }
    assert pod.spec.node_name == "n"
    assert replace(moved, spec__node_name="n", metadata=pod.metadata, spec__security_context=None) == pod


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec__nodename": "x"}, "nodename"),
        ({"specs__node_name": "x"}, "Pod: specs is none of its fields; change .*, spec, status"),
        ({"spec": PodSpec(), "spec__node_name": "x"}, "Pod: spec is there twice"),
        ({"kind__x": "x"}, "Pod.kind has no fields of its own; replace it as a whole"),
    ],
)
def test_replace_refuses_what_there_is_not(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        replace(Pod(), **changes)


def test_a_custom_resource_is_a_subclass() -> None:
    made = Widget(metadata=ObjectMeta(name="w"), spec=WidgetSpec(size=1, host_ip="::1"))
    body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}
    assert to_dict(made) == {**body, "spec": {"size": 1, "hostIP": "::1"}}
    assert made.spec.weight == 3
    assert Widget.gvk == ("example.com", "v1", "Widget")
    assert (Widget.group, Widget.version, Widget.plural, Widget.namespaced) == ("example.com", "v1", "widgets", True)
    assert type_for("example.com", "v1", "Widget") is Widget
    assert to_dict(replace(made, status__phase="Old"))["status"] == {"phase": "Old"}
    read = decode(b'{"spec":{"size":2,"color":"green","up":1},"down":2}', Widget)
    assert read.spec.carried == {"color": "green", "up": 1}
    written = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "spec": {"size": 2, "color": "green", "up": 1},
        "down": 2,
    }
    assert to_dict(read) == written
    with pytest.raises(StructError, match="Widget: Object missing required field `spec`"):
        decode(b"{}", Widget)


def test_a_custom_resource_may_have_another_kind() -> None:
    assert encode(Realm()) == b'{"apiVersion":"example.com/v1beta1","kind":"KingDom"}'
    assert not Realm.namespaced
    assert type_for("example.com", "v1beta1", "KingDom") is Realm
    assert type_for("example.com", "v1beta1", "Realm") is None
    with pytest.raises(TypeError, match="Nameless: no version; write class Nameless"):

        class Nameless(Resource, group="example.com"):
            pass


def test_lists_of_objects() -> None:
    head = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"x"},'
    body = head + b'"items":[{"metadata":{"name":"a"}}]}'
    found = decode(body, ObjectList[Pod])
    assert [pod.metadata.name for pod in found.items] == ["a"]
    assert found.metadata.continue_ == "x"
    assert found.items[0].kind == "Pod"
    more = decode(body.replace(b'"name"', b'"new":1,"name"'), ObjectList[Pod])
    assert more.items[0].metadata.carried == {"new": 1}
    assert to_dict(more)["items"][0]["metadata"] == {"name": "a", "new": 1}
    for one in (found, more, ObjectList[Pod](), ObjectList[Pod](items=[])):
        assert to_dict(pickle.loads(pickle.dumps(one))) == to_dict(one)
        assert pickle.loads(pickle.dumps(one)) == one
    made = ObjectList.of(Widget, [Widget(spec=WidgetSpec(size=1))], ListMeta(resource_version="1"))
    assert to_dict(made)["kind"] == "WidgetList"
    assert to_dict(made)["apiVersion"] == "example.com/v1"


def test_quantities_may_be_numbers() -> None:
    limits: Mapping[str, Quantity] = decode(b'{"limits":{"cpu":1,"memory":"1Gi"}}', ResourceRequirements).limits
    assert limits == {"cpu": 1, "memory": "1Gi"}


def test_secrets_are_not_shown() -> None:
    secret = decode(
        b'{"metadata":{"name":"a","annotations":{"b":"hush"}},"stringData":{"c":"hush"},"d":"hush"}', Secret
    )
    request = from_dict({"status": {"token": "hush"}}, structs.TokenRequest)
    review = from_dict({"spec": {"token": "hush"}}, structs.TokenReview)
    listed = ObjectList.of(Secret, [secret])
    for one in (secret, request, review, listed):
        assert "hush" not in f"{one!r} {one}"
        assert "hush" not in repr(list(one.__rich_repr__()))
    assert repr(secret) == "Secret('a', ...)"
    assert "hush" in encode(secret).decode()


def test_a_thing_with_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="a object has no form in JSON"):
        encode(structs.ControllerRevision(data=object()))


def test_names_are_found_when_they_are_asked_for() -> None:
    program = (
        "import sys; from pilothouse.kinds.structs import Lease, type_for;"
        "print([name for name in sys.modules if name.startswith('pilothouse.kinds.structs.core') or 'apps' in name]);"
        "print(type_for('apps', 'v1', 'Deployment').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "pilothouse.kinds.structs.apps"]
    assert {"Pod", "Deployment", "decode", "events"} <= set(dir(structs))
    with pytest.raises(AttributeError, match="has no attribute 'Pud'"):
        structs.Pud  # type: ignore[attr-defined]  # noqa: B018


def test_the_same_name_in_two_groups() -> None:
    assert structs.Event is type_for("", "v1", "Event")
    assert structs.events.Event is type_for("events.k8s.io", "v1", "Event")
    assert structs.TokenRequest is type_for("authentication.k8s.io", "v1", "TokenRequest")
    assert structs.EndpointPort.__module__.endswith("core_services")
    assert type_for("", "v1", "PodSpec") is None
    assert type_for("nobody", "v1", "Pod") is None
