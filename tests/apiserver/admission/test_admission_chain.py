"""The chain: order, what is asked, reinvocation, and that nothing is awaited where nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from pilothouse.apiserver.admission.chain import AGAIN, NEEDED, Admission
from pilothouse.apiserver.admission.plugin import Plugin
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Operation
from pilothouse.kinds import status
from support.dictview import write


class Step(Plugin):
    def __init__(self, name: str, log: list[str], *, later: bool = False, refuse: bool = False) -> None:
        self.name = name
        self.log = log
        self.later = later
        self.refuse = refuse
        self.asked = 0

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        self.asked += 1
        return resource[2] == "pods"

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        return self._act("mutate")

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        return self._act("validate")

    def _act(self, what: str) -> Awaitable[None] | None:
        if self.refuse:
            raise status.forbidden("", "pods", "p", self.name)
        if not self.later:
            self.log.append(f"{what} {self.name}")
            return None

        async def act() -> None:
            await asyncio.sleep(0)
            self.log.append(f"{what} {self.name}")

        return act()


class Changing(Step):
    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name, log)
        self.revision = 0
        self.wants = True

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        super().handles(operation, resource, subresource)
        return self.wants


class Validating(Plugin):
    name = "only validates"
    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = frozenset({("", "pods")})

    def validate(self, request: AdmissionRequest) -> None:
        request.annotate("seen", "yes")


def pod() -> AdmissionRequest:
    return write("CREATE", "pods", {"metadata": {"name": "p", "namespace": "n"}})


def test_steps_run_in_order_and_at_once() -> None:
    log: list[str] = []
    chain = Admission([Step("a", log), Step("b", log)])
    assert chain.admit(pod()) is None
    assert chain.validate(pod()) is None
    assert log == ["mutate a", "mutate b", "validate a", "validate b"]


async def test_steps_after_one_that_waits_wait_for_it() -> None:
    log: list[str] = []
    chain = Admission([Step("a", log), Step("b", log, later=True), Step("c", log), Step("d", log, later=True)])
    pending = chain.admit(pod())
    assert pending is not None
    assert log == ["mutate a"]
    await pending
    assert log == ["mutate a", "mutate b", "mutate c", "mutate d"]


async def test_a_refusal_ends_it() -> None:
    log: list[str] = []
    chain = Admission([Step("a", log, later=True), Step("b", log, refuse=True), Step("c", log)])
    pending = chain.admit(pod())
    assert pending is not None
    with pytest.raises(status.Forbidden):
        await pending
    assert log == ["mutate a"]
    with pytest.raises(status.Forbidden):
        Admission([Step("b", log, refuse=True)]).validate(pod())


def test_steps_that_do_not_change_anything_are_not_called_to() -> None:
    chain = Admission([Validating()])
    steps = chain._find("CREATE", ("", "v1", "pods"), "")
    assert [len(one) for one in steps] == [0, 1]
    assert chain.concerns("CREATE", ("", "v1", "pods"), "")
    assert not chain.concerns("DELETE", ("", "v1", "pods"), "")


def test_a_step_is_asked_once_for_each_kind_of_write_until_its_revision_changes() -> None:
    log: list[str] = []
    fixed, changing = Step("fixed", log), Changing("changing", log)
    chain = Admission([fixed, changing])
    for _ in range(5):
        chain.admit(pod())
    assert (fixed.asked, changing.asked) == (1, 1)
    changing.wants = False
    chain.admit(pod())
    assert log[-1] == "mutate changing"
    changing.revision += 1
    chain.admit(pod())
    assert log[-1] == "mutate fixed"
    assert (fixed.asked, changing.asked) == (2, 2)


async def test_all_steps_run_once_more_where_one_asks_for_it() -> None:
    log: list[str] = []

    class Asking(Step):
        def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
            self.log.append("again" if AGAIN in request.reinvocation else "first")
            request.reinvocation[NEEDED] = True
            return None

    pending = Admission([Step("a", log), Asking("asks", log)]).admit(pod())
    assert pending is not None
    await pending
    assert log == ["mutate a", "first", "mutate a", "again"]


def test_what_plugins_remember_alone_runs_nothing_again() -> None:
    log: list[str] = []
    request = pod()
    request.reinvocation["something"] = 1
    assert Admission([Step("a", log)]).admit(request) is None
    assert log == ["mutate a"]
