"""Tests of the results of a scan in the viewer OHIF, from an archive, in a browser."""

import time

import numpy as np
import pytest

from monai_mil_ext.data import DicomArchive, DicomWriter
from tests.dicom_results import result_of
from tests.programs.chromium import Chromium
from tests.programs.ohif import fetch_ohif, serve_ohif
from tests.programs.orthanc import serve_orthanc

STUDY = "1.2.826.0.1"
PICTURE = np.full((40, 60, 3), 128, np.uint8)
BUTTON = "[...document.querySelectorAll('button')].find(one => one.textContent.includes('{}'))"
SERIES = (
    "[...document.querySelectorAll('[data-cy^=study-browser-thumbnail]')].find(one => one.textContent.startsWith('{}'))"
)
PLACE = "(one => {{ const r = one.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; }})({})"
TIPS = "[...document.querySelectorAll('[role=tooltip]')].map(one => one.textContent).join()"


class Viewer(Chromium):
    """Browser with the viewer."""

    @property
    def text(self):
        """Text of the page."""
        return self.evaluate("document.body.innerText")

    def show(self, study):
        """Open a study, without the tour of the viewer."""
        self.open(study)
        self.press("Skip all")
        self.wait_for(f"!!{SERIES.format('SEG')}")

    def press(self, text):
        """Press a button as soon as it is there."""
        self.wait_for(f"!!{BUTTON.format(text)}")
        self.evaluate(f"{BUTTON.format(text)}.click()")

    def place(self, series):
        """Return left, top, width and height of a series in the list."""
        return self.evaluate(PLACE.format(SERIES.format(series)))

    def load(self, series, expected):
        """Open a series by a double click, and wait for a text."""
        left, top, width, height = self.place(series)
        self.click(left + width / 2, top + height / 2, times=2)
        self.wait_for(f"document.body.innerText.includes('{expected}')")

    def warning(self, series):
        """Return the warning at a series."""
        left, top, width, height = self.place(series)
        for x in (-47, -46, -45):  # the sign moves as soon as the mouse is over the series
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width + x, y=top + height / 2)
            time.sleep(0.2)
        return self.wait_for(TIPS)


@pytest.fixture(scope="module")
def viewer_files(tmp_path_factory):
    """Return the folder of the viewer's files."""
    return fetch_ohif(tmp_path_factory.mktemp("ohif"))


@pytest.mark.network
@pytest.mark.browser
@pytest.mark.slow(buys="radiologists open SEG and SR in OHIF without an error, at the slice of rank 1")
def test_dicom_writer_writes_what_ohif_opens(programs, viewer_files, tmp_path):
    result = result_of(tmp_path / "s", {"StudyDate": "20260101", "shape": (96, 80, 4), "spacing": (2.0, 2.0, 4.0)})
    sent = DicomWriter(tmp_path / "s").write(tmp_path, "c", result, ["seg", "sr", "ko", "sc"], PICTURE)
    with (
        serve_orthanc(programs, tmp_path) as archive,
        serve_ohif(viewer_files, archive) as url,
        Viewer(tmp_path / "chromium") as viewer,
    ):
        DicomArchive(archive, retries=8, pause=0.1).store([*(tmp_path / "s").iterdir(), *sent])
        viewer.show(f"{url}/viewer?StudyInstanceUIDs={STUDY}")
        for kind in ("attention SEG", "attention SR", "key slices", "picture"):
            assert f"malignant 0.75; {kind}, research use only" in viewer.text
        # the viewer has no program for key objects, whoever wrote them
        assert "SOP Class UID  is not supported" in viewer.warning("KO")

        viewer.evaluate("document.querySelector('[data-cy=panelSegmentation-btn]').click()")
        viewer.load("SEG", "open this Segmentation?")
        viewer.press("Yes")
        viewer.wait_for("document.body.innerText.includes('slice of rank 1')")
        assert "slices ranked 2 to 3" in viewer.text
        viewer.screenshot(tmp_path / "seg.png")

        viewer.load("SR", "tracking measurements")
        viewer.press("Yes")
        viewer.wait_for("document.body.innerText.includes('Attention: 0.50')")
        assert "Rank: 1.00" in viewer.text
        assert "I:2 (3/4)" in viewer.text.replace("\n", "")  # the second slice has the highest score
        viewer.screenshot(tmp_path / "sr.png")
        outside = [request for request in viewer.requests if not request.startswith((url, "data:", "blob:", "about:"))]
    assert viewer.problems == []
    assert outside == []
