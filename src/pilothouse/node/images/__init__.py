"""Images of containers: names, layouts, registries, and the store that holds them."""
