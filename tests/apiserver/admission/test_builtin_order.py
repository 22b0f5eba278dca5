"""Which steps are on, in which order, and that a whole pod goes through them."""

from __future__ import annotations

import pytest

from pilothouse.apiserver.admission.builtins import DEFAULT_OFF, ORDER, UnknownPlugin, standard
from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.plugin import Plugin
from pilothouse.apiserver.ports import AdmissionPlugin, Object
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from support.dictview import DictLocal, DictView, Rules, write


class Hooks(Plugin):
    name = "MutatingAdmissionWebhook"


def steps(view: DictView, **more: object) -> list[AdmissionPlugin]:
    return standard(view, Rules(), DictLocal(view), SeededIds(1), FakeClock(), **more)  # type: ignore[arg-type]


def test_order() -> None:
    names = [one.name for one in steps(DictView(), dynamic=[Hooks()], enable=["NodeRestriction"])]
    assert names == [one for one in ORDER if one in names]
    assert names[-2:] == ["MutatingAdmissionWebhook", "ResourceQuota"]
    assert "NodeRestriction" in names
    assert not DEFAULT_OFF.intersection(one.name for one in steps(DictView()))
    assert "Priority" not in [one.name for one in steps(DictView(), disable=["Priority"])]
    with pytest.raises(UnknownPlugin, match="there are NamespaceLifecycle, LimitRanger"):
        steps(DictView(), enable=["AlwaysAdmit"])


def test_a_pod_goes_through_all() -> None:
    view = DictView()
    view.namespace("n")
    view.put("serviceaccounts", {"metadata": {"name": "default", "namespace": "n"}})
    chain = Admission(steps(view))
    item: Object = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    request = write("CREATE", "pods", item)
    assert chain.admit(request) is None
    assert chain.validate(request) is None
    assert set(item["spec"]) == {
        "containers",
        "preemptionPolicy",
        "priority",
        "serviceAccount",
        "serviceAccountName",
        "tolerations",
        "volumes",
    }
