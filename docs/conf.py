"""Settings of the documentation, built by `make docs`."""

from pilothouse import __version__

project = "Pilothouse"
author = "The Pilothouse authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
nitpicky = True
html_theme = "alabaster"
html_theme_options = {"description": "The cloud-native stack in one Python program", "page_width": "1080px"}
html_show_sourcelink = False
