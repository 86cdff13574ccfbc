"""Tests of the folder of a viewer and of the libraries that viewers share."""

import hashlib
from importlib.resources import files
from pathlib import Path

import pytest

from monai_mil_ext.visualize import remove_viewer, viewer_pictures
from monai_mil_ext.visualize.viewer import viewer_folder
from monai_mil_ext.visualize.viewer.viewer_folder import NIIVUE, OPENSEADRAGON


def test_remove_viewer_follows_no_link(tmp_path):
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "kept").touch()
    (tmp_path / "viewer").symlink_to(tmp_path / "other")
    remove_viewer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    (tmp_path / "viewer" / "tiles" / "3").mkdir(parents=True)
    (tmp_path / "viewer" / "tiles" / "3" / "0_0.jpg").touch()
    (tmp_path / "viewer" / "tiles" / "link").symlink_to(tmp_path / "other" / "deep")
    remove_viewer(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert (tmp_path / "other" / "deep" / "kept").exists()
    remove_viewer(tmp_path)


def test_viewer_pictures_names_an_unknown_option():
    assert viewer_pictures("full") == ["viewer-full"]
    with pytest.raises(ValueError, match=r"`viewer` must be one of .*, got 'all'"):
        viewer_pictures("all")


@pytest.mark.parametrize(
    ("library", "begin", "license_"),
    [
        (OPENSEADRAGON, f"//! openseadragon {OPENSEADRAGON.version}\n", "must reproduce"),
        (NIIVUE, "(function(", "BSD 2-Clause License"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_libraries_are_those_of_the_registry_with_their_licenses(library, begin, license_):
    shipped = files("monai_mil_ext.visualize") / "viewer" / library.name
    script = (shipped / library.script).read_bytes()
    assert hashlib.sha256(script).hexdigest() == library.sha256
    assert script.startswith(begin.encode())
    assert license_ in (shipped / "LICENSE.txt").read_text()
    assert f"{library.version} (BSD" in (Path(__file__).parents[3] / "NOTICE").read_text()


@pytest.mark.parametrize("library", [OPENSEADRAGON, NIIVUE], ids=lambda library: library.name)
def test_write_library_is_written_once_and_repaired(library, tmp_path):
    address = viewer_folder.write_library(tmp_path, library)
    path = tmp_path / address
    assert library.version in path.name
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(library.files)
    before = path.stat().st_mtime_ns
    viewer_folder.write_library(tmp_path, library)
    assert path.stat().st_mtime_ns == before
    path.write_text("cut")
    viewer_folder.write_library(tmp_path, library)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == library.sha256
