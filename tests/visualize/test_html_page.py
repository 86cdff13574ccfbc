"""Tests of the HTML page of a scan."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize import SliceDisplay, scan_page
from tests.visualize.attention_scan import scan


class Page(HTMLParser):
    """Tags with their attributes, text outside of scripts, and data of the script of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.inside = [], "", ""
        self.feed(page)
        data = json.loads(re.search(r"\bconst scan = (.*);\n", page)[1])
        self.slices, self.curve, self.heat, self.windows = (data[k] for k in ("slices", "curve", "heat", "windows"))

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def image_of(address):
    head, code = address.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_scan_page_shows_every_slice_and_needs_no_other_file():
    attention, position, slices, reference = scan()
    display = SliceDisplay("axial", (1.5, 0.5), None, 9, np.arange(20, 11, -1), "window -160 to 240 HU")
    page = scan_page(attention, position, slices, reference, 3, "c1: probability 0.70", {"model": "m 2"}, display)
    parsed = Page(page)
    assert len(parsed.slices) == 9
    for i, entry in enumerate(parsed.slices):
        width, height = image_of(entry["src"]).size
        assert height == pytest.approx(3 * width, abs=1.5)  # true proportion
        assert entry["name"] == f"slice {i + 1} of 9"
        assert entry["place"] == f"{position[i]:.1f} mm, InstanceNumber {20 - i}"
        assert entry["reference"] is bool(reference[i].any())
        assert bool(entry["outline"]) is entry["reference"]
    assert parsed.slices[8]["ratio"] == "1.8 × uniform"
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # a namespace, which is not loaded
    for text in ("c1: probability 0.70", "window -160 to 240 HU", "m 2", "1. slice 9 of 9", "Research use only."):
        assert text in parsed.text
    for side in "RLAPSI":
        assert f">{side}</span>" in page
    assert "table" not in {tag for tag, _ in parsed.tags}
    assert {"front view", "side view"} <= {image["alt"] for image in parsed.all("img")}


def test_scan_page_can_be_used_by_keyboard_and_is_described():
    page = Page(scan_page(*scan(), title="c1"))
    (slider,) = (entry for entry in page.all("input") if entry["type"] == "range")
    assert (slider["min"], slider["max"], slider["value"], slider["aria-label"]) == ("0", "8", "8", "slice")
    assert next(entry for entry in page.all("div") if entry.get("id") == "slice")["tabindex"] == "0"
    assert all("alt" in image for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("meta")[1]["content"] == "width=device-width, initial-scale=1"
    assert [button["data-slice"] for button in page.all("button")] == ["8", "7", "6", "5"]


@pytest.mark.parametrize(
    "hostile", ["</script><img src=x onerror=alert(1)>", "\"' onload='alert(1)", "{{ 7 * 7 }} ${x}"]
)
def test_scan_page_shows_hostile_texts_as_texts(hostile):
    display = SliceDisplay("axial", (1.0, 1.0), window=hostile)
    page = Page(scan_page(*scan(), 1, hostile, {hostile: hostile}, display, {hostile: hostile}))
    assert page.text.count(hostile) == 6  # title, heading, fact (2), values, link
    assert len(page.all("script")) == 1
    assert not any("onload" in entry or "onerror" in entry for _, entry in page.tags)
    assert page.all("a") == [{"href": hostile}]


def test_scan_page_names_neither_facts_nor_files_where_there_are_none():
    page = Page(scan_page(*scan()[:3]))
    assert not page.all("dl")
    assert not page.all("a")
    assert not page.all("ul")
    assert "reference" not in page.text
    linked = Page(scan_page(*scan(), links={"scores": "c1_scores.nii.gz"}))
    assert linked.all("a") == [{"href": "c1_scores.nii.gz"}]


def test_scan_page_lists_evenly_spaced_slices_of_nearly_even_attention():
    _, position, slices, _ = scan()
    page = Page(scan_page(np.full(9, 1 / 9), position, slices, top_k=3))
    assert "Attention is nearly even: the order of slices says little." in page.text
    assert "Most attention" not in page.text
    assert [button["data-slice"] for button in page.all("button")] == ["1", "4", "7"]
    assert {entry["color"] for entry in page.slices} == {"#7d7c78"}  # the middle of the scale


def test_scan_page_places_slices_by_mm_and_leaves_gaps():
    page = Page(scan_page(np.array([0.1, 0.2, 0.7]), np.array([0.0, 10.0, 40.0]), np.zeros((3, 8, 8))))
    assert page.curve["x"] == pytest.approx([5 / 50, 15 / 50, 45 / 50])
    spans = [(part["begin"], part["end"]) for part in page.heat]
    assert spans == [pytest.approx(span) for span in [(0, 0.2), (0.2, 0.45), (0.75, 1)]]
    assert page.curve["y"][2] / page.curve["uniform"] == pytest.approx(2.1, abs=1e-3)


def test_scan_page_stripes_the_places_without_a_slice():
    slices = np.zeros((4, 8, 8))
    page = Page(scan_page(np.full(4, 0.25), np.array([0.0, 10.0, 40.0, 50.0]), slices))
    views = [image["src"] for image in page.all("img") if "view" in image.get("alt", "")]
    assert len(views) == 2
    for view in views:
        gray = np.asarray(image_of(view))
        middle, end = gray[len(gray) // 2], gray[5]
        assert end.max() < 20
        assert (middle.min() > 120, middle.max() > 220) == (True, True)


def corners_of(path):
    """Return the corners of every closed line of an outline, in pixels."""
    lines = []
    for line in path.split("z")[:-1]:
        begin, steps = re.fullmatch(r"M(.*)l(.*)", line).groups()
        numbers = np.array([begin.split(), *np.reshape(steps.split(), (-1, 2))], dtype=float)
        lines.append(np.cumsum(numbers, axis=0) / 2)
    return lines


def test_scan_page_draws_outlines_between_the_pixels_of_a_mask_and_the_others():
    _, position, slices, _ = scan()
    masks = np.zeros((9, 16, 16), bool)
    masks[3, 4:9, 2:12] = True
    masks[5, 0:2, 0:2] = masks[5, 15, 15] = True  # at the border
    page = Page(scan_page(np.full(9, 1 / 9), position, slices, masks))
    (square,) = corners_of(page.slices[3]["outline"])
    assert (square.min(axis=0).tolist(), square.max(axis=0).tolist()) == ([2, 4], [12, 9])
    assert (square[0] == square[-1]).all()
    ends = [(line.min(axis=0).tolist(), line.max(axis=0).tolist()) for line in corners_of(page.slices[5]["outline"])]
    assert sorted(ends) == [([0, 0], [2, 2]), ([15, 15], [16, 16])]
    boxes = [svg["viewbox"] for svg in page.all("svg") if "viewbox" in svg]
    assert boxes[0] == "0 0 32 32"


@pytest.mark.slow(buys="the size of a page of many large masks")
def test_scan_page_of_many_masks_stays_below_two_megabytes():
    n, middle = 400, np.arange(512) - 256
    distance = np.hypot(middle[:, None], middle)
    masks = np.stack([distance < 150 + i % 7 for i in range(n)])
    slices = np.random.default_rng(0).random((n, 512, 512), dtype=np.float32)
    page = scan_page(np.full(n, 1 / n), np.arange(n) * 1.0, slices, masks)
    assert len(page) < 2e6
    (circle,) = corners_of(Page(page).slices[0]["outline"])
    assert np.abs(np.hypot(*(circle - 256).T) - 150).max() < 6


@pytest.mark.slow(buys="the size of a page of many noisy slices")
@pytest.mark.parametrize("n", [60, 400])
def test_scan_page_stays_below_two_megabytes(n):
    slices = np.random.default_rng(0).random((n, 256, 256))  # noise, which compresses worst
    attention = np.random.default_rng(1).dirichlet(np.ones(n))
    assert len(scan_page(attention, np.arange(n) * 1.0, slices, display=SliceDisplay("axial", (0.8, 0.8)))) < 2e6


@pytest.mark.parametrize("n", [1, 2])
def test_scan_page_of_few_slices(n):
    assert len(Page(scan_page(*scan(n))).slices) == n


def test_scan_page_refuses_invalid_arguments():
    attention, position, slices, _ = scan()
    with pytest.raises(ValueError, match="`top_k` must be a positive integer, got 0"):
        scan_page(attention, position, slices, top_k=0)
    with pytest.raises(ValueError, match="must have one length"):
        scan_page(attention, position[1:], slices)
