"""Tests of the HTML page of a scan."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from monai_mil_ext.visualize import scan_page
from tests.visualize.attention_scan import scan


class Page(HTMLParser):
    """Tags, images and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.images, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text += data


def test_scan_page_shows_most_and_least_attention_and_needs_no_other_file():
    attention, position, slices, reference = scan()
    page = scan_page(attention, position, slices, reference, 3, "c1 <b>", {"probability": "0.70"})
    parsed = Page(page)
    assert [image["alt"] for image in parsed.images] == [
        *("slice 8", "slice 7", "slice 6"),
        "attention along the axis",
        *("slice 0", "slice 1", "slice 2"),
    ]
    for image in parsed.images:
        head, code = image["src"].split(",")
        assert head == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(code))).size[0] > 100
    assert "c1 <b>" in parsed.text  # as text, not as a tag
    assert "b" not in parsed.tags
    assert "script" not in parsed.tags
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "slice 8, 20.0 mmattention 0.200, reference" in parsed.text
    assert "slice 0, -20.0 mmattention 0.022" in parsed.text
    assert parsed.text.strip().endswith("research use only")


def test_scan_page_shows_no_slice_twice():
    attention, position, slices, _ = scan(3)
    assert len(Page(scan_page(attention, position, slices, top_k=2)).images) == 4
    assert "Least" not in scan_page(attention, position, slices, top_k=4)


def test_scan_page_refuses_invalid_arguments():
    attention, position, slices, _ = scan()
    with pytest.raises(ValueError, match="`top_k` must be a positive integer, got 0"):
        scan_page(attention, position, slices, top_k=0)


def test_scan_page_names_slices_by_their_index_in_the_scan():
    attention, position, slices, _ = scan(3)
    page = Page(scan_page(attention, position, slices, top_k=2, slice_index=position.astype(int)))
    expected = {f"slice {int(mm)}" for mm in position} | {"attention along the axis"}
    assert {image["alt"] for image in page.images} == expected
