"""Settings of the site: ``python -m sphinx -W --keep-going -b html docs build/site``; nothing is fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import multilevel

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "multilevel"
author = "The multilevel developers"
copyright = author  # a name that Sphinx reads
version = release = multilevel.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]

# pages: those that tests/test_readme.py runs, as they are
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

# reference: docstrings are numpydoc, and a name in single backticks is code
default_role = "code"
autodoc_member_order = "alphabetical"
autodoc_typehints = "none"  # types are in the sections of the docstrings
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 200

html_theme = "furo"
html_title = f"multilevel {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


def _links(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files that are pages of the site under another name."""
    for file, page in (("../benchmarks/README.md", "benchmarks.md"), ("../CHANGELOG.md", "changelog.md")):
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def _signatures(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """No arguments for classes that users never make themselves."""
    short = name.removeprefix("multilevel.")
    made = short in multilevel.__all__ and short not in ("Fit", "Posterior", "CrossValidation")
    return ("", None) if what == "class" and not made else (signature, returns)


COLON = "\ue000"  # stands for a colon that napoleon would take for the end of a property's type


def _before_napoleon(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """A property's first line is a sentence; napoleon reads "type: description" where it has a colon."""
    if what in ("property", "attribute") and lines:
        lines[0] = lines[0].replace(":", COLON)


def _after_napoleon(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Put colons back, and give each of several attributes on one line, "a, b : int", a line of its own."""
    out: list[str] = []
    for line in lines:
        several = re.match(r":(ivar|vartype) (\w+(?:, \w+)+): ?(.*)$", line)
        if several:
            out += [f":{several[1]} {one}: {several[3]}" for one in several[2].split(", ")]
        else:
            line = re.sub(
                r"^(:(?:vartype|type|rtype)[^:]*:) frame$", r"\1 *frame*", line
            )  # no link to a verb of that name
            out.append(line.replace(COLON, ":"))
    lines[:] = out


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", _after_napoleon, priority=600)
    app.connect("autodoc-process-signature", _signatures)
    app.connect("source-read", _links)
