"""Tests of answers that go to an archive; a stand-in for the bundle's process writes them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from monai_mil_ext.apps.label.labeller import answer_sender, send_answer
from tests.archive_server import STORED, serve_answers

SERIES = "1.2.1"
UIDS = {"seg": "1.2.91", "sr": "1.2.92", "ko": "1.2.93"}


def write_object(path, series):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{series}.1"
    ds.SOPClassUID, ds.SeriesInstanceUID = "1.2", series
    ds.save_as(path, enforce_file_format=True)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return what the bundle's process does, and its calls."""
    (tmp_path / "dicom" / "highdicom").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    found = SimpleNamespace(uids=UIDS, status=0, log="", stated={}, calls=[])

    def run(command, **options):
        values = dict(zip(command[4::2], command[5::2], strict=True))
        found.calls.append((command[:4], values, options))
        folder = Path(values["--output_dir"]) / values["--case_id"]
        folder.mkdir()
        (folder / "prediction.json").write_text(json.dumps({"dicom": found.stated}))
        for kind, uid in found.uids.items():
            write_object(folder / f"scan_{kind}.dcm", uid)
        return subprocess.CompletedProcess(command, found.status, "", found.log)

    monkeypatch.setattr(answer_sender.subprocess, "run", run)
    return found


@pytest.fixture
def bundle(tmp_path):
    return SimpleNamespace(root=tmp_path, config_files=lambda name: [f"configs/{name}.yaml", "configs/site.yaml"])


def store(tmp_path, url, **client):
    fetched = []
    client = SimpleNamespace(base_url=url, **client)
    images = SimpleNamespace(image_path=lambda: str(tmp_path / "images"))
    return SimpleNamespace(_client=client, _datastore=images, get_image_uri=fetched.append, fetched=fetched)


def test_send_answer_stores_what_the_bundle_writes(tmp_path, program, bundle):
    with serve_answers((200, STORED)) as archive:
        datastore = store(tmp_path, archive.url)
        assert send_answer(bundle, datastore, SERIES) == UIDS
        ((path, headers, body),) = archive.seen
    assert path == "/dicom-web/studies"
    assert "Authorization" not in headers
    assert [f"{uid}.1".encode() in body for uid in UIDS.values()] == [True] * 3
    ((command, values, options),) = program.calls
    assert command == [sys.executable, "-m", "monai.bundle", "run"]
    assert json.loads(values["--config_file"]) == ["configs/inference.yaml", "configs/site.yaml"]
    assert values["--input"] == str(tmp_path / "images" / SERIES)
    assert options["env"]["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "dicom")
    assert datastore.fetched == [SERIES]
    assert not Path(values["--output_dir"]).exists()


def test_send_answer_asks_the_archive_as_the_server_does(tmp_path, program, bundle):
    with serve_answers((200, STORED)) as archive:
        session = SimpleNamespace(auth=("ann", "word"))
        send_answer(bundle, store(tmp_path, archive.url, stow_url_prefix="stow/", _session=session), SERIES)
        ((path, headers, _),) = archive.seen
    assert path == "/dicom-web/stow/studies"
    assert headers["Authorization"] == "Basic YW5uOndvcmQ="


def test_send_answer_says_why_there_is_none(tmp_path, program, bundle, http_errors):
    program.uids, program.status, program.log = {}, 1, "Traceback\nValueError: no /data/doe/x\n"
    with pytest.raises(http_errors, match=r"written as DICOM, got ValueError: no <path>$") as error:
        send_answer(bundle, store(tmp_path, "http://127.0.0.1:9"), SERIES)
    assert error.value.status_code == 400
    program.stated = {"missing": "no frame of reference"}
    with pytest.raises(http_errors, match=r"got no frame of reference$"):
        send_answer(bundle, store(tmp_path, "http://127.0.0.1:9"), SERIES)


def test_send_answer_says_that_the_archive_refused_without_its_address(tmp_path, program, bundle, http_errors):
    with (
        serve_answers((401, {})) as archive,
        pytest.raises(http_errors, match=r"^the archive must store all objects, got status 401\.$") as error,
    ):
        send_answer(bundle, store(tmp_path, archive.url), SERIES)
    assert error.value.status_code == 502


def test_send_answer_needs_highdicom_beside_the_server(tmp_path, program, bundle, http_errors):
    (tmp_path / "dicom" / "highdicom").rmdir()
    with pytest.raises(http_errors, match="highdicom must be installed for the server") as error:
        send_answer(bundle, store(tmp_path, "http://127.0.0.1:9"), SERIES)
    assert (error.value.status_code, program.calls) == (501, [])
