"""Sphinx configuration; run by `make docs`, which turns warnings into errors."""

import importlib
import importlib.util
import os
import typing

from sphinx.util import logging

# Keras needs a backend to be imported. Any will do, so take one that is installed, the quickest
# to import first.
installed = [name for name in ("jax", "torch", "tensorflow") if importlib.util.find_spec(name)]
if installed:
    os.environ.setdefault("KERAS_BACKEND", installed[0])

import adaptlr  # noqa: E402  the backend has to be chosen before Keras is imported

project = "adaptlr"
author = "the adaptlr authors"
copyright = "the adaptlr authors"
release = version = adaptlr.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_digits.md"]  # _digits.md is included by other pages
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"  # what docstrings have in single backticks
copybutton_exclude = ".linenos, .gp, .go"  # prompts and what is printed are not pasted
maximum_signature_line_length = 80  # longer ones get a line for each argument
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"adaptlr {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]


def check_public_names(app, env):
    """Warns, and so fails the build, for each public name that no page documents."""
    documented = env.domains["py"].objects
    public = ["adaptlr", *(name for name in documented if documented[name].objtype == "module")]
    for module in public:
        for name in getattr(importlib.import_module(module), "__all__", ()):
            if name != "__version__" and f"{module}.{name}" not in documented:
                logging.getLogger(__name__).warning(
                    "%s.%s is public, not in the docs", module, name
                )


def show_plain_types(app, obj, bound_method):
    """Leaves the rules that types carry out of signatures: the text says them."""
    obj = getattr(obj, "__func__", obj)  # of a class method
    if isinstance(getattr(obj, "__annotations__", None), dict):
        obj.__annotations__ = typing.get_type_hints(obj)


def setup(app):
    app.connect("autodoc-before-process-signature", show_plain_types)
    app.connect("env-check-consistency", check_public_names)
