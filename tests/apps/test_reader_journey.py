"""Test of the whole way of a reader, on a real MONAI Label server before a real archive, in a browser."""

import io

import numpy as np
import pytest
import requests
from pydicom import dcmread

from monai_mil_ext.data import DicomArchive
from monai_mil_ext.data.synthetic.digits import draw_digit_bags
from tests.debian_packages import unpack_packages
from tests.programs.chromium import Chromium
from tests.programs.orthanc import PACKAGES, serve_orthanc
from tests.scans import edit_dicom, write_series

from .conftest import make_app, start_server

SCANS, LABELED = 12, 10
STUDY = "1.2.826.0.2"
NAMES = ["no tumor", "tumor"]
TAGS = {"RescaleSlope": 1, "RescaleIntercept": 0, "FrameOfReferenceUID": "1.2.826.0.1.77", "StudyDate": "20260101"}


def write_scans(folder):
    """Write series of digits, of which every other one has a lesion, and return their labels by their UIDs."""
    labels = {}
    for number, bag in enumerate(draw_digit_bags(SCANS, 20, 5, run=True, seed=0), 1):
        series = folder / str(number)
        write_series(series, (8, 8, 20), series=number, StudyInstanceUID=f"{STUDY}.{number}", **TAGS)
        for file in series.iterdir():
            slices = bag.images[dcmread(file).InstanceNumber - 1].astype(np.int16)
            edit_dicom(file, lambda ds, pixels=slices: setattr(ds, "PixelData", pixels.tobytes()))
        labels[dcmread(file).SeriesInstanceUID] = NAMES[bag.label]
    return labels


class Reader(Chromium):
    """Reader at the page."""

    def say(self, key, expected, seconds=60):
        """Press a key and wait for what the page says."""
        self.press_key(key)
        self.wait_for(f"!state.busy && byId('status').textContent.startsWith('{expected}')", seconds)

    @property
    def case(self):
        return self.evaluate("state.open")


def objects(archive, study):
    """Return the objects of a study that are not of the scan, by their modality."""
    found = requests.get(f"{archive}/studies/{study}/series", timeout=20).json()
    series = {one["00080060"]["Value"][0]: one["0020000E"]["Value"][0] for one in found}
    return {kind: first_object(f"{archive}/studies/{study}/series/{uid}") for kind, uid in series.items()}


def first_object(url):
    answer = requests.get(url, headers={"accept": 'multipart/related; type="application/dicom"'}, timeout=20)
    return dcmread(io.BytesIO(answer.content[answer.content.index(b"\r\n\r\n") + 4 :]), force=False)


@pytest.mark.network
@pytest.mark.browser
@pytest.mark.slow(buys="a reader labels, trains, looks at the next scan and sends the answer, without a terminal")
def test_a_reader_labels_trains_and_sends_the_answer_to_the_archive(label_python, tmp_path_factory, tmp_path):
    labels = write_scans(tmp_path / "scans")
    make_app(tmp_path / "mil")
    programs = tmp_path_factory.mktemp("programs")
    cache = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / "cache")}
    with serve_orthanc((programs, unpack_packages(programs, *PACKAGES)), tmp_path) as archive:
        DicomArchive(archive, retries=8, pause=0.1).store(list((tmp_path / "scans").glob("*/*")))
        with start_server(tmp_path / "mil", archive, **cache) as server, Reader(tmp_path / "chromium") as reader:
            reader.open(f"{server.url}/labeller")
            reader.wait_for("state.cases.length")
            reader.evaluate("byId('reader').focus()")
            reader.call("Input.insertText", text="Ann")
            reader.evaluate("byId('reader').blur()")
            for _ in range(LABELED):
                reader.say("n", "")
                label = labels[reader.case]
                reader.say(str(1 + NAMES.index(label)), f"Labeled {label}.")
            reader.wait_for(f"byId('count').textContent === '{LABELED} of {SCANS} labeled'")
            assert reader.evaluate("[byId('show').disabled, byId('send').disabled]") == [True, True]

            reader.say("t", "Trained and scored", 240)
            reader.say("n", "")
            image = reader.case
            reader.say("a", "The answer is shown", 60)
            shown = reader.evaluate("byId('answer').textContent")
            reader.screenshot(tmp_path / "answer.png")
            reader.say("s", "Sent to the archive: SEG, SR, KO.", 120)
            reader.screenshot(tmp_path / "sent.png")
            log = requests.get(f"{server.url}/labeller/log", timeout=20).json()
            problems, requested = reader.problems, reader.requests
        sent = objects(archive, f"{STUDY}.{image.rpartition('.')[2]}")
    assert problems == []
    assert {url for url in requested if not url.startswith(server.url)} <= {"about:blank"}
    assert [entry["event"] for entry in log] == [*["opened", "label"] * LABELED, "opened", "answer", "send"]
    assert {entry["reader"] for entry in log} == {"Ann"}
    assert set(log[-1]["series"]) == {"seg", "sr", "ko"}
    check_sent(sent, image, shown)


def check_sent(sent, image, shown):
    """Check that the objects say what the reader saw, of the patient of the scan."""
    assert set(sent) == {"CT", "SEG", "SR", "KO"}
    scan = sent.pop("CT")
    assert scan.SeriesInstanceUID == image
    for one in sent.values():
        assert (one.PatientID, one.StudyInstanceUID) == (scan.PatientID, scan.StudyInstanceUID)
        assert one.Manufacturer == "monai_mil_ext"  # by which the server takes no answer for a label
        assert "research use only" in one.SeriesDescription
        predicted = one.SeriesDescription.partition(";")[0]
        assert predicted in shown, (predicted, shown)
    assert sent["SEG"].SegmentSequence[0].SegmentLabel == "slice of rank 1"
