"""ApplicationSets: many applications from one template."""
