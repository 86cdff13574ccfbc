"""Sphinx configuration. ``scripts/site`` builds from the root of the tree, so that links to bundles and code hold."""

import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.ext.autosummary import autosummary_toc
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

import monai_mil_ext

GENERATED = "docs/reference/generated/"
project = "monai_mil_ext"
version = release = monai_mil_ext.__version__
copyright = "the monai_mil_ext authors; research use only"  # noqa: A001 (Sphinx's name)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_design"]
myst_enable_extensions = ["colon_fence"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", f"{GENERATED}*.rst", "bundles/*/docs/README.md", "scripts/experiments/*/README.md"]
include_patterns += [f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "CODE_OF_CONDUCT")]
exclude_patterns = [".*", "runs/**", "study/**", "**/data*/**"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"monai_mil_ext {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
templates_path = [str(Path(__file__).with_name("templates"))]  # Sphinx looks from the root of the tree
autosummary_ignore_module_all = False  # a room's names are those of its __all__
autosummary_generate_overwrite = True
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
napoleon_use_ivar = True
nitpicky = False


def _forget_names(app: Sphinx) -> None:
    """Remove the pages of names from an earlier build, which may no longer exist."""
    shutil.rmtree(Path(app.srcdir, GENERATED), ignore_errors=True)


def _formula(translator: HTML5Translator, node: nodes.math | nodes.math_block, display: str) -> None:
    """Write a formula as MathML, which browsers draw without a script or the network."""
    formula = convert(node.astext(), display=display)
    if "\\" in formula:
        logging.getLogger(__name__).warning("a command of this formula is unknown: %s", node.astext(), location=node)
    translator.body.append(formula if display == "inline" else f'<div class="math">{formula}</div>')
    raise nodes.SkipNode


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    _formula(translator, node, "inline")


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    _formula(translator, node, "block")


def _leave_names_out_of_sidebar(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the hundreds of pages of names, each linked from the page of its room, out of the sidebar."""
    if not app.env.current_document.docname.startswith(GENERATED):
        return
    for node in list(doctree.findall(autosummary_toc)):
        node.parent.remove(node)


def _write_front_page(app: Sphinx, error: Exception | None) -> None:
    """Write ``index.html`` at the root of the site, which leads to the front page in ``docs``."""
    if error is None and app.builder.name == "html":
        link = f"{root_doc}.html"
        page = f'<!doctype html><meta charset="utf-8"><title>{project}</title>'
        page += f'<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">{project}</a>\n'
        Path(app.outdir, "index.html").write_text(page)


def setup(app: Sphinx) -> None:
    """Register the front page, the formulas and the sidebar."""
    app.connect("builder-inited", _forget_names, priority=100)  # before Sphinx writes new ones
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("doctree-read", _leave_names_out_of_sidebar, priority=100)  # before Sphinx collects the sidebar
    app.connect("build-finished", _write_front_page)
