"""Tests of scans in zip archives: read like their content, and nothing is written anywhere else or left behind."""

import stat
import tempfile
import zipfile

import numpy as np
import pytest

from monai_mil_ext.data.scans import scan_archives
from monai_mil_ext.data.scans.scan_archives import unpacked_scan
from monai_mil_ext.transforms import LoadScan
from monai_mil_ext.utils import InputError
from tests.scans import voxels, write_enhanced, write_mha, write_nifti, write_nrrd, write_series

AFFINE = np.diag([-0.9, -0.7, 2.5, 1.0])


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Return the folder of temporary files, which is empty after each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def pack(path, folder, names=None, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, (names or {}).get(file.name, str(file.relative_to(folder))))
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("suffix", [".zip", "", ".ZIP"])
def test_unpacked_scan_of_a_series(tmp_path, compression, suffix):
    expected = write_series(tmp_path / "s" / "a" / "b")
    plain = LoadScan()(tmp_path / "s")
    image = LoadScan()(pack(tmp_path / f"scan{suffix}", tmp_path / "s", compression=compression))
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(image.affine, plain.affine)
    assert image.meta["container"] == "zip of a DICOM series"
    assert not [value for value in image.meta.values() if "scan-" in str(value)]


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd", "x.mha"])
def test_unpacked_scan_of_a_volume(tmp_path, name):
    array = voxels((6, 5, 4))
    write = {".nii": write_nifti, ".gz": write_nifti, ".nrrd": write_nrrd, ".mha": write_mha}
    (tmp_path / "s" / "Jane_Doe").mkdir(parents=True)
    file = tmp_path / "s" / "Jane_Doe" / name
    write[file.suffix](file, array, AFFINE)
    (tmp_path / "s" / "read me.txt").write_text("by hand")
    image = LoadScan()(pack(tmp_path / "scan.zip", tmp_path / "s"))
    np.testing.assert_array_equal(image[0], array)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.meta["container"] == f"zip of a {LoadScan()(file).meta['container']}"


def test_unpacked_scan_of_an_enhanced_object(tmp_path):
    (tmp_path / "s").mkdir()
    expected = write_enhanced(tmp_path / "s" / "IM_0001", [5, 0, 10])
    image = LoadScan()(pack(tmp_path / "scan.zip", tmp_path / "s"))
    np.testing.assert_array_equal(image[0], expected[..., [1, 0, 2]])
    assert image.meta["container"] == "zip of an enhanced DICOM"


def test_unpacked_scan_names_files_by_number_and_leaves_out_hidden_ones(tmp_path):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for name in ("__MACOSX/._a.dcm", ".DS_Store", "Jane^Doe/a.DCM", "con", "ä/é.1", "Thumbs.db"):
            archive.writestr(name, b"x")
    with unpacked_scan(tmp_path / "scan.zip") as folder:
        assert [file.name for file in sorted(folder.iterdir())] == ["000000.dcm", "000001", "000002.1"]
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["../x.dcm", "a/../../x.dcm", "/x.dcm", "..\\x.dcm", "C:\\x.dcm", "\\x.dcm", "a\\..\\..\\x", "c:x"]
)
def test_unpacked_scan_refuses_names_that_lead_out_of_it(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match="names inside its folder, got one that leads out of it"):
        LoadScan()(tmp_path / "scan.zip")
    assert not [file for file in tmp_path.rglob("*") if file.name != "scan.zip" and file.is_file()]


def test_unpacked_scan_refuses_links(tmp_path):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        info = zipfile.ZipInfo("link.dcm")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="a zip archive without links, got one with a link"):
        LoadScan()(tmp_path / "scan.zip")


@pytest.mark.parametrize("name", ["inner.zip", "a.dcm"])
def test_unpacked_scan_refuses_archives_in_it(tmp_path, name):
    write_series(tmp_path / "s")
    pack(tmp_path / "s" / name, tmp_path / "s")
    with pytest.raises(InputError, match="archive of files, got one with another archive in it"):
        LoadScan()(pack(tmp_path / "scan.zip", tmp_path / "s"))


def test_unpacked_scan_stops_at_its_limits(tmp_path, monkeypatch):
    """What counts is the size that is unpacked, since an archive may state a smaller one."""
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(4):
            archive.writestr(f"{k}.dcm", bytes(2**21))
    assert (tmp_path / "scan.zip").stat().st_size < 20_000
    with (
        pytest.raises(InputError, match="at most 0\\.00684 GiB unpacked, got more"),
        unpacked_scan(tmp_path / "scan.zip", 7 * 2**20),
    ):
        pass
    with pytest.raises(InputError, match="at most 3 files, got 4"), unpacked_scan(tmp_path / "scan.zip", max_members=3):
        pass
    with unpacked_scan(tmp_path / "scan.zip", 2**23, 4) as folder:
        assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_unpacked_scan_refuses_an_archive_that_is_cut(tmp_path, share):
    write_series(tmp_path / "s")
    whole = pack(tmp_path / "scan.zip", tmp_path / "s").read_bytes()
    (tmp_path / "scan.zip").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="a readable, undamaged scan, got a damaged zip archive"):
        LoadScan()(tmp_path / "scan.zip")


def test_unpacked_scan_refuses_a_wrong_checksum(tmp_path):
    write_series(tmp_path / "s")
    path = pack(tmp_path / "scan.zip", tmp_path / "s", compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"MONOCHROME2") + 60] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="a readable, undamaged scan, got a damaged zip archive"):
        LoadScan()(path)


def test_unpacked_scan_refuses_a_password_and_two_members_of_one_name(tmp_path):
    write_series(tmp_path / "s")
    path = pack(tmp_path / "scan.zip", tmp_path / "s", compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="`image` must be an archive without a password, got an encrypted member"):
        LoadScan()(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        pack(path, tmp_path / "s", {file.name: "same" for file in (tmp_path / "s").iterdir()})
    with pytest.raises(InputError, match="`image` must be an archive with one member of each name, got several"):
        LoadScan()(path)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "an empty zip archive"),
        ([".hidden", "folder/"], "a zip archive with a scan, got one without files"),
        (["a.nii", "b.nii.gz"], "a zip archive with one scan, got 2 volumes and 0 other files"),
        (["a.txt"], "a folder with one series of DICOM image slices, got no DICOM object"),
    ],
)
def test_unpacked_scan_refuses_an_archive_without_one_scan(tmp_path, names, reason):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else b"text")
    with pytest.raises(InputError, match=reason):
        LoadScan()(tmp_path / "scan.zip")


def test_unpacked_scan_refuses_a_volume_beside_a_series(tmp_path):
    write_series(tmp_path / "s")
    write_nifti(tmp_path / "s" / "a.nii", voxels((6, 5, 4)), AFFINE)
    with pytest.raises(InputError, match="a zip archive with one scan, got 1 volume and 4 other files"):
        LoadScan()(pack(tmp_path / "scan.zip", tmp_path / "s"))


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nhdr", "a.mhd"])
@pytest.mark.parametrize("key", ["ElementDataFile = {}\n", "data file: {}\n\n", "datafile:{}\n\n"])
def test_unpacked_scan_refuses_headers_that_name_other_files(tmp_path, name, key):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(100))
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        archive.writestr(name, f"NRRD0004\ntype: uchar\n{key.format(secret)}")
    with pytest.raises(InputError, match="a volume with its voxels in the same file, got a header that names others"):
        LoadScan()(tmp_path / "scan.zip")


def test_unpacked_scan_stops_to_write_where_the_archive_becomes_too_large(tmp_path, monkeypatch):
    folder, left = tmp_path / "unpacked", []
    folder.mkdir()
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: str(folder))
    monkeypatch.setattr(
        scan_archives.shutil, "rmtree", lambda *_, **__: left.extend(f.stat().st_size for f in folder.iterdir())
    )
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.nii", bytes(8 * 2**20))
    with (
        pytest.raises(InputError, match="must be a zip archive of at most"),
        unpacked_scan(tmp_path / "bomb.zip", max_bytes=2 * 2**20),
    ):
        pass
    assert left == [2 * 2**20]


def test_unpacked_scan_is_no_error_of_the_archive_when_the_disk_is_full(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    write_series(tmp_path / "s")
    path = pack(tmp_path / "scan.zip", tmp_path / "s")
    monkeypatch.setattr(scan_archives, "_extract", fail)
    with pytest.raises(OSError, match="No space left on device"):
        LoadScan()(path)
