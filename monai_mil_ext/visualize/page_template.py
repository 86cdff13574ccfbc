"""Templates of HTML pages."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from monai_mil_ext.utils import optional_dependency

__all__ = ["page_template", "page_text"]

jinja2 = optional_dependency("", "jinja2")


@cache
def page_template(name: str) -> Any:
    """Return a template of this package, which escapes all values and fails if one is missing."""
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(page_text(name))


@cache
def page_text(name: str) -> str:
    """Return a file of this package, such as a template, a style sheet or a script."""
    return files("monai_mil_ext.visualize").joinpath(name).read_text(encoding="utf-8")
