"""Sphinx's configuration.  `sphinx-build -W docs docs/_build` builds it, every warning an error."""

import re
from importlib.metadata import version as installed_version

project = "trioweb"
author = "The trioweb authors"
project_copyright = author
release = installed_version("trioweb")
version = re.sub(r"\.dev.*", "", release)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"trioweb {version}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
