"""What is told and done after rollouts: notifications, incident records, and git that knows of a rollback.

`add_notices(manager)` and `add_incidents(manager)` add it to a manager.
"""

from __future__ import annotations

from .adding import NoticeOptions, add_notices
from .recording import IncidentOptions, Samples, add_incidents

__all__ = ["IncidentOptions", "NoticeOptions", "Samples", "add_incidents", "add_notices"]
