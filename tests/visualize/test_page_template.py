"""Tests of templates of HTML pages."""

import pytest
from jinja2 import UndefinedError

from monai_mil_ext.visualize.page_template import page_template


@pytest.mark.parametrize("name", ["viewer/scan_page.html", "index_page.html"])
def test_page_template_fails_if_a_value_is_missing(name):
    with pytest.raises(UndefinedError, match="is undefined"):
        page_template(name).render()


def test_page_template_escapes_values():
    page = page_template("index_page.html").render(title="<b>", columns=["<i>"], rows=[], use="")
    assert "<b>" not in page
    assert "<i>" not in page
