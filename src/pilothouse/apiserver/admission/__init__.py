"""Admission: what changes and refuses writes between authorization and validation."""
