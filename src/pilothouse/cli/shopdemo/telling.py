"""What has happened in the demo: its moments as they come, its figures, and what should not have been."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from .cluster import Object, step_said
from .figures import Harm, harm_of
from .records import Row
from .report import Fault, Moment, Recording
from .repository import VERSIONS

__all__ = ["Narrator", "Story"]

_MOST_SECONDS: Final = 15.0
"""From the first bad answer of a version to its last one."""
_MOST_AFTER: Final = 2.0
"""From a decision to the last request that was sent to the version, on a machine that has other things to do."""


class Story:
    """What has happened, told as it happens. faulty: the bad versions; tell: is given what is being done."""

    def __init__(
        self, faulty: Sequence[int], tell: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self.faulty: Final = (*faulty,)
        self.began = clock()
        self.moments: list[Moment] = []
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self.url = ""
        self.orders = 0
        self._tell, self._clock = tell, clock

    def doing(self, what: str) -> None:
        """Say what comes now."""
        self._tell(what)

    def moment(self, kind: str, event: str, detail: str = "", *, version: int = 0, at: float | None = None) -> Moment:
        """Note that something has happened, now or at a time of this machine's clock; version: that it is about."""
        made = Moment(self._clock() if at is None else at, kind, event, detail, version)
        self.moments.append(made)
        self.moments.sort(key=lambda each: each.at)
        return made

    @property
    def recording(self) -> Recording:
        """What the report is made of: from when the load began on."""
        began = self.rows[0].sent if self.rows else self.began
        moments = [each for each in self.moments if each.at >= began]
        return Recording(began, self.rows, moments, [Fault(each, VERSIONS[each].fault) for each in self.faulty])

    def conclude(self) -> None:
        """Add what only the clients know, and say what should not have been."""
        if lost := max(0, self._ordered - self.orders):
            self.problems.append(f"orders that were acknowledged and are lost: {lost}")
        if failed := self._failed_of_others:
            self.problems.append(f"requests that failed, but for those of {self._said}: {failed}")
        for version in self.faulty:
            self._conclude(version, harm_of(self.rows, version))

    @property
    def _said(self) -> str:
        return " and ".join(f"version {each}" for each in self.faulty)

    def _conclude(self, version: int, harm: Harm) -> None:
        if harm.first_bad is None or harm.last_bad is None or harm.last_sent is None:
            self.problems.append(f"version {version} gave no bad answer: it was not seen at all")
            return
        hit = f"{harm.hit} of {harm.users} users hit"
        self.moment("bad", f"version {version}: first bad answer", version=version, at=harm.first_bad)
        self.moment("bad", f"version {version}: last bad answer", hit, version=version, at=harm.last_bad)
        decision = self.recording.when("decision", version)
        if decision is None:
            self.problems.append(f"version {version} was not taken back")
        elif harm.last_sent - decision > _MOST_AFTER:
            self.problems.append(f"requests still went to version {version} {harm.last_sent - decision:.1f} s later")
        if harm.last_bad - harm.first_bad > _MOST_SECONDS:
            self.problems.append(
                f"version {version} gave bad answers for {harm.last_bad - harm.first_bad:.1f} s, "
                f"longer than {_MOST_SECONDS:g} s"
            )

    @property
    def _ordered(self) -> int:
        """How many orders were acknowledged to clients."""
        return sum(row.status == HTTPStatus.CREATED for row in self.rows)

    @property
    def _failed_of_others(self) -> int:
        return sum(row.is_failed for row in self.rows if row.version not in self.faulty)

    def figures(self) -> dict[str, Any]:
        """Return what it comes to, for programs."""
        return {
            "requests": len(self.rows),
            "orders": self._ordered,
            "orders_lost": max(0, self._ordered - self.orders),
            "failed_of_other_versions": self._failed_of_others,
            "bad_versions": [self._figures(version, harm_of(self.rows, version)) for version in self.faulty],
        }

    def _figures(self, version: int, harm: Harm) -> dict[str, Any]:
        found: dict[str, Any] = {
            "version": version,
            "fault": VERSIONS[version].fault,
            "users": harm.users,
            "users_hit": harm.hit,
            "users_hit_share": round(harm.share, 6),
        }
        decision = self.recording.when("decision", version)
        if decision is not None and harm.first_bad is not None and harm.last_sent is not None:
            found["first_bad_to_decision_seconds"] = round(decision - harm.first_bad, 3)
            found["decision_to_last_request_seconds"] = round(harm.last_sent - decision, 3)
        return found


class Narrator:
    """Notes the steps of a rollout to a version as it goes on."""

    def __init__(self, story: Story, version: int) -> None:
        self._story, self._version = story, version
        self._seen = 0
        self._began = False
        self.is_aborted = self.is_done = False

    def see(self, rollout: Object) -> None:
        """Look at it once more."""
        status = rollout["status"]
        if not self._is_of_version(rollout) or str(rollout["metadata"].get("generation")) != str(
            status.get("observedGeneration")
        ):
            return
        steps = rollout["spec"]["strategy"]["canary"]["steps"]
        is_under_way = status.get("currentPodHash") != status.get("stableRS")
        self._began = self._began or is_under_way
        if is_under_way:
            index = status.get("currentStepIndex") or 0
            for number in range(self._seen, min(index, len(steps))):
                if said := step_said(steps[number]):
                    self._story.moment("step", f"version {self._version}: {said}", version=self._version)
            self._seen = max(self._seen, index)
        self.is_aborted = bool(status.get("abort"))
        self.is_done = self._began and not is_under_way and status.get("phase") == "Healthy"

    def _is_of_version(self, rollout: Object) -> bool:
        variables = rollout["spec"]["template"]["spec"]["containers"][0]["env"]
        return {"name": "VERSION", "value": str(self._version)} in variables
