"""Load protection: who waits and who is refused when more is asked than can be served at once.

API Priority and Fairness of Kubernetes: requests are sorted by flow schemas into priority levels, each of which has a
share of the server's seats and, for its flows, bounded fair queues.
"""

from __future__ import annotations

from pilothouse.apiserver.flow.bootstrap import ensure_defaults
from pilothouse.apiserver.flow.control import FlowControl, Limits, Rejected, Ticket
from pilothouse.apiserver.flow.dangling import FlowSchemaStatus, dangling_condition
from pilothouse.apiserver.flow.defaults import FLOW_SCHEMAS, MANDATORY, PRIORITY_LEVELS

__all__ = [
    "FLOW_SCHEMAS",
    "MANDATORY",
    "PRIORITY_LEVELS",
    "FlowControl",
    "FlowSchemaStatus",
    "Limits",
    "Rejected",
    "Ticket",
    "dangling_condition",
    "ensure_defaults",
]
