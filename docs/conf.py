"""Sphinx's configuration.  `sphinx-build -W docs docs/_build` builds it, every warning an error."""

import re
from importlib.metadata import version as installed_version

project = "trioweb"
author = "The trioweb authors"
project_copyright = author
release = installed_version("trioweb")
version = re.sub(r"\.dev.*", "", release)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
default_role = "literal"  # single backticks in docstrings are code
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"trioweb {version}"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nitpicky = True  # a reference that leads nowhere is an error, but for these:
nitpick_ignore_regex = [
    # documented elsewhere
    ("py:.*", r"(collections|contextlib|datetime|logging|msgspec|os|socket|ssl|trio)(\..*)?"),
    ("py:.*", r"typing\.Literal.*|.*'\)"),  # literal values, cut at their commas
    ("py:class", "PosArgs"),  # a type variable
    ("py:class", r"trioweb\._.*"),  # types that are met as attributes, never imported
    ("py:class", r"trioweb\.server\._peers\.Peers"),  # made by the command line, for its workers
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
