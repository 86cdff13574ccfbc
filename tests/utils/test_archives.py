"""Tests of zip archives that are opened for reading."""

import zipfile

import pytest

from monai_mil_ext.utils.archives import ArchiveError, damaged_member, member_start, open_archive


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_damaged_member_names_the_member_with_another_bit(tmp_path):
    path = archive(tmp_path / "a.zip", first=b"0123456789", second=b"abcdefghij")
    assert damaged_member(path) is None
    path.write_bytes(path.read_bytes().replace(b"abcdefghij", b"abcdefghik"))
    assert damaged_member(path) == "second"


def test_member_start_is_where_the_data_are(tmp_path):
    path = archive(tmp_path / "a.zip", first=b"0123456789", second=b"abcdefghij")
    with path.open("rb") as file, open_archive(file) as opened:
        starts = [member_start(file, info) for info in opened.infolist()]
    raw = path.read_bytes()
    assert [raw[start : start + 10] for start in starts] == [b"0123456789", b"abcdefghij"]


@pytest.mark.parametrize(("old", "new"), [(b"first", b"third"), (b"PK\3\4", b"PK\3\5")])
def test_member_start_refuses_a_member_that_the_directory_does_not_list(tmp_path, old, new):
    path = archive(tmp_path / "a.zip", first=b"0123456789")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with (
        path.open("rb") as file,
        open_archive(file) as opened,
        pytest.raises(ArchiveError, match="got members that are not at the offsets of its directory"),
    ):
        member_start(file, opened.infolist()[0])


def test_open_archive_refuses_an_encrypted_member(tmp_path):
    path = archive(tmp_path / "a.zip", first=b"0123456789")
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ArchiveError, match="without a password, got an encrypted member"), open_archive(path):
        pass
