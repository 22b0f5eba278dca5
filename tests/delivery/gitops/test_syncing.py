"""The sync as a state machine: every order of events ends well, nothing is done twice or too early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.delivery.gitops.health import Verdict
from pilothouse.delivery.gitops.syncing import PHASES, Result, ResultKey, Task, advance, make_tasks, ordered
from pilothouse.delivery.gitops.targets import Key, Target

Live = Mapping[str, Any]


def target(name: str, *, kind: str = "ConfigMap", wave: int = 0, phases: tuple[str, ...] = ()) -> Target:
    key = Key("", kind, "d", name)
    return Target(key=key, api_version="v1", file="f", data=b"{}", digest=b"", wave=wave, phases=phases)


def test_the_order_is_phase_wave_kind_name() -> None:
    targets = [
        target("z"),
        target("a", kind="Thing"),
        target("n", kind="Namespace"),
        target("late", wave=1),
        target("first", wave=-1),
        target("h", phases=("PostSync", "PreSync")),
        target("f", phases=("SyncFail",)),
        target("skipped", phases=("Skip",)),
    ]
    tasks = make_tasks(targets, [], lambda _: None, lambda _: False)
    assert [(task.phase, task.key.name) for task in tasks] == [
        ("PreSync", "h"),
        ("Sync", "first"),
        ("Sync", "n"),
        ("Sync", "z"),
        ("Sync", "a"),
        ("Sync", "late"),
        ("PostSync", "h"),
        ("SyncFail", "f"),
    ]


def test_what_is_pruned_goes_in_mirrored_waves_or_last() -> None:
    def gone(wave: str) -> Live:
        return {"metadata": {"annotations": {"argocd.argoproj.io/sync-wave": wave}}}

    pruned = [(Key("", "ConfigMap", "d", f"w{wave}"), gone(wave)) for wave in ("1", "5", "9")]
    tasks = make_tasks([target("a", wave=7)], pruned, lambda _: None, lambda _: False)
    assert [(task.key.name, task.wave) for task in tasks] == [("w9", 1), ("w5", 5), ("a", 7), ("w1", 9)]
    tasks = make_tasks([target("a", wave=7)], pruned, lambda _: None, lambda _: False, prune_last=True)
    assert {task.wave for task in tasks if task.target is None} == {8}


def test_hooks_with_generated_names_have_one_for_each_sync() -> None:
    made = target("", kind="Job", phases=("PreSync",))
    made = Target(**{name: getattr(made, name) for name in made.__struct_fields__} | {"generate_name": "migrate-"})
    (task,) = make_tasks([made], [], lambda _: None, lambda _: False, suffix="abc-1")
    assert task.key.name == "migrate-abc-1-presync"


names = st.sampled_from("abcdef")
HOOKS = st.lists(st.sampled_from(PHASES), min_size=1, max_size=2, unique=True).map(tuple)
TARGETS = st.lists(
    st.tuples(names, st.integers(-1, 2), st.just(()) | HOOKS), max_size=6, unique_by=lambda each: each[0]
)


@settings(max_examples=80)
@given(TARGETS, st.data())
def test_every_sync_ends_and_does_each_task_once_and_in_order(listed: Any, data: Any) -> None:
    """Objects get healthy or fail in any order; the controller may be begun anew between any two steps."""
    targets = [
        target(name, kind="Job" if phases else "Thing", wave=wave, phases=phases) for name, wave, phases in listed
    ]
    tasks = make_tasks(targets, [], lambda _: None, lambda _: False)
    results: dict[ResultKey, Result] = {}
    health: dict[Key, str] = {}
    ran: list[tuple[Key, str]] = []

    def live(key: Key) -> Live | None:
        return {"key": key} if key in health else None

    def look(obj: Live) -> Verdict:
        return Verdict(health[obj["key"]])

    for _ in range(100):
        plan = advance(tasks, results, live, look)
        results = dict(plan.results)
        if plan.phase != "Running":
            break
        for task in plan.run:
            place = task.key, task.phase
            assert place not in ran, "done twice"
            check_order(tasks, task, results)
            ran.append(place)
            refused = data.draw(st.integers(0, 9)) == 0
            health[task.key] = "Progressing"
            hook = task.phase if task.is_hook else ""
            results[place] = (
                Result("SyncFailed", "Failed", "no", hook) if refused else Result("Synced", "Running", "", hook)
            )
        if not plan.run:
            key = data.draw(st.sampled_from(sorted(plan.waiting)))
            health[key] = data.draw(st.sampled_from(["Healthy", "Healthy", "Degraded"]))
    else:
        raise AssertionError("it never ends")
    main = {(task.key, task.phase) for task in tasks if task.phase != "SyncFail"}
    if plan.phase == "Succeeded":
        assert set(ran) == main, "all was run"
        assert not any(result.state == "Failed" or result.status == "SyncFailed" for result in results.values())
    else:
        assert {(task.key, task.phase) for task in tasks if task.phase == "SyncFail"} <= set(ran)
        assert "reason: " in plan.message


def check_order(tasks: list[Task], now: Task, results: Mapping[ResultKey, Result]) -> None:
    if now.phase == "SyncFail":
        return
    for task in tasks:
        if (PHASES.index(task.phase), task.wave) < (PHASES.index(now.phase), now.wave):
            assert results[task.key, task.phase].state == "Succeeded", "what comes before is done"


@given(st.permutations([target("a"), target("b", wave=1), target("c", phases=("PreSync",)), target("d", kind="Role")]))
def test_the_order_does_not_depend_on_that_of_files(targets: list[Target]) -> None:
    tasks = make_tasks(targets, [], lambda _: None, lambda _: False)
    assert [task.key.name for task in ordered(tasks)] == ["c", "a", "d", "b"]
