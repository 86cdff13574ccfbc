"""Tests of the folder with the page of a slide."""

import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.data import SlideFile, Thumbnail
from monai_mil_ext.visualize import SlideView, write_slide_viewer
from tests.make_slide import stained, write_slide
from tests.programs.chromium import Chromium

from .browser import run_steps
from .page_tags import HOSTILE, PageTags

FILES = ["data.js", "index.html", "slide.css", "slide.js", "thumbnail.jpg", "viewer.css"]


def view(**changes):
    """Four tiles of 64 pixels in a row, over a thumbnail at downsample 4."""
    coords = np.array([[0, 0], [64, 0], [128, 0], [192, 0]])
    pixels = np.full((2, 8, 8, 3), 90, np.uint8)
    options = {
        "maps": {"mean of all heads": np.array([0.1, 0.2, 0.6, 0.1]), "head 0": np.array([0.4, 0.3, 0.2, 0.1])},
        "coords": coords,
        "tile_size": 64.0,
        "bounds": (0, 0, 256, 128),
        "mpp": 0.5,
        "thumbnail": Thumbnail(np.full((32, 64, 3), 200, np.uint8), 4.0),
        "top": np.array([2, 1]),
        "bottom": np.array([0, 3]),
        "pixels": (pixels, pixels),
    }
    return SlideView(**(options | changes))


def data_of(page):
    return json.loads(re.fullmatch(r'"use strict";\nconst slide = (.*);\n', (page.parent / "data.js").read_text())[1])


def test_write_slide_viewer_loads_only_files_beside_it(tmp_path):
    path = write_slide_viewer(tmp_path / "c1", view(), "c1: tumor", {"model": "m"}, {"tiles": "c1.geojson"})
    assert path == tmp_path / "c1" / "viewer" / "index.html"
    assert sorted(file.name for file in path.parent.iterdir()) == FILES
    page = PageTags(path.read_text())
    library = "../../viewer_files/openseadragon-6.1.1.min.js"
    assert [script["src"] for script in page.all("script")] == [library, "data.js", "slide.js"]
    assert (path.parent / library).is_file()
    assert (path.parent / library.replace("min.js", "LICENSE.txt")).is_file()
    assert [link["href"] for link in page.all("link")] == ["viewer.css", "slide.css"]
    assert page.all("a") == [{"href": "../c1.geojson"}]
    assert [image["alt"] for image in page.all("img")] == ["thumbnail of the slide", "", "", "", ""]
    assert [button.get("data-listed") for button in page.all("button")][3:] == ["0", "1", "2", "3"]
    for name in ("index.html", "data.js", "slide.js", "slide.css", "viewer.css"):
        assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import |type=.module", (path.parent / name).read_text())
    text = path.read_text()
    assert "4, 32 µm wide" in text
    assert "256 × 128 pixels of 0.5 µm" in text
    assert "not where disease is: research use only." in text
    assert Image.open(path.with_name("thumbnail.jpg")).info["comment"] == b"research use only"
    data = data_of(path)
    assert (data["extent"], data["source"]) == ([0.0, 0.0, 256.0, 128.0], {"file": "thumbnail.jpg", "width": 64})
    assert data["listed"] == {"top": [2, 1], "bottom": [0, 3]}
    assert re.findall(r">(\d\. [^<]*)</button>", text) == ["1. 2.4 ×", "2. 0.8 ×", "1. 0.4 ×", "2. 0.4 ×"]


def test_write_slide_viewer_shows_hostile_texts_as_texts(tmp_path):
    maps = {HOSTILE: np.full(4, 0.25), HOSTILE + "2": np.full(4, 0.25)}
    path = write_slide_viewer(tmp_path / "c", view(maps=maps), HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE})
    page = PageTags(path.read_text())
    assert len(page.all("script")) == 3
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "Attention is nearly even" in path.read_text()
    assert data_of(path)["maps"][0]["name"] == HOSTILE


def test_write_slide_viewer_without_pixels_has_the_map(tmp_path):
    path = write_slide_viewer(tmp_path / "c", view(thumbnail=None, pixels=None, mpp=None, bounds=(64, 0, 192, 64)))
    assert "thumbnail.jpg" not in [file.name for file in path.parent.iterdir()]
    data = data_of(path)
    assert (data["source"], data["extent"], data["origin"]) == (None, [64, 0, 192, 64], [-64, 0])
    assert "64 pixels wide" in path.read_text()


def test_write_slide_viewer_with_all_pixels_replaces_an_earlier_one(tmp_path):
    write_slide_viewer(tmp_path / "c", view())
    image = stained((600, 1100), (100, 100, 500, 400))
    with SlideFile(write_slide(tmp_path / "s.tif", image, tile=256, levels=2)) as slide:
        path = write_slide_viewer(tmp_path / "c", view(), slide=slide)
        again = write_slide_viewer(tmp_path / "c", view())
        assert sorted(file.name for file in again.parent.iterdir()) == FILES
        write_slide_viewer(tmp_path / "c", view(), slide=slide)
    assert data_of(path)["source"] == {
        "folder": "tiles",
        "width": 1100,
        "height": 600,
        "tile_size": 512,
        "min_level": 9,
        "max_level": 11,
    }
    assert data_of(path)["extent"] == [0, 0, 1100, 600]
    assert sorted(file.name for file in (path.parent / "tiles").iterdir()) == ["10", "11", "9"]


@pytest.mark.parametrize("changes", [{"maps": {}}, {"maps": {"a": np.ones(3)}}, {"coords": np.zeros((3, 2))}])
def test_slide_view_refuses_maps_of_other_tiles(changes):
    with pytest.raises(ValueError, match="`maps` and `coords` must have one length and a tile"):
        view(**changes)


def large_view():
    """100,000 tiles in two heads, of which the tile in column 300 and row 120 has the most attention."""
    columns, rows, edge = 400, 250, 256
    coords = edge * np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    scores = np.random.default_rng(0).gamma(0.5, size=columns * rows)
    scores[120 * columns + 300] = 500
    scores /= scores.sum()
    texture = np.random.default_rng(1).integers(0, 120, (1280, 2048, 3)) + np.array([120, 60, 110])
    order = np.argsort(-scores)
    tiles = np.random.default_rng(2).integers(0, 255, (8, 224, 224, 3)).astype(np.uint8)
    return SlideView(
        {"mean of all heads": scores, "head 0": scores[::-1], "head 1": scores},
        coords,
        float(edge),
        (0, 0, columns * edge, rows * edge),
        0.25,
        "ratio",
        Thumbnail(texture.astype(np.uint8), columns * edge / 2048),
        order[:8],
        order[::-1][:8],
        (tiles, tiles),
    )


# what a reader does, and what the page then shows; the layer's pixels can be read, since no file is drawn on it
STEPS = """
const press = (key, target = document.body) => target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const center = () => ["x", "y"].map(axis => Math.round(viewer.viewport.getCenter()[axis] * width / edge * 2) / 2);
const current = () => document.querySelectorAll(".shown button[aria-current=true]").length;
const pixel_ = (x, y) => [...heat.getContext("2d").getImageData(x, y, 1, 1).data];
const shown = () => [...layer.getContext("2d").getImageData(layer.width / 2, layer.height / 2, 1, 1).data];
async function settle() {  // until what is drawn is what was asked for
  const zoom = now => viewer.viewport.getZoom(now), x = now => viewer.viewport.getCenter(now).x;
  for (let i = 0; i < 500 && (i < 5 || zoom(true) !== zoom(false) || x(true) !== x(false)); i++) await wait(20);
}
  for (let i = 0; i < 500 && !document.body.dataset.ready; i++) await wait(10);
  found.ready = Number(document.body.dataset.ready);
  found.image = get("image").hidden;
  const slideImage = viewer.world.getItemAt(0);
  for (let i = 0; i < 500 && !(slideImage.getFullyLoaded() && viewer.world.getItemCount() === 17); i++) await wait(10);
  found.drawn = slideImage.getTilesToDraw().length;
  found.scale = layer.dataset.scale;
  const view = viewer.viewport;
  found.bar = [Number(layer.dataset.width), view.getContainerSize().x * view.getZoom(true)];
  found.colors = [pixel_(300, 120), heat.width, heat.height];
  document.querySelectorAll(".shown button")[0].click(); await settle();
  found.tiles = viewer.world.getItemCount();
  found.first = [center(), get("caption").textContent, current()];
  found.zoomed = layer.dataset.scale;
  found.opaque = shown().slice(3);
  press("["); await wait(50); found.faded = shown().slice(3);
  press("h"); await wait(50); found.plain = [get("show-heat").checked, shown()];
  press("h"); press("n"); await settle(); found.next = choice.listed;
  press("p"); await settle(); found.back = [choice.listed, ...center()];
  press("9"); found.ninth = choice.listed;
  press("m"); await wait(50); found.map = [get("map").value, pixel_(99, 129)];
  press("c"); await wait(50);
  found.percentile = [get("scaling").value, percentile(1, maps[1][0]), get("high").textContent];
  press("0"); await settle(); found.home = center();
  const before = viewer.viewport.getZoom();
  press("+"); await settle(); found.closer = viewer.viewport.getZoom() / before;
  found.wide = document.documentElement.scrollWidth - innerWidth;
  found.message = get("wait").textContent;
"""


@pytest.mark.browser
@pytest.mark.slow(buys="layers, keys and jumps of a viewer of 100,000 tiles in a browser")
def test_slide_viewer_in_a_browser(tmp_path):
    shown = large_view()
    path = write_slide_viewer(tmp_path / "c", shown)
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 5_000_000
    found = run_steps(path, STEPS, tmp_path / "chrome")
    assert "error" not in found
    yellow = [253, 231, 55, 255]  # the end of cividis
    assert found["ready"] < 5000  # milliseconds, in which all of the page is there
    assert (found["image"], found["message"]) == (True, "")
    assert found["colors"] == [yellow, 400, 250]
    assert found["drawn"] > 0
    assert found["tiles"] == 1 + 16  # the thumbnail and the tiles listed
    ratio = shown.scores.max() * 100_000
    assert found["first"][0] == [300.5, 120.5]
    assert found["first"][1].startswith(f"Tile at x 76800, y 30720: mean of all heads: {ratio:.0f} × uniform")
    assert found["first"][2] == 1
    assert (found["scale"], found["zoomed"]) == ("5 mm", "50 µm")
    bar, slide_width = found["bar"]
    assert bar / slide_width == pytest.approx(5 / 25.6, rel=0.01)  # the slide is 25.6 mm wide
    assert (found["opaque"], found["faded"], found["plain"]) == ([128], [102], [False, [0, 0, 0, 0]])
    assert (found["next"], found["back"], found["ninth"]) == (1, [0, 300.5, 120.5], 0)
    assert found["map"] == ["head 0", yellow]  # the scores of the mean in reverse
    rank = (shown.maps["head 0"].astype("f4") < np.float32(shown.maps["head 0"][0])).sum()
    assert found["percentile"] == ["percentile", pytest.approx((rank + 0.5) / 1000), "100 %"]
    assert found["home"] == [200, 125]
    assert found["closer"] == pytest.approx(1.4, rel=0.01)
    assert found["wide"] <= 0


@pytest.mark.browser
@pytest.mark.slow(buys="all pixels of a slide in a browser, from disk")
def test_slide_viewer_with_all_pixels_in_a_browser(tmp_path):
    image = np.full((2304, 3584, 3), 240, np.uint8)
    image[1024:1280, 2560:2816] = 20, 120, 30  # one tile in green, with a fine pattern that a thumbnail can't show
    image[1024:1280:2, 2560:2816:2] = 0
    coords = 256 * np.stack(np.meshgrid(np.arange(14), np.arange(9)), axis=-1).reshape(-1, 2)
    scores = np.where((coords == (2560, 1024)).all(axis=1), 50.0, 1.0)
    thumbnail = Thumbnail(np.ascontiguousarray(image[::16, ::16]), 16.0)
    changes = {"maps": {"mean": scores / scores.sum()}, "coords": coords, "tile_size": 256.0, "thumbnail": thumbnail}
    changes |= {"top": np.argsort(-scores)[:1], "bottom": np.array([0]), "bounds": (0, 0, 3584, 2304), "pixels": None}
    with SlideFile(write_slide(tmp_path / "s.tif", image, tile=256, levels=2)) as slide:
        path = write_slide_viewer(tmp_path / "c", view(**changes), slide=slide)
    loaded = "viewer && viewer.world.getItemCount() && viewer.world.getItemAt(0).getFullyLoaded()"
    with Chromium(tmp_path / "profile") as browser:
        browser.open(path.as_uri())
        browser.wait_for(loaded)
        assert browser.evaluate("['x', 'y'].map(axis => viewer.world.getItemAt(0).getContentSize()[axis])") == [
            3584,
            2304,
        ]
        first = {address for address in browser.requests if "/tiles/" in address}
        assert first
        assert not any("/tiles/12/" in address for address in first)  # the whole slide needs no pixels of level 0
        for key in ("1", "h", "+", "+"):
            browser.press_key(key)
        browser.wait_for("viewer.viewport.getZoom(true) === viewer.viewport.getZoom(false)")
        browser.wait_for(loaded)
        time.sleep(0.3)  # in which the last tile is drawn
        browser.screenshot(tmp_path / "tile.png")
        box = browser.evaluate(
            "(({x, y, width, height}) => [x, y, width, height])(get('slide').getBoundingClientRect())"
        )
        assert any("/tiles/12/5_2.jpg" in address for address in browser.requests)
        assert browser.problems == []
        assert {address.split(":")[0] for address in browser.requests} <= {"file", "data", "blob"}
    x, y = round(box[0] + box[2] / 2), round(box[1] + box[3] / 2)
    middle = np.asarray(Image.open(tmp_path / "tile.png").convert("RGB")).astype(int)[y - 20 : y + 20, x - 20 : x + 20]
    assert (middle[..., 1] > middle[..., 0] + 20).mean() > 0.9  # the green tile is in the middle
    white = np.asarray(Image.open(tmp_path / "tile.png").convert("RGB")).astype(int)[y, round(box[0]) + 30]
    assert white.min() > 200
