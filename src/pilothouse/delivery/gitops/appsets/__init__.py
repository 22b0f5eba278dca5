"""ApplicationSets: many applications from one template."""

__all__: list[str] = []
