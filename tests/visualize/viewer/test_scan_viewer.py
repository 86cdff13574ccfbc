"""Tests of the folder with the page of a scan."""

import json
import re
import time

import numpy as np
import pytest

from monai_mil_ext.visualize import SliceDisplay, remove_viewer, write_scan_viewer
from tests.programs.chromium import Chromium
from tests.visualize.attention_scan import scan

from .page_tags import HOSTILE, PageTags

FILES = ["index.html", "scan.js", "slices_000.jpg", "viewer.css", "viewer.js"]


def values_of(page):
    return json.loads(re.fullmatch(r'"use strict";\nconst scan = (.*);\n', (page.parent / "scan.js").read_text())[1])


def test_write_scan_viewer_loads_only_files_beside_it(tmp_path):
    display = SliceDisplay("axial", (0.5, 0.5), None, 9, np.arange(20, 11, -1), "window -1000 to 400 HU")
    path = write_scan_viewer(tmp_path, scan(), 3, "c1", {"model": "m"}, display, {"scores": "c1_scores.nii.gz"})
    assert path == tmp_path / "viewer" / "index.html"
    assert sorted(file.name for file in path.parent.iterdir()) == FILES
    page, values = PageTags(path.read_text()), values_of(path)
    assert [script["src"] for script in page.all("script")] == ["scan.js", "viewer.js"]
    assert page.all("link") == [{"rel": "stylesheet", "href": "viewer.css"}]
    assert page.all("a") == [{"href": "../c1_scores.nii.gz"}]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert all("alt" in image for image in page.all("img"))
    assert [button["data-slice"] for button in page.all("button")] == ["8", "7", "6"]
    for name in ("index.html", "scan.js", "viewer.js", "viewer.css"):
        text = (path.parent / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import |type=.module", text)
    assert values["slices"][8]["place"] == "20.0 mm, InstanceNumber 12"
    assert {entry["src"] for entry in values["slices"]} == {""}  # the sheets hold them
    assert values["sheets"]["files"] == ["slices_000.jpg"]
    assert values["windows"][2]["name"] == "lung, -1350 to 150 HU"


def test_write_scan_viewer_shows_hostile_texts_as_texts(tmp_path):
    facts, links = {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}
    path = write_scan_viewer(tmp_path, scan(), 1, HOSTILE, facts, SliceDisplay("axial", window=HOSTILE), links)
    page = PageTags(path.read_text())
    assert len(page.all("script")) == 2
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.all("a") == [{"href": f"../{HOSTILE}"}]
    assert "<img" not in (path.parent / "scan.js").read_text()


def test_write_scan_viewer_replaces_an_earlier_one(tmp_path):
    write_scan_viewer(tmp_path, scan(40))
    assert (tmp_path / "viewer" / "slices_002.jpg").is_file()
    path = write_scan_viewer(tmp_path, scan(), is_full=True)
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".css", ".html", ".js", ".js", ".png"]
    remove_viewer(tmp_path)
    remove_viewer(tmp_path)
    assert not list(tmp_path.iterdir())


def test_write_scan_viewer_refuses_arrays_of_different_length(tmp_path):
    attention, position, slices, reference = scan()
    with pytest.raises(ValueError, match="must have one length"):
        write_scan_viewer(tmp_path, (attention, position[1:], slices, reference))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow(buys="size and time of a viewer of many large slices")
def test_write_scan_viewer_of_many_slices_is_small_and_quick(tmp_path):
    n, middle = 300, np.arange(512) - 256
    disk = np.clip(1.5 - np.hypot(middle[:, None], middle) / 200, 0, 1)
    texture = np.random.default_rng(0).random((512, 512)) * 0.3
    slices = np.stack([np.clip(disk * (1 - i / n) + np.roll(texture, 7 * i, 1), 0, 1) for i in range(n)]).astype("f4")
    attention = np.random.default_rng(1).dirichlet(np.ones(n))
    began = time.process_time()
    path = write_scan_viewer(tmp_path, (attention, np.arange(n) * 1.0, slices, None))
    assert time.process_time() - began < 0.02 * n  # a tenth of what encoding and reading a slice take
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 5_000_000


# what a reader does, and what the page then shows; a canvas tells its pixels only with --allow-file-access-from-files
STEPS = """<script>
const found = {}, wait = ms => new Promise(done => setTimeout(done, ms));
const gray = () => {
  const canvas = get("sheet"), context = canvas.getContext("2d");
  const at = x => context.getImageData(x * canvas.width, canvas.height / 2, 1, 1).data[0];
  return [Math.round(at(.25) / 16), Math.round(at(.75) / 4)];
};
async function look(name) {
  for (let i = 0; i < 200 && get("sheet").dataset.slice !== String(current); i++) await wait(10);
  found[name] = [document.querySelector("#caption strong").textContent, ...gray()];
}
const press = (key, target) => target.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
(async () => {
  await look("first");
  const box = get("curve").getBoundingClientRect(), x = box.left + left + curve.x[500] * (box.width - left - right);
  get("curve").dispatchEvent(new MouseEvent("click", {clientX: x, clientY: box.top + 50, bubbles: true}));
  await look("curve");
  press("ArrowRight", document.body); await look("right");
  press("PageDown", get("slice")); await look("page down");
  get("slice").dispatchEvent(new WheelEvent("wheel", {deltaY: -100, bubbles: true})); await look("wheel");
  press("2", document.body); await look("chip by key");
  document.querySelector(".shown button").click(); await look("chip");
  press("End", get("slice"));
  for (let i = 0; i < 500 && !get("wait").textContent.includes("missing"); i++) await wait(10);
  found.missing = [get("sheet").hidden, get("wait").hidden, get("wait").textContent];
  get("pick").value = 17; get("pick").dispatchEvent(new Event("input")); await look("slider");
  const slice = get("slice").getBoundingClientRect();
  const at = (x, y) => ({clientX: slice.left + x * slice.width, clientY: slice.top + y * slice.height, bubbles: true});
  get("slice").dispatchEvent(new MouseEvent("click", at(.75, .25)));
  const all = () => loaded.size === 50 && [...loaded.values()].every(sheet => sheet.complete);
  for (let i = 0; i < 1000 && !all(); i++) await wait(10);
  await wait(50);
  found.planes = [...document.querySelectorAll(".view canvas")].map(canvas => {
    const data = canvas.getContext("2d").getImageData(.7 * canvas.width, (1 - 500.5 / 800) * canvas.height, 1, 1).data;
    return [canvas.hidden, data[0]];
  });
  document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft", shiftKey: true, bubbles: true}));
  found.point = [get("point").hidden, parseFloat(get("point").style.left), parseFloat(get("point").style.top)];
  found.caption = document.querySelector(".view + figcaption").textContent;
  const classes = document.body.classList;
  press("r", document.body); press("h", document.body);
  found.hidden = ["bare", "plain"].map(name => classes.contains(name));
  get("window").selectedIndex = 2; get("window").dispatchEvent(new Event("change"));
  const slope = Number(document.querySelector("#gray [slope]").getAttribute("slope"));
  found.window = [classes.contains("windowed"), get("window").value, slope.toFixed(3)];
  found.wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.found = JSON.stringify(found);
})();
</script></body>"""


@pytest.mark.browser
@pytest.mark.slow(buys="curve, keys, chips and windows of a viewer of 800 slices in a browser")
def test_viewer_in_a_browser(tmp_path):
    n, number = 800, np.arange(800)
    slices = np.zeros((n, 64, 64), np.float32)
    slices[:, :, :32], slices[:, :, 32:] = ((g / 255)[:, None, None] for g in (number % 16 * 16, number // 16 * 4))
    attention = np.ones(n)
    attention[[300, 600]] = 90, 70
    reference = np.zeros((n, 64, 64), bool)
    reference[290:310, 20:40, 20:40] = True
    display = SliceDisplay("axial", (1.0, 1.0), num_slices=n, window="window -1000 to 400 HU")
    path = write_scan_viewer(tmp_path, (attention / attention.sum(), number * 1.0, slices, reference), display=display)
    path.write_text(path.read_text().replace("</body>", STEPS))
    (path.parent / "slices_049.jpg").unlink()
    with Chromium(tmp_path / "profile", "--allow-file-access-from-files") as browser:
        before = browser.processor_seconds()
        browser.open(path.as_uri())
        found = json.loads(browser.wait_for("document.body.dataset.found"))
        seconds = browser.processor_seconds() - before
        assert [problem for problem in browser.problems if "slices_049.jpg" not in problem] == []

    def slice_of(i):
        return [f"slice {i + 1} of 800", i % 16, i // 16]

    steps = {"first": 300, "curve": 500, "right": 501, "page down": 491, "wheel": 492}
    steps |= {"chip by key": 600, "chip": 300, "slider": 17}
    assert {name: found[name] for name in steps} == {name: slice_of(i) for name, i in steps.items()}
    assert found["missing"] == [True, False, "The file slices_049.jpg is missing."]
    assert [hidden for hidden, _ in found["planes"]] == [False, False]
    assert [gray for _, gray in found["planes"]] == pytest.approx([500 // 16 * 4] * 2, abs=8)
    assert found["point"] == pytest.approx([False, 73, 25], abs=0.5)
    assert found["caption"] == "front view through the point"
    assert found["hidden"] == [True, True]
    assert found["window"] == [True, "lung, -1350 to 150 HU", "0.933"]
    assert found["wide"] <= 0
    assert seconds < 3  # with all of these steps, of all processes of the browser
