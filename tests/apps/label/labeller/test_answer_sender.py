"""Tests of answers that go to an archive."""

from types import SimpleNamespace

import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from monai_mil_ext.apps.label.labeller import answer_sender, send_answer

ANSWER = {
    "model": "scan_mil",
    "prediction": [{"label": "no tumor", "score": 0.25}, {"label": "tumor", "score": 0.75}],
    "trained_model": {"name": "scan_mil", "version": "1.2"},
    "slices": [{"band": 1}, {"band": 0}, {"band": 2}],
    "label_names": {"slices ranked 1 to 4": 1, "slices ranked 5 to 12": 2},
}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Parts of MONAI Label: a writer of DICOM, and an archive that keeps what it gets."""
    kept, calls = [], []

    def convert(folder, file, segments):
        calls.append((folder, file, segments))
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.66.4"
        meta.MediaStorageSOPInstanceUID = "1.2.3"
        data = FileDataset(str(tmp_path / "seg.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
        data.Manufacturer, data.ContentCreatorName = "QIICR", "Reader1"
        data.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
        return str(tmp_path / "seg.dcm")

    def upload(file, client):
        if client == "closed":
            raise ConnectionError("http://user:secret@archive")
        kept.append(pydicom.dcmread(file))
        return "1.2.9"

    parts = {
        "convert": SimpleNamespace(nifti_to_dicom_seg=convert),
        "dicom": SimpleNamespace(dicom_web_upload_dcm=upload),
    }
    monkeypatch.setattr(answer_sender.importlib, "import_module", lambda name: parts[name.rpartition(".")[2]])
    return SimpleNamespace(kept=kept, calls=calls)


def store(tmp_path, client="open"):
    return SimpleNamespace(_client=client, _datastore=SimpleNamespace(image_path=lambda: str(tmp_path)))


def test_send_answer_says_in_the_object_what_it_is_and_who_made_it(tmp_path, archive):
    assert send_answer(store(tmp_path), "1.2.1", "map.nii.gz", ANSWER) == "1.2.9"
    (sent,), ((folder, file, segments),) = archive.kept, archive.calls
    assert (folder, file) == (str(tmp_path / "1.2.1"), "map.nii.gz")
    assert sent.Manufacturer == "monai_mil_ext"  # by which the server does not take it for a label of a reader
    assert sent.SeriesDescription == "tumor 0.75 by scan_mil 1.2, research use only"
    assert (sent.SoftwareVersions, str(sent.ContentCreatorName)) == ("1.2", "")
    assert [one["name"] for one in segments] == list(ANSWER["label_names"])
    reds = [one["segmentAttribute"]["recommendedDisplayRGBValue"][0] for one in segments]
    assert reds[0] > reds[1]
    assert not (tmp_path / "seg.dcm").exists()


def test_send_answer_says_that_the_archive_refused_without_its_address(tmp_path, archive, http_errors):
    with pytest.raises(http_errors, match=r"^the archive must take the answer, got ConnectionError\.$") as error:
        send_answer(store(tmp_path, "closed"), "1.2.1", "map.nii.gz", ANSWER)
    assert error.value.status_code == 502
    assert not (tmp_path / "seg.dcm").exists()
