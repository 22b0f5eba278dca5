"""Admission: what changes and refuses writes between authorization and validation; `assembly` puts it together.

Controllers take single modules of it, such as what counts for quotas; so nothing is imported here.
"""

__all__: list[str] = []
