"""HTML page and animation of a scan."""

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize import scan_page, write_cine

from .test_slice_scores import scan


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


def test_write_cine_shows_every_slice_and_the_attention_of_all(tmp_path):
    attention, position, slices, reference = scan()
    slices = np.repeat(np.repeat(slices, 8, 1), 8, 2) * 0 + np.linspace(0.1, 0.9, 9)[:, None, None]
    masks = np.repeat(np.repeat(reference, 8, 1), 8, 2)
    write_cine(tmp_path / "c.gif", attention, position, slices, masks, milliseconds=200)
    movie = Image.open(tmp_path / "c.gif")
    assert (movie.n_frames, movie.info["duration"], movie.info["loop"]) == (9, 200, 0)
    assert movie.info["comment"] == b"research use only"
    for i in (0, 8):
        movie.seek(i)
        frame = np.asarray(movie.convert("RGB")).astype(int)
        assert abs(frame[5, 5] - round(slices[i, 0, 0] * 255)).max() <= 3
        middle = frame[3 if i == 0 else 124, 128 + 2 + 14]  # the bar: highest position on top
        expected = mpl.colormaps["cividis"](1.0 if i == 0 else attention[0] / attention[8])[:3]
        np.testing.assert_allclose(middle / 255, expected, atol=0.04)
    outline = frame[32:72, 32:72].reshape(-1, 3)
    assert (outline[:, 2] - outline[:, 0] > 60).any()


def test_write_cine_and_scan_page_refuse_invalid_arguments(tmp_path):
    attention, position, slices, _ = scan()
    with pytest.raises(ValueError, match="must have one length"):
        write_cine(tmp_path / "c.gif", attention, position[1:], slices)
    with pytest.raises(ValueError, match="`milliseconds` must be a positive integer, got 0"):
        write_cine(tmp_path / "c.gif", attention, position, slices, milliseconds=0)
    with pytest.raises(ValueError, match="`top_k` must be a positive integer, got 0"):
        scan_page(attention, position, slices, top_k=0)
    assert not (tmp_path / "c.gif").exists()
