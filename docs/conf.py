"""Sphinx configuration. ``scripts/site`` builds from the root of the tree, so that links to bundles and code hold."""

from pathlib import Path

from sphinx.application import Sphinx

import monai_mil_ext

project = "monai_mil_ext"
version = release = monai_mil_ext.__version__
copyright = "the monai_mil_ext authors; research use only"  # noqa: A001 (Sphinx's name)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "bundles/*/docs/README.md", "scripts/experiments/*/README.md"]
include_patterns += [f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "CODE_OF_CONDUCT")]
exclude_patterns = [".*", "runs/**", "study/**", "**/data*/**"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"monai_mil_ext {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
napoleon_use_ivar = True
nitpicky = False


def _write_front_page(app: Sphinx, error: Exception | None) -> None:
    """Write ``index.html`` at the root of the site, which leads to the front page in ``docs``."""
    if error is None and app.builder.name == "html":
        link = f"{root_doc}.html"
        page = f'<!doctype html><meta charset="utf-8"><title>{project}</title>'
        page += f'<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">{project}</a>\n'
        Path(app.outdir, "index.html").write_text(page)


def setup(app: Sphinx) -> None:
    """Register the front page."""
    app.connect("build-finished", _write_front_page)
