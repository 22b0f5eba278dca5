"""Pod Security Standards: each check's words, versions, what is refused, noted and warned of."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.apiserver.admission.podsecurity import Exemptions, PodSecurity, Standard, Standards
from pilothouse.apiserver.admission.podsecurity_checks import evaluate
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Object
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import status
from support.dictview import DictView, Told, write

PREFIX = "pod-security.kubernetes.io/"


def pod(*contexts: Object, name: str = "p", **spec: Any) -> Object:
    named = [{"name": f"c{number}", "image": "i", "securityContext": one} for number, one in enumerate(contexts)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"containers": named or [{"name": "c0", "image": "i"}], **spec},
    }


GOOD = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SAFE = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def said(level: str, item: Object, minor: int | None = None) -> list[str]:
    return [str(one) for one in evaluate(level, minor, item["metadata"], item["spec"])]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (pod({"privileged": True}), 'privileged (container "c0" must not set securityContext.privileged=true)'),
        (
            pod({"privileged": True}, {"privileged": True}),
            'privileged (containers "c0", "c1" must not set securityContext.privileged=true)',
        ),
        (pod(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            pod(containers=[{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]),
            'hostPort (container "c" uses hostPorts 443, 80)',
        ),
        (
            pod({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_ADMIN"]}}),
            (
                'non-default capabilities (container "c0" must not include "NET_ADMIN", "SYS_ADMIN" in '
                "securityContext.capabilities.add)"
            ),
        ),
        (
            pod({"procMount": "Unmasked"}),
            'procMount (container "c0" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            pod({"seLinuxOptions": {"type": "spc_t", "user": "u"}}, securityContext={"seLinuxOptions": {"role": "r"}}),
            (
                'seLinuxOptions (pod and container "c0" set forbidden securityContext.seLinuxOptions: type "spc_t"; '
                "user may not be set; role may not be set)"
            ),
        ),
        (
            pod({"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (container "c0" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
        (
            pod({"windowsOptions": {"hostProcess": True}}),
            'hostProcess (container "c0" must not set securityContext.windowsOptions.hostProcess=true)',
        ),
        (
            pod(containers=[{"name": "c", "livenessProbe": {"httpGet": {"host": "1.2.3.4"}}}]),
            'probe or lifecycle host (container "c" uses probe or lifecycle host "1.2.3.4")',
        ),
        (
            pod({"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (container "c0" must not set AppArmor profile type to "Unconfined")',
        ),
    ],
)
def test_baseline(item: Object, why: str) -> None:
    assert said("baseline", item) == [why]
    assert said("privileged", item) == []


def test_restricted_says_everything_in_order() -> None:
    item = pod({}, volumes=[{"name": "v", "nfs": {}}, {"name": "w", "hostPath": {}}])
    assert said("restricted", item) == [
        'allowPrivilegeEscalation != false (container "c0" must set securityContext.allowPrivilegeEscalation=false)',
        'unrestricted capabilities (container "c0" must set securityContext.capabilities.drop=["ALL"])',
        'restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")',
        'runAsNonRoot != true (pod or container "c0" must set securityContext.runAsNonRoot=true)',
        (
            'seccompProfile (pod or container "c0" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
            '"Localhost")'
        ),
    ]
    assert said("restricted", pod(GOOD, securityContext=SAFE)) == []
    assert said("restricted", pod(GOOD, securityContext={**SAFE, "runAsUser": 0})) == [
        "runAsUser=0 (pod must not set runAsUser=0)"
    ]


def test_versions() -> None:
    asks = pod(containers=[{"name": "c", "livenessProbe": {"httpGet": {"host": "x"}}}])
    assert said("baseline", asks, 33) == []
    assert said("baseline", asks, 99) != []
    windows = pod(os={"name": "windows"}, securityContext={"runAsNonRoot": True})
    assert said("restricted", windows, 25) == []
    assert len(said("restricted", windows, 24)) == 3
    own_users = pod(
        {**GOOD, "runAsUser": 0}, securityContext={"seccompProfile": {"type": "Localhost"}}, hostUsers=False
    )
    assert said("restricted", own_users) == []
    assert len(said("restricted", own_users, 34)) == 2


def step(view: DictView, **exempt: Any) -> PodSecurity:
    return PodSecurity(view, FakeClock(), exempt=Exemptions(**exempt))


def test_enforced_and_warned() -> None:
    view = DictView()
    view.namespace("n", {f"{PREFIX}enforce": "baseline", f"{PREFIX}warn": "restricted", f"{PREFIX}audit": "baseline"})
    told = Told()
    with pytest.raises(status.Forbidden) as caught:
        step(view).validate(write("CREATE", "pods", pod({"privileged": True}), told=told))
    assert caught.value.message == (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c0" must not set '
        "securityContext.privileged=true)"
    )
    assert told.warnings == []
    assert set(told.annotations) == {f"{PREFIX}audit-violations", f"{PREFIX}enforce-policy"}
    told = Told()
    step(view).validate(write("CREATE", "pods", pod(GOOD), told=told))
    assert told.warnings == [
        (
            'would violate PodSecurity "restricted:latest": runAsNonRoot != true (pod or container "c0" must set '
            'securityContext.runAsNonRoot=true), seccompProfile (pod or container "c0" must set '
            'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
        )
    ]


def test_templates_are_warned_of_with_the_enforced_level() -> None:
    view = DictView()
    view.namespace("n", {f"{PREFIX}enforce": "baseline", f"{PREFIX}enforce-version": "v1.30"})
    told = Told()
    item = {
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {"template": {"metadata": {}, "spec": pod({"privileged": True})["spec"]}},
    }
    step(view).validate(write("CREATE", "deployments.apps", item, told=told))
    assert told.warnings == [
        (
            'would violate PodSecurity "baseline:v1.30": privileged (container "c0" must not set '
            "securityContext.privileged=true)"
        )
    ]


def test_updates_matter_where_an_image_changes() -> None:
    view = DictView()
    view.namespace("n", {f"{PREFIX}enforce": "baseline"})
    bad, other = pod({"privileged": True}), pod({"privileged": True})
    step(view).validate(write("UPDATE", "pods", bad, old=other))
    other["spec"]["containers"][0]["image"] = "older"
    with pytest.raises(status.Forbidden):
        step(view).validate(write("UPDATE", "pods", bad, old=other))


def test_exemptions() -> None:
    view = DictView()
    view.namespace("n", {f"{PREFIX}enforce": "restricted"})
    for exempt, why in (({"namespaces": frozenset({"n"})}, "namespace"), ({"usernames": frozenset({"u"})}, "user")):
        told = Told()
        step(view, **exempt).validate(write("CREATE", "pods", pod(), user=User("u"), told=told))
        assert told.annotations == {f"{PREFIX}exempt": why}
    told = Told()
    classes = step(view, runtime_classes=frozenset({"vm"}))
    classes.validate(write("CREATE", "pods", pod(runtimeClassName="vm"), told=told))
    assert told.annotations == {f"{PREFIX}exempt": "runtimeClass"}


def space(**labels: str) -> Object:
    return {"metadata": {"name": "n", "labels": {PREFIX + key.replace("_", "-"): one for key, one in labels.items()}}}


def test_labels_are_checked() -> None:
    with pytest.raises(status.Invalid) as caught:
        step(DictView()).validate(write("CREATE", "namespaces", space(enforce="x", warn_version="1.2")))
    assert caught.value.message == (
        'Namespace "n" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "x": must be '
        "one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid "
        'value: "1.2": must be "latest" or "v1.x"]'
    )
    same = space(enforce="x")
    step(DictView()).validate(write("UPDATE", "namespaces", same, old=space(enforce="x")))


def test_existing_pods_are_warned_of() -> None:
    view = DictView()
    owner = {"uid": "u", "controller": True}
    for name in ("b", "a", "c"):
        item = pod({"privileged": True}, name=name)
        item["metadata"]["ownerReferences"] = [owner]
        view.put("pods", item)
    view.put("pods", pod(name="net", hostNetwork=True))
    view.put("pods", pod(name="fine"))
    told = Told()
    step(view).validate(write("UPDATE", "namespaces", space(enforce="baseline"), old=space(), told=told))
    assert told.warnings == [
        'existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest"',
        "a (and 2 other pods): privileged",
        "net: host namespaces",
    ]
    told = Told()
    before = space(enforce="restricted")
    step(view).validate(write("UPDATE", "namespaces", space(enforce="baseline"), old=before, told=told))
    assert told.warnings == []


def test_defaults_hold_where_labels_are_silent() -> None:
    view = DictView()
    view.namespace("n")
    strict = PodSecurity(view, FakeClock(), Standards(enforce=Standard("restricted", 30)))
    with pytest.raises(status.Forbidden, match=r'violates PodSecurity "restricted:v1\.30"'):
        strict.validate(write("CREATE", "pods", pod()))
