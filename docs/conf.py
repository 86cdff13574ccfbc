"""The site: ``scripts/site`` builds it from the whole tree, so that links between pages, bundles and code hold."""

import monai_mil_ext

project = "monai_mil_ext"
version = release = monai_mil_ext.__version__
copyright = "the monai_mil_ext authors; research use only"  # noqa: A001 (Sphinx's name)
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/site"
include_patterns = [
    "docs/**.md",
    "bundles/*/docs/README.md",
    "scripts/experiments/*/README.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
exclude_patterns = [".*", "runs/**", "**/data*/**"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
    "page_width": "1100px",
    "fixed_sidebar": True,
    "description": "multiple-instance learning for MONAI",
}
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
napoleon_use_ivar = True
nitpicky = False
