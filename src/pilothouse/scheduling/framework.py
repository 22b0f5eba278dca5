"""What a plugin is: the extension points as protocols, and what a plugin is given at each.

A plugin looks at many nodes at once. `Nodes` has columns; a filter answers with one code for each node, 0 where the pod
may run, and says afterwards what a code means; a score answers with one number for each. A plugin implements the points
that it has something to say at: a class that has the methods of several protocols is all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilothouse.kinds.structs import Pod

from .columns import Bools, Column, Ints
from .events import Interest
from .shapes import PodShape
from .table import NodeTable

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = [
    "MAX_NODE_SCORE",
    "SKIP",
    "BindPlugin",
    "Cycle",
    "FilterPlugin",
    "Narrow",
    "Nodes",
    "PermitPlugin",
    "Plugin",
    "PostBindPlugin",
    "PostFilterPlugin",
    "PostFiltered",
    "PreBindPlugin",
    "PreEnqueuePlugin",
    "PreFilterPlugin",
    "PreFiltered",
    "PreScorePlugin",
    "QueueSortPlugin",
    "QueuedPod",
    "Refusal",
    "Reject",
    "ReservePlugin",
    "Rows",
    "Scope",
    "ScorePlugin",
    "Skip",
    "Volumes",
    "Wait",
    "WakingPlugin",
    "extremes",
    "spread_to_hundred",
]

MAX_NODE_SCORE: Final = 100
Rows = slice | NDArray[np.intp]


class Scope(Enum):
    """What the answer for a node depends on, so that it is asked for again only when it may differ."""

    NODE = "node"
    """The node object alone: its labels, taints, images."""
    ROW = "row"
    """The node and the pods on it: resources, ports."""
    CLUSTER = "cluster"
    """Other nodes and pods as well: spread, pod affinity. Asked for each pod."""


class Nodes:
    """Some rows of the node table. All arrays have one element, or one line, for each node."""

    __slots__ = ("rows", "table")

    def __init__(self, table: NodeTable, rows: Rows) -> None:
        self.table: Final = table
        self.rows: Final = rows

    def __len__(self) -> int:
        rows = self.rows
        return len(range(self.table.size)[rows]) if isinstance(rows, slice) else len(rows)

    @property
    def numbers(self) -> NDArray[np.intp]:
        """The numbers of the rows."""
        return np.arange(self.table.size)[self.rows] if isinstance(self.rows, slice) else self.rows

    @property
    def names(self) -> list[str]:
        """The nodes' names; empty where a row is free."""
        return [self.table.name(row) for row in self.numbers.tolist()]

    @property
    def allocatable(self) -> Ints:
        """What the nodes have, a column for each of `table.resources`."""
        return self.table.allocatable[self.rows]

    @property
    def requested(self) -> Ints:
        """What the pods on the nodes asked for, likewise."""
        return self.table.requested[self.rows]

    @property
    def unschedulable(self) -> Bools:
        """Whether nodes are cordoned."""
        return self.table.unschedulable[self.rows]

    def column(self, key: str) -> Column:
        """Give the column of a label, with the names of its values."""
        return self.table.column(key)

    def label(self, key: str) -> NDArray[np.int32]:
        """Give the id of each node's value of a label; 0 where it has none."""
        return self.table.column(key).ids[self.rows]

    def full(self, value: int) -> Ints:
        """Give an array with the same number for each node."""
        return np.full(len(self), value, np.int64)

    def mark(self, rows: Iterable[int], code: int) -> Ints:
        """Give an array with `code` for the rows named, else 0."""
        marks = np.zeros(self.table.capacity, np.int64)
        marks[list(rows)] = code
        return marks[: self.table.size][self.rows]


class Refusal(NamedTuple):
    """What a filter's code means. `final` says that no pod that goes makes the node fit."""

    reasons: tuple[str, ...]
    final: bool = False


class Skip(Enum):
    """The answer of a plugin that has nothing to say for a pod."""

    SKIP = "skip"


SKIP: Final = Skip.SKIP


class Reject(NamedTuple):
    """The pod cannot run on any node now. `final` says that preemption would not help."""

    reason: str
    final: bool = True


class Narrow(NamedTuple):
    """Only these nodes are worth looking at."""

    names: frozenset[str]


PreFiltered = Skip | Reject | Narrow | None


@dataclass(slots=True)
class Volumes:
    """What has to be written for a pod's volumes before it is bound, by node: claims to volumes, claims to provide."""

    bindings: tuple[tuple[str, str], ...] = ()
    """Pairs of a volume's name and the key of the claim, `namespace/name`, that it is bound to."""
    provisions: tuple[str, ...] = ()
    """Keys of claims that get the annotation with the selected node."""


@dataclass(slots=True)
class Cycle:
    """One try to find a node for a pod, and what plugins keep from try to try, by their names.

    `state` is shared by all pods of the shape. `local` is shared by all that are alike but for labels, owners and terms
    about other pods, for plugins that look at none of these.
    """

    pod: Pod
    shape: PodShape
    cluster: Cluster
    random: random.Random
    state: dict[str, Any] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> NodeTable:
        """The nodes."""
        return self.cluster.table

    @property
    def nodes(self) -> Nodes:
        """All rows."""
        return Nodes(self.table, slice(0, self.table.size))


class QueuedPod(Protocol):
    """A pod in the queue, as it is compared."""

    @property
    def pod(self) -> Pod: ...

    @property
    def priority(self) -> int: ...

    @property
    def timestamp(self) -> float: ...


@runtime_checkable
class Plugin(Protocol):
    """What all plugins have."""

    name: ClassVar[str]


@runtime_checkable
class WakingPlugin(Protocol):
    """A plugin that says after which events a pod that it refused is worth another try."""

    def events(self) -> Sequence[Interest]: ...


@runtime_checkable
class PreEnqueuePlugin(Protocol):
    """Decides whether a pod may enter the queue at all."""

    name: ClassVar[str]

    def pre_enqueue(self, pod: Pod) -> Reject | None: ...


@runtime_checkable
class QueueSortPlugin(Protocol):
    """Orders the queue: gives a key, smaller ones come first."""

    name: ClassVar[str]

    def sort_key(self, queued: QueuedPod) -> tuple[Any, ...]: ...


@runtime_checkable
class PreFilterPlugin(Protocol):
    """Looks at the pod once before nodes are filtered; what it finds out it keeps in the cycle's state."""

    name: ClassVar[str]

    def pre_filter(self, cycle: Cycle) -> PreFiltered: ...


@runtime_checkable
class FilterPlugin(Protocol):
    """Says which nodes a pod may run on: 0 where it may, else a code that `explain` puts in words.

    `filter_row(cycle, row) -> int` may be added, a faster answer for one node; `version(cycle)`, which changes when
    all answers have to be asked for again although no node changed; and `nameless = True`, which says that neither
    labels nor owner nor terms about other pods matter, so that pods that differ in those share answers.
    """

    name: ClassVar[str]
    scope: ClassVar[Scope]

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints: ...

    def explain(self, cycle: Cycle, code: int) -> Refusal: ...


class PostFiltered(NamedTuple):
    """What was done so that a pod that fits nowhere will fit. `nominated` is the node, None where nothing helps."""

    nominated: str | None
    victims: tuple[Pod, ...] = ()
    message: str = ""
    keep_nomination: bool = False


@runtime_checkable
class PostFilterPlugin(Protocol):
    """Acts when no node fits. `open_rows` are those that might, if pods went."""

    name: ClassVar[str]

    def post_filter(self, cycle: Cycle, open_rows: NDArray[np.intp], profile: Any) -> PostFiltered: ...


@runtime_checkable
class PreScorePlugin(Protocol):
    """Looks at the pod and the nodes that fit before they are scored."""

    name: ClassVar[str]

    def pre_score(self, cycle: Cycle, feasible: Bools) -> Skip | None: ...


@runtime_checkable
class ScorePlugin(Protocol):
    """Rates nodes. With `normalize(cycle, scores, feasible)` any numbers may be given, without it 0 to 100.

    `score_row(cycle, row) -> int`, `score_version(cycle)` and `nameless` may be added, as for filters.
    """

    name: ClassVar[str]
    score_scope: ClassVar[Scope]

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints: ...


@runtime_checkable
class ReservePlugin(Protocol):
    """Takes what a pod needs as soon as it has a node, and gives it back if it does not get there."""

    name: ClassVar[str]

    def reserve(self, cycle: Cycle, node: str) -> Reject | None: ...

    def unreserve(self, cycle: Cycle, node: str) -> None: ...


class Wait(NamedTuple):
    """The pod is bound when someone allows it, within so many seconds."""

    seconds: float


@runtime_checkable
class PermitPlugin(Protocol):
    """Has the last word before a pod is bound: None lets it, `Wait` keeps it, `Reject` does not."""

    name: ClassVar[str]

    def permit(self, cycle: Cycle, node: str) -> Wait | Reject | None: ...


@runtime_checkable
class PreBindPlugin(Protocol):
    """Says what has to be written before the binding."""

    name: ClassVar[str]

    def pre_bind(self, cycle: Cycle, node: str) -> Volumes | None: ...


@runtime_checkable
class BindPlugin(Protocol):
    """Says whether it is this plugin that binds the pod."""

    name: ClassVar[str]

    def binds(self, pod: Pod) -> bool: ...


@runtime_checkable
class PostBindPlugin(Protocol):
    """Is told of a pod that was bound."""

    name: ClassVar[str]

    def post_bind(self, pod: Pod, node: str) -> None: ...


def extremes(scores: Ints, among: Bools) -> tuple[int, int]:
    """Give the lowest and the highest score of the nodes named; zeros if there are none."""
    chosen = scores if among.all() else scores[among]
    return (int(chosen.min()), int(chosen.max())) if len(chosen) else (0, 0)


def spread_to_hundred(scores: Ints, feasible: Bools, *, reverse: bool = False) -> Ints:
    """Scale scores so that the largest of a node that fits is 100; or, reversed, so that it is 0."""
    largest = max(extremes(scores, feasible)[1], 0)
    if not largest:
        return np.full_like(scores, MAX_NODE_SCORE if reverse else 0)
    scaled = scores * MAX_NODE_SCORE // largest
    return MAX_NODE_SCORE - scaled if reverse else scaled
