"""Audit: who asked for what, when, and what came of it, in Kubernetes' own events (audit.k8s.io/v1)."""

from __future__ import annotations

from pilothouse.apiserver.audit.auditor import AuditLevel, Auditor, AuditRecord
from pilothouse.apiserver.audit.event import Event, EventSink
from pilothouse.apiserver.audit.logfile import AuditLog, LogSettings
from pilothouse.apiserver.audit.policy import AuditPolicy, AuditPolicyError, recommended_policy

__all__ = [
    "AuditLevel",
    "AuditLog",
    "AuditPolicy",
    "AuditPolicyError",
    "AuditRecord",
    "Auditor",
    "Event",
    "EventSink",
    "LogSettings",
    "recommended_policy",
]
