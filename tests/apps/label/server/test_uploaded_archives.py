"""Tests of uploaded archives."""

import io
import tarfile
import zipfile

import pytest

from monai_mil_ext.apps.label.server.uploaded_archives import check_archive, is_session_id


def tar(path, name, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, 3 if kind == tarfile.REGTYPE else 0
        member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
        archive.addfile(member, io.BytesIO(b"abc"))
    return str(path)


@pytest.mark.parametrize("name", ["../../mil/main.py", "/etc/cron.d/x", "a/../../b"])
def test_check_archive_refuses_files_outside(tmp_path, http_errors, name):
    with pytest.raises(http_errors, match="got a link or a path outside of it"):
        check_archive(tar(tmp_path / "a.tar.gz", name))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, "abc")
    with pytest.raises(http_errors, match="got a link or a path outside of it"):
        check_archive(str(tmp_path / "a.zip"))


def test_check_archive_refuses_links_bombs_and_other_files(tmp_path, http_errors):
    with pytest.raises(http_errors, match="got a link or a path outside of it"):
        check_archive(tar(tmp_path / "a.tar.gz", "a", tarfile.SYMTYPE))
    with pytest.raises(http_errors, match="`files` must hold at most 2 bytes, got more") as error:
        check_archive(tar(tmp_path / "b.tar.gz", "a"), largest=2)
    assert error.value.status_code == 413
    (tmp_path / "c.zip").write_bytes(b"no archive")
    with pytest.raises(http_errors, match="`files` must be a readable zip or tar archive"):
        check_archive(str(tmp_path / "c.zip"))
    check_archive(tar(tmp_path / "d.tar.gz", "series/a.dcm"))


def test_is_session_id_takes_only_what_the_server_gives():
    assert is_session_id("271380e0-ec8e-11f1-a313-02fc00000001")
    assert not any(map(is_session_id, ("..", "../x", "", None, "271380e0-ec8e-11f1-a313-02fc0000000/")))
