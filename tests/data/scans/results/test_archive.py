"""Tests of DicomArchive with a web server that answers as archives do."""

import io
from contextlib import ExitStack
from email import message_from_bytes
from email.policy import HTTP

import numpy as np
import pytest
import requests
from pydicom import dcmread

from monai_mil_ext.data import DicomArchive, DicomWriter, NotStoredError
from tests.archive_server import STORED, serve_answers
from tests.dicom_results import result_of
from tests.programs.orthanc import serve_orthanc

REFUSED = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}


@pytest.fixture
def serve():
    """Return a function that starts an archive."""
    with ExitStack() as stack:
        yield lambda *answers: stack.enter_context(serve_answers(*answers))


@pytest.fixture
def files(tmp_path):
    """Return two files whose content looks like the end of a part."""
    for name in "ab":
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM\r\n--\r\n" + name.encode())
    return [tmp_path / "a", tmp_path / "b"]


def test_dicom_archive_sends_all_files_as_parts_of_one_request(serve, files):
    server = serve((200, STORED))
    DicomArchive(server.url + "/").store(files)
    ((path, headers, body),) = server.seen
    assert path == "/dicom-web/studies"
    message = message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body, policy=HTTP)
    assert message.get_param("type") == "application/dicom"
    assert [part.get_content_type() for part in message.iter_parts()] == ["application/dicom"] * 2
    assert [part.get_payload(decode=True) for part in message.iter_parts()] == [file.read_bytes() for file in files]


def test_dicom_archive_repeats_a_request_to_a_busy_archive(serve, files):
    server = serve((503, None), (429, None), (200, STORED))
    DicomArchive(server.url, pause=0.01).store(files)  # though the archive asks for an hour
    assert len(server.seen) == 3
    assert len({body for *_, body in server.seen}) == 1


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([(503, None)] * 3, r"got status 503\.$"),
        ([(401, {})], r"got status 401\.$"),
        ([(302, {})], r"got status 302\.$"),
        ([(409, REFUSED)], r"got status 409 and 1 of 2 objects refused \(reason A700H\)\.$"),
        ([(202, REFUSED | STORED)], r"got status 202 and 1 of 2 objects refused \(reason A700H\)\.$"),
        ([(200, [REFUSED])], "got status 200 and 1 of 2"),
        ([(409, {"00081198": {"Value": ["x"]}})], r"1 of 2 objects refused\.$"),
        ([(400, ["x"])], r"got status 400\.$"),
    ],
)
def test_dicom_archive_says_the_status_of_what_is_not_stored(serve, files, answers, error):
    server = serve(*answers)
    with pytest.raises(NotStoredError, match=error):
        DicomArchive(server.url, retries=2, pause=0.01).store(files)
    assert server.answers == []
    assert all(file.is_file() for file in files)


def test_dicom_archive_names_no_address_if_nobody_answers(files):
    with pytest.raises(NotStoredError, match=r"got none after 2 tries \(ConnectionError\)\.$"):
        DicomArchive("http://127.0.0.1:9/secret", retries=1, pause=0.01).store(files)


@pytest.mark.parametrize("url", ["ftp://a", "folder", "http://user:pass1@host/a"])
def test_dicom_archive_needs_an_address_without_a_password(url):
    with pytest.raises(ValueError, match="`url` must") as error:
        DicomArchive(url)
    assert "pass1" not in str(error.value)


@pytest.fixture
def orthanc(programs, tmp_path):
    """Return the address of an archive."""
    with serve_orthanc(programs, tmp_path) as address:
        yield address


@pytest.mark.network
@pytest.mark.slow(buys="proof by a real archive that the objects are stored, and come back unchanged")
def test_dicom_archive_is_understood_by_orthanc(orthanc, tmp_path):
    result = result_of(tmp_path / "s", {"StudyDate": "20260101"})
    writer = DicomWriter(tmp_path / "s")
    sent = writer.write(tmp_path, "c", result, ["seg", "sr", "ko", "sc"], np.zeros((4, 6, 3), np.uint8))
    archive = DicomArchive(orthanc, retries=8, pause=0.1)  # it needs a moment to start
    for _ in range(2):  # the second time, it has them
        archive.store([*(tmp_path / "s").iterdir(), *sent])
    for file in sent:
        ds = dcmread(file)
        place = f"studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
        response = requests.get(f"{orthanc}/{place}", headers={"Accept": "multipart/related"}, timeout=20)
        head = f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode()
        (part,) = message_from_bytes(head + response.content, policy=HTTP).iter_parts()
        assert dcmread(io.BytesIO(part.get_payload(decode=True))) == ds
    (tmp_path / "broken").write_bytes(b"no DICOM")
    with pytest.raises(NotStoredError, match="the archive must store all objects, got status"):
        archive.store([tmp_path / "broken"])
