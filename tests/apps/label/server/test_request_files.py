"""Tests of the temporary files of the server."""

import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from monai_mil_ext.apps.label.server.request_files import RequestFiles, request_folder


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files of a server, in a process that gets its settings back."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = RequestFiles(tmp_path / "base")
    yield files
    files.close()


def servers(base):
    return sorted(path.name for path in base.glob("server-*"))


def test_request_files_are_private_and_end_with_the_request(files, tmp_path):
    assert [oct(path.stat().st_mode)[-3:] for path in (tmp_path / "base", files.folder)] == ["700", "700"]
    with suppress(ValueError), files.request():
        folder = Path(request_folder())
        assert folder.parent == files.folder
        assert oct(folder.stat().st_mode)[-3:] == "700"
        (folder / "upload.nii").write_bytes(b"x")
        raise ValueError("refused")
    assert request_folder() is None
    assert not folder.exists()


def test_request_files_of_others_stay(files):
    written, ended, seen = threading.Event(), threading.Event(), []

    def refused():
        with files.request():
            (Path(request_folder()) / "upload.nii").write_bytes(b"x")
            written.wait(10)
        ended.set()

    def answered():
        with files.request():
            upload = Path(request_folder()) / "upload.nii"
            upload.write_bytes(b"y")
            written.set()
            ended.wait(10)
            seen.append(upload.read_bytes())

    threads = [threading.Thread(target=target) for target in (refused, answered)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [b"y"]
    assert [path.name for path in files.folder.iterdir()] == [".lock"]


def test_request_files_take_in_what_monailabel_writes(files, monkeypatch):
    module = ModuleType("monailabel.endpoints.x")
    module.tempfile = tempfile
    monkeypatch.setitem(sys.modules, module.__name__, module)
    files.use()
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(files.folder)
    with files.request():
        upload = Path(module.tempfile.NamedTemporaryFile(suffix=".nii.gz").name)  # as its endpoints do
        folder = Path(module.tempfile.TemporaryDirectory().name)
        assert {str(upload.parent), str(folder.parent)} == {request_folder()}
    assert Path(module.tempfile.mkdtemp()).parent == files.folder  # of a task
    assert module.tempfile.gettempdir() == str(files.folder)


def test_request_files_of_a_server_that_is_gone_are_removed(files, tmp_path):
    gone = tmp_path / "base" / "server-gone" / "request-1"
    gone.mkdir(parents=True)
    (gone / "upload.nii").write_bytes(b"x")
    other = RequestFiles(tmp_path / "base")
    assert servers(tmp_path / "base") == sorted([files.folder.name, other.folder.name])
    other.close()
    assert servers(tmp_path / "base") == [files.folder.name]


def test_request_files_refuse_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "base").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="`temporary` must be a folder of the user who runs the server, got"):
        RequestFiles(tmp_path / "base")
