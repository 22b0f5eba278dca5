"""What a resource is: schema, values, selectors, patches, apply, defaults and validation. Pure functions only."""

__all__: list[str] = []
