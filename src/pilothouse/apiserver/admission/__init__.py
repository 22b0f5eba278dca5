"""Admission: what changes and refuses writes between authorization and validation."""

from pilothouse.apiserver.admission.assembly import Assembled, assemble, dynamic_steps
from pilothouse.apiserver.admission.chain import Admission

__all__ = ["Admission", "Assembled", "assemble", "dynamic_steps"]
