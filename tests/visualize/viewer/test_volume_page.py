"""Tests of the page of a scan in three planes and in 3D."""

import base64
import gzip
import json
import re
import subprocess

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_mil_ext.visualize import SliceDisplay, write_scan_viewer
from monai_mil_ext.visualize.viewer.viewer_folder import NIIVUE
from monai_mil_ext.visualize.viewer.volume_page import MAX_VOXELS, scan_volumes
from tests.programs.chromium import Chromium
from tests.visualize.attention_scan import ORIENTATIONS, SIZE_MM, phantom, scan, slices_of

from .page_tags import HOSTILE, PageTags

FILES = {"volume.html", "volume.js", "volume.css", "volume_data.js"}
KNOWN = SliceDisplay("axial", (2.0, 2.0), num_slices=9, window="window -1000 to 400 HU")


def values_of(folder):
    """What the script of data holds: `about`, and the volumes as images."""
    about, volumes = re.findall(r"^const \w+ = (.*);$", (folder / "volume_data.js").read_text(), re.MULTILINE)
    volumes = {name: gzip.decompress(base64.b64decode(code)) for name, code in json.loads(volumes).items()}
    return json.loads(about), {name: nib.Nifti1Image.from_bytes(code) for name, code in volumes.items()}


def test_a_full_viewer_has_a_page_that_loads_only_files_of_the_output_folder(tmp_path):
    page = write_scan_viewer(tmp_path / "c1", scan(), 3, "c1", {"model": "m"}, KNOWN, is_full=True)
    assert {file.name for file in page.parent.iterdir()} >= FILES
    assert '<a href="volume.html">' in page.read_text()
    tags = PageTags((page.parent / "volume.html").read_text())
    library = "../../viewer_files/niivue-0.69.0.umd.js"
    assert [script["src"] for script in tags.all("script")] == [library, "volume_data.js", "volume.js"]
    assert (page.parent / library).stat().st_size == 2_284_381
    assert [button["data-slice"] for button in tags.all("button")] == ["8", "7", "6"]
    assert tags.all("a") == [{"href": "index.html"}]
    for name in FILES:
        assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import |type=.module", (page.parent / name).read_text())


@pytest.mark.parametrize("options", [{}, {"display": SliceDisplay("axial")}, {"display": KNOWN, "is_full": False}])
def test_other_viewers_have_no_such_page_and_no_library(options, tmp_path):
    page = write_scan_viewer(tmp_path / "c1", scan(), **{"is_full": True, **options})
    assert not {file.name for file in page.parent.iterdir()} & FILES
    assert "volume.html" not in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["c1"]


def test_the_page_shows_hostile_texts_as_texts(tmp_path):
    display = SliceDisplay("axial", (1.0, 1.0), window=HOSTILE)
    page = write_scan_viewer(tmp_path / "c1", scan(), 1, HOSTILE, {HOSTILE: HOSTILE}, display, is_full=True)
    tags = PageTags((page.parent / "volume.html").read_text())
    assert len(tags.all("script")) == 3
    assert not any("onerror" in attributes for _, attributes in tags.tags)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[::7])
def test_scan_volumes_place_the_scan_in_the_patient(plane, order, flips):
    item = slices_of(phantom(order, flips), plane)
    slices = item["image"][:, 0].numpy()
    display = SliceDisplay.of(item, slices.shape[1:], plane)
    position = item["position"].numpy().astype(float)
    volume, affine = scan_volumes(np.ones(len(slices)), position, display.crop(slices), display)[0]
    assert volume.dtype == np.uint8
    sizes = np.abs(affine[:3, :3]) @ volume.shape
    np.testing.assert_allclose(sizes, [SIZE_MM[letter] for letter in "RAS"], rtol=0.02)
    bright = np.argwhere(volume > 127) @ affine[:3, :3].T + affine[:3, 3]
    middle = affine[:3, :3] @ ((np.array(volume.shape) - 1) / 2) + affine[:3, 3]
    assert (bright.mean(0) > middle).all()  # right, front and top are the positive directions


def test_scan_volumes_keep_gaps_and_colors(tmp_path):
    position = np.array([0.0, 2, 4, 10, 12])
    attention = np.array([4.0, 1, 1 / 4, 0, 0.001])
    slices = np.stack([np.full((4, 6), 0.2 * (i + 1)) for i in range(5)])
    attention, slices = attention / attention.sum() * 1.0, slices.astype(np.float32)
    display = SliceDisplay("axial", (2.0, 3.0))
    (volume, affine), (heat, of_heat) = scan_volumes(attention, position, slices, display)
    rows = [volume[0, 0, k] for k in range(volume.shape[2])]
    assert rows == [51, 102, 153, 0, 0, 204, 255]
    assert volume.shape == (6, 4, 7)
    assert heat.shape == (1, 1, 7)
    ratio = 5 * attention[:3]
    expected = 1 + np.round(254 * np.clip(np.log(4 * ratio) / np.log(16), 0, 1))
    assert heat[0, 0].tolist() == [*expected, 0, 0, 1, 1]
    np.testing.assert_allclose(of_heat[:3, :2], affine[:3, :2] * [6, 4])
    np.testing.assert_allclose(of_heat[2], affine[2])


def test_scan_volumes_are_bounded():
    slices = np.broadcast_to(np.float32(0.5), (40, 1200, 1200))
    volume, affine = scan_volumes(np.ones(40), np.arange(40.0), slices, SliceDisplay("axial", (1.0, 1.0)))[0]
    assert 0.9 * MAX_VOXELS < volume.size <= MAX_VOXELS
    np.testing.assert_allclose(np.abs(affine[:3, :3]) @ volume.shape, [1200, 1200, 40])
    near = np.array([0, 1e-3, 1, 2, 3, 500])  # two copies of a slice
    assert scan_volumes(np.ones(6), near, slices[:6, :8, :8], KNOWN)[0][0].shape[2] <= 4 * 6


@pytest.mark.browser
@pytest.mark.slow(buys="three planes, 3D and heat of a scan in a browser, from disk")
def test_volume_page_in_a_browser(tmp_path):
    item = slices_of(phantom((0, 1, 2), (True, False, True)), "axial")
    slices, count = item["image"][:, 0].numpy(), len(item["image"])
    attention = np.ones(count)
    attention[2] = 40
    place, display = item["position"].numpy().astype(float), SliceDisplay.of(item, slices.shape[1:])
    page = write_scan_viewer(
        tmp_path / "c1", (attention / attention.sum(), place, display.crop(slices), None), 2, "c1", {}, display,
        is_full=True,
    )  # fmt: skip
    with Chromium(tmp_path / "profile", "--window-size=700,600") as browser:  # small, since no GPU draws
        browser.open((page.parent / "volume.html").as_uri())
        browser.wait_for("get('wait').hidden")
        assert browser.evaluate("get('caption').textContent").startswith(f"slice 3 of {count}, {place[2]:.1f} mm: ")
        of = "[...viewer.volumes[0].hdr.dims].slice(1, 4).sort((a, b) => a - b)"
        assert browser.evaluate(of) == sorted([count, *display.crop(slices).shape[1:]])
        # the value at a place of the patient: the phantom is bright at the right, front and top only
        browser.evaluate("viewer.onLocationChange = place => { window.last = place.values[0].value; moved(place.mm); }")
        at = "viewer.scene.crosshairPos = viewer.mm2frac([%s]), viewer.createOnLocationChange(), last"
        ends = {side: (0.45 * SIZE_MM[letter], -0.45 * SIZE_MM[letter]) for side, letter in enumerate("RA")}
        high, low = place[-1], place[0]
        corners = {(x, y, z) for x in ends[0] for y in ends[1] for z in (high, low)}
        found = {corner: browser.evaluate(at % ",".join(map(str, corner))) for corner in corners}
        assert {corner for corner, value in found.items() if value > 127} == {(ends[0][0], ends[1][0], high)}
        browser.press_key("1")
        assert browser.evaluate("current") == 2
        browser.press_key("n")
        assert browser.evaluate("get('caption').textContent").startswith("slice 4 of ")
        browser.press_key("p")
        seen = {}
        for name, keys in (("heat", ""), ("plain", "a")):
            for key in keys:
                browser.press_key(key)
            browser.evaluate("viewer.drawScene()")
            browser.screenshot(tmp_path / f"{name}.png")
            colors = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)[110:420]
            seen[name] = int((colors[..., 0] - colors[..., 2] > 60).sum())
        assert seen["heat"] > 1000  # yellow pixels in the planes
        assert seen["plain"] == 0
        browser.evaluate("get('view').value = 'RENDER', get('view').dispatchEvent(new Event('change'))")
        assert browser.evaluate("viewer.opts.sliceType === niivue.SLICE_TYPE.RENDER")
        assert browser.problems == []
        assert {address.split(":")[0] for address in browser.requests} <= {"file", "data", "blob"}


@pytest.mark.browser
@pytest.mark.slow(buys="the page says what a browser without WebGL lacks")
def test_volume_page_without_webgl_says_so(tmp_path):
    page = write_scan_viewer(tmp_path / "c1", scan(), display=KNOWN, is_full=True).with_name("volume.html")
    flags = ["--headless", "--no-sandbox", "--disable-3d-apis", f"--user-data-dir={tmp_path}/profile"]
    command = ["chromium", *flags, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "This browser has no WebGL 2" in text
    assert NIIVUE.version in text
